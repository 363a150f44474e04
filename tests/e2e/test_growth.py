"""The spans topic grows while a cluster on real Kafka works under load: nothing is lost, and nobody waits.

A generator that gets a new partition before the others know of it may pass over what was delivered meanwhile, and end
to read it again from its own state; as everywhere, somebody starts it again.
"""

from typing import Any

import pytest

from tests.e2e.assertions import until
from tests.e2e.cluster import Cluster
from tests.e2e.tenants import Load, calls, falls, own_metric
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Prometheus

pytestmark = [pytest.mark.kafka, pytest.mark.prometheus]


def test_new_partitions_join_while_others_write_to_them_already(
    cluster: Cluster, kafka: KafkaBroker, prometheus: Prometheus
) -> None:
    settings: dict[str, Any] = dict(cluster._config)
    settings["metrics_generator"]["registry"]["inject_tenant_id_as"] = "tenant"
    names = ("generator-0", "generator-1", "sink-0")
    stages = {name: cluster.start(name.split("-")[0], name, wait=False) for name in names}
    generators = [stages["generator-0"], stages["generator-1"]]
    for stage in stages.values():
        cluster.wait_ready(stage)
    load = Load(kafka.address, f"{cluster.app}-spans")

    started_again = []

    def supervise() -> None:
        for name, stage in stages.items():
            if not stage.alive:
                started_again.append(name)
                stage.start()
                cluster.wait_ready(stage)

    def arrived(tenant: str) -> float:
        supervise()
        return sum(calls(cluster, prometheus, tenant).values())

    def read(partition: int) -> float:
        supervise()
        try:
            return sum(
                sum(own_metric(each, f'spanmill_generator_records_total{{partition="{partition}"'))
                for each in generators
            )
        except OSError:  # about to end
            return 0.0

    with load.running():
        until(cluster, lambda: arrived("a") > 20, "spans of the first partitions")
        said = cluster.run("topics", "grow", "--partitions", "6")
        assert f"{cluster.app}-spans: grown from 4 to 6 partitions" in said
        assert "restart the distributors" in said
        until(cluster, lambda: read(4) > 20 and read(5) > 20, "records of the new partitions")
    for tenant in "ab":
        until(cluster, lambda: arrived(tenant) == load.total(tenant), "all spans")  # noqa: B023 -- awaited at once
    assert "topics are as they should be\n" in cluster.run("topics", "check")
    assert "has 6 partitions" in cluster.run("topics", "grow", "--partitions", "6"), "done again it changes nothing"
    assert "Kafka takes none away" in cluster.fails("topics", "grow", "--partitions", "5")
    assert len(started_again) <= len(set(started_again)) <= len(generators), "each once at most"
    assert falls(cluster, prometheus) == []
    assert sum(own_metric(stages["sink-0"], "spanmill_sink_waivers_total")) == 0
    assert sum(own_metric(stages["sink-0"], "spanmill_sink_chain_gaps_total")) == 0
    assert [stage.stop() for stage in stages.values()] == [0] * len(stages)
