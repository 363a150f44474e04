"""What Prometheus must answer about what was sent."""

import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.e2e.cluster import PATIENCE, Cluster
from tests.e2e.traffic import Truth
from tests.servers.prometheus import Prometheus

ARRIVE_WITHIN_S = 120.0 * PATIENCE
CALL_LABELS = ("service", "span_name", "span_kind", "status_code")
EDGE_LABELS = ("client", "server", "connection_type")


def vector(prometheus: Prometheus, app: str, metric: str, labels: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    """Values of a metric by label values; fails if two series share them, since one owner writes each series."""
    found: dict[tuple[str, ...], float] = {}
    for series, value in prometheus.query(f'{metric}{{app="{app}"}}').items():
        named = dict(series)
        key = tuple(named.pop(label, "") for label in labels)
        assert set(named) == {"__name__", "app"}, f"labels that Tempo doesn't have: {named}"
        assert key not in found, f"two series for {key}"
        found[key] = value
    return found


def until(cluster: Cluster, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + ARRIVE_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} not within {ARRIVE_WITHIN_S:.0f} s\n{cluster.logs()}"
        time.sleep(0.5)


def assert_truth(cluster: Cluster, prometheus: Prometheus, truths: list[Truth], extra_calls: int = 0) -> None:
    """Everything that was sent is counted, exactly, as soon as as much has arrived."""
    app = cluster.app
    calls: Counter[tuple[str, ...]] = sum((truth.calls for truth in truths), Counter())
    edges: Counter[tuple[str, ...]] = sum((truth.edges for truth in truths), Counter())
    failed: Counter[tuple[str, ...]] = sum((truth.failed for truth in truths), Counter())
    request_total = "traces_service_graph_request_total"

    def arrived() -> bool:
        spans = vector(prometheus, app, "traces_spanmetrics_calls_total", CALL_LABELS)
        requests = vector(prometheus, app, request_total, EDGE_LABELS)
        return sum(spans.values()) >= calls.total() + extra_calls and all(
            requests.get(edge, 0) >= count for edge, count in edges.items()
        )

    until(cluster, arrived, "all spans in Prometheus")
    time.sleep(6)  # a window more: what is counted twice would show
    found = vector(prometheus, app, "traces_spanmetrics_calls_total", CALL_LABELS)
    assert {key: value for key, value in found.items() if key in calls} == calls
    assert sum(found.values()) == calls.total() + extra_calls
    requests = vector(prometheus, app, request_total, EDGE_LABELS)
    assert {key: value for key, value in requests.items() if key in edges} == edges
    failures = vector(prometheus, app, "traces_service_graph_request_failed_total", EDGE_LABELS)
    assert failures == failed
    buckets = vector(prometheus, app, "traces_spanmetrics_latency_bucket", (*CALL_LABELS, "le"))
    for truth in truths:
        for labels in truth.calls:
            for le in ("0.002", "0.004", "0.016", "0.032", "0.064", "0.128", "16.384", "+Inf"):
                assert buckets[*labels, le] == truth.bucket(labels, float(le) * 1000), (labels, le)
    sums = vector(prometheus, app, "traces_spanmetrics_latency_sum", CALL_LABELS)
    for truth in truths:
        for labels, latencies in truth.latencies_ms.items():
            assert sums[labels] == pytest.approx(sum(latencies) / 1000, rel=1e-12)
