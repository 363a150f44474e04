"""A worker of two partitions whose owners note what they get; for tests of what is around owners."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from agents.inbox import LogRecord
from agents.own_metrics import OwnMetrics
from agents.watchdog import DEFAULT_PATIENCE, LOOK_EVERY_S, Patience
from agents.worker import Owner, Worker, WorkerSettings
from tests.servers.kafka import Kafka

WAIT_S = 60.0
PARTITIONS = 2


class RecordingOwner:
    """Keeps the offsets it gets; its start is the partition's key in the table."""

    paused = False
    stream_time_ms = None

    def __init__(self, partition: int, state: Mapping[bytes, bytes]) -> None:
        self.partition = partition
        self.start_offset = int(state.get(b"%d" % partition, b"0"))
        self.next_offset = self.start_offset
        self.deliveries: list[list[int]] = []
        self.closed = False

    async def put(self, records: Sequence[LogRecord]) -> None:
        self.deliveries.append([record.offset for record in records])
        self.next_offset = records[-1].offset + 1

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True

    @property
    def offsets(self) -> list[int]:
        """What was delivered from the start on."""
        return [offset for delivery in self.deliveries for offset in delivery if offset >= self.start_offset]


def settings(
    kafka: Kafka,
    app_id: str,
    topic: str,
    directory: Path,
    *,
    max_record_bytes: int = 1_000_000,
    look_every_s: float = LOOK_EVERY_S,
    patience: Patience = DEFAULT_PATIENCE,
    **broker: Any,
) -> WorkerSettings:
    return WorkerSettings(
        app_id=app_id,
        topic=topic,
        partitions=PARTITIONS,
        table="state",
        data_dir=directory,
        newest_record_only=True,
        max_record_bytes=max_record_bytes,
        broker={"broker": ";".join(f"kafka://{each}" for each in kafka.address.split(",")), **broker},
        client={"bootstrap.servers": kafka.address, "log_level": 0},
        look_every_s=look_every_s,
        patience=patience,
    )


class Running:
    """A worker in this loop, and the owners that it has made, newest last."""

    def __init__(
        self, of: WorkerSettings, new_owner: Callable[[int, Mapping[bytes, bytes]], RecordingOwner] = RecordingOwner
    ) -> None:
        self.made: list[RecordingOwner] = []
        self.ready = asyncio.Event()
        self._new_owner = new_owner
        self.worker = Worker(of, self._owner, OwnMetrics(), "test")

    def _owner(self, _: Worker, partition: int, state: Mapping[bytes, bytes]) -> Owner:
        owner = self._new_owner(partition, state)
        self.made.append(owner)
        return owner

    def current(self, partition: int) -> RecordingOwner:
        """The newest owner of a partition."""
        return next(owner for owner in reversed(self.made) if owner.partition == partition)

    def has_all(self, count: int) -> bool:
        """Whether the newest owners have read so many records of each partition."""
        return all(self.current(p).next_offset == count for p in range(PARTITIONS))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Running"]:
        """Run until the end of the context; what makes the worker fail is raised there."""
        stop = asyncio.Event()
        task = asyncio.ensure_future(self.worker.run(stop, self.ready))
        try:
            asked = asyncio.ensure_future(self.ready.wait())
            await asyncio.wait({task, asked}, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            assert self.ready.is_set() or task.done()
            if not task.done():
                yield self
        finally:
            stop.set()
            await task

    async def fails(self) -> None:
        """Run until the worker fails; raises why."""
        async with asyncio.timeout(WAIT_S):
            await self.worker.run(asyncio.Event(), self.ready)


def topics(kafka: Kafka, changelog: Mapping[str, str] | None = None) -> tuple[str, str]:
    """An app id whose changelog exists, and a topic."""
    app_id = kafka.unique("worker")
    kafka.create_topic(f"{app_id}-state-changelog", PARTITIONS, {"cleanup.policy": "compact", **(changelog or {})})
    return app_id, kafka.new_topic("source", PARTITIONS)


def fill(kafka: Kafka, topic: str, count: int) -> None:
    """Write so many records, by turns to each partition; their values are 0, 1, ..."""
    producer = Producer({"bootstrap.servers": kafka.address})
    for i in range(count):
        producer.produce(topic, b"%d" % i, partition=i % PARTITIONS)
    assert producer.flush(30) == 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.05)
