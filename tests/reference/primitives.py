"""Attributes, label names and label sets (Tempo §5.1 to §5.5)."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

Attributes = Sequence[tuple[bytes, Any]]
"""Keys and AnyValues, in order; a key may stand more than once."""

Labels = tuple[tuple[bytes, bytes], ...]
"""Names and values of a label set, sorted."""

INTRINSICS = {b"service", b"span_name", b"span_kind", b"status_code", b"status_message"}

KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES = ("UNSET", "OK", "ERROR")


class Seen(NamedTuple):
    """A span with what belongs to it."""

    span: Any
    """The message, its texts as bytes."""
    resource: Attributes
    attributes: Attributes
    position: tuple[int, int, int]
    """Stream time, offset, index: the order of exemplars."""


def attributes_of(owner: Any) -> Attributes:
    """The attributes of a span or a resource."""
    return [(pair.key, pair.value) for pair in owner.attributes]


def lookup(key: str, *lists: Attributes) -> bytes | None:
    """PRIM-1: the first list that holds the key wins, and in it the first occurrence; None if none does."""
    for attributes in lists:
        for name, value in attributes:
            if name == key.encode():
                return text(value)
    return None


def text(value: Any) -> bytes:
    """PRIM-3."""
    out = b""
    match value.WhichOneof("value"):
        case "string_value":
            out = value.string_value
        case "bool_value":
            out = b"true" if value.bool_value else b"false"
        case "int_value":
            out = str(value.int_value).encode()
        case "double_value":
            out = double_text(value.double_value).encode()
        case "array_value":
            out = b"[" + b"".join(text(each) for each in value.array_value.values) + b"]"
        case "kvlist_value":
            out = b"{" + b"".join(each.key + b":" + text(each.value) for each in value.kvlist_value.values) + b"}"
    return out


def double_text(number: float) -> str:
    """The shortest decimal that reads back, without an exponent."""
    if number != number:  # noqa: PLR0124 -- NaN
        return "NaN"
    if number in (float("inf"), float("-inf")):
        return "+Inf" if number > 0 else "-Inf"
    plain = format(Decimal(repr(number)), "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def sanitized(name: bytes) -> bytes:
    """PRIM-4."""
    characters = name.decode("utf-8", "surrogateescape")
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in characters).encode()


def reserved(name: str | bytes, taken: set[bytes]) -> bytes:
    """PRIM-5."""
    clean = sanitized(name.encode() if isinstance(name, str) else name)
    return b"__" + clean if clean in taken else clean


def build(pairs: Iterable[tuple[bytes, bytes]], max_name: int, max_value: int) -> Labels | None:
    """PRIM-6; None if the set is invalid."""
    last: dict[bytes, bytes] = {}
    for name, value in pairs:
        last[name[: max_name or None]] = value[: max_value or None]
    labels = {name: value for name, value in last.items() if value}
    if b"" in labels or not all(is_utf8(part) for pair in labels.items() for part in pair):
        return None
    return tuple(sorted(labels.items()))


def is_utf8(value: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def kind_text(number: int) -> str:
    """SM-5.3."""
    return f"SPAN_KIND_{KINDS[number]}" if 0 <= number < len(KINDS) else str(number)


def status_text(number: int) -> str:
    """SM-5.4."""
    return f"STATUS_CODE_{STATUSES[number]}" if 0 <= number < len(STATUSES) else str(number)


def trace_text(trace: bytes) -> str:
    """PRIM-9; IDs that are too long for an exemplar count as none."""
    return trace.hex().lstrip("0") if len(trace.lstrip(b"\0")) <= 32 else ""


def latency_of(span: Any) -> int:
    """PRIM-10 in nanoseconds, at most 2^53."""
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    return min(end - start, 1 << 53) if end > start else 0
