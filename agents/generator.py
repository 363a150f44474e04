"""The generator: folds owned partitions of `[spans]` into batches on `[deltas]`.

Each owned partition runs three loops: one takes records and folds them, in a thread; one delivers the batches of closed
windows, in order, and writes the checkpoint when all of them are acknowledged; one appends ticks while the partition is
idle. The folded state is never written in mid-window: what a crash interrupts is computed again, with the same result.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace

import structlog

from agents import kafka
from agents.broker import Broker, kafka_broker
from agents.dead_letters import DeadLetter
from agents.growth import Growth
from agents.inbox import Inbox, LogRecord
from agents.live_config import LiveConfig
from agents.log_probe import Ends
from agents.membership import leave_if_gone
from agents.memory import collect_rarely, keep_freed_memory
from agents.own_metrics import OwnMetrics
from agents.rules_log import Clocks, RulesLog
from agents.ticks import TickTimer
from agents.topics import CHANGELOG_MAX_RECORD_BYTES, TopicNames, check_shards, check_topics
from agents.warm_up import warm_up
from agents.worker import Worker, WorkerSettings
from schemas.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from schemas.config import Config
from schemas.control import CONTROL_HEADER, ConfigChange, Tick
from schemas.deltas import encode_window
from schemas.errors import Malformed, Reason
from schemas.murmur2 import count_misplaced
from schemas.otlp import Codec
from schemas.record import Record
from schemas.record_format import RecordFormat
from schemas.rules_in_force import RulesInForce
from streams.partition import Closing, PartitionFold, Rejected

log = structlog.get_logger(__name__)

DELIVERIES_IN_FLIGHT = 8
"""Closings that may wait for their acknowledgement while the next records are folded."""
CHECKPOINT_KEY = b"checkpoint"
"""Prefix of a partition's key in the table: one key per partition, so that recovery reads one record."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one fold gave: encoded batches by closing, and what can't be read, on its way to the dead letters."""

    batches: tuple[tuple[list[list[bytes]], ...], ...]
    """By closing, by window: the parts for each shard."""
    checkpoint: Checkpoint | None
    """The newest one, to be written when all batches above are acknowledged."""
    rejected: tuple[Rejected, ...]


class Generator:
    """What the owners of one process share: the way to Kafka, settings, threads, clocks and metrics."""

    def __init__(
        self,
        config: Config,
        live: LiveConfig,
        metrics: OwnMetrics,
        partitions: int,
        shards: int,
        broker: Broker,
        threads: Executor,
        *,
        clocks: Clocks,
    ) -> None:
        self.config, self.live, self.metrics = config, live, metrics
        self.partitions, self.shards = partitions, shards
        self.names = TopicNames.of(config)
        self.broker, self.threads, self.clocks = broker, threads, clocks
        self.rules_log = RulesLog(live, broker.topics, metrics.config, "generator", clocks)
        self.growth = Growth(broker.probe, self.names.checkpoints, self.rules_log)
        self.codec = Codec(config.metrics_generator.codec)

    def fold_from(self, checkpoint: Checkpoint) -> PartitionFold:
        """The state of a partition as its checkpoint, which has rules, describes it."""
        own = self.live.rules
        return PartitionFold(own.settings_of, own.interval_ms, self.codec, checkpoint)

    def owner(self, worker: Worker, partition: int, table: Mapping[bytes, bytes]) -> "PartitionOwner":
        """The owner of a partition that has just been assigned."""
        saved = table.get(checkpoint_key(partition))
        return PartitionOwner(self, worker, partition, None if saved is None else decode_checkpoint(saved))


class PartitionOwner:
    """One owned partition of `[spans]`."""

    others_lag = False

    def __init__(self, generator: Generator, worker: Worker, partition: int, checkpoint: Checkpoint | None) -> None:
        self.partition = partition
        self._generator, self._worker = generator, worker
        self._checkpoint = checkpoint
        self._controls = generator.broker.control_keys.at(generator.names.spans, partition)
        self._format = RecordFormat(generator.codec, generator.config.spanmill.tenant_headers, self._controls)
        self._inbox = Inbox(generator.broker.probe, generator.names.spans, partition, self.start_offset)
        self._deliveries: asyncio.Queue[Delivery] = asyncio.Queue(DELIVERIES_IN_FLIGHT)
        self._emptied_to = 0
        """Below this offset the log held nothing when it was begun: no record will show that it is read."""
        self._timer = TickTimer(generator.config.spanmill.generator.tick_after_s, generator.clocks.elapsed_s)
        self._folding = self._joining = False
        self._folded: PartitionFold | None = None

    @property
    def rules(self) -> RulesInForce | None:
        """The rules that the partition follows; None before it has begun."""
        return None if self._folded is None else self._folded.rules

    @property
    def paused(self) -> bool:
        """Whether nothing is read on purpose.

        What was sent must be acknowledged first, or the partition is a new one, which the others don't know yet.
        """
        return self._joining or self._deliveries.full()

    @property
    def at_end(self) -> bool:
        """Whether the partition is read to its end; there is nothing to read where retention took everything."""
        end, position = self._worker.end_offset(self.partition), max(self.next_offset, self._emptied_to)
        return end is not None and position >= end and self._inbox.empty and not self._folding

    @property
    def start_offset(self) -> int:
        """The checkpoint's offset, whatever is committed; 0 without a checkpoint."""
        return 0 if self._checkpoint is None else self._checkpoint.next_offset

    @property
    def next_offset(self) -> int:
        """The offset after the last record that was taken over."""
        return self._inbox.next_offset

    @property
    def stream_time_ms(self) -> int | None:
        """The partition's stream time."""
        return None if self._folded is None else self._folded.stream_time_ms

    async def put(self, records: Sequence[LogRecord]) -> None:
        """Hand over a delivery; waits while too many are waiting."""
        await self._inbox.put(records)

    async def close(self) -> None:
        """Let go of whoever waits in `put`."""
        await self._inbox.close()

    async def run(self) -> None:
        """Fold, deliver and tick until cancelled."""
        checkpoint = await self._first_checkpoint()
        self._inbox.next_offset = checkpoint.next_offset
        self._folded = self._generator.fold_from(checkpoint)
        with self._generator.rules_log.followed_by(self):
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._fold_records())
                loops.create_task(self._deliver())
                loops.create_task(self._tick())

    @property
    def _fold(self) -> PartitionFold:
        assert self._folded is not None, "run() makes it first"
        return self._folded

    async def _first_checkpoint(self) -> Checkpoint:
        """The saved checkpoint if it belongs to this log; else a new one, written before any record is read.

        Raises `OtherShardsError`.
        """
        generator, saved = self._generator, self._checkpoint
        ends = await generator.broker.probe.ends(generator.names.spans, self.partition)
        if ends.low == ends.high:
            self._emptied_to = ends.high
        if saved is None:
            fresh = await self._beginning(ends.low)
        else:
            check_shards(generator.names.deltas, generator.names.generator_app, generator.shards, saved.shards)
            saved = replace(saved, shards=generator.shards)
            if not await self._replaced(saved, ends):
                return saved
            fresh = saved.restarted(ends.low)
        await self._save(fresh)
        return fresh

    async def _beginning(self, offset: int) -> Checkpoint:
        """The checkpoint of a partition that never had one.

        In a new app it has this process' own rules, which hold until the first configuration record; in a living one
        those of the window with which the partition joins it (growth.py).
        """
        generator = self._generator
        joining = await generator.growth.joining(self.partition, self._pass_over)
        self._joining = self._inbox.drops = False
        if joining is None:
            rules = RulesInForce.initial(generator.live.rules, spans_partitions=generator.partitions)
            return Checkpoint(offset, rules=rules, shards=generator.shards)
        first_ms, rules = joining
        stream_time_ms = first_ms - generator.live.rules.interval_ms
        return Checkpoint(offset, stream_time_ms=stream_time_ms, rules=rules, shards=generator.shards)

    def _pass_over(self) -> None:
        """Take nothing for what may be minutes, without holding up others: more than a little becomes a gap."""
        self._joining = self._inbox.drops = True

    async def _replaced(self, saved: Checkpoint, ends: Ends) -> bool:
        """Whether the topic isn't the one that the checkpoint speaks of."""
        topic = self._generator.names.spans
        at = None
        if ends.low <= saved.next_offset < ends.high:
            at = await self._generator.broker.probe.first_from(topic, self.partition, saved.next_offset)
        replaced = (
            saved.next_offset > ends.high
            or (saved.next_offset == ends.high and saved.next_timestamp_ms is not None)  # that record was there once
            or (
                at is not None
                and saved.next_timestamp_ms is not None
                and at != (saved.next_offset, saved.next_timestamp_ms)
                and at[0] == saved.next_offset
            )
        )
        if replaced:
            log.error(
                "the topic was replaced: starting over at its beginning",
                topic=topic,
                partition=self.partition,
                wanted=saved.next_offset,
                log_end=ends.high,
            )
        return replaced

    async def _fold_records(self) -> None:
        max_bytes = self._generator.config.spanmill.generator.chunk_max_bytes
        loop = asyncio.get_running_loop()
        while True:
            taken = await self._inbox.take(max_bytes)
            self._folding = True
            lost_before, self._inbox.lost_before = self._inbox.lost_before, {}
            self._generator.metrics.records_lost.labels("generator").inc(sum(lost_before.values()))
            delivery = await loop.run_in_executor(self._generator.threads, self._fold_chunk, taken, lost_before)
            self._timer.read(taken[-1].timestamp)
            self._folding = False
            self._count_read(taken)
            if delivery.batches or delivery.rejected:
                await self._deliveries.put(delivery)

    def _fold_chunk(self, taken: Sequence[LogRecord], lost_before: Mapping[int, int]) -> Delivery:
        """Fold a chunk and encode what it closed; in a thread."""
        records, unreadable = self._parse(taken)
        fed = self._fold.feed(records, lost_before)
        generator = self._generator
        encoded = tuple(self._encode(closing) for closing in fed.closings)
        generator.metrics.windows_closed.labels(self.partition).inc(sum(len(c.windows) for c in fed.closings))
        for closing in fed.closings:
            for window in closing.windows:
                generator.metrics.ledger.add(window.ledger)
        if fed.closings:
            for tenant, settings in self._fold.tenants.items():
                generator.metrics.config.show_processors(tenant, settings)
        self._note_unreadable(records, fed.rejected)
        checkpoint = fed.closings[-1].checkpoint if fed.closings else None
        return Delivery(encoded, checkpoint, (*unreadable, *fed.rejected))

    def _note_unreadable(self, records: Sequence[Record], rejected: Sequence[Rejected]) -> None:
        """Say which configuration records can't be followed: what they change is missing from the metrics."""
        changes = {record.offset for record in records if isinstance(record.control, ConfigChange)}
        for each in rejected:
            if each.offset in changes:
                self._generator.metrics.config.unreadable.labels("generator").inc()
                log.error(
                    "rules in the log that can't be followed: those before hold",
                    topic=self._generator.names.spans,
                    partition=self.partition,
                    offset=each.offset,
                    reason=each.reason,
                )

    def _encode(self, closing: Closing) -> tuple[list[list[bytes]], ...]:
        partitions, shards = self._generator.partitions, self._generator.shards
        return tuple(
            encode_window(window, self.partition, window.spans_partitions or partitions, shards)
            for window in closing.windows
        )

    def _parse(self, taken: Sequence[LogRecord]) -> tuple[list[Record], list[Rejected]]:
        records: list[Record] = []
        unreadable: list[Rejected] = []
        parse = self._format.parse
        for r in taken:
            try:
                records.append(parse(r.offset, r.timestamp, r.key, r.value, r.headers))
            except Malformed as error:
                unreadable.append(self._unreadable(r, error))
                records.append(
                    Record(r.offset, r.timestamp, b"", unreadable=True)
                )  # its timestamp still moves the stream time
        return records, unreadable

    def _unreadable(self, record: LogRecord, error: Malformed) -> Rejected:
        """A record for the dead letters; what a control record says is in a header."""
        value = record.value or dict(record.headers).get(CONTROL_HEADER, b"")
        if error.reason == Reason.SIGNATURE:
            self._generator.metrics.controls_refused.labels("generator").inc()
            log.error(
                "a control record that isn't ours was put with the dead letters",
                topic=self._generator.names.spans,
                partition=self.partition,
                offset=record.offset,
                reason=str(error),
            )
        return Rejected(record.offset, record.timestamp, error.position or 0, str(error), value)

    def _count_read(self, taken: Sequence[LogRecord]) -> None:
        metrics = self._generator.metrics
        metrics.records.labels(self.partition).inc(len(taken))
        metrics.record_bytes.labels(self.partition).inc(sum(len(r.value or b"") for r in taken))
        keys = [r.key for r in taken if r.key]
        partitions = self._fold.spans_partitions or self._generator.partitions
        metrics.misplaced.labels(self.partition).inc(count_misplaced(keys, self.partition, partitions))

    async def _deliver(self) -> None:
        while True:
            waiting = [await self._deliveries.get()]
            while not self._deliveries.empty():
                waiting.append(self._deliveries.get_nowait())
            await self._send(waiting)
            newest = next((d.checkpoint for d in reversed(waiting) if d.checkpoint is not None), None)
            if newest is not None:
                await self._save(newest)
                await self._worker.commit(self.partition, newest.next_offset)

    async def _send(self, deliveries: Sequence[Delivery]) -> None:
        """Send batches and dead letters and wait for every acknowledgement; purge and raise if one fails."""
        generator = self._generator
        sent: list[asyncio.Future[int]] = []
        try:
            for shard, part in _parts(deliveries):
                sent.append(await generator.broker.producer.send(generator.names.deltas, shard, part))
                generator.metrics.batch_bytes.inc(len(part))
            batches = len(sent)
            for delivery in deliveries:
                sent.extend([await self._send_dead_letter(rejected) for rejected in delivery.rejected])
            await asyncio.gather(*sent)
        except Exception:
            generator.broker.producer.purge()  # nothing may follow a batch that failed: the chain would be broken
            raise
        generator.metrics.batches_sent.inc(batches)

    async def _send_dead_letter(self, rejected: Rejected) -> asyncio.Future[int]:
        names = self._generator.names
        letter = DeadLetter(
            names.spans,
            self.partition,
            rejected.offset,
            rejected.timestamp_ms,
            rejected.reason,
            rejected.position,
            rejected.value,
        )
        self._generator.metrics.dead_letters.labels("malformed").inc()
        return await self._generator.broker.producer.send(
            names.dead_letters, 0, letter.value, key=letter.key, headers=letter.headers
        )

    async def _save(self, checkpoint: Checkpoint) -> None:
        value = encode_checkpoint(checkpoint)
        await self._worker.save(self.partition, {checkpoint_key(self.partition): value})
        metrics = self._generator.metrics
        metrics.checkpoints.labels(self.partition).inc()
        metrics.checkpoint_bytes.labels(self.partition).set(len(value))

    async def _tick(self) -> None:
        """Append a tick when the partition is read to its end and its time has passed the open window's end."""
        generator = self._generator
        while True:
            await asyncio.sleep(self._timer.poll_s)
            if not self.at_end or not self._timer.due(self._fold.open_end_ms, self.next_offset):
                continue
            tick = Tick(self._fold.open_end_ms or 0)
            appended = await generator.broker.producer.send(
                generator.names.spans, self.partition, b"", headers=self._controls.headers(tick)
            )
            self._timer.appended(await appended)
            generator.metrics.ticks.labels(self.partition).inc()


def _parts(deliveries: Sequence[Delivery]) -> Iterator[tuple[int, bytes]]:
    """Shard and part, in the order in which they are sent."""
    for delivery in deliveries:
        for windows in delivery.batches:
            for shards in windows:
                for shard, parts in enumerate(shards):
                    yield from ((shard, part) for part in parts)


def checkpoint_key(partition: int) -> bytes:
    """The key of a partition's checkpoint."""
    return b"%s-%d" % (CHECKPOINT_KEY, partition)


async def run(
    config: Config,
    stop: asyncio.Event,
    metrics: OwnMetrics,
    *,
    live: LiveConfig | None = None,
    embedded: bool = False,
    ready: asyncio.Event | None = None,
) -> None:
    """Run a generator until `stop` is set; raises what made it fail. `embedded`: the broker has no topic settings.

    `live` is for stages that share a process, whose affair it is then to watch it.
    """
    keep_freed_memory()
    names = TopicNames.of(config)
    counts = await check_topics(config, embedded=embedded)
    await asyncio.to_thread(warm_up, config)
    collect_rarely()
    async with contextlib.AsyncExitStack() as running:
        if live is None:
            live = LiveConfig(config, metrics.config, embedded=embedded)
            await running.enter_async_context(live.watched())
        broker = kafka_broker(config)
        running.push_async_callback(asyncio.to_thread, broker.producer.close)
        threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fold")
        running.callback(threads.shutdown, wait=False, cancel_futures=True)
        partitions, shards = counts[names.spans], counts[names.deltas]
        generator = Generator(config, live, metrics, partitions, shards, broker, threads, clocks=Clocks())
        await running.enter_async_context(generator.rules_log.running())
        settings = WorkerSettings(
            app_id=names.generator_app,
            topic=names.spans,
            partitions=generator.partitions,
            table="checkpoints",
            data_dir=config.spanmill.generator.data_dir,
            newest_record_only=True,
            max_record_bytes=CHANGELOG_MAX_RECORD_BYTES,
            broker=kafka.faust_settings(config),
            client=kafka.client_settings(config),
        )
        await Worker(settings, generator.owner, metrics, "generator").run(stop, ready)
    await leave_if_gone(config, names.generator_app)
