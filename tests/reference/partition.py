"""One partition: records in order, and the sums of the windows that they close (Tempo §4; windows are ours)."""

from collections.abc import Callable, Iterator, Sequence

from schemas.config import TenantSettings
from schemas.record import Record
from tests.otlp_oracle import parse
from tests.reference import span_metrics
from tests.reference.multiplier import weight_of
from tests.reference.primitives import Seen, attributes_of, lookup
from tests.reference.service_graphs import Graphs
from tests.reference.sums import Sums


class Partition:
    """The open window, and the half-edges that wait."""

    def __init__(self, settings_of: Callable[[str], TenantSettings], interval_ms: int) -> None:
        self.settings_of, self.interval_ms = settings_of, interval_ms
        self.tenants: dict[str, TenantSettings] = {}
        self.graphs = Graphs()
        self.sums = Sums()
        self.now_ms = -1
        self.open_end_ms: int | None = None

    def windows(self, log: Sequence[Record]) -> Iterator[tuple[int, Sums]]:
        """The windows of a log that ends, by their ends."""
        for record in log:
            self.now_ms = max(self.now_ms, record.timestamp_ms)
            end_ms = (self.now_ms // self.interval_ms + 1) * self.interval_ms
            if self.open_end_ms is None:
                self.open_end_ms = end_ms
            if end_ms > self.open_end_ms:
                yield self.close(self.open_end_ms)
                if self.graphs.waiting and end_ms - self.interval_ms > self.open_end_ms:
                    yield self.close(end_ms - self.interval_ms)
                self.open_end_ms = end_ms
            if record.control is None:
                self.take(record)
        if self.open_end_ms is not None:
            yield self.close(self.open_end_ms)
            while self.graphs.waiting:
                self.open_end_ms += self.interval_ms
                yield self.close(self.open_end_ms)

    def close(self, end_ms: int) -> tuple[int, Sums]:
        """What a window added up."""
        self.graphs.expire(self.sums, self.tenants, end_ms)
        sums, self.sums = self.sums, Sums()
        return end_ms, sums

    def take(self, record: Record) -> None:
        """INT-2, INT-3, INT-7."""
        message = parse(record.value)
        assert message is not None
        tenant, sums = record.tenant, self.sums
        settings = self.tenants.setdefault(tenant, self.settings_of(tenant))
        processors = (settings.span_metrics, settings.service_graphs, settings.host_info)
        if record.no_metrics:
            skips = sum(processor is not None for processor in processors)
            sums.count("metrics_generation_skipped_processor_pushes_total", tenant, skips)
        index = 0
        for resource_spans in message.resource_spans:
            sums.count("bytes_received_total", tenant, resource_spans.ByteSize())
            resource = attributes_of(resource_spans.resource)
            spans = []
            for span in (span for scope in resource_spans.scope_spans for span in scope.spans):
                sums.count("spans_received_total", tenant)
                seen = Seen(span, resource, attributes_of(span), (self.now_ms, record.offset, index))
                index += 1
                if self.is_within(record, settings, span.end_time_unix_nano):
                    self.count_clamped(sums, tenant, settings, seen)
                    self.count_passed_over(sums, record, settings, seen)
                    spans.append(seen)
                else:
                    reason = "outside_metrics_ingestion_slack"
                    sums.count("spans_discarded_total", tenant, processor="all", reason=reason)
            if not record.no_metrics:
                span_metrics.measure_resource(sums, tenant, settings, spans, resource)
                span_metrics.measure_host(sums, tenant, settings, resource)
                for seen in spans:
                    self.count_weights(sums, tenant, settings, seen)
                    self.graphs.take(sums, tenant, settings, self.now_ms, seen)

    def is_within(self, record: Record, settings: TenantSettings, end_ns: int) -> bool:
        """INT-3, by the record's time; INT-4."""
        return end_ns > 0 and abs(end_ns - record.timestamp_ms * 1_000_000) <= settings.slack_ns

    def count_clamped(self, sums: Sums, tenant: str, settings: TenantSettings, seen: Seen) -> None:
        """Ours: a latency that is too long for exact sums."""
        if seen.span.end_time_unix_nano - seen.span.start_time_unix_nano > 1 << 53:
            sums.count("spanmill_latencies_clamped_total", tenant)

    def count_weights(self, sums: Sums, tenant: str, settings: TenantSettings, seen: Seen) -> None:
        """Ours: a multiplier that is too great or too small for exact sums."""
        processors = (settings.span_metrics, settings.service_graphs)
        if any(own is not None and weight_of(seen, own.multiplier).clamped for own in processors):
            sums.count("spanmill_weights_clamped_total", tenant)

    def count_passed_over(self, sums: Sums, record: Record, settings: TenantSettings, seen: Seen) -> None:
        """Ours: a span that a processor has nothing to do with."""

        def count(processor: str, reason: str) -> None:
            sums.count("spanmill_spans_passed_over_total", record.tenant, processor=processor, reason=reason)

        if record.no_metrics:
            count("all", "no_metrics")
            return
        if settings.span_metrics is None:
            count("span-metrics", "disabled")
        if settings.service_graphs is None:
            count("service-graphs", "disabled")
        elif seen.span.kind not in {2, 3, 4, 5}:
            count("service-graphs", "kind")
        elif lookup("service.name", seen.resource) is None:
            count("service-graphs", "no_service")
