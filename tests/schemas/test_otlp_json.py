"""OTLP JSON as Collectors and SDKs write it."""

import json
import math
import os
import random
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from schemas import otlp_json
from schemas.errors import Malformed
from schemas.otlp_json import traces_data_bytes
from tests.agents.test_distributor_differential import fill
from tests.otlp_json_samples import by_protobuf, in_json, mutated

NUMBER = r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?"
TRACE_ID = bytes.fromhex("5b8efff798038103d269b633813fc60c")
SPAN_ID = bytes.fromhex("eee19b7ec3c1b174")

# As the Collector's file exporter writes it: enums as numbers, times as strings, an empty parent.
LINE = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "cart"}}]},
            "scopeSpans": [
                {
                    "scope": {},
                    "spans": [
                        {
                            "traceId": TRACE_ID.hex(),
                            "spanId": SPAN_ID.hex().upper(),
                            "parentSpanId": "",
                            "name": "GET /cart",
                            "kind": 2,
                            "startTimeUnixNano": "1544712660000000000",
                            "endTimeUnixNano": "1544712661000000000",
                            "attributes": [
                                {"key": "n", "value": {"intValue": "9007199254740993"}},
                                {"key": "raw", "value": {"bytesValue": "AAE="}},
                            ],
                            "links": [{"traceId": TRACE_ID.hex(), "spanId": SPAN_ID.hex()}],
                            "status": {"code": 2},
                        }
                    ],
                }
            ],
        }
    ]
}

MESSAGE = TracesData(
    resource_spans=[
        ResourceSpans(
            resource=Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value="cart"))]),
            scope_spans=[
                ScopeSpans(
                    scope={},
                    spans=[
                        Span(
                            trace_id=TRACE_ID,
                            span_id=SPAN_ID,
                            name="GET /cart",
                            kind=Span.SPAN_KIND_SERVER,
                            start_time_unix_nano=1544712660000000000,
                            end_time_unix_nano=1544712661000000000,
                            attributes=[
                                KeyValue(key="n", value=AnyValue(int_value=9007199254740993)),
                                KeyValue(key="raw", value=AnyValue(bytes_value=b"\x00\x01")),
                            ],
                            links=[Span.Link(trace_id=TRACE_ID, span_id=SPAN_ID)],
                            status=Status(code=Status.STATUS_CODE_ERROR),
                        )
                    ],
                )
            ],
        )
    ]
)


def changed(**span_fields: object) -> bytes:
    document = json.loads(json.dumps(LINE))
    document["resourceSpans"][0]["scopeSpans"][0]["spans"][0].update(span_fields)
    return json.dumps(document).encode()


def of_value(value: object) -> bytes:
    """With one attribute."""
    return changed(attributes=[{"key": "a", "value": value}])


def only_span(line: bytes) -> Span:
    return TracesData.FromString(traces_data_bytes(line, 1)).resource_spans[0].scope_spans[0].spans[0]


def test_a_line_of_a_file_exporter_is_the_same_message() -> None:
    assert TracesData.FromString(traces_data_bytes(json.dumps(LINE).encode(), 1)) == MESSAGE


def test_enums_may_be_names_times_numbers_and_fields_unknown() -> None:
    line = changed(kind="SPAN_KIND_SERVER", startTimeUnixNano=1544712660000000000, invented={"a": [1]})
    assert TracesData.FromString(traces_data_bytes(line, 1)) == MESSAGE


def test_an_enum_value_of_a_later_version_is_kept() -> None:
    assert only_span(changed(kind=77)).kind == 77
    assert only_span(changed(kind="SPAN_KIND_LATER")).kind == 0, "an unknown name is as good as none"


def test_names_may_be_escaped_and_a_byte_order_mark_may_stand_before_it() -> None:
    line = json.dumps(LINE).replace("spanId", "sp\\u0061nId").replace("cart", "c\\u0061rt").encode()
    assert TracesData.FromString(traces_data_bytes(b"\xef\xbb\xbf" + line, 1)) == MESSAGE


def test_null_is_as_good_as_nothing() -> None:
    span = only_span(
        changed(parentSpanId=None, links=None, status=None, kind=None, attributes=[{"key": "a", "value": None}])
    )
    assert (len(span.links), span.HasField("status"), span.attributes[0].HasField("value")) == (0, False, False)


def test_an_empty_document_is_an_empty_message() -> None:
    assert traces_data_bytes(b"{}\r\n", 1) == b""


@pytest.mark.parametrize(
    ("line", "reason", "expected"),
    [
        (b'{"resourceSpans": [}', "otlp_json", "otlp_json at byte 19: line 7: resourceSpans: not an object"),
        (b'{"resourceSpans": []]', "json", "json at byte 20: line 7: not JSON from here on"),
        ('{"ü": x}'.encode(), "json", "json at byte 7: line 7: not JSON from here on"),
        (b'{"\xff": 1}', "json", "json at byte 2: line 7: not UTF-8"),
        (b'{"a": 1} 2', "json", "json at byte 9: line 7: not JSON from here on"),
        (b'{"a": [1, {"b": 2]}', "json", "json at byte 17: line 7: "),
        (b"[]", "json", "json at byte 0: line 7: not a JSON object"),
        (b"  ", "json", "json at byte 2: line 7: not a JSON object"),
        (b'{"x": ' + b"[" * 100_000, "otlp_json", "otlp_json at byte 506: line 7: nested too deeply"),
        (changed(traceId="xyz"), "otlp_json", "traceId: not hexadecimal"),
        (changed(spanId="ab c"), "otlp_json", "spanId: not hexadecimal"),
        (changed(startTimeUnixNano="-1"), "otlp_json", "startTimeUnixNano: out of its range"),
        (changed(startTimeUnixNano="9" * 5000), "otlp_json", "startTimeUnixNano: out of its range"),
        (changed(kind=1 << 31), "otlp_json", "kind: out of its range"),
        (changed(kind=True), "otlp_json", "kind: neither a number nor a name"),
        (changed(name="\ud800"), "json", "not JSON from here on"),
        (changed(name=5), "otlp_json", "name: not a string"),
        (changed(span_id="00"), "otlp_json", "span_id: there already"),
        (changed(links=[None]), "otlp_json", "links: null in a list"),
        (of_value({"intValue": 1.5}), "otlp_json", "intValue: not an integer"),
        (of_value({"boolValue": "true"}), "otlp_json", "boolValue: neither true nor false"),
        (of_value({"bytesValue": "A"}), "otlp_json", "bytesValue: not base64"),
        (of_value({"doubleValue": "1e999"}), "otlp_json", "out of its range"),
        (of_value({"doubleValue": "one"}), "otlp_json", "doubleValue: not a number"),
        (of_value({"intValue": 1, "stringValue": "x"}), "otlp_json", "stringValue: there already"),
        (b'{"resourceSpans": 3}', "otlp_json", "otlp_json at byte 18: line 7: resourceSpans: not a list"),
        (b'{"resourceSpans": [{"scopeSpans": [4]}]}', "otlp_json", "scopeSpans: not an object"),
    ],
)
def test_a_line_that_is_none_is_refused_with_its_place(line: bytes, reason: str, expected: str) -> None:
    with pytest.raises(Malformed) as raised:
        traces_data_bytes(line, 7)
    assert raised.value.reason == reason
    assert expected in str(raised.value)


def test_a_line_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_json, "MOST_BYTES", 2)
    assert traces_data_bytes(b"{}", 1) == b""
    with pytest.raises(Malformed, match="line 1: longer than 2 bytes"):
        traces_data_bytes(b"{ }", 1)


def test_values_that_lists_and_lists_of_attributes_hold_are_nested_as_deeply_as_protobuf_reads_them() -> None:
    def nested(depth: int) -> bytes:
        value: dict[str, Any] = {"stringValue": "x"}
        for _ in range(depth):
            value = {"arrayValue": {"values": [value]}}
        return of_value(value)

    assert TracesData.FromString(traces_data_bytes(nested(47), 1))
    with pytest.raises(Malformed, match="nested too deeply"):
        traces_data_bytes(nested(48), 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("0", 0),
            ("-0", 0),
            ("7.000", 7),
            ("1e3", 1000),
            ('"25E-1e"', None),
            ("1.5447126600000000e18", 1544712660 * 10**9),
        ),
        *(
            ('"18446744073709551615"', 2**64 - 1),
            ("18446744073709551616", None),
            ("184467440737095516.15e2", 2**64 - 1),
        ),
        *(
            ("0e9999999999999", 0),
            ("1e9999999999999", None),
            ("1e-9999999999999", None),
            ("0.10e1", 1),
            ("0.01e1", None),
        ),
        *(("01", None), ("+1", None), (".5e1", None), ("1.", None), ('" 1"', None), ('"0x1"', None), ('""', None)),
    ],
)
def test_integers_are_taken_in_any_way_to_write_them(text: str, value: int | None) -> None:
    line = changed(endTimeUnixNano="HERE").replace(b'"HERE"', text.encode())
    if value is None:
        with pytest.raises(Malformed):
            traces_data_bytes(line, 1)
    else:
        assert only_span(line).end_time_unix_nano == value


@given(st.one_of(st.floats(allow_nan=False, allow_infinity=False).map(repr), st.from_regex(NUMBER, fullmatch=True)))
@example("4.9e-324")
@example("2.2250738585072011e-308")
@example("9007199254740993")
@example("0.000000000000000000000000000000000000001")
def test_doubles_are_the_nearest_ones(text: str) -> None:
    line = of_value({"doubleValue": "HERE"}).replace(b'"HERE"', text.encode())
    if math.isinf(float(text)):
        with pytest.raises(Malformed, match="out of its range"):
            traces_data_bytes(line, 1)
    else:
        value = only_span(line).attributes[0].value
        assert struct.pack("d", value.double_value) == struct.pack("d", float(text))


@st.composite
def messages(draw: st.DrawFn) -> TracesData:
    message = TracesData()
    fill(draw, message)
    return message


@given(messages(), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([None, 1]))
def test_any_message_in_json_is_the_same_message(
    message: TracesData, snake: bool, numbers: bool, ascii_only: bool, indent: int | None
) -> None:
    document = in_json(message, preserving_proto_field_name=snake, use_integers_for_enums=numbers)
    line = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    assert traces_data_bytes(line, 1) == by_protobuf(line).SerializeToString(deterministic=True)


def test_what_is_taken_is_what_protobuf_reads() -> None:
    """It takes some more: what is there twice, bytes with what is no base64, integers as Python writes them."""
    stricter = ("there already", "not base64", "not an integer", "not JSON from here on", "not hexadecimal")
    rng, taken = random.Random(11), 0
    for _ in range(3000):
        text = mutated(rng)
        written, refused = None, ""
        try:
            written = TracesData.FromString(traces_data_bytes(text, 1))
        except Malformed as error:
            refused = str(error)
        try:
            expected = by_protobuf(text)
        except (ValueError, TypeError, RecursionError, SystemError):  # the last for half a surrogate pair in a name
            assert refused, text
            continue
        if written is None:
            assert any(reason in refused for reason in stricter), text
            continue
        taken += 1
        assert written.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True), text
    assert 500 < taken < 2500


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects a page of memory with mprotect")
def test_mutated_texts_at_the_end_of_memory_are_read_within_bounds(tmp_path: Path) -> None:
    """In a process of its own, because that is what a wrong access would kill."""
    checked = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.otlp_json_guard", "7", "2000"]
    run = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=checked, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    accepted, refused = map(int, run.stdout.split())
    assert accepted > 300
    assert refused > 1000


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b'{"resourceSpans": [' + b"{}," * 500_000 + b"{}]}", 1_000_002),
        (b'{"invented": [' + b'{"a":[]},' * 200_000 + b"{}]}", 0),
        (b'{"invented": ' + b"9" * 2_000_000 + b"}", 0),
    ],
    ids=["messages", "unknown", "digits"],
)
def test_a_dense_text_takes_no_more_memory_than_any_other(line: bytes, size: int) -> None:
    """Of what is set aside most isn't touched; what makes objects of it takes forty times its size."""
    traces_data_bytes(b"{}", 1)
    tracemalloc.start()
    try:
        assert len(traces_data_bytes(line, 1)) == size
        assert tracemalloc.get_traced_memory()[1] < 12 * len(line)
    finally:
        tracemalloc.stop()
