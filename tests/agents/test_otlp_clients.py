"""Real clients of OTLP on real Kafka: what each sends, over each protocol, is in the topic, field by field.

Each client sends as a tenant of its own, so that one distributor serves all of them at once.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.span import TraceState

from agents.distributor import Distributor
from agents.own_metrics import OwnMetrics
from schemas.config import load_config
from schemas.murmur2 import partition_of
from tests.servers.certificates import Authority
from tests.servers.go_client import GoClient
from tests.servers.kafka import KafkaBroker
from tests.servers.tcp_proxy import TcpProxy
from tests.servers.telemetrygen import Telemetrygen

pytestmark = pytest.mark.kafka

PARTITIONS = 4
TRACES = 2
EXPORT_S = 60
"""How long the SDKs may try, at most."""


class Running:
    """A started distributor."""

    def __init__(self, distributor: Distributor, metrics: OwnMetrics, topic: str, authority: Path | None) -> None:
        assert distributor.grpc is not None
        assert distributor.http is not None
        self.grpc, self.http = distributor.grpc.address, distributor.http.address
        self.metrics, self.topic, self.authority = metrics, topic, authority

    @property
    def scheme(self) -> str:
        return "https" if self.authority else "http"

    def counter(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running(
    address: str, topic: str, extra: str = "", kafka: str = "", authority: Authority | None = None
) -> AsyncIterator[Running]:
    """A distributor of many tenants, with TLS if there is an authority."""
    tls = ""
    if authority is not None:
        cert, key = authority.certify("server")
        tls = f", tls: {{cert_file: {cert}, key_file: {key}}}"
    config = load_config(
        None,
        f"""
multitenancy_enabled: true
ingest: {{kafka: {{address: "{address}"{kafka}}}}}
spanmill: {{topics: {{spans: {topic}}}}}
distributor:
  retry_after_on_resource_exhausted: 1s
  receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:0"{tls}}}, http: {{endpoint: "127.0.0.1:0"{tls}}}}}}}}}
{extra}""",
    )
    metrics = OwnMetrics()
    distributor = Distributor(config, metrics, PARTITIONS)
    await distributor.start()
    try:
        yield Running(distributor, metrics, topic, authority.certificate if authority else None)
    finally:
        await distributor.stop()


class Recorded(SpanExporter):
    """Keeps what an exporter is given, as it is on the wire."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.sent = TracesData()
        self.results: list[SpanExportResult] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.sent.resource_spans.extend(encode_spans(spans).resource_spans)
        self.results.append(self._exporter.export(spans))
        return self.results[-1]

    def shutdown(self) -> None:
        self._exporter.shutdown()


def sent_by_python(exporter: SpanExporter, traces: int = TRACES) -> TracesData:
    """Traces in which every field that the SDK can fill is filled, each a request of its own."""
    recorded = Recorded(exporter)
    provider = TracerProvider(
        resource=Resource({"service.name": "shop", "process.pid": 4711}, "https://opentelemetry.io/schemas/1.37.0"),
        span_limits=SpanLimits(
            max_span_attributes=11,
            max_events=2,
            max_links=2,
            max_event_attributes=1,
            max_link_attributes=1,
            max_span_attribute_length=60,
        ),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(recorded))
    for number in range(traces):
        make_trace(provider, number)
        assert provider.force_flush(EXPORT_S * 1000)
    provider.shutdown()
    assert recorded.results == [SpanExportResult.SUCCESS] * traces
    return recorded.sent


def make_trace(provider: TracerProvider, number: int) -> None:
    """A span with everything, below a remote parent, and one below it for each kind."""
    tracer = provider.get_tracer(
        "spanmill.test/python", "1.2.3", "https://opentelemetry.io/schemas/1.36.0", {"scope": "its own", "number": 1}
    )
    two = {"left out, as it is the older": 1, "kept": 2}
    values = {
        "left out, as it is the oldest": True,
        "text": "ä€𝄞 and more than the limit lets through, which the SDK cuts before it sends",
        "empty text": "",
        "false": False,
        "least": -(2**63),
        "most": 2**63 - 1,
        "float": -1.5e-300,
        "infinite": float("inf"),
        "texts": ["one", "", "three"],
        "floats": [0.0, 0.1],
        "bytes": b"\0\xff\n",
        "map": {"inner": True, "deeper": {"innermost": [7, "seven"]}},
    }
    everything = tracer.start_span(
        "everything",
        trace.set_span_in_context(trace.NonRecordingSpan(remote(number, 1))),
        kind=trace.SpanKind.SERVER,
        attributes=values,
        links=[trace.Link(remote(number, span), two) for span in (2, 3, 4)],
    )
    for event in range(3):
        everything.add_event(f"event {event}", two)
    everything.set_status(trace.StatusCode.ERROR, "it didn't work")
    plain = provider.get_tracer("without a version")
    for kind in trace.SpanKind:
        child = plain.start_span(f"{number}: {kind.name}", trace.set_span_in_context(everything), kind=kind)
        if kind is trace.SpanKind.CLIENT:
            child.set_status(trace.StatusCode.OK)
        child.end()
    everything.end()
    plain.start_span("a trace of one").end()


def remote(number: int, span: int) -> trace.SpanContext:
    """The context of a span in another process."""
    state = TraceState([("vendor", "a:1"), ("other", "b")])
    return trace.SpanContext(number + 1, span, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=state)


def python_over_grpc(at: Running, tenant: str, *, gzip: bool) -> SpanExporter:
    return GrpcExporter(
        endpoint=f"{at.scheme}://{at.grpc}",
        credentials=grpc.ssl_channel_credentials(at.authority.read_bytes()) if at.authority else None,
        headers={"x-scope-orgid": tenant},
        compression=grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression,
        timeout=EXPORT_S,
    )


def python_over_http(at: Running, tenant: str, compression: Compression) -> SpanExporter:
    return HttpExporter(
        endpoint=f"{at.scheme}://{at.http}/v1/traces",
        certificate_file=str(at.authority) if at.authority else None,
        headers={"X-Scope-OrgID": tenant},
        compression=compression,
        timeout=EXPORT_S,
    )


Sender = Callable[[], TracesData]


def senders(at: Running, go: GoClient) -> Iterator[tuple[str, Sender]]:
    """Both SDKs over each protocol, with and without compression, by a tenant's name."""
    for gzip in (False, True):
        tenant = f"python-grpc-{gzip}"
        yield tenant, partial(sent_by_python, python_over_grpc(at, tenant, gzip=gzip))
    for compression in Compression:
        tenant = f"python-http-{compression.name}"
        yield tenant, partial(sent_by_python, python_over_http(at, tenant, compression))
    for protocol, endpoint in (("grpc", at.grpc), ("http/protobuf", at.http), ("http/json", at.http)):
        for gzip in (False, True):
            tenant = f"go-{protocol.replace('/', '-')}-{gzip}"
            to = {"authority": at.authority, "headers": {"X-Scope-OrgID": tenant}}
            yield tenant, partial(go.send, endpoint, protocol, gzip=gzip, traces=TRACES, **to)


async def all_sent(each: Iterable[tuple[str, Sender]]) -> dict[str, TracesData]:
    """What clients have sent, all at once, by tenant."""
    tenants, sending = zip(*each, strict=True)
    return dict(zip(tenants, await asyncio.gather(*(asyncio.to_thread(send) for send in sending)), strict=True))


def on_topic(kafka: KafkaBroker, topic: str) -> dict[str, TracesData]:
    """What the topic holds, by tenant; each trace is on its partition."""
    found: dict[str, TracesData] = {}
    for record in kafka.read(topic):
        ((header, tenant),) = record.headers() or []
        assert (header, record.key()) == ("tenant", None)
        message = TracesData.FromString(record.value() or b"")
        for span in spans_of(message):
            assert record.partition() == partition_of(span.trace_id.hex().encode(), PARTITIONS)
        found.setdefault(tenant.decode(), TracesData()).MergeFrom(message)
    return found


def spans_of(message: TracesData) -> list[Span]:
    return [span for r in message.resource_spans for s in r.scope_spans for span in s.spans]


def each_alone(message: TracesData) -> list[ResourceSpans]:
    """The spans, each under its own resource and scope, in an order of their own."""
    alone = []
    for r in message.resource_spans:
        for s in r.scope_spans:
            for span in s.spans:
                scope = ScopeSpans(spans=[span], schema_url=s.schema_url)
                scope.scope.CopyFrom(s.scope)
                resource = ResourceSpans(scope_spans=[scope], schema_url=r.schema_url)
                resource.resource.CopyFrom(r.resource)
                alone.append(resource)
    return sorted(alone, key=lambda each: (each.scope_spans[0].spans[0].trace_id, each.scope_spans[0].spans[0].span_id))


def assert_same(found: dict[str, TracesData], sent: dict[str, TracesData]) -> None:
    assert sorted(found) == sorted(sent)
    for tenant, message in sent.items():
        for found_span, sent_span in zip(each_alone(found[tenant]), each_alone(message), strict=True):
            assert found_span == sent_span, tenant


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # they stand before an exporter's own
        monkeypatch.delenv(name, raising=False)
    return Authority(tmp_path / "ca")


@pytest.mark.parametrize("secure", [False, True])
async def test_what_sdks_send_is_in_the_topic_field_by_field(
    kafka: KafkaBroker, authority: Authority, tmp_path: Path, secure: bool
) -> None:
    """DIST-1, DIST-12: gRPC, protobuf and JSON over HTTP; nothing, gzip, deflate."""
    topic = kafka.spans_topic(PARTITIONS)
    async with running(kafka.address, topic, authority=authority if secure else None) as at:
        sent = await all_sent(senders(at, GoClient(tmp_path)))
    assert len(sent) == 11
    assert {len(spans_of(each)) for each in sent.values()} == {TRACES * (2 + len(trace.SpanKind))}
    for language in ("python", "go"):
        assert unfilled(sent[tenant] for tenant in sent if tenant.startswith(language)) <= NOT_OF_SDKS
    assert_same(on_topic(kafka, topic), sent)


NOT_OF_SDKS = {
    "Resource.dropped_attributes_count",
    "Resource.entity_refs",
    "InstrumentationScope.dropped_attributes_count",
    "Span.Link.trace_state",
    "AnyValue.string_value_strindex",
    "KeyValue.key_strindex",
}
"""Fields of OTLP that the SDKs don't send, whatever they are asked."""


def unfilled(messages: Iterable[Message]) -> set[str]:
    """Fields of spans, and of all that is in them, that no message has."""
    fields: set[str] = set()
    known: set[str] = set()

    def visit(message: Message) -> None:
        know(message.DESCRIPTOR)
        for field, value in message.ListFields():
            fields.add(name_of(field))
            if field.message_type is not None:
                for each in value if field.is_repeated else [value]:
                    visit(each)

    def know(descriptor: Descriptor) -> None:
        for field in descriptor.fields:
            if name_of(field) not in known:
                known.add(name_of(field))
                if field.message_type is not None and field.message_type.name != "EntityRef":
                    know(field.message_type)

    for message in messages:
        visit(message)
    return known - fields


def name_of(field: FieldDescriptor) -> str:
    return field.full_name.split(".v1.")[1]


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("over_http", [False, True])
async def test_what_telemetrygen_sends_is_in_the_topic_field_by_field(
    kafka: KafkaBroker, authority: Authority, telemetrygen: Telemetrygen, over_http: bool, secure: bool
) -> None:
    """It doesn't say what it sends: all but IDs and times follows from its flags."""
    topic = kafka.spans_topic(PARTITIONS)
    async with running(kafka.address, topic, authority=authority if secure else None) as at:
        arguments = [
            "--traces",
            "50",
            "--workers",
            "2",
            "--child-spans",
            "2",
            "--span-duration",
            "5ms",
            "--status-code",
            "Error",
        ]
        arguments += ["--otlp-attributes", 'deployment="blue"', "--telemetry-attributes", "number=7"]
        arguments += ["--otlp-header", 'X-Scope-OrgID="t"', *(["--otlp-http"] if over_http else [])]
        endpoint, ca = (at.http if over_http else at.grpc), at.authority
        await asyncio.to_thread(telemetrygen.traces, endpoint, *arguments, authority=ca, gzip=secure)
    found = on_topic(kafka, topic)["t"]
    traces: dict[bytes, list[Span]] = {}
    for span in spans_of(found):
        traces.setdefault(span.trace_id, []).append(span)
    assert len(traces) == 100
    schemas = {each.schema_url for each in found.resource_spans}
    assert len(schemas) == 1
    expected = []
    for trace_id, spans in traces.items():
        root, *others = sorted(spans, key=lambda span: (span.parent_span_id != b"", span.name))
        assert len({span.span_id for span in spans}) == 3
        began_ns = root.start_time_unix_nano
        assert abs(began_ns - time.time_ns()) < 3600 * 10**9
        like = Span(trace_id=trace_id, span_id=root.span_id, name="lets-go", kind=Span.SPAN_KIND_CLIENT)
        expected.append(by_telemetrygen(like, "server", began_ns, began_ns + 10_000_000, *schemas))
        for i, span in enumerate(others):
            like = Span(trace_id=trace_id, span_id=span.span_id, parent_span_id=root.span_id, name=f"okey-dokey-{i}")
            like.kind = Span.SPAN_KIND_SERVER
            start_ns = began_ns + 5_000_000 * i
            expected.append(by_telemetrygen(like, "client", start_ns, start_ns + 5_000_000, *schemas))
    assert_same({"t": found}, {"t": TracesData(resource_spans=expected)})


def by_telemetrygen(span: Span, peer: str, start_ns: int, end_ns: int, schema: str) -> ResourceSpans:
    """A span with what all of telemetrygen's have, by its flags above."""
    assert len(span.span_id) == 8
    attributes = [text("network.peer.address", "1.2.3.4"), text("service.peer.name", f"telemetrygen-{peer}")]
    span.attributes.extend([*attributes, KeyValue(key="number", value=AnyValue(int_value=7))])
    span.start_time_unix_nano, span.end_time_unix_nano = start_ns, end_ns
    span.status.code = Status.STATUS_CODE_ERROR
    span.flags = 0x101
    resource = OtlpResource(attributes=[text("deployment", "blue"), text("service.name", "telemetrygen")])
    scope = ScopeSpans(scope=InstrumentationScope(name="telemetrygen"), spans=[span])
    return ResourceSpans(resource=resource, scope_spans=[scope], schema_url=schema)


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def one_of_each_protocol(at: Running, go: GoClient) -> list[tuple[str, Sender]]:
    return [
        (tenant, send)
        for tenant, send in senders(at, go)
        if tenant in {"python-grpc-False", "python-http-NoCompression"}
        or (tenant.startswith("go") and tenant.endswith("True"))
    ]


RATE, BURST = 200, 2200
"""Bytes, per second and at once."""


async def test_spans_above_the_rate_are_sent_again_and_arrive_once(kafka: KafkaBroker, tmp_path: Path) -> None:
    """DIST-9: a tenant's second request is refused until its bucket has filled.

    SDKs come again after a second, as RetryInfo and Retry-After say, and not sooner.
    """
    topic = kafka.spans_topic(PARTITIONS)
    rate = f"overrides: {{defaults: {{ingestion: {{rate_limit_bytes: {RATE}, burst_size_bytes: {BURST}}}}}}}"
    async with running(kafka.address, topic, rate) as at:
        sent = await all_sent(one_of_each_protocol(at, GoClient(tmp_path)))
        spans = {
            tenant: at.counter("tempo_discarded_spans_total", reason="rate_limited", tenant=tenant) for tenant in sent
        }
    for tenant, message in sent.items():
        size, refusals = message.ByteSize(), spans[tenant] / (len(spans_of(message)) / TRACES)
        assert size / TRACES <= BURST < size, "one request is let in at once, and not two"
        assert 1 <= refusals <= 2 + (size - BURST) / RATE, tenant
    assert_same(on_topic(kafka, topic), sent)


async def until_refused(at: Running, clients: int) -> None:
    """Until Kafka's absence was told to as many clients as there are."""
    async with asyncio.timeout(60):
        while at.counter("tempo_distributor_produce_failures_total", reason="timeout") < clients:
            await asyncio.sleep(0.05)


async def test_spans_that_kafka_could_not_take_are_sent_again_and_arrive_once(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    """KFK-12: UNAVAILABLE and 503 until Kafka can be reached."""
    topic, proxy = kafka.spans_topic(PARTITIONS), TcpProxy()
    async with running(proxy.address, topic, kafka=", write_timeout: 500ms") as at:
        sending = one_of_each_protocol(at, GoClient(tmp_path))
        every = asyncio.create_task(all_sent(sending))
        await until_refused(at, len(sending))
        proxy.start(int(kafka.address.rpartition(":")[2]))
        try:
            sent = await every
        finally:
            proxy.stop()
    assert_same(on_topic(kafka, topic), sent)
