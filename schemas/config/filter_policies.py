"""Filter policies (Tempo §5.7): their shape in the file, and what an attribute of one means."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from schemas.config.section import Section

SPAN_KINDS = tuple(
    f"SPAN_KIND_{name}" for name in ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
)
STATUS_CODES = tuple(f"STATUS_CODE_{name}" for name in ("UNSET", "OK", "ERROR"))
"""Names by number: what the intrinsics `kind` and `status` are compared with (FLT-6)."""

STRICT, REGEX = "strict", "regex"

MIN_INT, MAX_INT = -(1 << 63), (1 << 63) - 1

Value = str | bool | int | float


class Field(StrEnum):
    """What of a span a matcher looks at."""

    KIND = "kind"
    NAME = "name"
    STATUS = "status"
    SPAN = "span"
    RESOURCE = "resource"


@dataclass(frozen=True, slots=True)
class Matcher:
    """An attribute of a policy, read: what it looks at, and for what."""

    field: Field
    attribute: str
    """The key, of `SPAN` and `RESOURCE`; else empty."""
    value: Value
    regex: bool
    """Whether the value is a regular expression that is searched for, else what is equal (FLT-5)."""


class PolicyError(ValueError):
    """An attribute that means nothing, in Tempo's words (FLT-7).

    `at` says what is to blame, the attribute's key or its value; `of_part`, that Tempo names the policy's part too.
    """

    def __init__(self, what: str, at: str = "value", *, of_part: bool = False) -> None:
        super().__init__(what)
        self.at, self.of_part = at, of_part


INTRINSICS = (Field.KIND, Field.NAME, Field.STATUS)
_NAMES = {Field.KIND: SPAN_KINDS, Field.STATUS: STATUS_CODES}

_KEY_PART = r'"(?:[^"\\]|\\["\\])*"|[^\s{}()=~!<>&|^,"]'
_SCOPED = re.compile(rf"(?P<scope>span|resource)\.(?P<name>(?:{_KEY_PART})+)")
_OTHER_SCOPE = re.compile(r"(?P<scope>parent|event|link|instrumentation)\..+", re.DOTALL)
_INTRINSIC = re.compile(r"(?:[a-z]+:)?[A-Za-z]+")
_UNSCOPED = re.compile(r"\..+", re.DOTALL)

_ESCAPES = re.compile(r"\\Q.*?(?:\\E|\Z)|\\.", re.DOTALL)
"""In a regular expression: what is quoted, and what is escaped."""


def read_attribute(key: str, value: Any, *, regex: bool) -> Matcher:
    """What an attribute of a policy looks for. Raises PolicyError."""
    field, attribute = read_key(key)
    check = _check_search if regex else _check_equal
    check(field, value)
    return Matcher(field, attribute, value, regex)


def read_key(key: str) -> tuple[Field, str]:
    """The field that a key names, and the attribute's key (FLT-2). Raises PolicyError.

    An attribute's key, or any part of it, may be in double quotes, as in TraceQL.
    """
    text = key.strip()
    intrinsic = text.removeprefix("span:")
    if intrinsic in INTRINSICS:
        return Field(intrinsic), ""
    scoped = _SCOPED.fullmatch(text)
    if scoped:
        return Field(scoped["scope"]), re.sub(r'\\(["\\])|"', r"\1", scoped["name"])
    other = _OTHER_SCOPE.fullmatch(text)
    if other:
        raise PolicyError(f"invalid or unsupported attribute scope: {other['scope']}; write span or resource", "key")
    if _UNSCOPED.fullmatch(text):
        text = "none"
    elif not _INTRINSIC.fullmatch(text):
        raise PolicyError(f"failed to parse identifier {key!r}; {_KEYS}", "key", of_part=True)
    raise PolicyError(
        f"unsupported intrinsic: {text}; supported intrinsics: kind, name, status; {_KEYS}",
        "key",
        of_part=True,
    )


_KEYS = "write one of these, span.ATTRIBUTE or resource.ATTRIBUTE"


def _check_equal(field: Field, value: Any) -> None:
    """Strict values: names of enums, texts, or for attributes anything that has a field of its own (FLT-5, FLT-6)."""
    if field in _NAMES:
        names = _NAMES[field]
        if not isinstance(value, str):
            wrong = "invalid kind intrinsic value" if field is Field.KIND else "unsupported status intrinsic value"
            raise PolicyError(f"{wrong}: {value}; write one of {', '.join(names)}")
        if value not in names:
            raise PolicyError(f"unsupported {field} intrinsic string value: {value}; write one of {', '.join(names)}")
    elif field is Field.NAME and not isinstance(value, str):
        raise PolicyError(f"unsupported name intrinsic value: {value}; write a text, in quotes")
    elif not _is_supported(value):
        raise PolicyError(
            "value type not supported; write a text, an integer of 64 bits, a finite number, true or false"
        )


def _is_supported(value: Any) -> bool:
    match value:
        case bool() | str():
            return True
        case int():
            return MIN_INT <= value <= MAX_INT
        case float():
            return math.isfinite(value)
    return False


def _check_search(field: Field, value: Any) -> None:
    """A regular expression."""
    of_intrinsic = field in INTRINSICS
    if not isinstance(value, str):
        wrong = "unsupported intrinsic filter regex value" if of_intrinsic else "invalid attribute filter regexp value"
        raise PolicyError(f"{wrong}: {value}; write a text, in quotes")
    fault = _fault_of(value)
    if fault:
        wrong = "invalid intrinsic filter regex" if of_intrinsic else "invalid attribute filter regexp"
        raise PolicyError(f"{wrong}: {fault}; write one that RE2 reads")


def _fault_of(pattern: str) -> str:
    r"""Why a text is no regular expression; "" if it is one.

    Arrow's RE2 and Go's, as tried on 40,000 random patterns, differ in this: Go has no \C, and RE2 compiles nothing
    that takes more than 8 MB. (What they find differs in \B only, which RE2 finds inside of a character, too.)
    """
    if r"\C" in _ESCAPES.findall(pattern):
        return r"invalid escape sequence: \C"
    try:
        pc.match_substring_regex(pa.array([""]), pattern=pattern)
    except UnicodeEncodeError:
        return "invalid UTF-8"
    except pa.ArrowInvalid as error:
        return str(error).removeprefix("Invalid regular expression: ")
    return ""


class FilterAttribute(Section):
    """One attribute of a policy's part."""

    key: str
    """`kind`, `name`, `status` (the span's own), or an attribute: `span.NAME`, `resource.NAME`."""
    value: Any
    """What it has to be, of the same type; a text to search for if the part is a regex."""


class PolicyMatch(Section):
    """A part of a policy: all its attributes must match (FLT-4)."""

    match_type: str
    """strict or regex."""
    attributes: tuple[FilterAttribute, ...] = ()
    """None: every span matches."""


class FilterPolicy(Section):
    """One policy (FLT-1)."""

    include: PolicyMatch | None = None
    include_any: PolicyMatch | None = None
    exclude: PolicyMatch | None = None

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        errors = [
            InitErrorDetails(type=PydanticCustomError("value_error", "{error}", {"error": what}), loc=place, input=None)
            for place, what in self._faults()
        ]
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self

    def _faults(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What is wrong: where below the policy, and what, in Tempo's words (FLT-7)."""
        parts = {"include": self.include, "include_any": self.include_any, "exclude": self.exclude}
        if not any(parts.values()):
            yield (), "invalid filter policy; policies must have at least an `include`, `includeAny` or `exclude`"
        for name, part in parts.items():
            wrapper = f"invalid {name.replace('_any', 'Any')} policy: "
            if part is None:
                continue
            if part.match_type not in {STRICT, REGEX}:
                yield (name, "match_type"), f"{wrapper}invalid match type: {part.match_type}; write strict or regex"
                continue
            for i, attribute in enumerate(part.attributes):
                try:
                    read_attribute(attribute.key, attribute.value, regex=part.match_type == REGEX)
                except PolicyError as error:
                    yield (name, "attributes", i, error.at), f"{wrapper}{error}" if error.of_part else str(error)
