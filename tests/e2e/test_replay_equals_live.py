"""Replay equals live, on real Kafka and real Prometheus: sample by sample, whatever happened to the stages."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from schemas.bookmark import decode_bookmark
from tests.background import in_background
from tests.e2e.assertions import until
from tests.e2e.cluster import Cluster
from tests.e2e.test_config_change import own_metric
from tests.faults.verdict import Points, replayed, stored
from tests.otlp_samples import attributes
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Labels, Prometheus, promtool

pytestmark = [pytest.mark.kafka, pytest.mark.prometheus]

MARKER = "spanmill_sink_window"
Samples = dict[Labels, Points]


class Load:
    """Halves of edges of two tenants, twenty a second, a client's half a second before its server's."""

    def __init__(self, address: str, topic: str) -> None:
        self._producer = Producer({"bootstrap.servers": address, "partitioner": "murmur2", "acks": "all"})
        self._topic, self._random, self._waiting = topic, random.Random(11), list[tuple[bytes, bytes, str]]()

    def send(self) -> None:
        for tenant in "ab":
            trace, client = self._random.randbytes(16), self._random.randbytes(8)
            self._span(tenant, trace, client, b"", "web", Span.SPAN_KIND_CLIENT)
            self._waiting.append((trace, client, tenant))
        while len(self._waiting) > 10:
            trace, client, tenant = self._waiting.pop(0)
            self._span(tenant, trace, self._random.randbytes(8), client, "shop", Span.SPAN_KIND_SERVER)
        self._producer.poll(0)

    def _span(self, tenant: str, trace: bytes, own: bytes, parent: bytes, service: str, kind: Any) -> None:
        end = time.time_ns()
        span = Span(trace_id=trace, span_id=own, parent_span_id=parent, name=f"op-{trace[0] % 3}", kind=kind)
        span.start_time_unix_nano, span.end_time_unix_nano = end - trace[1] * 1_000_000, end
        of_service = ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])
        of_service.resource.attributes.extend(attributes(service__name=f"{service}-{trace[2] % 4}", region="r1"))
        value = TracesData(resource_spans=[of_service]).SerializeToString()
        self._producer.produce(self._topic, value, trace.hex(), headers=[("tenant", tenant.encode())])

    @contextmanager
    def running(self) -> Iterator[None]:
        with in_background(self._send_on, "load"):
            yield
        assert self._producer.flush(30) == 0

    def _send_on(self, stop: threading.Event) -> None:
        while not stop.wait(0.1):
            self.send()


@dataclass
class Run:
    """What a cluster has left behind, with all stages stopped."""

    cluster: Cluster
    prometheus: Prometheus
    directory: Path
    bookmark: Path
    samples: Samples
    """Of Prometheus, markers among them."""

    @property
    def end_ms(self) -> int:
        """The newest window that every shard has written whole."""
        newest = [points[-1][0] for labels, points in self.samples.items() if dict(labels)["__name__"] == MARKER]
        return min(newest) - 5_000

    def of(self, tenant: str, since_ms: int = 0) -> Samples:
        """What Prometheus holds of a tenant, to the last whole window."""
        own = {labels: points for labels, points in self.samples.items() if dict(labels).get("tenant") == tenant}
        return between(own, since_ms, self.end_ms)

    def replay(self, *options: str, tenant: str = "a") -> Samples:
        """What `spanmill replay` says of a tenant."""
        out = self.directory / "replay.om"
        self.said = self.cluster.run("replay", "--tenant", tenant, "--output", str(out), *options)
        return between(replayed(out), 0, self.end_ms)


def between(samples: Samples, since_ms: int, end_ms: int) -> Samples:
    found = {labels: [p for p in points if since_ms < p[0] <= end_ms] for labels, points in samples.items()}
    return {labels: points for labels, points in found.items() if points}


def overrides(file: Path, processor: dict[str, Any]) -> None:
    block = {"processors": ["span-metrics", "service-graphs"], "processor": {"span_metrics": processor}}
    file.write_text(yaml.safe_dump({"overrides": {"a": {"metrics_generator": block}}}))


def configure(cluster: Cluster, file: Path) -> None:
    overrides(file, {})
    settings: dict[str, Any] = dict(cluster._config)
    settings["metrics_generator"]["registry"]["inject_tenant_id_as"] = "tenant"
    settings["overrides"] |= {"per_tenant_override_config": str(file), "per_tenant_override_period": "1s"}
    settings["spanmill"]["sink"] |= {"hold_back": "4s"}


def test_every_sample_of_a_run_with_faults_is_computed_again(
    cluster: Cluster,
    kafka: KafkaBroker,
    prometheus: Prometheus,
    new_prometheus: Callable[..., Prometheus],
    tmp_path: Path,
) -> None:
    """A generator freezes and is waived, rules change, a generator and a sink are killed."""
    run = eventful(cluster, kafka, prometheus, tmp_path)

    for tenant in "ab":
        live = run.of(tenant)
        assert run.replay(tenant=tenant) == live
        assert run.said == ""
        assert sum(map(len, live.values())) > 2_000
    late = {value for labels, points in run.samples.items() if "late_batches" in str(labels) for _, value in points}
    assert max(late) > 0, "nothing was late: the run shows less than it should"
    regions = [labels for labels in run.of("a") if ("region", "r1") in labels]
    assert regions, "the rules didn't change"

    ideal = run.replay("--ignore-waivers")
    assert ideal != run.of("a")
    assert "waivers are ignored" in run.said

    from_a_bookmark(run)
    blocks_of_a_replay(run, new_prometheus, tmp_path)
    written_to_an_endpoint(run, new_prometheus)
    from_elsewhere(run)


def eventful(cluster: Cluster, kafka: KafkaBroker, prometheus: Prometheus, tmp_path: Path) -> Run:
    """Run a cluster under load, and let things happen to it."""
    file, bookmark = tmp_path / "tenants.yaml", tmp_path / "bookmark"
    configure(cluster, file)
    begun = time.time()
    names = ("generator-0", "generator-1", "sink-0", "sink-1")
    stages = {name: cluster.start(name.split("-")[0], name, wait=False) for name in names}
    for stage in stages.values():
        cluster.wait_ready(stage)
    sinks, load = (stages["sink-0"], stages["sink-1"]), Load(kafka.address, f"{cluster.app}-spans")

    def more_windows(count: int) -> None:
        wanted = newest_windows(cluster, prometheus) + 5_000 * count
        until(cluster, lambda: newest_windows(cluster, prometheus) >= wanted, f"{count} more windows")

    with load.running():
        until(cluster, lambda: newest_windows(cluster, prometheus) > 0, "the first window of every shard")
        stages["generator-1"].send(signal.SIGSTOP)
        until(
            cluster,
            lambda: sum(value for sink in sinks for value in own_metric(sink, "spanmill_sink_waivers_total{")) > 0,
            "a waiver",
        )
        stages["generator-1"].send(signal.SIGCONT)
        more_windows(2)
        cluster.run("bookmark", "--output", str(bookmark))
        overrides(file, {"dimensions": ["region"]})
        more_windows(4)
        stages["generator-0"].kill()
        stages["sink-0"].kill()
        for name in ("generator-0", "generator-1", "sink-0"):
            if not stages[name].alive:
                stages[name].start()
            cluster.wait_ready(stages[name])
        more_windows(3)
    more_windows(4)
    for stage in stages.values():
        stage.stop()
    assert all(sink.process is not None and sink.process.returncode == 0 for sink in sinks)
    return Run(
        cluster, prometheus, tmp_path, bookmark, stored(prometheus, cluster.app, round(time.time() - begun) + 60)
    )


def newest_windows(cluster: Cluster, prometheus: Prometheus) -> int:
    """The newest window that every shard has written; 0 if one has none."""
    found = prometheus.query(f'max by (shard) ({MARKER}{{app="{cluster.app}"}})')
    return int(min(found.values())) if len(found) == 4 else 0


def from_a_bookmark(run: Run) -> None:
    """After each shard's snapshot: the same again, and of all that is computed nothing is otherwise."""
    with run.bookmark.open("rb") as file:
        cuts = decode_bookmark(file).cuts()
    since_ms = max(cut.end_ms for cut in cuts.values())
    assert len(cuts) == 4
    for tenant in "ab":
        samples, live = run.replay("--bookmark", str(run.bookmark), tenant=tenant), run.of(tenant)
        assert run.said == ""
        assert between(samples, since_ms, run.end_ms) == run.of(tenant, since_ms)
        assert all(point in live[labels] for labels, points in samples.items() for point in points)


def blocks_of_a_replay(run: Run, new_prometheus: Callable[..., Prometheus], tmp_path: Path) -> None:
    """Into the data of a Prometheus by promtool: its queries answer as live's do."""
    run.replay()
    directory = tmp_path / "of-blocks"
    directory.mkdir()
    made = promtool("tsdb", "create-blocks-from", "openmetrics", run.directory / "replay.om", directory / "data")
    assert made.returncode == 0, made.stderr
    other = new_prometheus(directory=directory)
    own = f'app="{run.cluster.app}",tenant="a"'
    begin = min(points[0][0] for points in run.of("a").values()) / 1000
    for query in (
        f"sum by (service, span_kind) (rate(traces_spanmetrics_calls_total{{{own}}}[20s]))",
        f"sum by (client, server) (increase(traces_service_graph_request_total{{{own}}}[15s]))",
        f"histogram_quantile(0.9, sum by (le) (rate(traces_spanmetrics_latency_bucket{{{own}}}[30s])))",
        f"traces_service_graph_request_server_seconds_sum{{{own}}}",
    ):
        live = run.prometheus.range(query, begin, run.end_ms / 1000, 5)
        assert live
        assert other.range(query, begin, run.end_ms / 1000, 5) == live, query


def written_to_an_endpoint(run: Run, new_prometheus: Callable[..., Prometheus]) -> None:
    """To a new Prometheus: it holds what live's does, markers too, so that live could go on writing there."""
    other = new_prometheus()
    said = run.cluster.run("replay", "--remote-write", other.write_url)
    assert "samples written" in said
    assert "refused" not in said
    again = stored(other, run.cluster.app, 3600)
    assert between(again, 0, run.end_ms) == between(run.samples, 0, run.end_ms)


def from_elsewhere(run: Run) -> None:
    """To live's own Prometheus: beside live's series, never over them."""
    start = str(between(run.of("a"), 0, run.end_ms - 15_000).popitem()[1][-1][0] // 1000)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(start)))
    refused = run.cluster.fails("replay", "--from", at, "--id", "", "--remote-write", run.prometheus.write_url)
    assert "Give the replay a name" in refused
    said = run.cluster.run("replay", "--from", at, "--id", "again", "--remote-write", run.prometheus.write_url)
    assert "totals begin at 0 there" in said
    found = run.prometheus.series(f'{{app="{run.cluster.app}",replay="again"}}')
    assert any(each["__name__"] == "traces_spanmetrics_calls_total" for each in found)
    assert any(each["__name__"] == MARKER for each in found)
    unlabelled = stored(run.prometheus, run.cluster.app, 3600)
    assert {labels: each for labels, each in unlabelled.items() if ("replay", "again") not in labels} == run.samples
