"""OTLP JSON as Collectors and SDKs write it."""

import json

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from schemas.errors import Malformed
from schemas.otlp_json import traces_data_bytes

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


def test_a_line_of_a_file_exporter_is_the_same_message() -> None:
    assert TracesData.FromString(traces_data_bytes(json.dumps(LINE).encode(), 1)) == MESSAGE


def test_enums_may_be_names_times_numbers_and_fields_unknown() -> None:
    line = changed(kind="SPAN_KIND_SERVER", startTimeUnixNano=1544712660000000000, invented={"a": [1]})
    assert TracesData.FromString(traces_data_bytes(line, 1)) == MESSAGE


def test_an_enum_value_of_a_later_version_is_kept() -> None:
    span = TracesData.FromString(traces_data_bytes(changed(kind=77), 1)).resource_spans[0].scope_spans[0].spans[0]
    assert span.kind == 77


def test_an_empty_document_is_an_empty_message() -> None:
    assert traces_data_bytes(b"{}\r\n", 1) == b""


@pytest.mark.parametrize(
    ("line", "reason", "expected"),
    [
        (b'{"resourceSpans": [}', "json", "json at byte 19: line 7: Expecting value"),
        ('{"ü": x}'.encode(), "json", "json at byte 7: line 7: Expecting value"),
        (b'{"\xff": 1}', "json", "json at byte 2: line 7: not UTF-8"),
        (b"[]", "json", "json: line 7: list instead of an object"),
        (b"[" * 100_000, "json", "json: line 7: nested too deeply"),
        (changed(traceId="xyz"), "otlp_json", "otlp_json: line 7: traceId 'xyz' is not hexadecimal"),
        (changed(spanId="ab c"), "otlp_json", "otlp_json: line 7: spanId 'ab c' is not hexadecimal"),
        (changed(startTimeUnixNano="-1"), "otlp_json", "otlp_json: line 7: "),
        (changed(name="\ud800"), "otlp_json", "otlp_json: line 7: "),
        (b'{"resourceSpans": 3}', "otlp_json", "otlp_json: line 7: "),
        (b'{"resourceSpans": [{"scopeSpans": [4]}]}', "otlp_json", "otlp_json: line 7: "),
    ],
)
def test_a_line_that_is_none_is_refused_with_its_number(line: bytes, reason: str, expected: str) -> None:
    with pytest.raises(Malformed) as raised:
        traces_data_bytes(line, 7)
    assert raised.value.reason == reason
    assert str(raised.value).startswith(expected)
