"""Tenants' overrides change while a cluster on real Kafka works: exact before and after, and nothing is reset."""

import itertools
import random
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from tests.e2e.assertions import until, vector
from tests.e2e.cluster import Cluster, Stage
from tests.otlp_samples import any_value, attributes
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Prometheus

pytestmark = [pytest.mark.kafka, pytest.mark.prometheus]

CALLS, BUCKETS = "traces_spanmetrics_calls_total", "traces_spanmetrics_latency_bucket"
LABELS = ("tenant", "service", "span_name", "span_kind", "status_code", "region")
NEW = {"dimensions": ["region"], "histogram_buckets": [0.5, 2.0]}


class Load:
    """Spans of two tenants, ten of each a second, from the beginning to the end."""

    def __init__(self, address: str, topic: str) -> None:
        self.sent: Counter[tuple[str, str]] = Counter()
        """By tenant and region."""
        self._producer = Producer({"bootstrap.servers": address, "partitioner": "murmur2", "acks": "all"})
        self._topic, self._random, self._numbers = topic, random.Random(5), itertools.count()

    def send(self, count: int) -> None:
        for _, tenant in itertools.product(range(count), "ab"):
            number = next(self._numbers)
            end = time.time_ns()
            span = Span(name="call", kind=Span.SPAN_KIND_SERVER, span_id=self._random.randbytes(8))
            span.trace_id, region = self._random.randbytes(16), f"r{number % 3}"
            span.start_time_unix_nano, span.end_time_unix_nano = end - 30_000_000, end
            span.attributes.append(KeyValue(key="region", value=any_value(region)))
            of_service = ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])
            of_service.resource.attributes.extend(attributes(service__name="shop"))
            value = TracesData(resource_spans=[of_service]).SerializeToString()
            self._producer.produce(self._topic, value, span.trace_id.hex(), headers=[("tenant", tenant.encode())])
            self.sent[tenant, region] += 1
        assert self._producer.flush(30) == 0

    def total(self, tenant: str) -> int:
        return sum(count for (name, _), count in self.sent.items() if name == tenant)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send all the time."""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(0.1):
                self.send(1)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def own_metric(stage: Stage, name: str) -> list[float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{stage.port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)]


def calls(cluster: Cluster, prometheus: Prometheus, tenant: str) -> dict[str, float]:
    """Of a tenant's one label set, the counts by region; "" without that dimension."""
    found = vector(prometheus, cluster.app, CALLS, LABELS)
    return {labels[-1]: value for labels, value in found.items() if labels[0] == tenant}


def falls(cluster: Cluster, prometheus: Prometheus) -> list[object]:
    """Series whose raw samples, zeros included, ever fall: `_sum` and all other counters."""
    written = prometheus.samples(f'{{__name__=~"traces_spanmetrics.*",app="{cluster.app}"}}', 3600)
    assert written
    return [
        (labels, samples)
        for labels, samples in written.items()
        if any(later < earlier for (_, earlier), (_, later) in pairwise(samples))
    ]


def test_overrides_that_change_under_load_are_in_force_from_one_window_on(
    cluster: Cluster, kafka: KafkaBroker, prometheus: Prometheus, tmp_path: Path
) -> None:
    """INST-3, INST-7, OVR-2: a dimension and other buckets for one tenant; the other's counters never reset."""
    file = tmp_path / "tenants.yaml"

    def write(processor: dict[str, Any]) -> None:
        block = {"processors": ["span-metrics"], "processor": {"span_metrics": processor}}
        file.write_text(yaml.safe_dump({"overrides": {"a": {"metrics_generator": block}}}))

    write({})
    settings: dict[str, Any] = dict(cluster._config)
    settings["metrics_generator"]["registry"]["inject_tenant_id_as"] = "tenant"
    settings["overrides"] |= {"per_tenant_override_config": str(file), "per_tenant_override_period": "1s"}
    names = ("generator-0", "generator-1", "sink-0")
    stages = {name: cluster.start(name.split("-")[0], name, wait=False) for name in names}
    for stage in stages.values():
        cluster.wait_ready(stage)
    load = Load(kafka.address, f"{cluster.app}-spans")

    def revisions() -> set[float]:
        return {value for stage in stages.values() for value in own_metric(stage, "spanmill_rules_revision{")}

    def settled(what: Callable[[], bool], why: str) -> None:
        until(cluster, what, why)

    with load.running():
        settled(lambda: revisions() == {1.0}, "the first rules in force")
        settled(lambda: calls(cluster, prometheus, "a").get("", 0) > 50, "spans of the tenant")
        file.write_text("overrides: {a: {metrics_generator: {processor: {span_metrics: {dimension: [x]}}}}}")
        reloaded = "tempo_runtime_config_last_reload_successful"
        settled(lambda: all(own_metric(each, reloaded) == [0.0] for each in stages.values()), "the broken file noticed")
        write(NEW)
        settled(lambda: revisions() == {2.0}, "the new rules in force")
        settled(lambda: len(calls(cluster, prometheus, "a")) == 4, "series with the new dimension")
    between = dict(load.sent)
    settled(lambda: sum(calls(cluster, prometheus, "a").values()) == load.total("a"), "all spans")
    old = calls(cluster, prometheus, "a")
    load.send(40)
    settled(lambda: sum(calls(cluster, prometheus, "a").values()) == load.total("a"), "the last spans")
    settled(lambda: sum(calls(cluster, prometheus, "b").values()) == load.total("b"), "the other tenant's")

    now = calls(cluster, prometheus, "a")
    assert {region: now[region] - old[region] for region in now} == {
        "": 0, **{region: load.sent["a", region] - between["a", region] for region in ("r0", "r1", "r2")},
    }  # fmt: skip
    assert calls(cluster, prometheus, "b") == {"": load.total("b")}
    found = vector(prometheus, cluster.app, BUCKETS, (*LABELS, "le"))
    bounds = {(labels[0], labels[-2] != ""): set[str]() for labels in found}
    for labels in found:
        bounds[labels[0], labels[-2] != ""].add(labels[-1])
    assert bounds["a", True] == {"0.5", "2", "+Inf"}
    assert bounds["a", False] == bounds["b", False]
    assert len(bounds["b", False]) == 15
    assert {labels[-2]: value for labels, value in found.items() if labels[0] == "a" and labels[-1] == "+Inf"} == now
    assert falls(cluster, prometheus) == []
    assert revisions() == {2.0}
    assert sum(value for each in stages.values() for value in own_metric(each, "spanmill_rules_unreadable_total{")) == 0
    assert [stage.stop() for stage in stages.values()] == [0] * len(stages)
