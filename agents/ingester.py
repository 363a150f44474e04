"""The ingester: forwards the records of the spans topic to a trace store, at its own pace.

One thread owns the consumer and keeps polling, so that a store that is down never costs the membership of the group.
Each partition has a backlog and a task that sends it in order; a full backlog pauses its partition. An offset is
committed when everything below it was taken or refused for good, so a crash sends the newest records twice and loses
none.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, cast

import numpy as np
import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from prometheus_client import CollectorRegistry, Counter

from agents import kafka
from agents.own_metrics import OwnMetrics
from agents.topics import TopicNames, check_topics
from agents.trace_store import TraceStore, TraceStoreMetrics, joined
from schemas.config import Config
from schemas.errors import Malformed
from schemas.otlp import Codec
from schemas.otlp.codecs import split
from schemas.record_format import RecordFormat

log = structlog.get_logger(__name__)

STAGE = "ingester"
POLL_S = 0.2
POLL_RECORDS = 500
BACKLOG_BYTES = 8_000_000
"""A partition with so much waiting is paused; below half of it, it goes on."""
REQUEST_BYTES = 1_000_000
"""Records of one tenant that wait are sent together up to this size: a Collector's hold two spans each."""
COMMIT_EVERY_S = 1.0


class IngesterMetrics:
    """Records forwarded, and those that weren't."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter(
            "spanmill_ingester_records", "Records that the trace store took.", ["partition"], registry=registry
        )
        self.refused = Counter(
            "spanmill_ingester_refused_records", "Records that can't be forwarded.", ["reason"], registry=registry
        )


class Waiting(NamedTuple):
    """A record in a backlog; `messages` is empty for what isn't forwarded (control records, bytes of no codec)."""

    offset: int
    tenant: str
    messages: bytes


class Backlog:
    """One owned partition: its records in order, and how far they were dealt with."""

    def __init__(self, partition: int, store: TraceStore, metrics: IngesterMetrics) -> None:
        self.partition = partition
        self.size = 0
        self.paused = False
        self.next_offset: int | None = None
        """The offset to be committed: everything below was taken or refused. None at first."""
        self._store, self._metrics = store, metrics
        self._waiting: deque[Waiting] = deque()
        self._filled = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._forward())

    def add(self, record: Waiting) -> None:
        """Queue a record."""
        self._waiting.append(record)
        self.size += len(record.messages)
        self._filled.set()

    async def _forward(self) -> None:
        while True:
            await self._filled.wait()
            taken = self._take()
            await self._send([record for record in taken if record.messages])
            self.next_offset = taken[-1].offset + 1
            self.size -= sum(len(record.messages) for record in taken)
            if not self._waiting:
                self._filled.clear()

    def _take(self) -> list[Waiting]:
        """The next records that may share a request: of one tenant, and up to a size."""
        taken = [self._waiting.popleft()]
        size = len(taken[0].messages)
        while self._waiting:
            following = self._waiting[0]
            size += len(following.messages)
            if following.tenant != taken[0].tenant or size > REQUEST_BYTES:
                break
            taken.append(self._waiting.popleft())
        return taken

    async def _send(self, records: Sequence[Waiting]) -> None:
        """Send records together; if the store refuses that for good, one by one, so that one costs no others."""
        if not records:
            return
        refusal = await self._store.send(records[0].tenant, joined([record.messages for record in records]))
        if refusal is None:
            self._metrics.records.labels(self.partition).inc(len(records))
        elif len(records) > 1:
            for record in records:
                await self._send([record])
        else:
            self._metrics.refused.labels(refusal.code.name.lower()).inc()
            log.warning("the trace store refuses a record", offset=records[0].offset, reason=refusal.text)


class Ingester:
    """Reads the spans topic in a consumer group and forwards it."""

    def __init__(self, config: Config, metrics: OwnMetrics, ready: asyncio.Event) -> None:
        names, work = TopicNames.of(config), config.spanmill.ingester
        self._topic = names.spans
        self._codec = Codec(config.metrics_generator.codec)
        self._format = RecordFormat(self._codec, config.spanmill.tenant_headers)
        self._own, self._metrics = metrics, IngesterMetrics(metrics.registry)
        headers = {name: value.get_secret_value() for name, value in work.headers.items()}
        self._store = TraceStore(work.endpoint, headers, work.timeout_s, TraceStoreMetrics(metrics.registry))
        settings = kafka.consumer_settings(config, names.ingester_group)
        self._consumer = Consumer({**settings, "partition.assignment.strategy": "cooperative-sticky"})
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=STAGE)
        self._loop = asyncio.get_running_loop()
        self._backlogs: dict[int, Backlog] = {}
        self._committed: dict[int, int] = {}
        self._commit_at = 0.0
        self._polled: list[Message] = []
        self._ready = ready

    async def run(self, stop: asyncio.Event) -> None:
        """Forward until `stop` is set; what was forwarded is committed at the end."""
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            while not stop.is_set():
                for message in await self._loop.run_in_executor(self._thread, self._poll):
                    self._add(message)
                await self._tend()
        finally:
            for backlog in self._backlogs.values():
                backlog.task.cancel()
            await self._loop.run_in_executor(self._thread, self._consumer.close)  # calls _on_revoke, which commits
            self._thread.shutdown()
            await self._store.close()

    def _add(self, message: Message) -> None:
        """Put a record into its partition's backlog."""
        error = message.error()
        if error is not None:
            raise KafkaException(error)
        backlog = self._backlogs.get(_partition(message))
        if backlog is not None:
            backlog.add(self._parse(message))

    def _parse(self, message: Message) -> Waiting:
        offset, timestamp_ms = message.offset() or 0, message.timestamp()[1]
        given = cast("list[tuple[str, str | bytes | None]]", message.headers() or [])  # a consumer gets no dicts
        headers = [(name, _bytes(value)) for name, value in given]
        try:
            record = self._format.parse(offset, timestamp_ms, _bytes(message.key()), message.value(), headers)
            return Waiting(offset, record.tenant, self._messages(record.value))
        except Malformed as error:
            self._metrics.refused.labels("malformed").inc()
            log.warning("a record can't be read", partition=message.partition(), offset=offset, error=str(error))
            return Waiting(offset, "", b"")

    def _messages(self, value: bytes) -> bytes:
        """A record's messages as one TracesData. Raises `Malformed`."""
        if self._codec is Codec.OTLP:
            return value
        found = split(np.frombuffer(value, np.uint8), np.array([0, len(value)]), self._codec)
        if found.errors:
            raise Malformed("not a push-bytes value", position=found.errors[0][1])
        return b"".join(value[start:end] for start, end, _ in found.ranges.tolist())

    async def _tend(self) -> None:
        """Pause and resume partitions by their backlogs, and commit from time to time."""
        pause, resume = [], []
        for backlog in self._backlogs.values():
            if backlog.task.done():
                backlog.task.result()  # a forwarder never ends by itself: raises what made it
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

    def _apply(self, pause: Sequence[Backlog], resume: Sequence[Backlog], commit: bool) -> None:
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
        except KafkaException as error:  # the next one says the same and more, or the next owner sends again
            log.warning("offsets weren't committed", error=str(error))

    def _measure_lag(self) -> None:
        for partition, backlog in list(self._backlogs.items()):
            _, end = self._consumer.get_watermark_offsets(self._place(partition), cached=True)
            if backlog.next_offset is not None and end >= 0:
                self._own.lag_records.labels(STAGE, partition).set(max(end - backlog.next_offset, 0))

    def _place(self, partition: int, offset: int | None = None) -> TopicPartition:
        place = TopicPartition(self._topic, partition)
        if offset is not None:
            place.offset = offset
        return place

    def _on_assign(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._loop.call_soon_threadsafe(self._take_over, [place.partition for place in places])

    def _on_revoke(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._commit([place.partition for place in places], wait=True)
        self._on_lost(_, places)

    def _on_lost(self, _: Consumer, places: list[TopicPartition]) -> None:
        gone = {place.partition for place in places}
        self._polled = [message for message in self._polled if message.partition() not in gone]
        self._loop.call_soon_threadsafe(self._let_go, gone)

    # And these in the loop again, before it gets the records of the poll that called the above.

    def _take_over(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._backlogs[partition] = Backlog(partition, self._store, self._metrics)
        log.info("partitions assigned", stage=STAGE, partitions=sorted(self._backlogs))
        self._ready.set()

    def _let_go(self, partitions: set[int]) -> None:
        for partition in partitions:
            backlog = self._backlogs.pop(partition, None)
            self._committed.pop(partition, None)
            if backlog is not None:
                backlog.task.cancel()
            with contextlib.suppress(KeyError):  # it never had one
                self._own.lag_records.remove(STAGE, str(partition))


def _partition(message: Message) -> int:
    partition = message.partition()
    return -1 if partition is None else partition


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


async def run(
    config: Config,
    stop: asyncio.Event,
    metrics: OwnMetrics,
    *,
    embedded: bool = False,
    ready: asyncio.Event | None = None,
) -> None:
    """Run an ingester until `stop` is set. Raises `TopicsError`, or ValueError if there is no endpoint."""
    if not config.spanmill.ingester.endpoint:
        raise ValueError("spanmill.ingester.endpoint isn't set: where should spans go? (http://tempo:4317)")
    await check_topics(config, embedded=embedded, only=[TopicNames.of(config).spans])
    await Ingester(config, metrics, ready or asyncio.Event()).run(stop)
