"""Orders of a small shop, sent by the OpenTelemetry SDK, and what the metrics must say about them."""

import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode

MS = 1_000_000


@dataclass
class Truth:
    """Counts by label set, made from the spans as they were sent, by the rules of the spec and not by our code."""

    calls: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """(service, span_name, span_kind, status_code)"""
    latencies_ms: dict[tuple[str, str, str, str], list[int]] = field(default_factory=dict)
    edges: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(client, server, connection_type)"""
    failed: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def span(self, service: str, name: str, kind: SpanKind, ms: int, *, error: bool = False) -> None:
        status = "STATUS_CODE_ERROR" if error else "STATUS_CODE_UNSET"
        labels = (service, name, f"SPAN_KIND_{kind.name}", status)
        self.calls[labels] += 1
        self.latencies_ms.setdefault(labels, []).append(ms)

    def edge(self, client: str, server: str, kind: str = "", *, failed: bool = False) -> None:
        self.edges[client, server, kind] += 1
        if failed:
            self.failed[client, server, kind] += 1

    def bucket(self, labels: tuple[str, str, str, str], le_ms: float) -> int:
        return sum(ms <= le_ms for ms in self.latencies_ms[labels])


class Shop:
    """frontend -> checkout -> (postgres, payment, queue -> shipping), sent over one protocol."""

    SERVICES = ("frontend", "checkout", "payment", "shipping")

    def __init__(self, prefix: str, *, grpc: str | None = None, http: str | None = None) -> None:
        self.prefix = prefix
        self.truth = Truth()
        self._providers: dict[str, TracerProvider] = {}
        for service in self.SERVICES:
            exporter: SpanExporter
            if grpc is not None:
                exporter = GrpcExporter(endpoint=grpc, insecure=True)
            else:
                exporter = HttpExporter(endpoint=f"http://{http}/v1/traces")
            provider = TracerProvider(resource=Resource.create({"service.name": f"{prefix}-{service}"}))
            provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=200))
            self._providers[service] = provider
        self._numbers = itertools.count()

    def order(self) -> None:
        """One trace of nine spans; every fifth payment fails."""
        number = next(self._numbers)
        failed = number % 5 == 0
        now = time.time_ns() - 200 * MS
        root = self._span("frontend", "GET /order", SpanKind.SERVER, now, 120 + number % 3, None)
        call = self._span("frontend", "POST checkout", SpanKind.CLIENT, now, 100, root)
        checkout = self._span("checkout", "POST /checkout", SpanKind.SERVER, now, 90, call)
        self._span("checkout", "SELECT stock", SpanKind.CLIENT, now, 3, checkout, {"db.system": "postgresql"})
        pay = self._span("checkout", "pay", SpanKind.CLIENT, now, 50, checkout, failed=failed)
        self._span("payment", "POST /pay", SpanKind.SERVER, now, 40, pay, failed=failed)
        self._span("payment", "bank", SpanKind.CLIENT, now, 30, pay, {"peer.service": f"{self.prefix}-bank"})
        publish = self._span("checkout", "publish", SpanKind.PRODUCER, now, 1, checkout)
        self._span("shipping", "consume", SpanKind.CONSUMER, now, 7, publish)
        self._expect(failed=failed)

    def close(self) -> None:
        for provider in self._providers.values():
            assert provider.force_flush(30_000)
            provider.shutdown()

    def _expect(self, *, failed: bool) -> None:
        name = {service: f"{self.prefix}-{service}" for service in self.SERVICES}
        self.truth.edge("user", name["frontend"], "virtual_node")
        self.truth.edge(name["frontend"], name["checkout"])
        self.truth.edge(name["checkout"], "postgresql", "database")
        self.truth.edge(name["checkout"], name["payment"], failed=failed)
        self.truth.edge(name["payment"], f"{self.prefix}-bank", "virtual_node")
        self.truth.edge(name["checkout"], name["shipping"], "messaging_system")

    def _span(
        self,
        service: str,
        name: str,
        kind: SpanKind,
        start: int,
        ms: int,
        parent: trace.Span | None,
        attributes: dict[str, str] | None = None,
        *,
        failed: bool = False,
    ) -> trace.Span:
        context = None if parent is None else trace.set_span_in_context(parent)
        tracer = self._providers[service].get_tracer("shop")
        span = tracer.start_span(name, context, kind, attributes, start_time=start)
        if failed:
            span.set_status(Status(StatusCode.ERROR, "declined"))
        span.end(start + ms * MS)
        self.truth.span(f"{self.prefix}-{service}", name, kind, ms, error=failed)
        return span
