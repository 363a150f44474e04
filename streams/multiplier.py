"""How many spans a span stands for: weights in 2^-32, exact (Tempo §5.6)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.config import MultiplierSettings
from schemas.metrics import WEIGHT_ONE
from schemas.otlp import Attributes, Mode, SpanFrame, WantedKey
from schemas.otlp.wire import word_at
from streams.kernels import kernel, wide

MIN_WEIGHT, MAX_WEIGHT = 1, 1 << 63
"""2^-32 and 2^31: weights outside are brought within, and counted."""

UNKNOWN = np.uint64(0)
"""No weight: what was looked at says none."""

_ONE, _MIN, _MAX = np.uint64(WEIGHT_ONE), np.uint64(MIN_WEIGHT), np.uint64(MAX_WEIGHT)
_0, _1, _3, _8, _11, _32, _53 = (np.uint64(number) for number in (0, 1, 3, 8, 11, 32, 53))
_FRACTION_BITS = 32
_DIGITS = 14
_THRESHOLDS = np.uint64(1 << 56)
_SMALLEST_REST = np.uint64(1 << 25)
"""2^56 over less than this is above the greatest weight."""

_COMMA, _SEMICOLON, _COLON, _EQUALS = (ord(character) for character in ",;:=")
_O, _T, _H, _R, _V = (ord(character) for character in "othrv")
_MAX_MEMBER_BYTES = 256

_SPACE, _LOWER, _DIGIT, _VALUE, _HEX = 1, 2, 4, 8, 16
"""Bits of what a character is."""


def _classes() -> npt.NDArray[np.uint8]:
    classes = np.zeros(256, np.uint8)
    lower, upper, digits = b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"0123456789"
    for bit, characters in (
        (_SPACE, b" \t\n\v\f\r"),
        (_LOWER, lower),
        (_DIGIT, digits),
        (_VALUE, lower + upper + digits + b"._-"),
        (_HEX, digits + b"abcdefABCDEF"),
    ):
        classes[list(characters)] |= bit
    return classes


_CLASSES = _classes()


class Multipliers(NamedTuple):
    """Whose spans are weighed, and how."""

    settings: tuple[MultiplierSettings, ...]
    """Those that differ, and that look at anything."""
    of_tenant: npt.NDArray[np.int32]
    """Per tenant, the number of its settings; -1 where each span counts one."""


def needs(settings: MultiplierSettings) -> Iterator[WantedKey]:
    """The attribute to look for, on spans and on resources."""
    if settings.key:
        yield WantedKey(settings.key, Mode.FIRST_POSITIVE_DOUBLE)


def multipliers(every: Sequence[MultiplierSettings]) -> Multipliers:
    """The settings of a processor's tenants in their order; mere ones are those of a tenant without it (PRIM-11)."""
    numbers = {settings: -1 for settings in every if not (settings.key or settings.tracestate)}
    used = [settings for settings in dict.fromkeys(every) if settings not in numbers]
    numbers |= {settings: number for number, settings in enumerate(used)}
    return Multipliers(tuple(used), np.array([numbers[settings] for settings in every], np.int32))


class _Spans(NamedTuple):
    """What is read of a frame."""

    data: npt.NDArray[np.uint8]
    number: npt.NDArray[np.int32]
    """Per span: that of its tenant's settings, -1 if it isn't to be weighed."""
    resource: npt.NDArray[np.int32]
    state_at: npt.NDArray[np.int32]
    state_bytes: npt.NDArray[np.int32]


class _Attribute(NamedTuple):
    """One row of `Attributes`."""

    kind: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]


def weigh(
    frame: SpanFrame,
    how: Multipliers,
    tenant: npt.NDArray[np.int32],
    measured: npt.NDArray[np.bool_],
    clamped: npt.NDArray[np.bool_],
) -> npt.NDArray[np.uint64]:
    """The weight of each span that is measured, of others one; says in `clamped` which had to be brought within.

    The frame was scanned for `needs`. Weights are rounded half to even from the exact quotient, never from a float64.
    """
    weights = np.full(len(tenant), WEIGHT_ONE, np.uint64)
    if not how.settings or not len(tenant):
        return weights
    state = frame.spans.trace_state
    number = np.where(measured, how.of_tenant[tenant], np.int32(-1))
    spans = _Spans(frame.data, number, frame.spans.resource, state.offset, state.length)
    for chosen, settings in enumerate(how.settings):
        of_span = _attribute(frame, settings.key, frame.spans.attributes)
        of_resource = _attribute(frame, settings.key, frame.resources.attributes)
        _weigh(spans, chosen, settings.tracestate, of_span, of_resource, _CLASSES, weights, clamped)
    return weights


def _attribute(frame: SpanFrame, key: str, attributes: Attributes) -> _Attribute:
    if not key:
        rows = attributes.kind.shape[1]
        return _Attribute(np.zeros(rows, np.uint8), np.zeros(rows, np.int32), np.zeros(rows, np.int32))
    row = frame.key_index(key, Mode.FIRST_POSITIVE_DOUBLE)
    return _Attribute(attributes.kind[row], attributes.offset[row], attributes.length[row])


@kernel
def _weigh(
    spans: _Spans,
    chosen: int,
    tracestate: bool,
    of_span: _Attribute,
    of_resource: _Attribute,
    classes: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.uint64],
    clamped: npt.NDArray[np.bool_],
) -> None:
    """Weigh the spans of the chosen settings (PRIM-12)."""
    for row in range(len(weights)):
        if spans.number[row] != chosen:
            continue
        weight, cut = UNKNOWN, False
        if tracestate and spans.state_bytes[row] > 0:
            start = wide(spans.state_at[row])
            weight, cut = trace_state_weight(spans.data, start, start + spans.state_bytes[row], classes)
        # Unlike any other lookup, this one tries the span before its resource.
        if weight == UNKNOWN and of_span.kind[row] > 0:
            weight, cut = reciprocal(word_at(spans.data, wide(of_span.offset[row] + of_span.length[row] - 8)))
        if weight == UNKNOWN:
            at = spans.resource[row]
            if of_resource.kind[at] > 0:
                weight, cut = reciprocal(word_at(spans.data, wide(of_resource.offset[at] + of_resource.length[at] - 8)))
        if weight != UNKNOWN:
            weights[row] = weight
            clamped[row] = clamped[row] or cut


@kernel
def trace_state_weight(
    data: npt.NDArray[np.uint8], at: int, end: int, classes: npt.NDArray[np.uint8]
) -> tuple[np.uint64, bool]:
    """The adjusted count of a trace state's `ot` member, and whether it was clamped; `UNKNOWN` if it says none.

    PRIM-14: white space is that of ASCII. `classes` are `_CLASSES`.
    """
    at, end = _member(data, at, end, classes)
    threshold, randomness = -1, -1
    if end - at > _MAX_MEMBER_BYTES:
        return UNKNOWN, False
    while at < end:
        colon, after = _field(data, at, end, classes)
        if colon < 0:
            return UNKNOWN, False
        if _is_named(data, at, colon, _T, _H):
            threshold = _threshold(data, colon + 1, after, classes)
            if threshold < 0:
                return UNKNOWN, False
        elif _is_named(data, at, colon, _R, _V):
            randomness = _hex(data, colon + 1, after, classes) if after - colon - 1 == _DIGITS else -1
            if randomness < 0:
                return UNKNOWN, False
        at = after + 1
    return adjusted_count(threshold, randomness) if threshold >= 0 else (UNKNOWN, False)


@kernel
def _is_named(data: npt.NDArray[np.uint8], at: int, end: int, first: int, second: int) -> bool:
    """Whether a range is these two characters."""
    return bool(end - at == 2 and data[at] == first and data[at + 1] == second)


@kernel
def _field(data: npt.NDArray[np.uint8], at: int, end: int, classes: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Where the colon of a field `key:value` is, and the end of its value; -1 if it is illegal, or nothing follows it.

    A field is followed by the end, or by a semicolon and another field.
    """
    if not classes[data[at]] & _LOWER:
        return -1, at
    while at < end and classes[data[at]] & (_LOWER | _DIGIT):
        at += 1
    if at == end or data[at] != _COLON:
        return -1, at
    colon = at
    at += 1
    while at < end and classes[data[at]] & _VALUE:
        at += 1
    if at < end and (data[at] != _SEMICOLON or at + 1 == end):
        return -1, at
    return colon, at


@kernel
def _threshold(data: npt.NDArray[np.uint8], at: int, end: int, classes: npt.NDArray[np.uint8]) -> int:
    """1 to 14 hexadecimal digits, the zeros at their end left out; -1 if they are none."""
    digits = end - at
    if digits < 1 or digits > _DIGITS:
        return -1
    number = _hex(data, at, end, classes)
    return number << 4 * (_DIGITS - digits) if number >= 0 else -1


@kernel
def _member(data: npt.NDArray[np.uint8], at: int, end: int, classes: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Where the value of the first member `ot=` begins and ends: at its comma, or at the end without white space."""
    while end > at and classes[data[end - 1]] & _SPACE:
        end -= 1
    while True:
        while at < end and classes[data[at]] & _SPACE:
            at += 1
        comma = at
        while comma < end and data[comma] != _COMMA:
            comma += 1
        if comma - at >= 3 and data[at] == _O and data[at + 1] == _T and data[at + 2] == _EQUALS:
            return at + 3, comma
        if comma == end:
            return end, end
        at = comma + 1


@kernel
def _hex(data: npt.NDArray[np.uint8], at: int, end: int, classes: npt.NDArray[np.uint8]) -> int:
    """The number of up to 14 hexadecimal digits; -1 if one is none."""
    number = 0
    for i in range(at, end):
        character = wide(data[i])
        if not classes[character] & _HEX:
            return -1
        number = number << 4 | ((character & 15) + (9 if character > 64 else 0))  # letters are above 64
    return number


@kernel
def adjusted_count(threshold: int, randomness: int) -> tuple[np.uint64, bool]:
    """2^56 / (2^56 - threshold) as a weight, and whether it was clamped.

    With randomness (56 bits; negative: none) a fraction makes one more or none, the more often the larger it is
    (PRIM-15); all of it compared and divided as integers.
    """
    rest = _THRESHOLDS - np.uint64(threshold)
    if rest < _SMALLEST_REST:
        return _MAX, True
    count, remainder = _THRESHOLDS // rest, _THRESHOLDS % rest
    if randomness >= 0:
        if remainder > _0 and _less(np.uint64(randomness) >> _3, rest, remainder):
            count += _1
        return count << _32, False
    return _divided(count, remainder, rest, _FRACTION_BITS), False


@kernel
def _less(draw: np.uint64, whole: np.uint64, part: np.uint64) -> bool:
    """Whether draw / 2^53 < part / whole; the two are at most 2^56, the draw is below 2^53."""
    low_half, high_half = draw & np.uint64(0xFFFFFFFF), draw >> _32
    # draw * whole = high * 2^32 + low, whose halves fit into 64 bits.
    low = low_half * (whole & np.uint64(0xFFFFFFFF))
    middle = low_half * (whole >> _32) + (low >> _32)
    middle_low = high_half * (whole & np.uint64(0xFFFFFFFF)) + (middle & np.uint64(0xFFFFFFFF))
    high = high_half * (whole >> _32) + (middle >> _32) + (middle_low >> _32)
    low = (middle_low << _32) | (low & np.uint64(0xFFFFFFFF))
    part_high, part_low = part >> _11, part << _53
    return bool(high < part_high or (high == part_high and low < part_low))


@kernel
def reciprocal(bits: int) -> tuple[np.uint64, bool]:
    """1/v as a weight, correctly rounded from the double above 0 with these bits; and whether it was clamped.

    v = significand * 2^(exponent - 1075), so 1/v in 2^-32 is 2^(1107 - exponent) / significand: from 2^33 on it is
    less than one unit or half of it, below 2^-31 it is more than the greatest weight (PRIM-13 sets no limit).
    """
    exponent = bits >> 52
    if exponent >= 1023 + 33:
        return _MIN, True
    if exponent < 1023 - 31:
        return _MAX, True
    unit = np.uint64(1 << 52)
    significand = np.uint64(bits) & (unit - _1) | unit
    return _divided(unit // significand, unit % significand, significand, 1107 - 52 - exponent), False


@kernel
def _divided(quotient: np.uint64, remainder: np.uint64, divisor: np.uint64, bits: int) -> np.uint64:
    """A quotient with so many more binary places, rounded half to even.

    The divisor is at most 2^56, the result at most 2^63.
    """
    while bits > 0:
        step = np.uint64(min(bits, 8))
        remainder <<= step
        quotient = quotient << step | remainder // divisor
        remainder %= divisor
        bits -= 8
    twice = remainder << _1
    return quotient + np.uint64(twice > divisor or (twice == divisor and quotient & _1 == _1))
