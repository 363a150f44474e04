"""Spans per CPU-second of a distributor process, from OTLP/gRPC to Kafka with acks=all, and its peak memory.

`python -m tests.benchmarks.bench_distributor [spans]`. Requests of 200 spans, at full load and at 20,000 spans/s; the
CPU time is that of the distributor's process alone, all its threads included. Where the OpenTelemetry Collector is
built (tools/fetch_collector.sh) it does the same beside it, with one trace in one partition and without.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc.aio
import yaml

from agents.otlp_protocol import EXPORT_METHOD
from agents.topics import TopicNames
from schemas.config import load_config
from tests.benchmarks.bench_generator import configuration, seconds_of
from tests.e2e.cluster import Cluster
from tests.otlp_samples import span_records
from tests.servers.collector import BINARY, Collector
from tests.servers.kafka import KafkaBroker

PARTITIONS = 4
SPANS_PER_REQUEST = 200
REQUESTS = 64
"""Different ones, which are sent in turn."""
CONNECTIONS = 4
IN_FLIGHT = 16
"""Requests of a connection that wait for their answer."""
PACED = 20_000
"""Spans per second."""
COLLECTORS = {
    "a Collector with partition_traces_by_id": {
        "partition_traces_by_id": True,
        "record_partitioner": {"sticky_key": {"hasher": "murmur2"}},
    },
    "a Collector without a key": {},
}
"""Exporter settings of the peers."""
ANY_RATE = 1 << 40
"""Bytes per second: the default of 30 MB is 70,000 spans."""


class Sender:
    """Sends requests over several connections, as fast as they are answered or at a pace."""

    def __init__(self, address: str, bodies: Sequence[bytes]) -> None:
        self._channels = [
            grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
            for _ in range(CONNECTIONS)
        ]
        self._bodies = bodies
        self._sent = 0

    async def send(self, requests: int, per_second: float | None) -> None:
        """Send so many requests; returns when all are answered, raises if one is refused."""
        began = time.monotonic()
        self._sent = 0

        async def one_after_the_other(export: grpc.aio.UnaryUnaryMultiCallable) -> None:
            while self._sent < requests:
                number = self._sent
                self._sent += 1
                if per_second is not None:
                    await asyncio.sleep(began + number / per_second - time.monotonic())
                await export(self._bodies[number % len(self._bodies)])

        async with asyncio.TaskGroup() as tasks:
            for channel in self._channels:
                export = channel.unary_unary(EXPORT_METHOD)
                for _ in range(IN_FLIGHT):
                    tasks.create_task(one_after_the_other(export))

    async def close(self) -> None:
        """Hang up."""
        for channel in self._channels:
            await channel.close()


def peak_mib(pid: int) -> float:
    """The most memory that the process has had so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


class Measured(NamedTuple):
    """What a process did."""

    rate: float
    """Spans per CPU-second."""
    memory: float
    """MiB at most."""


async def measure(process: int, address: str, bodies: Sequence[bytes], spans: int, pace: int | None) -> Measured:
    """Send so many spans to a process, warmed up."""
    sender = Sender(address, bodies)
    try:
        await sender.send(2 * IN_FLIGHT * CONNECTIONS, None)
        before = seconds_of(process)
        requests = spans // SPANS_PER_REQUEST
        await sender.send(requests, None if pace is None else pace / SPANS_PER_REQUEST)
        return Measured(requests * SPANS_PER_REQUEST / (seconds_of(process) - before), peak_mib(process))
    finally:
        await sender.close()


def of_a_collector(
    directory: Path, kafka: KafkaBroker, topic: str, exporter: dict[str, object], *load: Any
) -> Measured:
    """What a Collector does that writes to the topic with acks=all."""
    # Without a queue: as ours, it answers when Kafka has the spans.
    general = {
        "sending_queue": {"enabled": False},
        "brokers": [kafka.address],
        "traces": {"topic": topic, "encoding": "otlp_proto"},
    }
    producer = {"required_acks": "all", "compression": "none"}
    with Collector(directory, {"kafka": {**general, "producer": producer, **exporter}}) as collector:
        return asyncio.run(measure(collector.pid, collector.grpc, *load))


def main(spans: int = 1_000_000) -> None:
    """Print a line for each load."""
    bodies = span_records(1, REQUESTS)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "kafka").mkdir()
        kafka = KafkaBroker(directory / "kafka")
        kafka.format()
        kafka.start()
        app = kafka.unique("bench").replace("-", "_")
        ingestion = {"rate_limit_bytes": ANY_RATE, "burst_size_bytes": ANY_RATE}
        config = {**configuration(kafka, app, directory), "overrides": {"defaults": {"ingestion": ingestion}}}
        cluster = Cluster(directory, config, app)
        try:
            cluster.run("topics", "create", "--partitions", str(PARTITIONS))
            topic = TopicNames.of(load_config(None, yaml.safe_dump(config))).spans
            for what, *load in (("full load", spans, None), (f"{PACED:,} spans/s", spans // 4, PACED)):
                stage = cluster.start("distributor", f"{app}-{load[0]}")
                assert stage.process is not None
                own = asyncio.run(measure(stage.process.pid, f"127.0.0.1:{cluster.grpc}", bodies, *load))
                stage.stop()
                print(f"{what}: {own.rate:,.0f} spans per CPU-second, {own.memory:.0f} MiB at most", flush=True)
                for peer_name, exporter in COLLECTORS.items() if BINARY.exists() else ():
                    peer = of_a_collector(directory, kafka, topic, exporter, bodies, *load)
                    print(
                        f"    {peer_name}: {peer.rate:,.0f}, {peer.memory:.0f} MiB; "
                        f"the distributor does {own.rate / peer.rate:.2f} of it in {own.memory / peer.memory:.2f}",
                        flush=True,
                    )
        finally:
            cluster.close()
            kafka.stop()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
