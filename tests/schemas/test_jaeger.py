"""Jaeger's batches, in Thrift and in protobuf, as OTLP (Tempo DIST-2)."""

import struct
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from schemas.errors import Malformed
from schemas.jaeger import batch_of_request, batch_of_thrift, traces_data
from schemas.jaeger_pb2 import Batch, KeyValue, PostSpansRequest
from schemas.jaeger_pb2 import Span as JaegerSpan
from schemas.thrift import ThriftReader

BOOL, DOUBLE, I32, I64, STRING, STRUCT, LIST = 2, 4, 8, 10, 11, 12, 15
FORMS = {BOOL: ">?", DOUBLE: ">d", I32: ">i", I64: ">q"}


def thrift(fields: dict[int, tuple[int, Any]]) -> bytes:
    """A struct: by field number, type and value; a list is (type of its items, items)."""
    out = b"".join(struct.pack(">bh", kind, number) + thrift_value(kind, v) for number, (kind, v) in fields.items())
    return out + b"\0"


def thrift_value(kind: int, value: Any) -> bytes:
    if kind in FORMS:
        return struct.pack(FORMS[kind], value)
    if kind == STRING:
        raw = value.encode() if isinstance(value, str) else value
        return struct.pack(">i", len(raw)) + raw
    if kind == STRUCT:
        return thrift(value)
    item, values = value
    return struct.pack(">bi", item, len(values)) + b"".join(thrift_value(item, each) for each in values)


def tag(key: str, value: Any) -> dict[int, tuple[int, Any]]:
    """A tag as a client of Jaeger's writes it."""
    kind, number, wire = {
        str: (0, 3, STRING),
        float: (1, 4, DOUBLE),
        bool: (2, 5, BOOL),
        int: (3, 6, I64),
        bytes: (4, 7, STRING),
    }[type(value)]
    return {1: (STRING, key), 2: (I32, kind), number: (wire, value)}


def tags(**found: Any) -> tuple[int, Any]:
    return LIST, (STRUCT, [tag(key.replace("__", "."), value) for key, value in found.items()])


THRIFT = thrift(
    {
        1: (STRUCT, {1: (STRING, "shop"), 2: tags(hostname="h1", jaeger__version="Go-2", pid=7)}),
        2: (
            LIST,
            (
                STRUCT,
                [
                    {
                        1: (I64, 2),
                        2: (I64, 1),
                        3: (I64, -3),
                        4: (I64, 9),
                        5: (STRING, "GET /"),
                        6: (
                            LIST,
                            (
                                STRUCT,
                                [
                                    {1: (I32, 0), 2: (I64, 2), 3: (I64, 1), 4: (I64, 9)},
                                    {1: (I32, 1), 2: (I64, 20), 3: (I64, 10), 4: (I64, 90)},
                                ],
                            ),
                        ),
                        7: (I32, 1),
                        8: (I64, 1_700_000_000_000_000),
                        9: (I64, 1500),
                        10: tags(span__kind="client", n=5, r=0.5, ok=True, raw=b"\xff", otel__scope__name="lib"),
                        11: (LIST, (STRUCT, [{1: (I64, 1_700_000_000_000_100), 2: tags(event="miss", key="k")}])),
                    }
                ],
            ),
        ),
    }
)


def values(attributes: Any) -> dict[str, Any]:
    return {each.key: next(iter(MessageToDict(each.value).values()), None) for each in attributes}


def only(*found: KeyValue) -> Span:
    batch = Batch(spans=[JaegerSpan(trace_id=b"t" * 16, span_id=b"s" * 8, tags=found)])
    return traces_data(batch).resource_spans[0].scope_spans[0].spans[0]


def test_a_thrift_span_keeps_all_that_it_says() -> None:
    """DIST-2."""
    (resource,) = traces_data(batch_of_thrift(THRIFT)).resource_spans
    assert values(resource.resource.attributes) == {
        "service.name": "shop",
        "pid": "7",
        "host.name": "h1",
        "opencensus.exporterversion": "Jaeger-Go-2",
    }
    (scope,) = resource.scope_spans
    assert scope.scope.name == "lib"
    (span,) = scope.spans
    assert span.trace_id == bytes(7) + b"\1" + bytes(7) + b"\2"
    assert span.span_id == (-3).to_bytes(8, "big", signed=True)
    assert span.parent_span_id == bytes(7) + b"\x09"
    assert (span.name, span.kind) == ("GET /", Span.SPAN_KIND_CLIENT)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (
        1_700_000_000_000_000_000,
        1_700_000_000_001_500_000,
    )
    assert values(span.attributes) == {"n": "5", "r": 0.5, "ok": True, "raw": "/w=="}
    (event,) = span.events
    assert (event.name, event.time_unix_nano, values(event.attributes)) == (
        "miss",
        1_700_000_000_000_100_000,
        {"key": "k"},
    )
    (link,) = span.links
    assert link.trace_id == bytes(7) + b"\x0a" + bytes(7) + b"\x14"
    assert values(link.attributes) == {"opentracing.ref_type": "follows_from"}


def test_a_request_over_grpc_holds_the_same() -> None:
    request = PostSpansRequest(batch=batch_of_thrift(THRIFT)).SerializeToString()
    assert traces_data(batch_of_request(request)) == traces_data(batch_of_thrift(THRIFT))


def test_a_span_with_a_process_of_its_own_has_a_resource_of_its_own() -> None:
    batch = Batch(
        spans=[JaegerSpan(operation_name="1"), JaegerSpan(operation_name="2"), JaegerSpan(operation_name="3")]
    )
    batch.process.service_name = "shop"
    batch.spans[1].process.service_name = "bank"
    found = traces_data(batch).resource_spans
    assert [
        (values(each.resource.attributes)["service.name"], [span.name for span in each.scope_spans[0].spans])
        for each in found
    ] == [("shop", ["1", "3"]), ("bank", ["2"])]


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, v_str=value)


ERROR = KeyValue(key="error", v_type=1, v_bool=True)


def number(key: str, value: int) -> KeyValue:
    return KeyValue(key=key, v_type=2, v_int64=value)


@pytest.mark.parametrize(
    ("found", "code", "message"),
    [
        ([], Status.STATUS_CODE_UNSET, ""),
        ([ERROR], Status.STATUS_CODE_ERROR, ""),
        ([ERROR, text("otel.status_description", "late")], Status.STATUS_CODE_ERROR, "late"),
        ([ERROR, text("http.status_message", "gone")], Status.STATUS_CODE_ERROR, "gone"),
        ([text("error", "true")], Status.STATUS_CODE_UNSET, ""),
        ([text("otel.status_code", "ok")], Status.STATUS_CODE_OK, ""),
        ([text("otel.status_code", "ERROR"), text("otel.status_description", "x")], Status.STATUS_CODE_ERROR, "x"),
        ([number("http.status_code", 503)], Status.STATUS_CODE_ERROR, ""),
        ([text("http.status_code", "404")], Status.STATUS_CODE_ERROR, ""),
        ([text("span.kind", "server"), number("http.status_code", 404)], Status.STATUS_CODE_UNSET, ""),
        ([number("http.status_code", 204)], Status.STATUS_CODE_UNSET, ""),
        ([text("http.status_code", "?")], Status.STATUS_CODE_UNSET, ""),
    ],
)
def test_statuses(found: list[KeyValue], code: int, message: str) -> None:
    status = only(*found).status
    assert (status.code, status.message) == (code, message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        THRIFT[:-5],
        b"\x0b\x00\x01\x7f\xff\xff\xff",
        b"\x63\x00\x01",
        thrift({2: (I64, 5)}),
        thrift({2: (LIST, (STRUCT, [{8: (STRING, "now")}]))}),
        (b"\x0c\x00\x01" * 100),
        b"\x0f\x00\x02\x0c" + (2_000_000).to_bytes(4) + bytes(2_000_001),
    ],
    ids=["empty", "cut off", "length", "type", "no list", "no number", "deep", "many"],
)
def test_what_is_no_batch_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        batch_of_thrift(body)


def test_what_is_no_request_is_refused() -> None:
    with pytest.raises(Malformed):
        batch_of_request(b"\x0a\x05")


@given(st.lists(st.tuples(st.integers(0, len(THRIFT) - 1), st.integers(0, 255)), min_size=1, max_size=20))
def test_mutated_batches_are_translated_or_refused(changes: list[tuple[int, int]]) -> None:
    body = bytearray(THRIFT)
    for at, byte in changes:
        body[at] = byte
    try:
        batch = batch_of_thrift(bytes(body))
    except Malformed:
        return
    assert sum(len(s.spans) for r in traces_data(batch).resource_spans for s in r.scope_spans) == len(batch.spans)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(body: bytes) -> None:
    reader = ThriftReader(body)
    with suppress(Malformed):
        reader.struct()
    assert reader.position <= len(body)
