"""The metrics that Spanmill generates: names, kinds and units, locked by a golden test.

They are Tempo's, name for name (Tempo SM §6.1, SG §7.1). The number of a metric is its identity on the wire and its
rank in the canonical order (tenant, label bytes, metric), in which the registry admits new series.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

WEIGHT_ONE = 1 << 32
"""A count of one: weights are fixed-point integers with 32 fractional bits."""

LATENCY_UNITS_PER_NS = 1 << 16
"""Sums of latencies are in 2^-16 ns, so that a weighted latency is an integer too."""

SUM_UNITS_PER_SECOND = LATENCY_UNITS_PER_NS * 1_000_000_000


class Kind(StrEnum):
    """How deltas of a metric merge, and what its series look like."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class MetricId(IntEnum):
    """Identity on the wire and rank. Never renumber: add at the end of a processor's block."""

    CALLS = 10
    LATENCY = 11
    SIZE = 12
    TARGET_INFO = 13
    REQUEST_TOTAL = 20
    REQUEST_FAILED_TOTAL = 21
    REQUEST_SERVER_SECONDS = 22
    REQUEST_CLIENT_SECONDS = 23
    REQUEST_MESSAGING_SYSTEM_SECONDS = 24
    CONNECTION_INFO = 25
    HOST_INFO = 30


@dataclass(frozen=True, slots=True)
class Metric:
    """A generated metric. A counter's delta counts in units of `1 / per_unit`; a histogram's sum is in 2^-16 ns."""

    id: MetricId
    name: str
    kind: Kind
    help: str
    per_unit: int = WEIGHT_ONE


METRICS: dict[MetricId, Metric] = {
    m.id: m
    for m in (
        Metric(MetricId.CALLS, "traces_spanmetrics_calls_total", Kind.COUNTER, "Spans."),
        Metric(MetricId.LATENCY, "traces_spanmetrics_latency", Kind.HISTOGRAM, "Durations of spans in seconds."),
        Metric(MetricId.SIZE, "traces_spanmetrics_size_total", Kind.COUNTER, "Bytes of spans.", per_unit=1),
        Metric(MetricId.TARGET_INFO, "traces_target_info", Kind.GAUGE, "Attributes of resources.", per_unit=1),
        Metric(
            MetricId.REQUEST_TOTAL,
            "traces_service_graph_request_total",
            Kind.COUNTER,
            "Requests from one service to another.",
        ),
        Metric(
            MetricId.REQUEST_FAILED_TOTAL,
            "traces_service_graph_request_failed_total",
            Kind.COUNTER,
            "Requests from one service to another that failed.",
        ),
        Metric(
            MetricId.REQUEST_SERVER_SECONDS,
            "traces_service_graph_request_server_seconds",
            Kind.HISTOGRAM,
            "Durations of requests between services in seconds, as the server saw them.",
        ),
        Metric(
            MetricId.REQUEST_CLIENT_SECONDS,
            "traces_service_graph_request_client_seconds",
            Kind.HISTOGRAM,
            "Durations of requests between services in seconds, as the client saw them.",
        ),
        Metric(
            MetricId.REQUEST_MESSAGING_SYSTEM_SECONDS,
            "traces_service_graph_request_messaging_system_seconds",
            Kind.HISTOGRAM,
            "Times from the end of producing a message to the start of consuming it, in seconds.",
        ),
        Metric(
            MetricId.CONNECTION_INFO,
            "traces_service_graph_connection_info",
            Kind.GAUGE,
            "Connections between services.",
            per_unit=1,
        ),
        Metric(MetricId.HOST_INFO, "traces_host_info", Kind.GAUGE, "Hosts that send spans.", per_unit=1),
    )
}
"""Every generated metric by its number; sizes are never weighted. `HOST_INFO`'s name is the default (Tempo HI-2)."""
