"""The reader of a group, with a consumer that fails as it is told."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest.mock import patch

from confluent_kafka import KafkaError, Message, TopicPartition
from prometheus_client import CollectorRegistry, Gauge

from agents import group_reader
from agents.group_reader import GroupReader, Waiting

WAIT_S = 60.0


class Record:
    """As much of a message as the reader looks at."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None:
        return None

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset


class FailingConsumer:
    """One partition of `records` records; the first `refused` commits fail, as while a coordinator loads."""

    records, refused = 3, 2

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._on_commit: Callable[[KafkaError | None, list[TopicPartition]], None] = settings["on_commit"]
        self._unread = [Record(offset) for offset in range(self.records)]
        self._answers: list[tuple[KafkaError | None, list[TopicPartition]]] = []
        self._asked = 0
        self.committed: list[int] = []

    def subscribe(self, _: Sequence[str], *, on_assign: Callable[..., None], **others: Any) -> None:
        self._revoke = others["on_revoke"]
        on_assign(self, [TopicPartition("topic", 0)])

    def poll(self, _: float) -> Record | None:
        for answer in self._answers:
            self._on_commit(*answer)
        self._answers.clear()
        return self._unread.pop(0) if self._unread else None

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self._asked += 1
        if self._asked <= self.refused:
            self._answers.append((KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS), offsets))
        else:
            self.committed += [place.offset for place in offsets]
        assert asynchronous or not self._unread

    def pause(self, _: object) -> None: ...

    def resume(self, _: object) -> None: ...

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        return 0, self.records

    def close(self) -> None:
        self._revoke(self, [TopicPartition("topic", 0)])


class Listed:
    """Takes note of what it is given, and can be made to take its time."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.may_go_on = asyncio.Event()

    def parse(self, message: Message) -> Waiting[int]:
        offset = message.offset() or 0
        return Waiting(offset, 1, offset, offset)

    async def do(self, _: int, items: Sequence[int]) -> None:
        await self.may_go_on.wait()
        self.done += items

    def failed(self, error: KafkaError) -> None:
        raise AssertionError(error)


def reader_of(work: Listed) -> tuple["GroupReader[int]", FailingConsumer]:
    lag = Gauge("lag", "", ["stage", "partition"], registry=CollectorRegistry())
    with patch.object(group_reader, "Consumer", FailingConsumer):
        reader = GroupReader({}, "topic", work, "stage", lag, asyncio.Event())
    consumer = reader._consumer
    assert isinstance(consumer, FailingConsumer)
    return reader, consumer


async def test_an_offset_whose_commit_failed_is_committed_again_without_new_records() -> None:
    work = Listed()
    work.may_go_on.set()
    reader, consumer = reader_of(work)
    stop = asyncio.Event()
    with patch.object(group_reader, "COMMIT_EVERY_S", 0.0):
        running = asyncio.create_task(reader.run(stop))
        async with asyncio.timeout(WAIT_S):
            while consumer.committed[-1:] != [3]:
                await asyncio.sleep(0)
        stop.set()
        await running
    assert work.done == [0, 1, 2]


async def test_who_stops_finishes_what_it_has_begun_and_begins_nothing_else() -> None:
    work = Listed()
    reader, consumer = reader_of(work)
    consumer.refused = 0
    stop = asyncio.Event()
    with patch.object(group_reader, "COMMIT_EVERY_S", 1e9):
        running = asyncio.create_task(reader.run(stop))
        async with asyncio.timeout(WAIT_S):
            while not reader._backlogs or reader._backlogs[0].size < 3:
                await asyncio.sleep(0)
            stop.set()
            while not reader._backlogs[0]._is_last:
                await asyncio.sleep(0)
            work.may_go_on.set()
            await running
    assert work.done == [0], "each record has a share of its own"
    assert consumer.committed == [1]
