"""Spans per CPU-second of a distributor process, from OTLP/gRPC to Kafka with acks=all, and its peak memory.

`python -m tests.benchmarks.bench_distributor [spans]`. Requests of 200 spans, at full load and at 20,000 spans/s; the
CPU time is that of the distributor's process alone, all its threads included.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import grpc.aio

from agents.otlp_protocol import EXPORT_METHOD
from tests.benchmarks.bench_generator import configuration, process_seconds
from tests.e2e.cluster import Cluster, Stage
from tests.otlp_samples import span_records
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


def peak_mib(stage: Stage) -> float:
    """The most memory that the process has had so far."""
    assert stage.process is not None
    status = Path(f"/proc/{stage.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


async def measure(stage: Stage, address: str, bodies: Sequence[bytes], spans: int, pace: int | None) -> float:
    """Spans per CPU-second of the process."""
    sender = Sender(address, bodies)
    try:
        await sender.send(2 * IN_FLIGHT * CONNECTIONS, None)
        before = process_seconds(stage)
        requests = spans // SPANS_PER_REQUEST
        await sender.send(requests, None if pace is None else pace / SPANS_PER_REQUEST)
        return requests * SPANS_PER_REQUEST / (process_seconds(stage) - before)
    finally:
        await sender.close()


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
            for what, count, pace in (("full load", spans, None), (f"{PACED:,} spans/s", spans // 4, PACED)):
                stage = cluster.start("distributor", f"{app}-{count}")
                rate = asyncio.run(measure(stage, f"127.0.0.1:{cluster.grpc}", bodies, count, pace))
                memory = peak_mib(stage)
                print(f"{what}: {rate:,.0f} spans per CPU-second, {memory:.0f} MiB at most", flush=True)
                stage.stop()
        finally:
            cluster.close()
            kafka.stop()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
