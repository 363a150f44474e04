"""Kafka as the agents see it: logs with the broker's time, producers, probes, and tables with their changelogs.

What survives everything are the logs. Everything else belongs to a process and is cut off when that is killed: of what
it has on the way a random beginning still arrives, as from a socket that the peer reads on.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException

from agents.log_probe import Ends
from agents.producer import Headers
from schemas.control import ConfigChange
from schemas.control_format import ControlKeys

EPOCH_S = 1_700_000_000.0
"""The time of day when a schedule begins."""


class Record(NamedTuple):
    """A record as a consumer delivers it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Log:
    """A partition. Its broker's clock is `skew_ms` off, and may step."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.records: list[Record] = []
        """What is still kept."""
        self.all: list[Record] = []
        """What was ever appended, in this and in topics that it replaces."""
        self.low = 0
        self.skew_ms = 0
        self._now_s = now_s
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def high(self) -> int:
        """The next offset."""
        return self.low + len(self.records)

    @property
    def now_ms(self) -> int:
        """The broker's time."""
        return int((EPOCH_S + self._now_s()) * 1000) + self.skew_ms

    def append(self, value: bytes | None, key: bytes | None = None, headers: Headers = ()) -> int:
        """Append a record; gives its offset."""
        record = Record(self.high, self.now_ms, key, value, tuple(headers))
        self.records.append(record)
        self.all.append(record)
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
        return record.offset

    def read(self, position: int, most: int) -> list[Record]:
        """Some records from a position on."""
        at = max(position - self.low, 0)
        return self.records[at : at + most]

    def forget(self, low: int) -> None:
        """Retention takes what is below an offset."""
        low = min(max(low, self.low), self.high)
        del self.records[: low - self.low]
        self.low = low

    def replace(self) -> None:
        """The topic is deleted and made anew: offsets begin at 0 again."""
        self.records, self.low = [], 0

    async def grown(self, position: int) -> None:
        """Wait until there is something at or after a position."""
        while self.high <= position:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def compacted(self) -> dict[bytes, bytes]:
        """The newest value of every key that isn't deleted, as a table is recovered."""
        found: dict[bytes, bytes] = {}
        for record in self.records:
            assert record.key is not None
            found.pop(record.key, None)
            if record.value is not None:
                found[record.key] = record.value
        return found


@dataclass
class Cluster:
    """All topics."""

    now_s: Callable[[], float]
    topics: dict[str, list[Log]] = field(default_factory=dict)

    def create(self, topic: str, partitions: int) -> None:
        """Make a topic, or give it more partitions."""
        logs = self.topics.setdefault(topic, [])
        while len(logs) < partitions:
            logs.append(Log(self.now_s))


class _Sending(NamedTuple):
    log: Log
    value: bytes | None
    key: bytes | None
    headers: Headers
    acknowledged: "asyncio.Future[int]"


@dataclass
class Trouble:
    """What goes wrong with deliveries, until it is set otherwise."""

    duplicates: float = 0.0
    """How often an acknowledgement is lost and the record sent again."""
    failures: int = 0
    """So many of the next deliveries fail."""
    reorders: bool = False
    """Whether records of a partition overtake each other, which a producer with idempotence rules out."""


class Producer:
    """Sends in order within a partition; see `agents.producer.Producer`."""

    def __init__(self, cluster: Cluster, trouble: Trouble, latency: Callable[[], float], random: Random) -> None:
        self._cluster, self._trouble, self._latency, self._random = cluster, trouble, latency, random
        self._queues: dict[int, deque[_Sending]] = {}
        self._last: dict[int, float] = {}
        self._dead = False

    async def send(
        self, topic: str, partition: int, value: bytes | None, *, key: bytes | None = None, headers: Headers = ()
    ) -> "asyncio.Future[int]":
        """Queue a record; gives the future of its offset."""
        return self.queue(self._cluster.topics[topic][partition], value, key, headers)

    def queue(
        self, log: Log, value: bytes | None, key: bytes | None = None, headers: Headers = ()
    ) -> "asyncio.Future[int]":
        """The same, at once."""
        loop = asyncio.get_running_loop()
        sending = _Sending(log, value, key, headers, loop.create_future())
        if self._dead:
            return sending.acknowledged
        name = id(log)
        queue = self._queues.setdefault(name, deque())
        at = loop.time() + self._latency()
        if not self._trouble.reorders:
            at = max(at, self._last.get(name, 0.0) + 1e-6)
        self._last[name] = at
        queue.append(sending)
        loop.call_at(at, self._arrive, queue, sending)
        return sending.acknowledged

    def purge(self) -> None:
        """Give up everything that is queued; what is in flight may arrive, and its sender doesn't learn it."""
        self._cut(KafkaException(KafkaError(KafkaError._PURGE_QUEUE)))

    def close(self) -> None:
        """What is queued goes on its way."""

    def kill(self) -> None:
        """The process is gone."""
        self._dead = True
        self._cut(None)

    def _cut(self, error: Exception | None) -> None:
        for queue in self._queues.values():
            in_flight = self._random.randint(0, len(queue)) if queue else 0
            lost = list(queue)[in_flight:]
            for sending in list(queue):
                if error is not None and not sending.acknowledged.done():
                    sending.acknowledged.set_exception(error)
                    sending.acknowledged.exception()  # it needn't be looked at
            for sending in lost:
                queue.remove(sending)

    def _arrive(self, queue: deque[_Sending], sending: _Sending) -> None:
        if not any(each is sending for each in queue):
            return
        queue.remove(sending)
        trouble, loop = self._trouble, asyncio.get_running_loop()
        if trouble.failures and not self._dead and not sending.acknowledged.done():
            trouble.failures -= 1
            error = KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))
            loop.call_later(self._latency(), _refuse, sending.acknowledged, error)
            return
        offset = sending.log.append(sending.value, sending.key, sending.headers)
        if trouble.duplicates and self._random.random() < trouble.duplicates:
            sending.log.append(sending.value, sending.key, sending.headers)
        loop.call_later(self._latency(), _acknowledge, sending.acknowledged, offset)


def _acknowledge(future: "asyncio.Future[int]", offset: int) -> None:
    if not future.done():
        future.set_result(offset)


def _refuse(future: "asyncio.Future[int]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()


class Probe:
    """Looks at logs; see `agents.log_probe.LogProbe`. What it says may be old when it is heard."""

    def __init__(self, cluster: Cluster, latency: Callable[[], float]) -> None:
        self._cluster, self._latency = cluster, latency

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        await asyncio.sleep(self._latency())
        found = len(self._cluster.topics.get(topic, ()))
        await asyncio.sleep(self._latency())
        return found

    async def ends(self, topic: str, partition: int) -> Ends:
        """The partition's first and next offset."""
        await asyncio.sleep(self._latency())
        log = self._cluster.topics[topic][partition]
        found = Ends(log.low, log.high)
        await asyncio.sleep(self._latency())
        return found

    async def first_from(self, topic: str, partition: int, offset: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record at or after an offset."""
        await asyncio.sleep(self._latency())
        found = self._cluster.topics[topic][partition].read(offset, 1)
        await asyncio.sleep(self._latency())
        return (found[0].offset, found[0].timestamp) if found else None

    async def newest(self, topic: str, partition: int) -> bytes | None:
        """The value of the newest record."""
        await asyncio.sleep(self._latency())
        records = self._cluster.topics[topic][partition].records
        found = records[-1].value if records else None
        await asyncio.sleep(self._latency())
        return found


class Topics:
    """Both topics, as far as rules go; a process that is killed in the middle has appended to some partitions."""

    def __init__(self, cluster: Cluster, producer: Producer, spans: str, deltas: str, keys: ControlKeys) -> None:
        self._cluster, self._producer, self._spans, self._keys = cluster, producer, spans, keys
        self._names = deltas, spans

    async def spans_partitions(self) -> int:
        """How many partitions the spans topic has."""
        return len(self._cluster.topics[self._spans])

    async def append(self, change: ConfigChange) -> int:
        """Append a record to all partitions of both."""
        appended = 0
        for name in self._names:
            logs = self._cluster.topics[name]
            controls = [self._keys.at(name, partition).headers(change) for partition in range(len(logs))]
            sent = [self._producer.queue(log, b"", None, headers) for log, headers in zip(logs, controls, strict=True)]
            await asyncio.gather(*sent)
            appended += len(sent)
        return appended


class _Table:
    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}


class Worker:
    """What an owner needs of `agents.worker.Worker`: its table, commits and the ends of logs."""

    def __init__(
        self, changelogs: Sequence[Log], committed: dict[int, int], producer: Producer, latency: Callable[[], float]
    ) -> None:
        self.table = _Table()
        self.ends: dict[int, int] = {}
        """The logs' ends as the last fetch of each told it."""
        self.is_dead = False
        self._changelogs, self._committed, self._producer, self._latency = changelogs, committed, producer, latency

    def recover(self, partition: int) -> bool:
        """Read a partition's changelog; whether there is anything in it."""
        log = self._changelogs[partition]
        for record in log.records:
            assert record.key is not None
            self.table.data.pop(record.key, None)
        self.table.data.update(log.compacted())
        return bool(log.records)

    async def save(self, partition: int, items: Mapping[bytes, bytes | None]) -> None:
        """Write keys and wait until the changelog has them."""
        sent = []
        for key, value in items.items():
            if value is None:
                self.table.data.pop(key, None)
            else:
                self.table.data[key] = value
            sent.append(self._producer.queue(self._changelogs[partition], value, key))
        await asyncio.gather(*sent)

    async def commit(self, partition: int, offset: int) -> None:
        """Commit an offset."""
        await asyncio.sleep(self._latency())
        if not self.is_dead:
            self._committed[partition] = offset

    def end_offset(self, partition: int) -> int | None:
        """The log's next offset as the last fetch told it."""
        return self.ends.get(partition)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"an owner asks its worker for {name}: tests/simulation/kafka.py must learn it")
