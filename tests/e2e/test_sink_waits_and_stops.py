"""A sink on real Kafka whose source partitions are silent, whose chain has a gap, and whose log holds garbage."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas.control import CONTROL_HEADER, AcceptGap, ConfigChange, SkipRecord, Waiver, decode_control
from schemas.deltas import encode_window
from tests.e2e.assertions import until
from tests.e2e.cluster import Cluster, Stage, configuration
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Prometheus
from tests.streams.delta_rows import INTERVAL, calls, window

pytestmark = [pytest.mark.kafka, pytest.mark.prometheus]


@pytest.fixture
def cluster(kafka: KafkaBroker, prometheus: Prometheus, tmp_path: Path) -> Iterator[Cluster]:
    """One shard, and little patience."""
    app = kafka.unique("e2e").replace("-", "_")
    config = configuration(app, kafka.address, f"{prometheus.url}/api/v1/write")
    config["metrics_generator"]["registry"]["collection_interval"] = "15s"
    config["spanmill"]["sink"] |= {"hold_back": "3s", "snapshot_every_windows": 1}
    cluster = Cluster(tmp_path, config, app)
    cluster.run("topics", "create", "--partitions", "1")
    try:
        yield cluster
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.close()


class Deltas:
    """What generators would send: batches of windows of 15 s, by their numbers, the first being a minute ago."""

    def __init__(self, kafka: KafkaBroker, app: str) -> None:
        self._topic, self._producer = f"{app}-deltas", Producer({"bootstrap.servers": kafka.address})
        self._first_ms = (int(time.time()) - 60) * 1000 // INTERVAL * INTERVAL

    def end_ms(self, number: int) -> int:
        return self._first_ms + number * INTERVAL

    def send(self, partition: int, number: int) -> None:
        previous_ms = self.end_ms(number - 1) if number > 1 else None
        (part,) = encode_window(window(self.end_ms(number), previous_ms, [calls("a")]), partition, 2, 1)[0]
        self.send_bytes(part)

    def send_bytes(self, value: bytes) -> None:
        self._producer.produce(self._topic, value, partition=0)
        assert self._producer.flush(30) == 0


def stopped(cluster: Cluster, stage: Stage) -> str:
    """Wait until a stage has stopped by itself; gives its last words."""
    until(cluster, lambda: not stage.alive, "the sink stops")
    assert stage.process is not None
    assert stage.process.returncode == 1
    return re.sub(r"\s+", " ", stage.tail(2))


def test_a_sink_stops_for_what_is_missing_and_goes_on_as_its_operator_says(
    cluster: Cluster, kafka: KafkaBroker, prometheus: Prometheus
) -> None:
    deltas = Deltas(kafka, cluster.app)
    deltas.send(0, 1)
    deltas.send(1, 1)
    deltas.send_bytes(b"garbage")
    deltas.send(0, 2)
    deltas.send(0, 4)

    def counted(count: int) -> bool:
        found = prometheus.query(f'traces_spanmetrics_calls_total{{app="{cluster.app}"}}')
        return list(found.values()) == [count]

    sink = cluster.start("sink", "sink")
    said = stopped(cluster, sink)
    assert counted(2)
    gap = re.search(r"spanmill (sink accept-gap --shard 0 --partition 0 --after \d+)", said)
    assert gap is not None, said
    cluster.run(*gap[1].split())

    sink.start()
    said = stopped(cluster, sink)
    garbage = re.search(r"spanmill (sink accept-gap --shard 0 --offset 2)", said)
    assert garbage is not None, said
    cluster.run(*garbage[1].split())

    sink.start()
    until(cluster, lambda: counted(4), "windows without partition 1")
    deltas.send(1, 2)  # late
    deltas.send(0, 5)
    until(cluster, lambda: counted(6), "a late batch, in a later window")
    assert sink.stop() == 0

    records = kafka.read(f"{cluster.app}-deltas")
    controls = [decode_control(dict(each.headers() or ())[CONTROL_HEADER]) for each in records if each.headers()]
    decided = [each for each in controls if not isinstance(each, ConfigChange)]
    assert decided[:2] == [AcceptGap(0, deltas.end_ms(2)), SkipRecord(2)]
    assert {(each.partition, each.end_ms) for each in decided[2:] if isinstance(each, Waiver)} == {
        (1, deltas.end_ms(4)),
        (1, deltas.end_ms(5)),
    }
    ledger = {
        name: list(prometheus.query(f'spanmill_ledger_{name}_total{{app="{cluster.app}"}}').values())
        for name in ("chain_gaps", "gap_windows", "windows_incomplete", "late_batches")
    }
    assert ledger == {"chain_gaps": [1], "gap_windows": [1], "windows_incomplete": [3], "late_batches": [1]}
