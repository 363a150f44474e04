"""Reading JSON (RFC 8259), in numba kernels: white space, texts, numbers, and values that nobody wants.

Every function reads at `at` or behind it and before `end`, nowhere else, and gives the position after what it read.
What can't be read gives a negative one: the complement (`~`) of where that is.
"""

import numpy as np

from schemas.otlp.fields import copy
from schemas.otlp.jit import inlined, kernel
from schemas.otlp.wire import Bytes, byte_at

QUOTE, BACKSLASH, COMMA, COLON = ord('"'), ord("\\"), ord(","), ord(":")
OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY = ord("{"), ord("}"), ord("["), ord("]")
MINUS, PLUS, POINT, ZERO, NINE = ord("-"), ord("+"), ord("."), ord("0"), ord("9")
_U, _E = ord("u"), ord("e")

TRUE, FALSE, NULL = (np.frombuffer(word, np.uint8) for word in (b"true", b"false", b"null"))

MAX_NESTING = 500
"""Objects and arrays inside each other, of a value that nobody wants."""
TOO_DEEP = 1 << 40
"""Taken from the complement where there are more."""

_LARGEST = np.uint64((1 << 64) - 1)

_ESCAPED = np.zeros(256, np.uint8)
"""[what follows a backslash]: what it stands for; 0 for what may not follow."""
for _short, _meant in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[_short] = _meant

_HEX = np.full(256, -1, np.int64)
for _digit in b"0123456789abcdefABCDEF":
    _HEX[_digit] = int(chr(_digit), 16)

SURROGATES, LOW_SURROGATES, BEHIND_SURROGATES = 0xD800, 0xDC00, 0xE000


@inlined
def blank(data: Bytes, at: int, end: int) -> int:
    """Pass over white space."""
    while at < end:
        byte = byte_at(data, at)
        if byte > 0x20 or byte not in (0x20, 0x0A, 0x0D, 0x09):
            break
        at += 1
    return at


@kernel
def word(data: Bytes, at: int, end: int, wanted: Bytes) -> int:
    """Read `true`, `false` or `null`."""
    for i in range(len(wanted)):
        if at + i >= end or byte_at(data, at + i) != wanted[i]:
            return ~at
    return at + len(wanted)


@kernel
def plain(data: Bytes, at: int, end: int) -> int:
    """The first byte of a text that doesn't stand for itself: a quote, a backslash, or what may not be there."""
    while at < end:
        byte = byte_at(data, at)
        if byte in (QUOTE, BACKSLASH) or byte < 0x20:
            break
        at += 1
    return at


@kernel
def hex_digit(byte: int) -> int:
    """Its value, negative if it is none."""
    return int(_HEX[byte])


@kernel
def _four_digits(data: Bytes, at: int, end: int) -> int:
    """The number of an escaped character; negative if there is none."""
    if at + 4 > end:
        return -1
    number = 0
    for i in range(4):
        digit = _HEX[byte_at(data, at + i)]
        if digit < 0:
            return -1
        number = number << 4 | digit
    return number


@kernel
def _escape(data: Bytes, at: int, end: int, target: Bytes, to: int) -> tuple[int, int]:
    """Read what begins with the backslash at `at`, and write it as UTF-8. Half a surrogate pair can't be."""
    if at + 1 >= end:
        return ~at, to
    kind = byte_at(data, at + 1)
    if kind != _U:
        target[to] = _ESCAPED[kind]
        return (at + 2 if _ESCAPED[kind] else ~at), to + 1
    code = _four_digits(data, at + 2, end)
    after = at + 6
    if code < 0 or LOW_SURROGATES <= code < BEHIND_SURROGATES:
        return ~at, to
    if SURROGATES <= code < LOW_SURROGATES:
        if after + 1 >= end or byte_at(data, after) != BACKSLASH or byte_at(data, after + 1) != _U:
            return ~at, to
        low = _four_digits(data, after + 2, end)
        if not LOW_SURROGATES <= low < BEHIND_SURROGATES:
            return ~at, to
        code = 0x10000 + ((code - SURROGATES) << 10) + (low - LOW_SURROGATES)
        after += 6
    return after, _write_utf8(code, target, to)


@kernel
def _write_utf8(code: int, target: Bytes, to: int) -> int:
    if code < 0x80:
        target[to] = code
        return to + 1
    if code < 0x800:
        target[to] = 0xC0 | code >> 6
    else:
        if code < 0x10000:
            target[to] = 0xE0 | code >> 12
        else:
            target[to] = 0xF0 | code >> 18
            to += 1
            target[to] = 0x80 | (code >> 12 & 0x3F)
        to += 1
        target[to] = 0x80 | (code >> 6 & 0x3F)
    target[to + 1] = 0x80 | (code & 0x3F)
    return to + 2


@kernel
def unescaped(data: Bytes, at: int, end: int, target: Bytes, to: int) -> tuple[int, int]:
    """Read a text from behind its opening quote on, and write what it says: never more than it takes in JSON."""
    while True:
        stop = plain(data, at, end)
        to = copy(target, to, data, at, stop)
        if stop >= end or byte_at(data, stop) < 0x20:
            return ~stop, to
        if byte_at(data, stop) == QUOTE:
            return stop + 1, to
        at, to = _escape(data, stop, end, target, to)
        if at < 0:
            return at, to


@kernel
def passed(data: Bytes, at: int, end: int, scratch: Bytes) -> int:
    """Pass over a text, from behind its opening quote on. `scratch` has room for a character."""
    while True:
        stop = plain(data, at, end)
        if stop >= end or byte_at(data, stop) < 0x20:
            return ~stop
        if byte_at(data, stop) == QUOTE:
            return stop + 1
        at, _ = _escape(data, stop, end, scratch, 0)
        if at < 0:
            return at


@kernel
def number(data: Bytes, at: int, end: int) -> int:
    """Pass over a number."""
    start = at
    if at < end and byte_at(data, at) == MINUS:
        at += 1
    digits = _digits(data, at, end)
    if digits == at or (digits > at + 1 and byte_at(data, at) == ZERO):
        return ~start
    at = digits
    if at < end and byte_at(data, at) == POINT:
        digits = _digits(data, at + 1, end)
        if digits == at + 1:
            return ~start
        at = digits
    if at < end and byte_at(data, at) | 0x20 == _E:
        at += 1
        if at < end and (byte_at(data, at) == PLUS or byte_at(data, at) == MINUS):
            at += 1
        digits = _digits(data, at, end)
        if digits == at:
            return ~start
        at = digits
    return at


@kernel
def _digits(data: Bytes, at: int, end: int) -> int:
    while at < end and ZERO <= byte_at(data, at) <= NINE:
        at += 1
    return at


@kernel
def decimal(data: Bytes, at: int, end: int) -> tuple[bool, np.uint64, int, bool]:
    """What a number says, which is all of `data[at:end]`: whether it is negative, digits, their exponent.

    And whether these are all of its digits: there is room for those of 64 bits.
    """
    negative = byte_at(data, at) == MINUS
    if negative:
        at += 1
    digits, exponent, zeros, exact, behind_point = np.uint64(0), 0, 0, True, False
    while at < end:
        byte = byte_at(data, at)
        if byte == POINT:
            behind_point = True
        elif byte | 0x20 == _E:
            break
        else:
            # Zeros at the end of a fraction say nothing, so they wait for a digit that does.
            zeros += 1
            if byte != ZERO or not behind_point:
                for _ in range(zeros):
                    exact = exact and bool(digits <= _LARGEST // np.uint64(10))
                    digits *= np.uint64(10)
                exact = exact and bool(digits <= _LARGEST - np.uint64(byte - ZERO))
                digits += np.uint64(byte - ZERO)
                exponent -= zeros if behind_point else 0
                zeros = 0
        at += 1
    if at < end:
        at += 1
        down = byte_at(data, at) == MINUS
        if down or byte_at(data, at) == PLUS:
            at += 1
        power = 0
        while at < end:
            power = min(power * 10 + byte_at(data, at) - ZERO, 1 << 40)
            at += 1
        exponent += -power if down else power
    return negative, digits, exponent, exact


@kernel
def skip_value(data: Bytes, at: int, end: int, nesting: Bytes, scratch: Bytes) -> int:
    """Pass over a value of any kind and the white space before it. `nesting` has `MAX_NESTING` places."""
    level = 0
    while True:
        at = blank(data, at, end)
        if at < end and byte_at(data, at) in (OPEN_OBJECT, OPEN_ARRAY):
            if level == MAX_NESTING:
                return ~at - TOO_DEEP
            nesting[level] = byte_at(data, at)
            level += 1
            at = blank(data, at + 1, end)
            if at >= end or byte_at(data, at) != nesting[level - 1] + 2:  # the bracket that closes it
                at = _key(data, at, end, scratch) if nesting[level - 1] == OPEN_OBJECT else at
                if at < 0:
                    return at
                continue
        else:
            at = _skip_simple(data, at, end, scratch)
            if at < 0:
                return at
        at, level = _skip_ends(data, at, end, nesting, level)
        if level == 0 or at < 0:
            return at
        at += 1
        if nesting[level - 1] == OPEN_OBJECT:
            at = _key(data, blank(data, at, end), end, scratch)
            if at < 0:
                return at


@kernel
def element(data: Bytes, at: int, end: int, nesting: Bytes, scratch: Bytes) -> tuple[int, int, int]:
    """Pass over a list's next value, and the comma or the bracket behind it; gives where it begins and ends, too."""
    at = blank(data, at, end)
    stop = skip_value(data, at, end, nesting, scratch)
    after = blank(data, stop, end) if stop >= 0 else stop
    if after >= 0 and (after >= end or byte_at(data, after) not in (COMMA, CLOSE_ARRAY)):
        after = ~after
    return at, stop, after + 1 if after >= 0 else after


@kernel
def _skip_simple(data: Bytes, at: int, end: int, scratch: Bytes) -> int:
    byte = byte_at(data, at) if at < end else 0
    if byte == QUOTE:
        return passed(data, at + 1, end, scratch)
    if byte == TRUE[0]:
        return word(data, at, end, TRUE)
    if byte == FALSE[0]:
        return word(data, at, end, FALSE)
    if byte == NULL[0]:
        return word(data, at, end, NULL)
    return number(data, at, end)


@kernel
def _skip_ends(data: Bytes, at: int, end: int, nesting: Bytes, level: int) -> tuple[int, int]:
    """After a value: pass over the ends of objects and lists, up to a comma, or until none is open."""
    while level > 0:
        at = blank(data, at, end)
        if at >= end:
            return ~at, level
        byte = byte_at(data, at)
        if byte == COMMA:
            return at, level
        if byte != nesting[level - 1] + 2:
            return ~at, level
        level -= 1
        at += 1
    return at, 0


@kernel
def _key(data: Bytes, at: int, end: int, scratch: Bytes) -> int:
    """Pass over a name and the colon."""
    if at >= end or byte_at(data, at) != QUOTE:
        return ~at
    at = passed(data, at + 1, end, scratch)
    if at < 0:
        return at
    at = blank(data, at, end)
    if at >= end or byte_at(data, at) != COLON:
        return ~at
    return at + 1
