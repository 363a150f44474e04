"""Tenants' overrides change while a cluster on real Kafka works: exact before and after, and nothing is reset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.assertions import until, vector
from tests.e2e.cluster import Cluster
from tests.e2e.tenants import LABELS, Load, calls, falls, own_metric
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Prometheus

pytestmark = [pytest.mark.kafka, pytest.mark.prometheus]

BUCKETS = "traces_spanmetrics_latency_bucket"
NEW = {"dimensions": ["region"], "histogram_buckets": [0.5, 2.0]}


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
