"""The worker on real Kafka: owners start where their state says, and get every record once, in order.

Stock Faust starts at the committed offset, which after a zombie's commit is ahead of the state, and may lose records to
a fetch that meets a seek.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from agents.inbox import LogRecord
from agents.own_metrics import OwnMetrics
from agents.worker import Worker, WorkerSettings
from tests.servers.kafka import KafkaBroker

pytestmark = pytest.mark.kafka

WAIT_S = 60.0


class RecordingOwner:
    """Keeps the offsets it gets; its start is the partition's key in the table."""

    paused = False
    stream_time_ms = None

    def __init__(self, partition: int, state: Mapping[bytes, bytes]) -> None:
        self.partition = partition
        self.start_offset = int(state.get(b"%d" % partition, b"0"))
        self.next_offset = self.start_offset
        self.deliveries: list[list[int]] = []

    async def put(self, records: Sequence[LogRecord]) -> None:
        self.deliveries.append([record.offset for record in records])
        self.next_offset = records[-1].offset + 1

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass

    @property
    def offsets(self) -> list[int]:
        """What was delivered from the start on."""
        return [offset for delivery in self.deliveries for offset in delivery if offset >= self.start_offset]


class Running:
    """A worker in this loop, and the owners that it has made, newest last."""

    def __init__(self, broker: KafkaBroker, app_id: str, topic: str, directory: Path) -> None:
        self.made: list[RecordingOwner] = []
        settings = WorkerSettings(
            app_id=app_id,
            topic=topic,
            partitions=2,
            table="state",
            data_dir=directory,
            newest_record_only=True,
            max_record_bytes=1_000_000,
            broker={"broker": f"kafka://{broker.address}"},
        )
        self.worker = Worker(settings, self._owner, OwnMetrics(), "test")

    def _owner(self, _: Worker, partition: int, state: Mapping[bytes, bytes]) -> RecordingOwner:
        owner = RecordingOwner(partition, state)
        self.made.append(owner)
        return owner

    def current(self, partition: int) -> RecordingOwner:
        return next(owner for owner in reversed(self.made) if owner.partition == partition)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Running"]:
        stop, ready = asyncio.Event(), asyncio.Event()
        task = asyncio.ensure_future(self.worker.run(stop, ready))
        try:
            await asyncio.wait_for(ready.wait(), WAIT_S)
            yield self
        finally:
            stop.set()
            await task


def topics(broker: KafkaBroker) -> tuple[str, str]:
    app_id = broker.unique("worker")
    broker.create_topic(f"{app_id}-state-changelog", 2, {"cleanup.policy": "compact"})
    return app_id, broker.new_topic("source", 2)


def fill(broker: KafkaBroker, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": broker.address})
    for i in range(count):
        producer.produce(topic, b"%d" % i, partition=i % 2)
    assert producer.flush(30) == 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.05)


async def test_owners_start_at_their_state_though_more_is_committed(kafka: KafkaBroker, tmp_path: Path) -> None:
    app_id, topic = topics(kafka)
    fill(kafka, topic, 200)
    committer = Consumer({"bootstrap.servers": kafka.address, "group.id": app_id})
    committer.commit(offsets=[TopicPartition(topic, p, 90) for p in (0, 1)], asynchronous=False)
    committer.close()
    async with Running(kafka, app_id, topic, tmp_path).running() as first:
        await until(lambda: all(first.current(p).next_offset == 100 for p in (0, 1)))
        assert [first.current(p).offsets for p in (0, 1)] == [list(range(100))] * 2
        await first.worker.save(0, {b"0": b"40"})
        await first.worker.save(1, {b"1": b"70"})
        await first.worker.commit(0, 95)
    async with Running(kafka, app_id, topic, tmp_path).running() as second:
        await until(lambda: all(second.current(p).next_offset == 100 for p in (0, 1)))
        assert second.current(0).offsets == list(range(40, 100))
        assert second.current(1).offsets == list(range(70, 100))


async def test_records_come_in_batches(kafka: KafkaBroker, tmp_path: Path) -> None:
    app_id, topic = topics(kafka)
    fill(kafka, topic, 2000)
    async with Running(kafka, app_id, topic, tmp_path).running() as running:
        await until(lambda: all(running.current(p).next_offset == 1000 for p in (0, 1)))
        assert sum(len(owner.deliveries) for owner in running.made) < 200


async def test_a_rebalance_loses_nothing(kafka: KafkaBroker, tmp_path: Path) -> None:
    app_id, topic = topics(kafka)
    fill(kafka, topic, 100)
    async with Running(kafka, app_id, topic, tmp_path / "a").running() as first:
        await until(lambda: all(first.current(p).next_offset == 50 for p in (0, 1)))
        async with Running(kafka, app_id, topic, tmp_path / "b").running() as second:
            await until(lambda: bool(second.made))
            fill(kafka, topic, 100)
            await until(lambda: second.made[-1].next_offset == 100)
            assert second.made[-1].offsets == list(range(100))
        await until(lambda: all(first.current(p).next_offset == 100 for p in (0, 1)))
        assert [first.current(p).offsets for p in (0, 1)] == [list(range(100))] * 2


async def test_an_owners_failure_stops_the_worker(kafka: KafkaBroker, tmp_path: Path) -> None:
    app_id, topic = topics(kafka)
    running = Running(kafka, app_id, topic, tmp_path)

    async def fail() -> None:
        raise ValueError("no way on")

    def owner(worker: Worker, partition: int, state: Mapping[bytes, bytes]) -> RecordingOwner:
        made = RecordingOwner(partition, state)
        made.run = fail  # type: ignore[method-assign]
        return made

    failing = Worker(running.worker.settings, owner, OwnMetrics(), "test")
    with pytest.raises(ValueError, match="no way on"):
        await asyncio.wait_for(failing.run(asyncio.Event()), WAIT_S)
