"""Attribute values as text (Tempo PRIM-3)."""

import itertools

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from schemas.otlp import attribute_text
from tests.otlp_oracle import frame_of
from tests.otlp_samples import any_value, length_delimited

INVALID = b"\xff\xfe"


def in_span(value: bytes) -> bytes:
    attribute = length_delimited(1, b"k") + length_delimited(2, value)
    return length_delimited(1, length_delimited(2, length_delimited(2, length_delimited(9, attribute))))


def scanned_text(value: bytes) -> bytes:
    """The text of an attribute with this AnyValue, by way of a frame."""
    frame = frame_of([in_span(value)], ("k",))
    found = frame.spans.attributes
    start, length = int(found.offset[0, 0]), int(found.length[0, 0])
    return attribute_text(int(found.kind[0, 0]), frame.data[start : start + length].tobytes())


def array(*values: AnyValue) -> AnyValue:
    return AnyValue(array_value=ArrayValue(values=values))


def pairs(*values: tuple[str, AnyValue | None]) -> AnyValue:
    return AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key=key, value=value) for key, value in values]))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (any_value("text"), "text"),
        (any_value(""), ""),
        (any_value(True), "true"),
        (any_value(False), "false"),
        (any_value(0), "0"),
        (any_value(-5), "-5"),
        (any_value(2**63 - 1), "9223372036854775807"),
        (any_value(-(2**63)), "-9223372036854775808"),
        (any_value(1.0), "1"),
        (any_value(0.1), "0.1"),
        (any_value(1e21), "1000000000000000000000"),
        (any_value(1.5e-7), "0.00000015"),
        (any_value(-0.0), "-0"),
        (any_value(float("nan")), "NaN"),
        (any_value(float("inf")), "+Inf"),
        (any_value(float("-inf")), "-Inf"),
        (AnyValue(bytes_value=b"raw"), ""),
        (AnyValue(), ""),
        (array(), "[]"),
        (array(any_value("a"), any_value("b")), "[ab]"),
        (array(any_value(1), AnyValue(), AnyValue(bytes_value=b"x"), array(any_value(0.5))), "[1[0.5]]"),
        (pairs(), "{}"),
        (pairs(("a", any_value(1)), ("b", any_value("x"))), "{a:1b:x}"),
        (pairs(("a", None), ("", array(any_value(True)))), "{a::[true]}"),
        (AnyValue(string_value_strindex=5), ""),
    ],
    ids=itertools.count(),
)
def test_text_of_values(value: AnyValue, text: str) -> None:
    """PRIM-3; a pair without a value has the empty text (INT-9)."""
    assert scanned_text(value.SerializeToString()) == text.encode()


def test_invalid_utf8_passes_through() -> None:
    text = b"\x0a\x02" + INVALID
    assert scanned_text(text) == INVALID
    assert scanned_text(length_delimited(5, length_delimited(1, text))) == b"[" + INVALID + b"]"
    pair = length_delimited(1, INVALID) + length_delimited(2, text)
    assert scanned_text(length_delimited(6, length_delimited(1, pair))) == b"{" + INVALID + b":" + INVALID + b"}"


def test_pieces_of_a_value_are_one_value() -> None:
    one, two = array(any_value("a")).SerializeToString(), array(any_value("b")).SerializeToString()
    assert scanned_text(one + two) == b"[ab]"
    assert scanned_text(one + b"\x48\x01" + two) == b"[ab]"
    assert scanned_text(one + b"\x18\x05" + two) == b"[b]"
    assert scanned_text(one + b"\x18\x05") == b"5"


def test_the_deepest_value_that_is_accepted_has_a_text() -> None:
    value = any_value("x").SerializeToString()
    for _ in range(47):
        value = length_delimited(5, length_delimited(1, value))
    assert scanned_text(value) == b"[" * 47 + b"x" + b"]" * 47
