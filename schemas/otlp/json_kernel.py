"""OTLP JSON to protobuf's bytes, in a numba kernel: one pass over the text, and nothing made of what nobody wants.

A message's length stands before it and is known behind it. So each gets room for the longest one, and a second pass
(`close_ranks`) writes them as short as they are, and closes the gaps.

There is room for whatever a text of some size may say: nothing is written that takes more than 7/3 of its bytes in
JSON, as `{},` does, an empty message in a list. Memory that isn't written to costs nothing.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.otlp.fields import copy
from schemas.otlp.jit import inlined, kernel
from schemas.otlp.json_fields import Fields, Form, Ints, Names
from schemas.otlp.json_text import (
    BACKSLASH,
    CLOSE_ARRAY,
    CLOSE_OBJECT,
    COLON,
    COMMA,
    FALSE,
    MAX_NESTING,
    NULL,
    OPEN_ARRAY,
    OPEN_OBJECT,
    QUOTE,
    TOO_DEEP,
    TRUE,
    blank,
    decimal,
    hex_digit,
    number,
    passed,
    plain,
    skip_value,
    unescaped,
    word,
)
from schemas.otlp.wire import MAX_DEPTH, Bytes, byte_at, varint_size

LENGTH_ROOM = 5
"""Bytes of the longest length."""
SPARE = 64
"""More than a field that is being written may need besides."""
MESSAGE_BYTES, DOUBLE_BYTES = 3, len('"doubleValue":1,')
"""What a message and a double take in JSON at least."""
LEVELS = 2 * MAX_DEPTH + 2
"""Messages inside each other, each in a list."""


class Fault(IntEnum):
    """Why a text isn't taken."""

    JSON = 1
    DEPTH = 2
    ROOT = 3
    NO_OBJECT = 4
    NO_LIST = 5
    NULL_IN_LIST = 6
    NO_TEXT = 7
    NO_HEX = 8
    NO_BASE64 = 9
    NO_INTEGER = 10
    RANGE = 11
    NO_DOUBLE = 12
    NO_BOOL = 13
    NO_ENUM = 14
    TWICE = 15


_JSON, _TOO_DEEP, _ROOT, _NO_OBJECT, _NO_LIST, _NULL_IN_LIST, _NO_TEXT, _NO_HEX = (
    int(fault) for fault in list(Fault)[:8]
)
_NO_BASE64, _NO_INTEGER, _RANGE, _NO_DOUBLE, _NO_BOOL, _NO_ENUM, _TWICE = (int(fault) for fault in list(Fault)[8:])
_MESSAGE, _TEXT, _HEX, _BASE64, _DOUBLE, _BOOL, _ENUM = (int(form) for form in list(Form)[:7])
_INT32, _INT64, _UINT32, _UINT64, _FIXED32, _FIXED64 = (int(form) for form in list(Form)[7:])

Int32s = npt.NDArray[np.int32]

# What comes next: an object's first name or its end, another name, a value, a list's first one or its end, what follows
# a value, nothing.
_NAME_OR_END, _NAME, _VALUE, _ELEMENT_OR_END, _AFTER, _END = range(6)

# Where the kernel is: in the text, in what it writes, in how many lists and messages, in how many messages; the row of
# the field that it is about (-1: none); what comes next; lengths and doubles in use; a `Fault` or 0.
AT, TO, LEVEL, DEPTH, ROW, STATE, LENGTHS, DOUBLES, FAULT = range(9)

# Columns of the stack: of an open object or list, the row of the field that holds it, whether it is a list, its
# message, the fields that it has, its place among the lengths, where its content begins, and the bytes it will lose.
_FIELD_ROW, _IS_LIST, _MESSAGE_NUMBER, _SEEN, _PLACE, _CONTENT_AT, _LOST = range(7)

_SEXTETS = np.full(256, -1, np.int64)
"""[byte]: its value in base64, in either alphabet; -1 for none."""
for _sextet, _digit in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):
    _SEXTETS[_digit] = _sextet
_SEXTETS[ord("-")], _SEXTETS[ord("_")] = 62, 63
_PADDING = ord("=")

_TENS = 10.0 ** np.arange(23)
"""Powers that are doubles exactly, so that one operation rounds correctly."""
_EXACT = np.uint64(1 << 53)

_NOT_A_NUMBER, _INFINITY, _MINUS_INFINITY = (
    np.frombuffer(name, np.uint8) for name in (b'"NaN"', b'"Infinity"', b'"-Infinity"')
)
_INT64_END = np.uint64(1 << 63)


class Doubles(NamedTuple):
    """The doubles of a text, which are left out of the bytes at first."""

    value: npt.NDArray[np.float64]
    exact: npt.NDArray[np.bool_]
    """Whether this is the value; if not, it takes more than one operation."""
    ranges: Int32s
    """[double, ...]: where it stands in the text, from and to, and where its bytes go."""


class Work(NamedTuple):
    """What is written."""

    target: Bytes
    lengths: Int32s
    """[message, ...]: where the room for its length is, and the length."""
    doubles: Doubles
    stack: Ints
    nesting: Bytes
    scratch: Bytes
    now: Ints


def work(size: int) -> Work:
    """Memory for a text of so many bytes, less than 2 GiB."""
    messages, doubles = size // MESSAGE_BYTES + 1, size // DOUBLE_BYTES + 1
    return Work(
        target=np.empty(3 * size + SPARE, np.uint8),
        lengths=np.empty((messages, 2), np.int32),
        doubles=Doubles(np.empty(doubles, np.float64), np.empty(doubles, np.bool_), np.empty((doubles, 3), np.int32)),
        stack=np.empty((LEVELS, 7), np.int64),
        nesting=np.empty(MAX_NESTING, np.uint8),
        scratch=np.empty(8, np.uint8),
        now=np.zeros(9, np.int64),
    )


@kernel
def transcode(data: Bytes, end: int, fields: Fields, made: Work) -> None:
    """Write the TracesData that the JSON `data[:end]` says, which is valid UTF-8. `made.now` says how that went."""
    now = made.now
    for i in range(len(now)):
        now[i] = 0
    now[ROW] = -1
    now[AT] = blank(data, 0, end)
    if now[AT] >= end or byte_at(data, now[AT]) != OPEN_OBJECT:
        _fail(now, _ROOT, now[AT])
        return
    now[AT] += 1
    _push(made, 0, False, -1)
    while now[STATE] != _END:
        at = blank(data, now[AT], end)
        now[AT] = at
        if at >= end:
            _fail(now, _JSON, at)
        elif now[STATE] == _AFTER:
            _go_on(data, at, end, made)
        elif byte_at(data, at) == CLOSE_OBJECT and now[STATE] == _NAME_OR_END:
            _close_message(data, at, end, made)
        elif byte_at(data, at) == CLOSE_ARRAY and now[STATE] == _ELEMENT_OR_END:
            _close_list(at, made)
        elif now[STATE] in (_VALUE, _ELEMENT_OR_END):
            _value(data, at, end, fields, made)
        else:
            _name(data, at, end, fields, made)


@kernel
def close_ranks(source: Bytes, size: int, lengths: Int32s, places: int, target: Bytes) -> int:
    """Copy what `transcode` wrote, with lengths as short as they are; gives its size."""
    at, to = 0, 0
    for i in range(places):
        to = copy(target, to, source, at, lengths[i, 0])
        to = _varint(target, to, np.uint64(lengths[i, 1]))
        at = lengths[i, 0] + LENGTH_ROOM
    return int(copy(target, to, source, at, size))


@inlined
def _fail(now: Ints, fault: int, at: int) -> None:
    now[FAULT], now[AT], now[STATE] = fault, at, _END


@inlined
def _push(made: Work, message: int, is_list: bool, place: int) -> None:
    """Open a message, or a list of the field `ROW`, whose content is written from here on."""
    now, stack = made.now, made.stack
    level = now[LEVEL]
    stack[level, _FIELD_ROW], stack[level, _IS_LIST], stack[level, _MESSAGE_NUMBER] = now[ROW], is_list, message
    stack[level, _SEEN], stack[level, _PLACE], stack[level, _CONTENT_AT], stack[level, _LOST] = 0, place, now[TO], 0
    now[STATE] = _ELEMENT_OR_END if is_list else _NAME_OR_END


@inlined
def _go_on(data: Bytes, at: int, end: int, made: Work) -> None:
    """Read what follows a value: a comma, or the end of its list or object."""
    now = made.now
    in_list, byte = made.stack[now[LEVEL], _IS_LIST] == 1, byte_at(data, at)
    if byte == COMMA:
        now[AT] = at + 1
        now[ROW] = made.stack[now[LEVEL], _FIELD_ROW] if in_list else -1
        now[STATE] = _VALUE if in_list else _NAME
    elif in_list and byte == CLOSE_ARRAY:
        _close_list(at, made)
    elif not in_list and byte == CLOSE_OBJECT:
        _close_message(data, at, end, made)
    else:
        _fail(now, _JSON, at)


@inlined
def _close_list(at: int, made: Work) -> None:
    now, level = made.now, made.now[LEVEL]
    made.stack[level - 1, _LOST] += made.stack[level, _LOST]
    now[LEVEL], now[AT], now[STATE] = level - 1, at + 1, _AFTER


@inlined
def _close_message(data: Bytes, at: int, end: int, made: Work) -> None:
    now, level, stack = made.now, made.now[LEVEL], made.stack
    if level == 0:
        _fail(now, 0, blank(data, at + 1, end))
        if now[AT] < end:
            now[FAULT] = _JSON
        return
    length = now[TO] - stack[level, _CONTENT_AT] - stack[level, _LOST]
    made.lengths[stack[level, _PLACE], 1] = length
    stack[level - 1, _LOST] += stack[level, _LOST] + LENGTH_ROOM - varint_size(length)
    now[DEPTH] -= 1
    now[LEVEL], now[AT], now[STATE] = level - 1, at + 1, _AFTER


@inlined
def _name(data: Bytes, at: int, end: int, fields: Fields, made: Work) -> None:
    """Read a field's name and the colon; if it isn't known, its value too."""
    now, message = made.now, made.stack[made.now[LEVEL], _MESSAGE_NUMBER]
    if byte_at(data, at) != QUOTE:
        _fail(now, _JSON, at)
        return
    after = plain(data, at + 1, end)
    if after < end and byte_at(data, after) == BACKSLASH:
        after, written = unescaped(data, at + 1, end, made.target, now[TO])
        row = _find(fields.names, message, made.target, now[TO], written - now[TO]) if after >= 0 else -1
    else:
        row = _find(fields.names, message, data, at + 1, after - at - 1)
        after = passed(data, after, end, made.scratch)
    at = blank(data, after, end) if after >= 0 else ~after
    if after < 0 or at >= end or byte_at(data, at) != COLON:
        _fail(now, _JSON, at)
        return
    now[AT], now[ROW], now[STATE] = at + 1, row, _VALUE
    if row < 0:
        after = skip_value(data, at + 1, end, made.nesting, made.scratch)
        now[AT], now[STATE] = after, _AFTER
        if after < -TOO_DEEP:
            _fail(now, _TOO_DEEP, ~(after + TOO_DEEP))
        elif after < 0:
            _fail(now, _JSON, ~after)


@inlined
def _value(data: Bytes, at: int, end: int, fields: Fields, made: Work) -> None:
    """Read a value of the field `ROW`: the field's own, or a member of its list."""
    now, stack = made.now, made.stack
    level, row, byte = now[LEVEL], now[ROW], byte_at(data, at)
    in_list = stack[level, _IS_LIST] == 1
    if byte == NULL[0]:
        after = word(data, at, end, NULL)
        now[AT], now[STATE] = after, _AFTER
        if in_list or after < 0:
            _fail(now, _NULL_IN_LIST if after >= 0 else _JSON, at)
        return
    if not in_list:
        if stack[level, _SEEN] & fields.excludes[row]:
            _fail(now, _TWICE, at)
            return
        stack[level, _SEEN] |= fields.bit[row]
    if fields.repeated[row] and not in_list:
        _open(OPEN_ARRAY, byte, at, -1, made)
    elif fields.form[row] == _MESSAGE:
        _open(OPEN_OBJECT, byte, at, fields.child[row], made)
        if now[STATE] == _NAME_OR_END:
            now[TO] = _tag(made.target, now[TO], fields.tag[row])
            made.lengths[now[LENGTHS], 0] = now[TO]
            now[TO] += LENGTH_ROOM
            stack[now[LEVEL], _PLACE], stack[now[LEVEL], _CONTENT_AT] = now[LENGTHS], now[TO]
            now[LENGTHS] += 1
    else:
        _simple_value(data, at, end, fields, made)


@inlined
def _open(bracket: int, byte: int, at: int, message: int, made: Work) -> None:
    """Open the list or the message that should begin here."""
    now, is_list = made.now, bracket == OPEN_ARRAY
    if byte != bracket:
        _fail(now, _NO_LIST if is_list else _NO_OBJECT, at)
        return
    now[LEVEL] += 1
    now[DEPTH] += 0 if is_list else 1
    if now[LEVEL] == LEVELS or now[DEPTH] > MAX_DEPTH:
        _fail(now, _TOO_DEEP, at)
        return
    now[AT] = at + 1
    _push(made, message, is_list, -1)


@inlined
def _simple_value(data: Bytes, at: int, end: int, fields: Fields, made: Work) -> None:
    now, row, target, to = made.now, made.now[ROW], made.target, made.now[TO]
    form, fault = fields.form[row], 0
    if form == _DOUBLE:
        after = _double(data, at, end, made.doubles, now[DOUBLES])
        fault = _NO_DOUBLE if after < 0 else 0
        to = _tag(target, to, fields.tag[row])
        made.doubles.ranges[now[DOUBLES], 2] = to
        to += 8
        now[DOUBLES] += 1
    elif form == _BOOL:
        truth = byte_at(data, at) == TRUE[0]
        after = word(data, at, end, TRUE) if truth else word(data, at, end, FALSE)
        fault = _NO_BOOL if after < 0 else 0
        to = _integer(target, to, fields, row, np.uint64(truth))
    elif form in (_TEXT, _HEX, _BASE64):
        after, to, fault = _text(data, at, end, fields, row, target, to)
    else:
        after, to, fault = _number_or_name(data, at, end, fields, row, target, to, made.scratch)
    now[AT], now[TO], now[STATE] = after, to, _AFTER
    if fault != 0:
        _fail(now, fault, ~after if after < 0 and form == _TEXT else at)


@inlined
def _find(names: Names, group: int, data: Bytes, at: int, length: int) -> int:
    """The row of a name in its group; -1 if it isn't there."""
    for row in range(names.first[group], names.first[group + 1]):
        if names.length[row] == length:
            first, i = names.at[row], 0
            while i < length and names.text[first + i] == byte_at(data, at + i):
                i += 1
            if i == length:
                return row
    return -1


@inlined
def _tag(target: Bytes, to: int, tag: int) -> int:
    if tag < 0x80:
        target[to] = tag
        return to + 1
    target[to], target[to + 1] = (tag & 0x7F) | 0x80, tag >> 7
    return to + 2


@kernel
def _varint(target: Bytes, to: int, value: np.uint64) -> int:
    while value >= np.uint64(0x80):
        target[to] = (value & np.uint64(0x7F)) | np.uint64(0x80)
        value >>= np.uint64(7)
        to += 1
    target[to] = value
    return to + 1


@inlined
def _text(data: Bytes, at: int, end: int, fields: Fields, row: int, target: Bytes, to: int) -> tuple[int, int, int]:
    """Write a field that holds a text, an ID or bytes. Gives where it ends here and there, and a fault or 0."""
    if byte_at(data, at) != QUOTE:
        return at, to, _NO_TEXT
    before, form = to, fields.form[row]
    to = _tag(target, to, fields.tag[row])
    after = plain(data, at + 1, end)
    closed = after < end and byte_at(data, after) == QUOTE
    if form == _TEXT and closed:
        source, start, stop = data, at + 1, after
        after += 1
    else:
        # Written where it would be behind the longest length, then moved.
        source, start = target, to + LENGTH_ROOM
        if form == _TEXT:
            after, stop = unescaped(data, at + 1, end, target, start)
        else:
            stop = _bytes(data, at + 1, after, form, target, start) if closed else -1
            after = after + 1 if stop >= 0 else at
        if after < 0 or stop < 0:
            return after, to, _no_bytes(form)
    length = stop - start
    if length == 0 and not fields.present[row]:
        return after, before, 0
    to = _varint(target, to, np.uint64(length))
    return after, copy(target, to, source, start, stop), 0


@inlined
def _no_bytes(form: int) -> int:
    """The fault of a text that can't be read."""
    if form == _TEXT:
        return _JSON
    return _NO_HEX if form == _HEX else _NO_BASE64


@inlined
def _bytes(data: Bytes, at: int, end: int, form: int, target: Bytes, to: int) -> int:
    """Write what hexadecimal or base64 says; gives the position after it, -1 if it is none."""
    return _hex(data, at, end, target, to) if form == _HEX else _base64(data, at, end, target, to)


@kernel
def _hex(data: Bytes, at: int, end: int, target: Bytes, to: int) -> int:
    if (end - at) % 2:
        return -1
    while at < end:
        high, low = hex_digit(byte_at(data, at)), hex_digit(byte_at(data, at + 1))
        if high < 0 or low < 0:
            return -1
        target[to] = high << 4 | low
        to += 1
        at += 2
    return to


@kernel
def _base64(data: Bytes, at: int, end: int, target: Bytes, to: int) -> int:
    """Either alphabet, with padding or without."""
    for _ in range(2):
        if end > at and byte_at(data, end - 1) == _PADDING:
            end -= 1
    bits, held = 0, 0
    while at < end:
        sextet = _SEXTETS[byte_at(data, at)]
        if sextet < 0:
            return -1
        bits = (bits << 6 | sextet) & 0xFFFF
        held += 6
        if held >= 8:
            held -= 8
            target[to] = bits >> held & 0xFF
            to += 1
        at += 1
    return -1 if held == 6 else to


@inlined
def _double(data: Bytes, at: int, end: int, doubles: Doubles, i: int) -> int:
    """Note a double; gives the position after it, negative if it is none."""
    for name, value in ((_NOT_A_NUMBER, np.nan), (_INFINITY, np.inf), (_MINUS_INFINITY, -np.inf)):
        after = word(data, at, end, name)
        if after >= 0:
            doubles.value[i], doubles.exact[i] = value, True
            return after
    start, stop, after = _number(data, at, end)
    if after < 0:
        return -1
    negative, digits, exponent, exact = decimal(data, start, stop)
    exact = exact and bool(digits <= _EXACT) and (-len(_TENS) < exponent < len(_TENS) or bool(digits == 0))
    if exact:
        value = np.float64(digits)
        if digits > 0:
            value = value * _TENS[exponent] if exponent >= 0 else value / _TENS[-exponent]
        doubles.value[i] = -value if negative else value
    doubles.exact[i] = exact
    doubles.ranges[i, 0], doubles.ranges[i, 1] = start, stop
    return after


@inlined
def _number(data: Bytes, at: int, end: int) -> tuple[int, int, int]:
    """Where a number begins and ends, which may be in a text, and the position after it: negative if it is none."""
    quoted = at < end and byte_at(data, at) == QUOTE
    if quoted:
        at += 1
    stop = number(data, at, end)
    if stop < 0 or not quoted:
        return at, stop, stop
    return at, stop, stop + 1 if stop < end and byte_at(data, stop) == QUOTE else -1


@inlined
def _number_or_name(
    data: Bytes, at: int, end: int, fields: Fields, row: int, target: Bytes, to: int, scratch: Bytes
) -> tuple[int, int, int]:
    """Write a field that holds an integer, or an enum's, which may have a name: one that isn't known says nothing."""
    is_enum = fields.form[row] == _ENUM
    if is_enum and byte_at(data, at) == QUOTE:
        stop = plain(data, at + 1, end)
        named = _find(fields.enums, fields.child[row], data, at + 1, stop - at - 1)
        if named >= 0 and stop < end and byte_at(data, stop) == QUOTE:
            return stop + 1, _integer(target, to, fields, row, np.uint64(fields.numbers[named])), 0
    start, stop, after = _number(data, at, end)
    if after < 0:
        if is_enum and byte_at(data, at) == QUOTE:
            after = passed(data, at + 1, end, scratch)
        fault = _NO_ENUM if is_enum else _NO_INTEGER
        return after, to, fault if after < 0 else 0
    negative, digits, exponent, exact = decimal(data, start, stop)
    digits, fault = _whole(digits, exponent, exact)
    if fault == 0 and not _in_range(fields.form[row], negative, digits):
        fault = _RANGE
    value = np.uint64(0) - digits if negative else digits
    return after, _integer(target, to, fields, row, value), fault


@kernel
def _whole(digits: np.uint64, exponent: int, exact: bool) -> tuple[np.uint64, int]:
    """The integer that a number is, and a fault or 0."""
    while exact and digits > 0 and exponent != 0:
        if exponent < 0:
            if digits % np.uint64(10) != 0:
                return digits, _NO_INTEGER
            digits //= np.uint64(10)
            exponent += 1
        else:
            exact = bool(digits <= np.uint64((1 << 64) - 1) // np.uint64(10))
            digits *= np.uint64(10)
            exponent -= 1
    return digits, 0 if exact else _RANGE


@kernel
def _in_range(form: int, negative: bool, digits: np.uint64) -> bool:
    if form in (_INT32, _ENUM):
        return bool(digits <= np.uint64((1 << 31) - 1) + np.uint64(negative))
    if form == _INT64:
        return bool(digits < _INT64_END + np.uint64(negative))
    if negative and digits > 0:
        return False
    return form in (_UINT64, _FIXED64) or bool(digits < np.uint64(1 << 32))


@inlined
def _integer(target: Bytes, to: int, fields: Fields, row: int, value: np.uint64) -> int:
    """Write a field of a number; none if that is 0 and needn't be there."""
    if value == 0 and not fields.present[row]:
        return to
    return _write_number(target, to, fields.tag[row], fields.form[row], value)


@kernel
def _write_number(target: Bytes, to: int, tag: int, form: int, value: np.uint64) -> int:
    to = _tag(target, to, tag)
    if form not in (_FIXED32, _FIXED64):
        return _varint(target, to, value)
    for _ in range(4 if form == _FIXED32 else 8):
        target[to] = value & np.uint64(0xFF)
        value >>= np.uint64(8)
        to += 1
    return to
