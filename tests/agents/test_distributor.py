"""The distributor on real Kafka: what clients send is what the topic holds, and where."""

import asyncio
import gzip
import json
import ssl
import zlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from confluent_kafka import Message, Producer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter

from agents.distributor import Distributor, run
from agents.distributor.aside import LONG_BYTES
from agents.own_metrics import OwnMetrics
from agents.topics import TopicsError
from schemas.config import Config, load_config
from schemas.jaeger_pb2 import Batch, PostSpansRequest
from schemas.jaeger_pb2 import Span as JaegerSpan
from schemas.murmur2 import partition_of
from tests.schemas.test_jaeger import THRIFT
from tests.servers.certificates import Authority
from tests.servers.kafka import KafkaBroker

pytestmark = pytest.mark.kafka

PARTITIONS = 4


def config_for(address: str, topic: str, extra: str = "", kafka: str = "") -> Config:
    return load_config(
        None,
        f"""
ingest: {{kafka: {{address: "{address}"{kafka}}}}}
spanmill: {{topics: {{spans: {topic}}}}}
distributor:
  receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:0"}}, http: {{endpoint: "127.0.0.1:0"}}}}}}}}
{extra}""",
    )


@dataclass
class Running:
    """A started distributor and its topic."""

    kafka: KafkaBroker
    topic: str
    distributor: Distributor
    metrics: OwnMetrics

    @property
    def grpc(self) -> str:
        assert self.distributor.grpc is not None
        return self.distributor.grpc.address

    @property
    def url(self) -> str:
        assert self.distributor.http is not None
        return f"http://{self.distributor.http.address}/v1/traces"

    def records(self) -> list[Message]:
        return self.kafka.read(self.topic)

    def spans(self) -> list[Span]:
        return [span for record in self.records() for span in spans_of(record.value())]

    def counter(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


class Start:
    """Starts distributors and stops them at the end of the test."""

    def __init__(self, kafka: KafkaBroker) -> None:
        self._kafka = kafka
        self.started: list[Distributor] = []

    async def __call__(self, extra: str = "", kafka: str = "") -> Running:
        topic = self._kafka.spans_topic(PARTITIONS)
        metrics = OwnMetrics()
        distributor = Distributor(config_for(self._kafka.address, topic, extra, kafka), metrics, PARTITIONS)
        self.started.append(distributor)
        await distributor.start()
        return Running(self._kafka, topic, distributor, metrics)


@pytest.fixture
async def start(kafka: KafkaBroker) -> AsyncIterator[Start]:
    starter = Start(kafka)
    yield starter
    for distributor in starter.started:
        await distributor.stop()


def spans_of(value: bytes | None) -> list[Span]:
    message = TracesData.FromString(value or b"")
    return [span for r in message.resource_spans for s in r.scope_spans for span in s.spans]


def request(spans: Iterable[Span], service: str = "shop") -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    resource.scope_spans.add().spans.extend(spans)
    return message


def numbered(count: int, start: int = 1) -> list[Span]:
    """Spans of as many traces."""
    return [
        Span(trace_id=i.to_bytes(4, "big") * 4, span_id=i.to_bytes(8, "big"), name=f"n{i}", start_time_unix_nano=i)
        for i in range(start, start + count)
    ]


def in_order(spans: Iterable[Span]) -> list[bytes]:
    return sorted(span.SerializeToString(deterministic=True) for span in spans)


def assert_partitioned(records: Iterable[Message]) -> None:
    for record in records:
        assert record.key() is None
        for span in spans_of(record.value()):
            assert record.partition() == partition_of(span.trace_id.hex().encode(), PARTITIONS)


def stub(channel: grpc.aio.Channel) -> Any:
    return TraceServiceStub(channel)  # type: ignore[no-untyped-call]


async def export(
    address: str, message: ExportTraceServiceRequest, metadata: tuple[tuple[str, str], ...] = ()
) -> ExportTraceServiceResponse:
    async with grpc.aio.insecure_channel(address) as channel:
        answer: ExportTraceServiceResponse = await stub(channel).Export(message, metadata=metadata)
        return answer


async def post(url: str, body: bytes, kind: str = "application/x-protobuf", **headers: str) -> tuple[int, bytes, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers={"Content-Type": kind, **headers}) as answer,
    ):
        return answer.status, await answer.read(), answer.content_type


async def test_every_span_sent_is_on_the_topic_once_under_its_resource(start: Start) -> None:
    running = await start()
    sent = numbered(200)
    assert await export(running.grpc, request(sent)) == ExportTraceServiceResponse()
    records = running.records()
    assert_partitioned(records)
    assert len(records) == PARTITIONS, "one record per partition"
    assert in_order(running.spans()) == in_order(sent)
    for record in records:
        (resource,) = TracesData.FromString(record.value() or b"").resource_spans
        assert resource.resource.attributes[0].value.string_value == "shop"
        assert record.headers() == [("tenant", b"single-tenant")]


async def test_json_is_the_same_as_protobuf(start: Start) -> None:
    """DIST-6: answered in its own encoding."""
    running = await start()
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "name": "json",
        "kind": 2,
        "startTimeUnixNano": "1544712660000000000",
    }
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    answer = await post(
        running.url, gzip.compress(body), "application/json; charset=utf-8", **{"Content-Encoding": "gzip"}
    )
    assert answer == (200, b"{}", "application/json")
    (found,) = running.spans()
    assert (found.trace_id.hex(), found.name, found.kind) == (span["traceId"], "json", 2)


async def test_requests_at_the_same_time_share_records(start: Start) -> None:
    """KFK-4."""
    running = await start()
    async with grpc.aio.insecure_channel(running.grpc) as channel:
        service = stub(channel)
        await service.Export(request(numbered(1, 9_000)))  # the connection is there
        before = len(running.records())
        spans = numbered(50)
        await asyncio.gather(*(service.Export(request([span], f"s{i}")) for i, span in enumerate(spans)))
    records = running.records()
    assert len(records) - before < 50
    assert in_order(running.spans()) == in_order([*spans, *numbered(1, 9_000)])
    services = {
        r.resource.attributes[0].value.string_value: r.scope_spans[0].spans[0].name
        for record in records
        for r in TracesData.FromString(record.value() or b"").resource_spans
    }
    assert {f"s{i}": span.name for i, span in enumerate(spans)}.items() <= services.items()


async def test_a_large_request_is_cut_at_the_record_limit(start: Start) -> None:
    """KFK-5."""
    limit = 65_536
    running = await start(kafka=f", producer_max_record_size_bytes: {limit}")
    sent = numbered(400)
    for span in sent:
        span.attributes.add(key="padding").value.string_value = "x" * 2_000
    assert await export(running.grpc, request(sent)) == ExportTraceServiceResponse()
    records = running.records()
    assert max(len(record.value() or b"") for record in records) <= limit
    assert len(records) >= 13
    assert_partitioned(records)
    assert in_order(running.spans()) == in_order(sent)


async def test_a_span_above_the_record_limit_is_refused_whole(start: Start) -> None:
    """DIST-14, KFK-5."""
    running = await start(kafka=", producer_max_record_size_bytes: 65536")
    spans = numbered(2)
    spans[1].name = "x" * 70_000  # attributes would be cut
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await export(running.grpc, request(spans))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert running.records() == []


@pytest.mark.parametrize(
    ("span", "text", "reason"),
    [
        (
            Span(trace_id=b"1" * 15, span_id=b"1" * 8),
            "trace ids must be 128 bit, received 120 bits",
            "invalid_trace_id",
        ),
        (Span(trace_id=bytes(16), span_id=b"1" * 8), "trace ids must be 128 bit, received 0 bits", "invalid_trace_id"),
        (
            Span(trace_id=b"1" * 16, span_id=bytes(8)),
            "span ids must be 64 bit and not all zero, received 64 bits",
            "invalid_span_id",
        ),
        (
            Span(trace_id=b"1" * 16, span_id=b"1" * 9),
            "span ids must be 64 bit and not all zero, received 72 bits",
            "invalid_span_id",
        ),
    ],
)
async def test_one_bad_id_refuses_the_request(start: Start, span: Span, text: str, reason: str) -> None:
    """DIST-5, DIST-11: the spans have been counted as received by then. DIST-6: HTTP has the status, too."""
    running = await start()
    body = request([*numbered(2), span])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await export(running.grpc, body)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)
    status, answer, kind = await post(running.url, body.SerializeToString())
    assert (status, kind) == (400, "application/x-protobuf")
    assert answer == b"\x08\x03\x12" + bytes([len(text)]) + text.encode()
    assert running.records() == []
    assert running.counter("tempo_discarded_spans_total", reason=reason, tenant="single-tenant") == 6
    assert running.counter("tempo_distributor_spans_received_total", tenant="single-tenant") == 6


async def test_a_parent_of_zeros_is_none(start: Start) -> None:
    """DIST-2, DIST-11."""
    running = await start()
    root, child, bad = numbered(3)
    root.parent_span_id, child.parent_span_id, bad.parent_span_id = bytes(8), b"12345678", b"123"
    await export(running.grpc, request([root, child]))
    assert {span.name: span.parent_span_id for span in running.spans()} == {"n1": b"", "n2": b"12345678"}
    with pytest.raises(grpc.aio.AioRpcError, match="parent span ids must be 64 bit, received 24 bits"):
        await export(running.grpc, request([bad]))


async def test_what_is_no_request_is_refused_for_good(start: Start) -> None:
    running = await start()
    async with grpc.aio.insecure_channel(running.grpc) as channel:
        call = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export", None, None)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"\x0a\x05")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        other = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export", None, None)
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await other(b"")
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
    body = request(numbered(1)).SerializeToString()
    answers = {
        "bytes": (await post(running.url, b"\x0a\x05"))[0],
        "json": (await post(running.url, b"{", "application/json"))[0],
        "not gzip": (await post(running.url, body, **{"Content-Encoding": "gzip"}))[0],
        "half of gzip": (await post(running.url, gzip.compress(body)[:-9], **{"Content-Encoding": "gzip"}))[0],
        "encoding": (await post(running.url, body, **{"Content-Encoding": "br"}))[0],
        "media type": (await post(running.url, body, "text/plain"))[0],
        "path": (await post(running.url + "x", body))[0],
    }
    assert answers == {
        "bytes": 400,
        "json": 400,
        "not gzip": 400,
        "half of gzip": 400,
        "encoding": 400,
        "media type": 415,
        "path": 404,
    }
    async with aiohttp.ClientSession() as session, session.get(running.url) as answer:
        assert answer.status == 405
    assert running.records() == []


async def test_a_small_body_can_not_become_a_large_one(start: Start) -> None:
    running = await start()
    bomb = zlib.compress(bytes(64 << 20))
    assert len(bomb) < 100_000
    status, _, kind = await post(running.url, bomb, "application/json", **{"Content-Encoding": "deflate"})
    assert (status, kind) == (413, "application/json")


LIMITED = """
overrides: {defaults: {ingestion: {rate_limit_bytes: 10, burst_size_bytes: 10}}}
"""


async def test_a_client_above_its_rate_is_told_when_to_come_again(start: Start) -> None:
    """DIST-8, DIST-9: without the time OTLP exporters would give the spans up."""
    running = await start(LIMITED)
    body = request(numbered(3))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await export(running.grpc, body)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    (details,) = (value for key, value in refused.value.trailing_metadata() if key == "grpc-status-details-bin")
    assert b"RetryInfo" in details
    async with aiohttp.ClientSession() as session:
        kind = {"Content-Type": "application/x-protobuf"}
        async with session.post(running.url, data=body.SerializeToString(), headers=kind) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "5")
    assert running.counter("tempo_discarded_spans_total", reason="rate_limited", tenant="single-tenant") == 6
    assert running.counter("tempo_distributor_spans_received_total", tenant="single-tenant") == 0
    assert running.records() == []


async def test_long_attributes_are_cut_and_counted(start: Start) -> None:
    """DIST-10."""
    running = await start()
    (span,) = numbered(1)
    span.attributes.add(key="k" * 3000).value.string_value = "v" * 5000
    span.events.add(name="n" * 3000).attributes.add(key="stack").value.string_value = "s" * 5000
    await export(running.grpc, request([span]))
    (found,) = running.spans()
    assert [(len(a.key), len(a.value.string_value)) for a in found.attributes[-1:]] == [(2048, 2048)]
    assert (len(found.events[0].name), len(found.events[0].attributes[0].value.string_value)) == (3000, 2048)
    name, tenant = "tempo_distributor_attributes_truncated_total", "single-tenant"
    counts = {s: running.counter(name, tenant=tenant, scope=s) for s in ("resource", "scope", "span", "event", "link")}
    assert counts == {"resource": 0, "scope": 0, "span": 2, "event": 1, "link": 0}


async def test_distributors_that_share_rates_know_of_each_other(start: Start) -> None:
    """DIST-7: members of a group that consumes nothing, so the broker forgets one that has died."""
    shared = "overrides: {defaults: {ingestion: {rate_strategy: global}}}\n"
    running = [await start(shared) for _ in range(2)]

    def counts() -> list[int]:
        return [each.distributor.distributors for each in running]

    async with asyncio.timeout(60):
        while counts() != [2, 2]:
            await asyncio.sleep(0.2)


async def test_zipkin_and_jaeger_are_taken_where_they_are_named(kafka: KafkaBroker) -> None:
    """DIST-1: what isn't named is off."""
    topic = kafka.spans_topic(PARTITIONS)
    config = load_config(
        None,
        f"""
ingest: {{kafka: {{address: "{kafka.address}"}}}}
spanmill: {{topics: {{spans: {topic}}}}}
distributor:
  receivers:
    zipkin: {{endpoint: "127.0.0.1:0"}}
    jaeger: {{protocols: {{grpc: {{endpoint: "127.0.0.1:0"}}, thrift_http: {{endpoint: "127.0.0.1:0"}}}}}}
""",
    )
    distributor = Distributor(config, OwnMetrics(), PARTITIONS)
    await distributor.start()
    try:
        assert (distributor.grpc, distributor.http) == (None, None)
        assert distributor.zipkin is not None
        assert distributor.jaeger_http is not None
        assert distributor.jaeger_grpc is not None
        zipkin = f"http://{distributor.zipkin.address}/api/v2/spans"
        span = {"traceId": "1" * 32, "id": "2" * 16, "name": "z", "localEndpoint": {"serviceName": "shop"}}
        assert (await post(zipkin, json.dumps([span]).encode(), "application/json"))[0] == 202
        status, answer, _ = await post(zipkin, b"[{}]", "application/json")
        assert (status, answer.startswith(b"not a request of Zipkin: zipkin_span")) == (400, True)
        assert (await post(zipkin, b"", "application/x-protobuf"))[0] == 415

        jaeger = f"http://{distributor.jaeger_http.address}/api/traces"
        assert (await post(jaeger, THRIFT, "application/x-thrift"))[0] == 202
        assert (await post(jaeger, THRIFT[:-3], "application/vnd.apache.thrift.binary"))[0] == 400
        async with grpc.aio.insecure_channel(distributor.jaeger_grpc.address) as channel:
            post_spans = channel.unary_unary("/jaeger.api_v2.CollectorService/PostSpans", None, None)
            batch = Batch(spans=[JaegerSpan(trace_id=b"3" * 16, span_id=b"4" * 8, operation_name="p")])
            assert await post_spans(PostSpansRequest(batch=batch).SerializeToString()) == b""
            long = Batch(spans=[JaegerSpan(trace_id=b"5" * 16, span_id=b"6" * 8, operation_name="x" * LONG_BYTES)])
            assert await post_spans(PostSpansRequest(batch=long).SerializeToString()) == b""
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await post_spans(b"\x0a\x05")
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        names = sorted(span.name for record in kafka.read(topic) for span in spans_of(record.value()))
        assert names == ["GET /", "p", "x" * LONG_BYTES, "z"]
    finally:
        await distributor.stop()


async def test_spans_arrive_over_tls(kafka: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real exporters, over both protocols; one without the client's certificate is refused."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # they stand before an exporter's own
        monkeypatch.delenv(name, raising=False)
    authority = Authority(tmp_path / "ca")
    cert, key = authority.certify("server")
    client_cert, client_key = authority.certify("client")
    tls = f"tls: {{cert_file: {cert}, key_file: {key}, client_ca_file: {authority.certificate}}}"
    topic = kafka.spans_topic(PARTITIONS)
    config = load_config(
        None,
        f"""
ingest: {{kafka: {{address: "{kafka.address}"}}}}
spanmill: {{topics: {{spans: {topic}}}}}
distributor:
  receivers:
    otlp:
      protocols:
        grpc: {{endpoint: "127.0.0.1:0", {tls}}}
        http: {{endpoint: "127.0.0.1:0", {tls}}}
""",
    )
    distributor = Distributor(config, OwnMetrics(), PARTITIONS)
    await distributor.start()
    try:
        assert distributor.grpc is not None
        assert distributor.http is not None
        credentials = grpc.ssl_channel_credentials(
            authority.certificate.read_bytes(), client_key.read_bytes(), client_cert.read_bytes()
        )
        exporters: list[SpanExporter] = [
            GrpcExporter(endpoint=f"https://{distributor.grpc.address}", credentials=credentials),
            HttpExporter(
                endpoint=f"https://{distributor.http.address}/v1/traces",
                certificate_file=str(authority.certificate),
                client_certificate_file=str(client_cert),
                client_key_file=str(client_key),
            ),
        ]
        for number, exporter in enumerate(exporters):
            provider = TracerProvider(resource=Resource.create({"service.name": "shop"}), shutdown_on_exit=False)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            span = provider.get_tracer("t").start_span(f"tls{number}")
            await asyncio.to_thread(span.end)
            await asyncio.to_thread(provider.shutdown)
        names = sorted(span.name for record in kafka.read(topic) for span in spans_of(record.value()))
        assert names == ["tls0", "tls1"]
        stranger = ssl.create_default_context(cafile=authority.certificate)
        async with aiohttp.ClientSession() as session:
            with pytest.raises((aiohttp.ClientError, OSError)):
                await session.post(f"https://{distributor.http.address}/v1/traces", ssl=stranger)
    finally:
        await distributor.stop()


async def test_load_balancers_are_told_whether_it_serves(start: Start) -> None:
    """grpc.health.v1; reflection is off."""
    running = await start()
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    async with grpc.aio.insecure_channel(running.grpc) as channel:
        health = HealthStub(channel)
        for name in ("", service):
            answer = await health.Check(HealthCheckRequest(service=name))
            assert answer.status == HealthCheckResponse.SERVING
        watched = health.Watch(HealthCheckRequest(service=service))
        assert (await watched.read()).status == HealthCheckResponse.SERVING
        reflection = channel.unary_unary("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", None, None)
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await reflection(b"")
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
        start.started.remove(running.distributor)
        stopping = asyncio.create_task(running.distributor.stop())
        assert (await watched.read()).status == HealthCheckResponse.NOT_SERVING
        watched.cancel()
        await stopping


async def test_an_empty_request_is_answered_and_writes_nothing(start: Start) -> None:
    """DIST-5, KFK-6."""
    running = await start()
    assert await export(running.grpc, ExportTraceServiceRequest()) == ExportTraceServiceResponse()
    assert await post(running.url, request([]).SerializeToString()) == (200, b"", "application/x-protobuf")
    assert running.records() == []


async def test_spans_that_are_not_to_be_measured_have_records_of_their_own(start: Start) -> None:
    """INT-8: the header's presence counts, not its value."""
    running = await start()
    measured, stored = numbered(20), numbered(20, 100)
    await asyncio.gather(
        export(running.grpc, request(measured)),
        export(running.grpc, request(stored[:10]), (("no-generate-metrics", ""),)),
        post(running.url, request(stored[10:]).SerializeToString(), **{"No-Generate-Metrics": "false"}),
    )
    by_flag: dict[bool, list[Span]] = {False: [], True: []}
    for record in running.records():
        flag = "no-metrics" in dict(record.headers() or [])
        by_flag[flag] += spans_of(record.value())
    assert in_order(by_flag[False]) == in_order(measured)
    assert in_order(by_flag[True]) == in_order(stored)


async def test_tenants_have_records_of_their_own(start: Start) -> None:
    """DIST-4, KFK-2: what follows a colon is metadata; a header names the tenant."""
    running = await start("multitenancy_enabled: true")
    await asyncio.gather(
        export(running.grpc, request(numbered(5)), (("x-scope-orgid", "a"),)),
        post(running.url, request(numbered(5, 50)).SerializeToString(), **{"X-Scope-OrgID": "b:label=x"}),
    )
    spans: dict[object, list[str]] = {}
    for record in running.records():
        tenant = dict(record.headers() or [])["tenant"]
        spans.setdefault(tenant, []).extend(span.name for span in spans_of(record.value()))
    assert {tenant: sorted(names) for tenant, names in spans.items()} == {
        b"a": [f"n{i}" for i in range(1, 6)],
        b"b": [f"n{i}" for i in range(50, 55)],
    }


async def test_without_a_tenant_clients_keep_their_spans(start: Start) -> None:
    """DIST-4."""
    running = await start("multitenancy_enabled: true")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await export(running.grpc, request(numbered(1)))
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNAVAILABLE, "no org id")
    assert (await post(running.url, request(numbered(1)).SerializeToString()))[0] == 503
    status, _, _ = await post(running.url, request(numbered(1)).SerializeToString(), **{"X-Scope-OrgID": "a b"})
    assert status == 400
    assert running.records() == []


async def test_without_multitenancy_the_header_says_nothing(start: Start) -> None:
    """DIST-4."""
    running = await start()
    await export(running.grpc, request(numbered(1)), (("x-scope-orgid", "a"),))
    assert [record.headers() for record in running.records()] == [[("tenant", b"single-tenant")]]


async def test_work_is_counted_by_tempos_names(start: Start) -> None:
    running = await start()
    body = request(numbered(10))
    await export(running.grpc, body)
    tenant = "single-tenant"
    assert running.counter("tempo_distributor_spans_received_total", tenant=tenant) == 10
    assert running.counter("tempo_distributor_bytes_received_total", tenant=tenant) == body.ByteSize()
    assert running.counter("tempo_distributor_ingress_bytes_total", tenant=tenant) == body.ByteSize()
    written = sum(
        running.counter("tempo_distributor_kafka_write_bytes_total", partition=f"partition_{p}") for p in range(4)
    )
    assert written == sum(len(record.value() or b"") for record in running.records())
    assert running.counter("spanmill_distributor_buffered_bytes") == 0


async def test_a_broker_that_does_not_answer_is_a_retryable_failure(kafka: KafkaBroker) -> None:
    """KFK-12, G229."""
    config = config_for("127.0.0.1:1", "spans", kafka=", write_timeout: 300ms")
    metrics = OwnMetrics()
    distributor = Distributor(config, metrics, PARTITIONS)
    await distributor.start()
    try:
        assert distributor.grpc is not None
        assert distributor.http is not None
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await export(distributor.grpc.address, request(numbered(1)))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert b"RetryInfo" in dict(refused.value.trailing_metadata() or ())["grpc-status-details-bin"]
        url = f"http://{distributor.http.address}/v1/traces"
        status, answer, _ = await post(url, request(numbered(1)).SerializeToString())
        assert (status, b"RetryInfo" in answer) == (503, True)
    finally:
        await distributor.stop()
    name = "tempo_distributor_produce_failures_total"
    assert metrics.registry.get_sample_value(name, {"reason": "timeout"}) == 2


async def test_a_full_buffer_is_a_retryable_failure(kafka: KafkaBroker) -> None:
    """KFK-11, KFK-12."""
    limit = request(numbered(1)).ByteSize() + 10
    config = config_for("127.0.0.1:1", "spans", kafka=f", write_timeout: 500ms, producer_max_buffered_bytes: {limit}")
    distributor = Distributor(config, OwnMetrics(), PARTITIONS)
    await distributor.start()
    try:
        assert distributor.grpc is not None
        outcomes = await asyncio.gather(
            *(export(distributor.grpc.address, request(numbered(1))) for _ in range(3)), return_exceptions=True
        )
    finally:
        await distributor.stop()
    assert all(isinstance(o, grpc.aio.AioRpcError) and o.code() is grpc.StatusCode.UNAVAILABLE for o in outcomes)
    details = [o.details() or "" for o in outcomes if isinstance(o, grpc.aio.AioRpcError)]
    assert sum("too many bytes wait" in text for text in details) == 2, details


async def test_a_record_that_the_topic_does_not_take_is_refused_for_good(kafka: KafkaBroker) -> None:
    """KFK-12."""
    topic = kafka.new_topic(
        "small", PARTITIONS, {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "500"}
    )
    distributor = Distributor(config_for(kafka.address, topic), OwnMetrics(), PARTITIONS)
    await distributor.start()
    try:
        assert distributor.grpc is not None
        (span,) = numbered(1)
        span.name = "x" * 1_000
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await export(distributor.grpc.address, request([span]))
    finally:
        await distributor.stop()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_client_that_goes_away_costs_the_others_nothing(start: Start) -> None:
    running = await start()
    async with grpc.aio.insecure_channel(running.grpc) as channel:
        service = stub(channel)
        await service.Export(ExportTraceServiceRequest())
        calls = [service.Export(request([span])) for span in numbered(20)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        await asyncio.gather(*calls[1::2])
    names = {span.name for span in running.spans()}
    assert {f"n{i}" for i in range(2, 21, 2)} <= names


async def test_stopping_answers_what_is_in_flight(start: Start) -> None:
    running = await start()
    calls = [asyncio.create_task(export(running.grpc, request([span]))) for span in numbered(5)]
    async with asyncio.timeout(30):
        while running.counter("tempo_distributor_spans_received_total", tenant="single-tenant") < 5:
            await asyncio.sleep(0)
    start.started.remove(running.distributor)
    await running.distributor.stop()
    assert await asyncio.gather(*calls) == [ExportTraceServiceResponse()] * 5
    assert in_order(running.spans()) == in_order(numbered(5))


async def test_it_runs_until_it_is_stopped(kafka: KafkaBroker) -> None:
    config = config_for(kafka.address, kafka.spans_topic(PARTITIONS))
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(run(config, stop, OwnMetrics(), ready=ready))
    await asyncio.wait_for(ready.wait(), 60)
    assert not running.done()
    stop.set()
    await asyncio.wait_for(running, 20)


async def test_the_partition_is_the_one_that_kafkas_own_partitioner_picks(start: Start) -> None:
    """KFK-7."""
    running = await start()
    sent = numbered(100)
    await export(running.grpc, request(sent))
    ours = {span.trace_id: record.partition() for record in running.records() for span in spans_of(record.value())}
    keyed = running.kafka.new_topic("keyed", PARTITIONS)
    producer = Producer({"bootstrap.servers": running.kafka.address, "partitioner": "murmur2", "log_level": 0})
    for span in sent:
        producer.produce(keyed, span.trace_id, span.trace_id.hex())
    assert producer.flush(30) == 0
    assert ours == {record.value(): record.partition() for record in running.kafka.read(keyed)}


async def test_a_topic_with_the_producers_timestamps_keeps_it_from_starting(kafka: KafkaBroker) -> None:
    topic = kafka.new_topic("wrong", PARTITIONS)
    with pytest.raises(TopicsError, match="spanmill topics create"):
        await run(config_for(kafka.address, topic), asyncio.Event(), OwnMetrics())
