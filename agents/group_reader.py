"""Reads a topic in a consumer group and has its records dealt with: at least once, in order by partition.

One thread owns the consumer and keeps polling, so that a destination that is down never costs the membership of the
group. Each partition has a backlog and a task that works it off; a full backlog pauses its partition. An offset is
committed when everything below it was dealt with. A partition that is taken away, or a reader that stops, finishes what
it has begun, so a crash does the newest records twice, and a rebalance doesn't.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from prometheus_client import Gauge

log = structlog.get_logger(__name__)

POLL_S = 0.2
POLL_RECORDS = 500
BACKLOG_BYTES = 8_000_000
"""A partition with so much waiting is paused; below half of it, it goes on."""
TOGETHER_BYTES = 1_000_000
"""Records that wait are dealt with together up to this size: a Collector's hold two spans each."""
COMMIT_EVERY_S = 1.0
FINISH_S = 3.0
"""How long what has begun may take to be finished when the partition goes."""

Item = TypeVar("Item")


class Waiting(NamedTuple, Generic[Item]):
    """A record in a backlog."""

    offset: int
    size: int
    """Bytes that it holds."""
    share: Hashable
    """Only records that have this in common are dealt with together."""
    item: Item


class Work(Protocol[Item]):
    """What becomes of the records."""

    def parse(self, message: Message) -> Waiting[Item]:
        """A record, as it is kept until its turn. Called in the event loop; doesn't raise."""

    async def do(self, partition: int, items: Sequence[Item]) -> None:
        """Deal with records, in their order; returns when that is done for good."""

    def failed(self, error: KafkaError) -> None:
        """Say that the consumer can't read. What this raises ends the reader."""


class Backlog(Generic[Item]):
    """One owned partition: its records in order, and how far they were dealt with."""

    def __init__(self, partition: int, work: Work[Item]) -> None:
        self.partition = partition
        self.size = 0
        self.paused = False
        self.next_offset: int | None = None
        """The offset to be committed: everything below was dealt with. None at first."""
        self._work = work
        self._waiting: deque[Waiting[Item]] = deque()
        self._filled = asyncio.Event()
        self._is_last = False
        self.task = asyncio.get_running_loop().create_task(self._work_off())

    def add(self, record: Waiting[Item]) -> None:
        """Queue a record."""
        self._waiting.append(record)
        self.size += record.size
        self._filled.set()

    async def finish(self, timeout_s: float) -> None:
        """Finish what has begun, and nothing else; what takes longer is given up."""
        self._is_last = True
        self._waiting.clear()
        self._filled.set()
        await asyncio.wait([self.task], timeout=timeout_s)
        self.task.cancel()

    async def _work_off(self) -> None:
        while True:
            await self._filled.wait()
            if self._is_last:
                return
            taken = self._take()
            await self._work.do(self.partition, [record.item for record in taken])
            self.next_offset = taken[-1].offset + 1
            self.size -= sum(record.size for record in taken)
            if not self._waiting and not self._is_last:
                self._filled.clear()

    def _take(self) -> list[Waiting[Item]]:
        """The next records that may be dealt with together."""
        taken = [self._waiting.popleft()]
        size = taken[0].size
        while self._waiting:
            following = self._waiting[0]
            size += following.size
            if following.share != taken[0].share or size > TOGETHER_BYTES:
                break
            taken.append(self._waiting.popleft())
        return taken


class GroupReader(Generic[Item]):
    """A consumer of a topic. `settings` are librdkafka's, the group among them, without automatic commits.

    `lag` has the labels stage and partition. `ready` is set when the group has given partitions, or none, to it.
    """

    def __init__(
        self, settings: Mapping[str, Any], topic: str, work: Work[Item], stage: str, lag: Gauge, ready: asyncio.Event
    ) -> None:
        self._topic, self._work, self._stage, self._lag, self._ready = topic, work, stage, lag, ready
        self._consumer = Consumer(
            {**settings, "partition.assignment.strategy": "cooperative-sticky", "on_commit": self._on_commit}
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=stage.replace(" ", "-"))
        self._loop = asyncio.get_running_loop()
        self._backlogs: dict[int, Backlog[Item]] = {}
        self._committed: dict[int, int] = {}
        self._commit_at = 0.0
        self._polled: list[Message] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop` is set; what was dealt with is committed at the end."""
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            while not stop.is_set():
                for message in await self._loop.run_in_executor(self._thread, self._poll):
                    self._add(message)
                await self._tend()
        finally:
            await self._loop.run_in_executor(self._thread, self._consumer.close)  # calls _on_revoke, which commits
            self._thread.shutdown()

    def _add(self, message: Message) -> None:
        """Put a record into its partition's backlog."""
        error = message.error()
        if error is not None:
            self._work.failed(error)
            return
        backlog = self._backlogs.get(partition_of(message))
        if backlog is not None:
            backlog.add(self._work.parse(message))

    async def _tend(self) -> None:
        """Pause and resume partitions by their backlogs, and commit from time to time."""
        pause, resume = [], []
        for backlog in self._backlogs.values():
            if backlog.task.done():
                backlog.task.result()  # it never ends by itself: raises what made it
            if not backlog.paused and backlog.size > BACKLOG_BYTES:
                pause.append(backlog)
            elif backlog.paused and backlog.size < BACKLOG_BYTES // 2:
                resume.append(backlog)
        for backlog in (*pause, *resume):
            backlog.paused = not backlog.paused
        commit_due = self._loop.time() >= self._commit_at
        if commit_due:
            self._commit_at = self._loop.time() + COMMIT_EVERY_S
        if pause or resume or commit_due:
            await self._loop.run_in_executor(self._thread, self._apply, pause, resume, commit_due)

    # What follows runs in the consumer's thread.

    def _poll(self) -> list[Message]:
        self._polled = []
        message = self._consumer.poll(POLL_S)
        while message is not None:
            self._polled.append(message)
            message = self._consumer.poll(0) if len(self._polled) < POLL_RECORDS else None
        return self._polled

    def _apply(self, pause: Sequence[Backlog[Item]], resume: Sequence[Backlog[Item]], commit: bool) -> None:
        self._consumer.pause([self._place(backlog.partition) for backlog in pause])
        self._consumer.resume([self._place(backlog.partition) for backlog in resume])
        if commit:
            self._commit(list(self._backlogs), wait=False)
            self._measure_lag()

    def _commit(self, partitions: Sequence[int], *, wait: bool) -> None:
        done = {p: self._backlogs[p].next_offset for p in partitions if p in self._backlogs}
        new = {p: offset for p, offset in done.items() if offset is not None and self._committed.get(p) != offset}
        if not new:
            return
        places = [self._place(p, offset) for p, offset in new.items()]
        try:
            if wait:
                self._consumer.commit(offsets=places, asynchronous=False)
            else:
                self._consumer.commit(offsets=places, asynchronous=True)
            self._committed.update(new)
        except KafkaException as error:  # the next one says the same and more, or the next owner does it again
            log.warning("offsets weren't committed", topic=self._topic, error=str(error))

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """Commit again what a coordinator that is just loading, or a rebalance, has refused."""
        for place in places:
            failure = error or place.error
            if failure is not None:
                self._committed.pop(place.partition, None)
                log.info("an offset wasn't committed", topic=self._topic, partition=place.partition, error=str(failure))

    def _measure_lag(self) -> None:
        for partition, backlog in list(self._backlogs.items()):
            _, end = self._consumer.get_watermark_offsets(self._place(partition), cached=True)
            if backlog.next_offset is not None and end >= 0:
                self._lag.labels(self._stage, partition).set(max(end - backlog.next_offset, 0))

    def _place(self, partition: int, offset: int | None = None) -> TopicPartition:
        place = TopicPartition(self._topic, partition)
        if offset is not None:
            place.offset = offset
        return place

    def _on_assign(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._loop.call_soon_threadsafe(self._take_over, [place.partition for place in places])

    def _on_revoke(self, _: Consumer, places: list[TopicPartition]) -> None:
        partitions = [place.partition for place in places]
        asyncio.run_coroutine_threadsafe(self._finish(partitions), self._loop).result()
        self._commit(partitions, wait=True)
        self._on_lost(_, places)

    def _on_lost(self, _: Consumer, places: list[TopicPartition]) -> None:
        gone = {place.partition for place in places}
        self._polled = [message for message in self._polled if message.partition() not in gone]
        self._loop.call_soon_threadsafe(self._let_go, gone)

    # And these in the loop again, before it gets the records of the poll that called the above.

    def _take_over(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._backlogs[partition] = Backlog(partition, self._work)
        log.info("partitions assigned", stage=self._stage, topic=self._topic, partitions=sorted(self._backlogs))
        self._ready.set()

    async def _finish(self, partitions: Sequence[int]) -> None:
        backlogs = [self._backlogs[partition] for partition in partitions if partition in self._backlogs]
        await asyncio.gather(*(backlog.finish(FINISH_S) for backlog in backlogs))

    def _let_go(self, partitions: set[int]) -> None:
        for partition in partitions:
            backlog = self._backlogs.pop(partition, None)
            self._committed.pop(partition, None)
            if backlog is not None:
                backlog.task.cancel()
            with contextlib.suppress(KeyError):  # it never had one
                self._lag.remove(self._stage, str(partition))


def partition_of(message: Message) -> int:
    """A record's partition."""
    partition = message.partition()
    return -1 if partition is None else partition
