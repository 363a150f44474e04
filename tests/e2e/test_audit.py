"""`spanmill audit` on real Kafka and real Prometheus: exact while stages run and are killed; it names what is gone."""

import json
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from agents.generator import checkpoint_key
from schemas.checkpoint import decode_checkpoint, encode_checkpoint
from tests.e2e.assertions import until
from tests.e2e.cluster import Cluster
from tests.e2e.tenants import Load
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Prometheus

pytestmark = [pytest.mark.kafka, pytest.mark.prometheus]

POISON = 3


def audit(cluster: Cluster, *arguments: str, balances: bool = True) -> dict[str, Any]:
    """What `spanmill audit --json` says, whose exit code is to be that."""
    said = (cluster.run if balances else cluster.fails)("audit", "--json", "--log-level", "error", *arguments)
    report: dict[str, Any] = json.loads(said)
    assert report["balances"] == balances, said
    return report


def came(report: dict[str, Any], stage: str, tenant: str) -> int:
    """How much came to a stage; 0 if it isn't in the report yet."""
    found = [each["came"] for each in report["checks"] if each["stage"] == stage and each["tenant"] == tenant]
    return sum(found)


def newest(address: str, topic: str, partition: int) -> bytes:
    """The value of a partition's newest record."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "newest", "enable.auto.commit": False})
    try:
        _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        consumer.assign([TopicPartition(topic, partition, high - 1)])
        message = consumer.poll(10)
        assert message is not None
        value = message.value()
        assert value is not None
        return value
    finally:
        consumer.close()


def test_what_the_stages_counted_is_what_the_log_holds_while_they_run_and_are_killed(
    cluster: Cluster, kafka: KafkaBroker, prometheus: Prometheus
) -> None:
    spans = f"{cluster.app}-spans"
    cluster._config["metrics_generator"]["registry"]["inject_tenant_id_as"] = "tenant"
    load = Load(kafka.address, spans)
    producer = Producer({"bootstrap.servers": kafka.address})
    generator = cluster.start("generator", "generator-0")
    sink = cluster.start("sink", "sink-0")
    with load.running():
        for number in range(POISON):
            producer.produce(spans, b"\x0a\x7f", partition=number, headers=[("tenant", b"a")])
        assert producer.flush(10) == 0
        until(cluster, lambda: came(audit(cluster), "log to generator", "a") > 100, "windows that are saved")
        generator.kill()
        audit(cluster)
        generator.start()
        cluster.wait_ready(generator)
        sink.kill()
        audit(cluster)
        sink.start()
        cluster.wait_ready(sink)
    sent = {tenant: load.total(tenant) for tenant in "ab"}
    load.send(0)

    def everything() -> bool:
        report = audit(cluster, "--prometheus", prometheus.url)
        in_sinks = sum(came(report, f"calls in sink {shard}", tenant) for shard in range(4) for tenant in "ab")
        received = {tenant: came(report, "log to generator", tenant) for tenant in "ab"}
        return received == sent and in_sinks == sum(sent.values())

    until(cluster, everything, "all spans, in all stages")
    report = audit(cluster, "--prometheus", prometheus.url)
    assert came(report, "generator to dead letters", "") == POISON
    metrics = next(e for e in report["checks"] if e["stage"] == "generator, span-metrics: spans" and e["tenant"] == "a")
    assert metrics["fates"] == {"counted": sent["a"]}
    written = [each for each in report["checks"] if each["stage"].endswith("to Prometheus")]
    assert {each["tenant"] for each in written} == {"a", "b"}
    assert all(each["came"] == each["found"] > 0 for each in written)
    assert [stage.stop() for stage in (generator, sink)] == [0, 0]

    lose_spans(cluster, kafka.address, producer)


def lose_spans(cluster: Cluster, address: str, producer: Producer) -> None:
    """A checkpoint that says it has read less than it counted is found out, and named."""
    topic = f"{cluster.app}_generator-checkpoints-changelog"
    partition = 1
    saved = decode_checkpoint(newest(address, topic, partition))
    before = came(audit(cluster), "log to generator", "a") + came(audit(cluster), "log to generator", "b")
    short = encode_checkpoint(saved.restarted(saved.next_offset // 2))
    producer.produce(topic, short, checkpoint_key(partition), partition)
    assert producer.flush(10) == 0
    report = audit(cluster, balances=False)
    wrong = [each for each in report["checks"] if each["difference"]]
    assert {each["stage"] for each in wrong} <= {"log to generator", "generator to dead letters"}
    assert sum(each["difference"] for each in wrong if each["unit"] == "spans") < 0
    assert sum(each["found"] for each in wrong if each["unit"] == "spans") <= before
    lines = cluster.fails("audit", "--log-level", "error").splitlines()
    assert lines[0].startswith("WRONG log to generator")
    assert lines[-1].endswith("don't balance")
