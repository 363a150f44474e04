"""The servers that other tests rely on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.kafka import KafkaBroker
from tests.servers.ports import wait_until
from tests.servers.prometheus import Prometheus
from tests.servers.slow_disk import SlowDisk
from tests.servers.telemetrygen import Telemetrygen


@pytest.mark.kafka
def test_kafka_stamps_records_of_a_spans_topic_itself(kafka: KafkaBroker) -> None:
    topic = kafka.spans_topic(partitions=2)
    kafka.produce(topic, b"value", partition=1, headers=[("tenant", b"t")], timestamp_ms=1)
    (record,) = kafka.read(topic)
    assert (record.partition(), record.value(), record.headers()) == (1, b"value", [("tenant", b"t")])
    assert record.timestamp()[0] == 2, "LogAppendTime"
    assert record.timestamp()[1] > 1
    assert kafka.ends(topic) == {0: 0, 1: 1}
    assert kafka.committed("nobody", topic) == {}


@pytest.mark.prometheus
def test_prometheus_answers(prometheus: Prometheus) -> None:
    assert prometheus.query("vector(7)", 1_000.0) == {(): 7.0}
    assert prometheus.series('{__name__="absent"}') == []


def test_telemetrygen_is_there(telemetrygen: Telemetrygen) -> None:
    assert "--otlp-endpoint" in telemetrygen.traces("127.0.0.1:1", "--help")


def test_a_slow_disk_holds_a_flush_up_and_lets_it_go(tmp_path: Path) -> None:
    log = tmp_path / "flushed"
    program = "import os, sys; file = open(sys.argv[1], 'w'); sys.stdin.read(); os.fsync(file); file.write('!')"
    with subprocess.Popen([sys.executable, "-c", program, log], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        with SlowDisk(process.pid, tmp_path, delay_s=1000) as disk:
            process.stdin.close()
            wait_until(lambda: disk.flushes == 1, process, log)
            assert log.read_text() == ""
        assert process.wait(60) == 0
    assert log.read_text() == "!"
