"""The whole path on real Kafka and real Prometheus: two generators, two sinks, four partitions of each topic."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, Stage
from tests.e2e.traffic import Shop, Truth
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Prometheus
from tests.servers.telemetrygen import Telemetrygen

pytestmark = [pytest.mark.kafka, pytest.mark.prometheus]

ARRIVE_WITHIN_S = 90.0
CALL_LABELS = ("service", "span_name", "span_kind", "status_code")
EDGE_LABELS = ("client", "server", "connection_type")


@pytest.fixture
def cluster(kafka: KafkaBroker, prometheus: Prometheus, tmp_path: Path) -> Iterator[Cluster]:
    """Topics of its own on the session's Kafka, and the session's Prometheus as the endpoint."""
    app = kafka.unique("e2e").replace("-", "_")
    config = {
        "ingest": {"kafka": {"address": kafka.address}},
        "metrics_generator": {
            "registry": {"collection_interval": "5s", "external_labels": {"app": app}},
            "storage": {"remote_write": [{"url": f"{prometheus.url}/api/v1/write"}]},
        },
        "overrides": {"defaults": {"metrics_generator": {"processors": ["service-graphs", "span-metrics"]}}},
        "spanmill": {
            "app_id": app,
            "topics": {"spans": f"{app}-spans", "deltas": f"{app}-deltas", "dead_letters": f"{app}-dead"},
            "generator": {"data_dir": str(tmp_path / "data")},
            "sink": {"data_dir": str(tmp_path / "data"), "hold_back": "10m", "snapshot_every_windows": 2},
        },
    }
    cluster = Cluster(tmp_path, config)
    cluster.app = app  # type: ignore[attr-defined]
    cluster.run("topics", "create", "--partitions", "4")
    try:
        yield cluster
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.close()


def start_stages(cluster: Cluster) -> dict[str, Stage]:
    names = ("distributor", "generator-0", "generator-1", "sink-0", "sink-1")
    stages = {name: cluster.start(name.split("-")[0], name, wait=False) for name in names}
    for stage in stages.values():
        cluster.wait_ready(stage)
    return stages


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
    app: str = cluster.app  # type: ignore[attr-defined]
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


def test_spans_of_real_clients_are_counted_exactly(
    cluster: Cluster, prometheus: Prometheus, telemetrygen: Telemetrygen
) -> None:
    stages = start_stages(cluster)
    shops = [
        Shop("g", grpc=f"http://127.0.0.1:{cluster.grpc}"),
        Shop("h", http=f"127.0.0.1:{cluster.http}"),
    ]
    for _ in range(60):
        for shop in shops:
            shop.order()
    for shop in shops:
        shop.close()
    telemetrygen.traces(f"127.0.0.1:{cluster.grpc}", "--traces", "50", "--service", "tg", "--child-spans", "2")
    telemetrygen.traces(f"127.0.0.1:{cluster.http}", "--otlp-http", "--traces", "25", "--service", "tg")

    assert_truth(cluster, prometheus, [shop.truth for shop in shops], extra_calls=50 * 3 + 25 * 2)
    app: str = cluster.app  # type: ignore[attr-defined]
    by_name = prometheus.query(
        f'sum by (span_name, span_kind) (traces_spanmetrics_calls_total{{app="{app}",service="tg"}})'
    )
    assert {tuple(value for _, value in labels): count for labels, count in by_name.items()} == {
        ("SPAN_KIND_CLIENT", "lets-go"): 75,
        ("SPAN_KIND_SERVER", "okey-dokey-0"): 75,
        ("SPAN_KIND_SERVER", "okey-dokey-1"): 50,
    }
    with_exemplars = prometheus.exemplars(f'traces_spanmetrics_latency_bucket{{app="{app}"}}')
    assert any(exemplar["labels"].get("traceID") for series in with_exemplars for exemplar in series["exemplars"])
    assert [stage.stop() for stage in stages.values()] == [0] * len(stages)


def test_killing_a_generator_and_a_sink_changes_nothing(cluster: Cluster, prometheus: Prometheus) -> None:
    stages = start_stages(cluster)
    shop = Shop("k", grpc=f"http://127.0.0.1:{cluster.grpc}")
    kills = {8: "generator-0", 14: "sink-0"}
    restarts = {11: "generator-0", 17: "sink-0"}
    begin = time.monotonic()
    for second in range(22):
        for _ in range(10):
            shop.order()
        if second in kills:
            stages[kills[second]].kill()
        if second in restarts:
            stages[restarts[second]].start()
        time.sleep(max(0.0, begin + second + 1 - time.monotonic()))
    shop.close()

    assert_truth(cluster, prometheus, [shop.truth])
    for name in restarts.values():
        cluster.wait_ready(stages[name])
