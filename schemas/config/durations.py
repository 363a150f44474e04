"""Durations as Go writes them: "15s", "1m30s", "1.5h", "100ms"."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # micro sign
    "μs": 1_000,  # Greek mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    # Go's own have no days; the durations of Prometheus' blocks (`remote_timeout`) do.
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
    "y": 31_536_000_000_000_000,
}
Number = TypeVar("Number", int, float)

MAX_NS = 100 * UNIT_NS["y"]
"""A time in nanoseconds plus or minus any duration stays within 64 bits: kernels add without checking."""

PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w|y)")


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration; anything but a non-negative Go duration is a ValueError that says what to write."""
    if text == "0":
        return 0
    total, position = Fraction(0), 0
    while position < len(text) and (part := PART.match(text, position)):
        total += Fraction(part[1]) * UNIT_NS[part[2]]
        position = part.end()
    if not text or position < len(text):
        raise ValueError(f"{text!r} is not a duration; write a number with its unit, such as 500ms, 15s or 1m30s")
    if total > MAX_NS:
        raise ValueError(f"{text!r} is too long; the longest duration is 100y")
    return int(total)


def duration_text(ns: int) -> str:
    """The shortest usual text of a duration: "15s", "1m30s"."""
    if ns == 0:
        return "0s"
    parts = []
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, ns = divmod(ns, UNIT_NS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def read_nanoseconds(value: object, info: ValidationInfo) -> object:
    """Text to nanoseconds."""
    return parse_duration(value) if isinstance(value, str) else check_number(value, info)


def read_milliseconds(value: object, info: ValidationInfo) -> object:
    """Text to whole milliseconds, the resolution of the log's timestamps."""
    if not isinstance(value, str):
        return check_number(value, info)
    ms, rest = divmod(parse_duration(value), UNIT_NS["ms"])
    if rest:
        raise ValueError(f"{value!r} is not a whole number of milliseconds, the resolution of the log's timestamps")
    return ms


def read_seconds(value: object, info: ValidationInfo) -> object:
    """Text to seconds."""
    return parse_duration(value) / UNIT_NS["s"] if isinstance(value, str) else check_number(value, info)


def check_number(value: object, info: ValidationInfo) -> object:
    """Pass numbers from Python code. In a file Go takes them for nanoseconds, which nobody means: only 0 passes."""
    from_file = info.context is not None
    if not from_file or (value == 0 and value is not False):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    what = f"{value!r} has no unit" if number else "must be a duration"
    raise ValueError(f"{what}; write a number with its unit, such as 500ms, 15s or 1m30s")


def check_positive(value: Number) -> Number:
    """More than nothing."""
    if not value > 0:
        raise ValueError("must be longer than 0s")
    return value


@dataclass(frozen=True, slots=True)
class Unit:
    """What the number of a duration counts, for those who print it."""

    ns: int

    def text(self, value: float) -> str:
        """The duration as a file has it."""
        return duration_text(round(value * self.ns))


# In the file these are texts; in the models a field's name says its unit, and Python code gives numbers of that unit.
# The schema's own bounds would be printed without a unit, hence `check_positive`; a negative duration can't be written.
Nanoseconds = Annotated[int, BeforeValidator(read_nanoseconds), Unit(1)]
Milliseconds = Annotated[int, BeforeValidator(read_milliseconds), Unit(UNIT_NS["ms"])]
Seconds = Annotated[float, BeforeValidator(read_seconds), Unit(UNIT_NS["s"])]
PositiveMilliseconds = Annotated[Milliseconds, AfterValidator(check_positive)]
PositiveSeconds = Annotated[Seconds, AfterValidator(check_positive)]
