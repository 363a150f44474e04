"""How many spans a span stands for, in 2^-32 (Tempo §5.6), in exact fractions."""

import math
import re
from fractions import Fraction
from typing import NamedTuple

from schemas.config import MultiplierSettings
from tests.reference.primitives import Attributes, Seen

ONE = 1 << 32
_FIELD = re.compile(rb"([a-z][a-z0-9]*):([A-Za-z0-9._-]*)")


class Weight(NamedTuple):
    """A weight, and whether it had to be clamped."""

    units: int
    clamped: bool


def weight_of(seen: Seen, settings: MultiplierSettings) -> Weight:
    """PRIM-12."""
    if settings.tracestate:
        count = adjusted_count(seen.span.trace_state)
        if count > 0:
            return fixed(count)
    if settings.key:
        for attributes in (seen.attributes, seen.resource):
            value = first_positive(settings.key, attributes)
            if value is not None:
                return fixed(Fraction(0) if math.isinf(value) else 1 / Fraction(value))
    return Weight(ONE, clamped=False)


def fixed(count: Fraction) -> Weight:
    """To 32 fractional bits, half to even, within [2^-32, 2^31]."""
    units = round(count * ONE)
    within = min(max(units, 1), 1 << 63)
    return Weight(within, within != units)


def first_positive(key: str, attributes: Attributes) -> float | None:
    """The first double above 0 among the attributes of that name."""
    for name, value in attributes:
        if name == key.encode() and value.WhichOneof("value") == "double_value" and value.double_value > 0:
            return float(value.double_value)
    return None


def adjusted_count(tracestate: bytes) -> Fraction:
    """PRIM-14 and PRIM-15; 0: unknown."""
    # White space is trimmed before members, and at the end of all; "its value runs to the next comma".
    members = [member.lstrip() for member in tracestate.strip().split(b",")]
    values = [member[3:] for member in members if member.startswith(b"ot=")]
    if not values or len(values[0]) > 256:
        return Fraction(0)
    fields = [_FIELD.fullmatch(field) for field in values[0].split(b";")]
    if not all(fields):
        return Fraction(0)
    # Any error makes it unknown, one in a field that comes again too.
    legal = {b"th": rb"[0-9a-fA-F]{1,14}", b"rv": rb"[0-9a-fA-F]{14}"}
    if any(match[1] in legal and not re.fullmatch(legal[match[1]], match[2]) for match in fields if match):
        return Fraction(0)
    named = {match[1]: match[2] for match in fields if match}
    threshold, randomness = named.get(b"th", b""), named.get(b"rv")
    if not threshold:
        return Fraction(0)
    count = Fraction(1 << 56, (1 << 56) - int(threshold.ljust(14, b"0"), 16))
    rest = count - math.floor(count)
    if randomness is None or not rest:
        return count
    return Fraction(math.floor(count) + (Fraction(int(randomness, 16) >> 3, 1 << 53) < rest))
