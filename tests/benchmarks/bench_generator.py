"""Spans per CPU-second of a generator process, from Kafka to deltas, on real Kafka.

`python -m tests.benchmarks.bench_generator [spans]`. The topic is filled first; the figure is the CPU time that the
generator's process spends from then on until all of it is folded, delivered and checkpointed, all its threads included.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from confluent_kafka import Producer

from tests.benchmarks.bench_scan import cpu_seconds, parse
from tests.e2e.cluster import Cluster, Stage
from tests.otlp_samples import SPANS_PER_TRACE, span_records, trace_records
from tests.servers.kafka import KafkaBroker

PARTITIONS = 4
REPEATS = 10
"""So many times the same records: making them takes longer than folding them."""
WAIT_S = 180.0


def process_seconds(stage: Stage) -> float:
    """CPU time of a stage so far."""
    assert stage.process is not None
    return seconds_of(stage.process.pid)


def seconds_of(pid: int) -> float:
    """CPU time of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def configuration(kafka: KafkaBroker, app: str, directory: Path) -> dict[str, object]:
    """Both processors on; spans of any time, since the samples' times are fixed."""
    return {
        "ingest": {"kafka": {"address": kafka.address}},
        "metrics_generator": {
            "metrics_ingestion_time_range_slack": "876000h",
            "registry": {"collection_interval": "15s"},
        },
        "overrides": {"defaults": {"metrics_generator": {"processors": ["service-graphs", "span-metrics"]}}},
        "spanmill": {
            "app_id": app,
            "topics": {"spans": f"{app}-spans", "deltas": f"{app}-deltas", "dead_letters": f"{app}-dead"},
            "generator": {"data_dir": str(directory / "data")},
        },
    }


def fill(kafka: KafkaBroker, topic: str, values: list[bytes]) -> None:
    """Write the values, over all partitions in turn."""
    producer = Producer(
        {"bootstrap.servers": kafka.address, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000}
    )
    for _ in range(REPEATS):
        for i, value in enumerate(values):
            producer.produce(topic, value, partition=i % PARTITIONS)
        producer.flush()


def measure(kafka: KafkaBroker, values: list[bytes], directory: Path) -> float:
    """CPU seconds for all of them."""
    app = kafka.unique("bench").replace("-", "_")
    cluster = Cluster(directory, configuration(kafka, app, directory), app)
    cluster.run("topics", "create", "--partitions", str(PARTITIONS))
    stage = cluster.start("generator", app)
    try:
        before = process_seconds(stage)
        fill(kafka, f"{app}-spans", values)
        deadline = time.monotonic() + WAIT_S
        group, each = f"{app}_generator", len(values) * REPEATS // PARTITIONS
        while not reached(kafka.committed(group, f"{app}-spans"), each):
            if time.monotonic() > deadline:
                raise TimeoutError(stage.tail())
            time.sleep(0.2)
        return process_seconds(stage) - before
    finally:
        cluster.close()


def reached(committed: dict[int, int], offset: int) -> bool:
    """Whether every partition is committed up to an offset: a tick has closed the window of its last record."""
    return len(committed) == PARTITIONS and min(committed.values()) >= offset


def main(spans: int = 100_000) -> None:
    """Print a line per input, beside protobuf's own parser on the same bytes."""
    inputs = {
        "200 spans a record": span_records(1, spans // 200 // PARTITIONS * PARTITIONS),
        "one trace a record": trace_records(2, spans // SPANS_PER_TRACE // PARTITIONS * PARTITIONS),
    }
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        kafka = KafkaBroker(directory / "kafka")
        (directory / "kafka").mkdir()
        kafka.format()
        kafka.start()
        try:
            for what, values in inputs.items():
                per_record = 200 if "200" in what else SPANS_PER_TRACE
                total = len(values) * REPEATS * per_record
                rate = total / measure(kafka, values, directory)
                parsed = len(values) * per_record / min(cpu_seconds(lambda v=values: parse(v)) for _ in range(3))
                print(f"{what}: Kafka to deltas {rate:,.0f}, FromString alone {parsed:,.0f} spans per CPU-second")
        finally:
            kafka.stop()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
