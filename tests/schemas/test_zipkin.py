"""Zipkin's JSON as OTLP (Tempo DIST-2)."""

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from schemas.errors import Malformed
from schemas.otlp.regroup import Regrouping
from schemas.zipkin import traces_data

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


def zipkin(**fields: Any) -> dict[str, Any]:
    return {"traceId": TRACE, "id": SPAN, "timestamp": 1_700_000_000_000_000, "duration": 1500, **fields}


def resources(*spans: dict[str, Any], parse_string_tags: bool = False) -> list[ResourceSpans]:
    return list(traces_data(json.dumps(spans).encode(), parse_string_tags=parse_string_tags).resource_spans)


def only(span: dict[str, Any], *, parse_string_tags: bool = False) -> Span:
    ((scope,),) = (list(each.scope_spans) for each in resources(span, parse_string_tags=parse_string_tags))
    (found,) = scope.spans
    return found


def values(attributes: Any) -> dict[str, Any]:
    return {each.key: next(iter(MessageToDict(each.value).values()), None) for each in attributes}


def test_a_span_keeps_all_that_it_says() -> None:
    """DIST-2."""
    (resource,) = resources(
        zipkin(
            parentId=PARENT,
            kind="CLIENT",
            name="get /orders",
            localEndpoint={"serviceName": "shop", "ipv4": "10.0.0.1", "port": 8080},
            remoteEndpoint={"serviceName": "db", "ipv6": "2001:0db8::0001", "port": 5432},
            tags={"http.method": "GET", "service.version": "1.2", "otel.scope.name": "lib", "otel.scope.version": "3"},
            annotations=[
                {"timestamp": 1_700_000_000_000_500, "value": "cache miss"},
                {"timestamp": 1_700_000_000_000_600, "value": 'exception|{"type":"E","n":2,"ok":true,"r":0.5}|1'},
            ],
        )
    )
    assert values(resource.resource.attributes) == {"service.name": "shop", "service.version": "1.2"}
    (scope,) = resource.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("lib", "3")
    (span,) = scope.spans
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN, PARENT)
    assert (span.name, span.kind) == ("get /orders", Span.SPAN_KIND_CLIENT)
    assert span.start_time_unix_nano == 1_700_000_000_000_000_000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1_500_000
    assert values(span.attributes) == {
        "http.method": "GET",
        "peer.service": "db",
        "net.host.ip": "10.0.0.1",
        "net.host.port": "8080",
        "net.peer.ip": "2001:db8::1",
        "net.peer.port": "5432",
    }
    plain, exported = span.events
    assert (plain.name, plain.time_unix_nano, len(plain.attributes)) == ("cache miss", 1_700_000_000_000_500_000, 0)
    assert (exported.name, exported.dropped_attributes_count) == ("exception", 1)
    assert values(exported.attributes) == {"type": "E", "n": "2", "ok": True, "r": 0.5}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"kind": "SERVER"}, Span.SPAN_KIND_SERVER),
        ({"kind": "PRODUCER"}, Span.SPAN_KIND_PRODUCER),
        ({"kind": "CONSUMER"}, Span.SPAN_KIND_CONSUMER),
        ({"tags": {"span.kind": "internal"}}, Span.SPAN_KIND_INTERNAL),
        ({}, Span.SPAN_KIND_UNSPECIFIED),
    ],
)
def test_kinds(fields: dict[str, Any], kind: int) -> None:
    assert only(zipkin(**fields)).kind == kind


@pytest.mark.parametrize(
    ("tags", "code", "message", "left"),
    [
        ({"error": "true"}, Status.STATUS_CODE_ERROR, "", {}),
        ({"error": "time-out"}, Status.STATUS_CODE_UNSET, "", {"error": "time-out"}),
        (
            {"otel.status_code": "ERROR", "otel.status_description": "late"},
            Status.STATUS_CODE_ERROR,
            "late",
            {},
        ),
        ({"otel.status_code": "STATUS_CODE_OK"}, Status.STATUS_CODE_OK, "", {}),
    ],
)
def test_statuses(tags: dict[str, str], code: int, message: str, left: dict[str, str]) -> None:
    span = only(zipkin(tags=tags))
    assert (span.status.code, span.status.message, values(span.attributes)) == (code, message, left)


def test_short_ids_are_filled_up_and_a_shared_spans_own_id_is_no_parent() -> None:
    span = only(zipkin(traceId="463ac35c9f6413ad", id="5c", parentId="5c"))
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id) == (
        "0" * 16 + "463ac35c9f6413ad",
        "0" * 14 + "5c",
        b"",
    )


def test_a_span_without_a_beginning_says_so() -> None:
    span = only({"traceId": TRACE, "id": SPAN, "duration": 5})
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (0, 5_000)
    assert values(span.attributes) == {"otel.zipkin.absentField.startTime": True}


def test_links_are_read_back() -> None:
    state = {"otlp.link.0": f'{TRACE}|{SPAN}|k=v|{{"a":"x|y"}}|3', "w3c.tracestate": "q=1"}
    span = only(zipkin(tags=state))
    (link,) = span.links
    assert (link.trace_id.hex(), link.span_id.hex(), link.trace_state) == (TRACE, SPAN, "k=v")
    assert (values(link.attributes), link.dropped_attributes_count) == ({"a": "x|y"}, 3)
    assert span.trace_state == "q=1"


def test_tags_become_numbers_where_that_is_asked_for() -> None:
    tags = {"n": "12", "r": "0.5", "b": "true", "t": "x1"}
    assert values(only(zipkin(tags=tags)).attributes) == tags
    found = values(only(zipkin(tags=tags), parse_string_tags=True).attributes)
    assert found == {"n": "12", "r": 0.5, "b": True, "t": "x1"}
    assert KeyValue(key="n", value=AnyValue(int_value=12)) in only(zipkin(tags=tags), parse_string_tags=True).attributes


def test_spans_of_one_service_share_a_resource() -> None:
    shop, bank = {"serviceName": "shop"}, {"serviceName": "bank"}
    found = resources(
        zipkin(localEndpoint=shop, name="1"),
        zipkin(localEndpoint=bank, name="2"),
        zipkin(localEndpoint=shop, name="3"),
        zipkin(localEndpoint=shop, tags={"service.version": "2"}, name="4"),
        zipkin(name="5"),
    )
    assert [(values(r.resource.attributes), [s.name for s in r.scope_spans[0].spans]) for r in found] == [
        ({"service.name": "shop"}, ["1", "3"]),
        ({"service.name": "bank"}, ["2"]),
        ({"service.name": "shop", "service.version": "2"}, ["4"]),
        ({}, ["5"]),
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "json"),
        (b"{}", "json"),
        (b"[1]", "json"),
        (b"[" * 100_000, "json"),
        (b'[{"id": "1", "tags": {"a": "' + b"a" * (1 << 20) + b'"}}]', "json"),
        (b'[{"id": "1"}]', "zipkin_span"),
        (b'[{"traceId": "xyz", "id": "1"}]', "zipkin_span"),
        (b'[{"traceId": "1", "id": ""}]', "zipkin_span"),
        (b'[{"traceId": "1", "id": "1", "tags": [1]}]', "zipkin_span"),
        (b'[{"traceId": "1", "id": "1", "timestamp": -5}]', "zipkin_span"),
        (b'[{"traceId": "1", "id": "1", "timestamp": "now"}]', "zipkin_span"),
        (b'[{"traceId": "1", "id": "1", "localEndpoint": {"ipv4": "300.1.1.1"}}]', "zipkin_span"),
    ],
)
def test_what_is_no_request_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(Malformed) as refused:
        traces_data(body)
    assert refused.value.reason == reason


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
FIELDS = ("traceId", "id", "parentId", "name", "kind", "timestamp", "duration", "tags", "annotations", "localEndpoint")


@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=5))
def test_any_json_is_translated_or_refused(fields: dict[str, Any]) -> None:
    body = json.dumps([{**zipkin(), **fields}]).encode()
    try:
        message = traces_data(body)
    except Malformed:
        return
    assert Regrouping(4, 1 << 20).read(message.SerializeToString()).spans == 1
