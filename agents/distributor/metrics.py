"""The distributor's own metrics, by Tempo's names (§15.6)."""

from enum import StrEnum
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from agents.distributor.exposed import BareCounter, BulkHistogram, OwnHistogram, RecentQuantiles, Tallies
from schemas.otlp.survey import BOUNDS_S


class ProduceFailure(StrEnum):
    """Why a record wasn't written."""

    TIMEOUT = "timeout"
    BUFFER_FULL = "buffer-full"
    RECORD_TOO_LARGE = "record-too-large"
    OTHER = "other"


class TenantMetrics(NamedTuple):
    """The series of one tenant that every request moves: looking them up each time would take longer."""

    ingress_bytes: Counter
    bytes_received: Counter
    spans_received: Counter
    in_future: Tallies
    in_past: Tallies


SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)


class DistributorMetrics:
    """What came in and what became of it. `tenant` is the label of Tempo's per-tenant counters."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tenants: dict[str, TenantMetrics] = {}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self.ingress_bytes = counter(
            "tempo_distributor_ingress_bytes_total", "Bytes of requests, before any check.", "tenant"
        )
        self.bytes_received = counter("tempo_distributor_bytes_received_total", "Bytes of spans received.", "tenant")
        self.spans_received = counter("tempo_distributor_spans_received_total", "Spans received.", "tenant")
        self.discarded_spans = counter(
            "tempo_discarded_spans_total", "Spans of requests that were refused.", "reason", "tenant"
        )
        self.debug_spans = counter(
            "tempo_distributor_debug_spans_received_total",
            "Spans received, where distributor.metric_received_spans asks for it.",
            "tenant",
            "name",
            "service",
        )
        self.queue_pushes = counter(
            "tempo_distributor_queue_pushes_total", "Requests for a forwarder, also those lost.", "name", "tenant"
        )
        self.queue_failures = counter(
            "tempo_distributor_queue_pushes_failures_total",
            "Requests for a forwarder that found its queue full.",
            "name",
            "tenant",
        )
        self.queue_length = Gauge(
            "tempo_distributor_queue_length",
            "Requests that wait for a forwarder.",
            ("name", "tenant"),
            registry=registry,
        )
        self.forward_failures = counter(
            "spanmill_distributor_forward_failures_total",
            "Requests that a forwarder couldn't send to an endpoint, by gRPC's code or our own reason.",
            "name",
            "tenant",
            "code",
        )
        self.attributes_truncated = counter(
            "tempo_distributor_attributes_truncated_total",
            "Keys and values of attributes that were too long and were cut.",
            "tenant",
            "scope",
        )
        self.produce_failures = counter(
            "tempo_distributor_produce_failures_total", "Records that weren't written.", "reason"
        )
        for reason in ProduceFailure:
            self.produce_failures.labels(reason)
        self.write_bytes = counter(
            "tempo_distributor_kafka_write_bytes_total", "Bytes of records acknowledged.", "partition"
        )
        self.records_written = counter("spanmill_distributor_records_total", "Records acknowledged.", "partition")
        self.records_per_request = OwnHistogram(
            "tempo_distributor_kafka_records_per_request",
            "Records that hold a request's spans.",
            (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
            registry,
        )
        self.write_latency = Histogram(
            "tempo_distributor_kafka_write_latency_seconds",
            "From a record's first span to its acknowledgement.",
            buckets=SECONDS,
            registry=registry,
        )
        self.push_duration = OwnHistogram(
            "tempo_distributor_push_duration_seconds",
            "From a request to its answer.",
            SECONDS,
            registry,
        )
        self.added_latency = Histogram(
            "tempo_distributor_added_latency_seconds",
            "What answers were held back (artificial_delay).",
            ("tenant",),
            buckets=SECONDS,
            registry=registry,
        )
        self.traces_per_batch = OwnHistogram(
            "tempo_distributor_traces_per_batch",
            "Traces of which a request has spans.",
            [2**i for i in range(1, 11)],
            registry,
        )
        self.spans_in_future = BulkHistogram(
            "tempo_spans_distance_in_future_seconds",
            "How long after their arrival spans end, of those that do, in whole seconds.",
            BOUNDS_S,
            registry,
        )
        self.spans_in_past = BulkHistogram(
            "tempo_spans_distance_in_past_seconds",
            "How long before their arrival spans ended, in whole seconds.",
            BOUNDS_S,
            registry,
        )
        self.accepted_spans = BareCounter(
            "tempo_receiver_accepted_spans", "Spans of requests that were taken.", ("receiver", "transport"), registry
        )
        self.refused_spans = BareCounter(
            "tempo_receiver_refused_spans",
            "Spans of requests that weren't. Those that nobody looked into have none.",
            ("receiver", "transport"),
            registry,
        )
        self.requests_in_flight = Gauge(
            "spanmill_distributor_requests_in_flight", "Requests that wait for their answers.", registry=registry
        )
        self.requests_in_flight_limit = Gauge(
            "spanmill_distributor_requests_in_flight_limit", "How many may; 0: any number.", registry=registry
        )
        self.requests_refused = counter(
            "spanmill_distributor_requests_refused_total",
            "Requests that weren't looked into, since too many waited: in the distributor, or of the tenant.",
            "limit",
        )
        self.connections = Gauge(
            "spanmill_distributor_connections",
            "Open connections of an HTTP receiver.",
            ("receiver", "transport"),
            registry=registry,
        )
        self.connections_refused = counter(
            "spanmill_distributor_connections_refused_total",
            "Connections that an HTTP receiver has hung up on, since there were too many.",
            "receiver",
            "transport",
        )
        self.connections_late = counter(
            "spanmill_distributor_connections_late_total",
            "Connections that an HTTP receiver has hung up on, since their clients were late: by the limit's name.",
            "receiver",
            "transport",
            "limit",
        )
        self.buffered_produce_bytes = RecentQuantiles(
            "tempo_distributor_buffered_produce_bytes",
            "Bytes that waited for an acknowledgement when records were written, in the last minute.",
            registry,
        )
        self.buffered_bytes = Gauge(
            "spanmill_distributor_buffered_bytes", "Bytes that wait for an acknowledgement.", registry=registry
        )
        self.buffered_bytes_limit = Gauge(
            "tempo_distributor_buffered_produce_bytes_limit", "How many may wait; 0: any number.", registry=registry
        )

    def of(self, tenant: str) -> TenantMetrics:
        """A tenant's series."""
        found = self._tenants.get(tenant)
        if found is None:
            found = self._tenants[tenant] = TenantMetrics(
                self.ingress_bytes.labels(tenant),
                self.bytes_received.labels(tenant),
                self.spans_received.labels(tenant),
                self.spans_in_future.of(tenant),
                self.spans_in_past.of(tenant),
            )
        return found
