"""What the terminal shows, from generated series: the service graph's edges and the busiest operations.

A series comes as its increase over a time, so nothing here knows windows or clocks. Rates and quantiles are computed as
PromQL's `rate` and `histogram_quantile` would from the same samples.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan

from schemas.openmetrics import Labels

REQUESTS = "traces_service_graph_request_total"
FAILED = "traces_service_graph_request_failed_total"
SERVER_BUCKET = "traces_service_graph_request_server_seconds_bucket"
CLIENT_BUCKET = "traces_service_graph_request_client_seconds_bucket"
CALLS = "traces_spanmetrics_calls_total"
LATENCY_BUCKET = "traces_spanmetrics_latency_bucket"
ERROR = "STATUS_CODE_ERROR"
VIRTUAL = "virtual_node"
QUANTILE = 0.95

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Increase:
    """How much a counter-like series grew, and in how many seconds."""

    labels: Labels
    value: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Line:
    """What is shown of an edge or an operation; `p95_s` is NaN if nothing was observed."""

    key: Key
    """Edge: client, server, connection type. Operation: service, span name, span kind."""
    rate: float
    error_ratio: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class Overview:
    """Edges by name, operations by rate, descending."""

    edges: tuple[Line, ...]
    operations: tuple[Line, ...]


@dataclass(slots=True)
class _Sums:
    rate: float = 0.0
    errors: float = 0.0
    buckets: dict[float, float] = field(default_factory=dict)
    client_buckets: dict[float, float] = field(default_factory=dict)

    def line(self, key: Key) -> Line:
        ratio = min(self.errors / self.rate, 1.0) if self.rate else 0.0
        p95_s = quantile(QUANTILE, sorted(self.buckets.items()))
        if key[-1] == VIRTUAL:  # the side without instruments took 0 s (Tempo SG-30): the other one tells
            p95_s = max(p95_s, quantile(QUANTILE, sorted(self.client_buckets.items())))
        return Line(key, self.rate, ratio, p95_s)


def overview(increases: Iterable[Increase]) -> Overview:
    """The edges and operations of which anything was seen in the increases' time."""
    edges: dict[Key, _Sums] = {}
    operations: dict[Key, _Sums] = {}
    for increase in increases:
        if increase.seconds <= 0:
            continue
        labels = dict(increase.labels)
        add = ADDERS.get(labels["__name__"])
        if add is None:
            continue
        lines = edges if "client" in labels else operations
        add(lines.setdefault(_key(labels), _Sums()), labels, increase.value / increase.seconds)
    busiest = sorted(_lines(operations), key=lambda line: (-line.rate, line.key))
    return Overview(tuple(_lines(edges)), tuple(busiest))


def _lines(sums: Mapping[Key, _Sums]) -> list[Line]:
    return [sums[key].line(key) for key in sorted(sums) if sums[key].rate > 0]


def _key(labels: dict[str, str]) -> Key:
    if "client" in labels:
        return labels["client"], labels.get("server", ""), labels.get("connection_type", "")
    return labels.get("service", ""), labels.get("span_name", ""), labels.get("span_kind", "")


def _add_requests(sums: _Sums, _: dict[str, str], rate: float) -> None:
    sums.rate += rate


def _add_failed(sums: _Sums, _: dict[str, str], rate: float) -> None:
    sums.errors += rate


def _add_calls(sums: _Sums, labels: dict[str, str], rate: float) -> None:
    sums.rate += rate
    if labels.get("status_code") == ERROR:
        sums.errors += rate


def _add_bucket(sums: _Sums, labels: dict[str, str], rate: float) -> None:
    bound = float(labels["le"])
    sums.buckets[bound] = sums.buckets.get(bound, 0.0) + rate


def _add_client_bucket(sums: _Sums, labels: dict[str, str], rate: float) -> None:
    bound = float(labels["le"])
    sums.client_buckets[bound] = sums.client_buckets.get(bound, 0.0) + rate


ADDERS: dict[str, Callable[[_Sums, dict[str, str], float], None]] = {
    REQUESTS: _add_requests,
    FAILED: _add_failed,
    SERVER_BUCKET: _add_bucket,
    CLIENT_BUCKET: _add_client_bucket,
    CALLS: _add_calls,
    LATENCY_BUCKET: _add_bucket,
}


def quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float:
    """PromQL's `histogram_quantile` of cumulative (upper bound, count), ascending and ending in +Inf; NaN if empty."""
    if not buckets or not buckets[-1][1]:
        return nan
    wanted = q * buckets[-1][1]
    below_bound, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if bound == inf:
                return below_bound
            return below_bound + (bound - below_bound) * (wanted - below) / (count - below)
        below_bound, below = bound, count
    return below_bound
