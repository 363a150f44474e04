"""The sink: owns series. Completes windows of its partitions of `[deltas]` and writes them to the endpoints.

Each owned shard runs two loops: one feeds batches to the shard, in a thread, and queues the windows that they complete;
the other, in shard_writer.py, writes those to every endpoint, in order, and then saves a snapshot. A snapshot is a cut
at a window that every endpoint has; what a crash interrupts is computed again from there, and the endpoints skip what
they have.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import TypedDict

import structlog

from agents import kafka
from agents.broker import Broker, kafka_broker
from agents.chain_watch import ChainWatch
from agents.endpoint import Endpoint
from agents.hold_back import POLL_S
from agents.inbox import Inbox, LogRecord
from agents.live_config import LiveConfig
from agents.membership import leave_if_gone
from agents.memory import collect_rarely
from agents.own_metrics import OwnMetrics
from agents.remote_write.endpoints import remote_write_endpoints
from agents.rules_log import Clocks, RulesLog
from agents.shard_writer import Completed, ShardWriter
from agents.spilled_batches import SpilledBatches
from agents.spilled_windows import SpilledWindows
from agents.topics import CHANGELOG_MAX_RECORD_BYTES, TopicNames, check_shards, check_topics
from agents.warm_up import warm_up
from agents.worker import Worker, WorkerSettings
from schemas.config import Config
from schemas.control import ConfigChange
from schemas.errors import Malformed
from schemas.rules_in_force import RulesInForce
from schemas.snapshot import RECORD_LIMIT_BYTES, newest_snapshot, obsolete_keys, snapshot_records
from streams.delta_records import delta_item
from streams.shard import BatchStore, Cut, Item, Shard, WindowSamples

log = structlog.get_logger(__name__)

FEED_BYTES = 4_000_000
"""Bytes of batches that are fed at once."""
EMBEDDED_RECORD_BYTES = 700_000
"""The embedded broker takes no records over 1 MB."""
DISK_POLL_S = 1.0
THREADS = 2


class Sink:
    """What the owners of one process share: endpoints, the way to Kafka, threads, clocks and metrics.

    `writer` names the process in the keys of snapshots: a zombie's half must not mix with another's.
    """

    def __init__(
        self,
        config: Config,
        live: LiveConfig,
        metrics: OwnMetrics,
        endpoints: Sequence[Endpoint],
        broker: Broker,
        threads: Executor,
        *,
        writer: bytes,
        clocks: Clocks,
        shards: int = 0,
        embedded: bool = False,
    ) -> None:
        self.live, self.metrics, self.endpoints = live, metrics, tuple(endpoints)
        self.names = TopicNames.of(config)
        self.work = config.spanmill.sink
        self.directory = self.work.data_dir / self.names.sink_app
        self.broker = broker
        self.threads, self.clocks, self.writer, self.shards = threads, clocks, writer, shards
        self.rules_log = RulesLog(live, broker.topics, metrics.config, "sink", clocks)
        self.record_limit = EMBEDDED_RECORD_BYTES if embedded else RECORD_LIMIT_BYTES

    def owner(self, worker: Worker, shard: int, table: Mapping[bytes, bytes]) -> "ShardOwner":
        """The owner of a shard that has just been assigned, restored from its newest complete snapshot.

        Raises `OtherShardsError`.
        """
        found = newest_snapshot(table, shard)
        own, rules = self.live.rules, RulesInForce.initial(self.live.rules)
        store = SpilledBatches(self.directory / "batches", shard)
        options = _ShardOptions(stale_markers=self.work.stale_markers, store=store)
        if found is None:
            new = Shard(shard, own.settings_of, own.interval_ms, rules, provisional=True, **options)
            return ShardOwner(self, worker, new, store)
        check_shards(self.names.deltas, self.names.sink_app, self.shards, found.cut.shards)
        restored = Shard.restore(found.cut, own.settings_of, own.interval_ms, rules, **options)
        return ShardOwner(self, worker, restored, store)


class _ShardOptions(TypedDict):
    """What a new shard and a restored one have in common."""

    stale_markers: bool
    store: BatchStore


class ShardOwner:
    """One owned partition of `[deltas]`."""

    def __init__(self, sink: Sink, worker: Worker, shard: Shard, store: SpilledBatches) -> None:
        self.start_offset = shard.next_offset
        self._sink, self._worker, self._shard, self._store = sink, worker, shard, store
        self._inbox = Inbox(sink.broker.probe, sink.names.deltas, shard.index, shard.next_offset)
        self._writer = ShardWriter(
            shard.index,
            sink.endpoints,
            sink.metrics,
            self._save,
            SpilledWindows(sink.directory / "windows", shard.index),
            sink.work.endpoint_max_lag_s,
            clock=sink.clocks.elapsed_s,
        )
        self._controls = sink.broker.control_keys.at(sink.names.deltas, shard.index)
        self._since_cut = 0
        self._feeding = False
        self._disk_full = False
        self._watch = ChainWatch(
            shard, sink.names.deltas, sink.broker, sink.metrics, sink.work.hold_back_s, sink.clocks.elapsed_s
        )

    @property
    def partition(self) -> int:
        """The shard's number."""
        return self._shard.index

    @property
    def rules(self) -> RulesInForce | None:
        """The rules that the shard follows."""
        return self._shard.rules

    @property
    def at_end(self) -> bool:
        """Whether the partition is read to its end."""
        end = self._worker.end_offset(self.partition)
        return end is not None and self.next_offset >= end and self._inbox.empty and not self._feeding

    @property
    def others_lag(self) -> bool:
        """Whether a source partition follows older rules than the shard."""
        return self._shard.others_lag

    @property
    def paused(self) -> bool:
        """Whether too many windows wait to be written, or batches can't be put away."""
        return self._writer.paused or self._disk_full

    @property
    def next_offset(self) -> int:
        """The offset after the last record that was taken over."""
        return self._inbox.next_offset

    @property
    def stream_time_ms(self) -> int | None:
        """The last completed window."""
        return self._shard.end_ms

    async def put(self, records: Sequence[LogRecord]) -> None:
        """Hand over a delivery; waits while too many are waiting."""
        await self._inbox.put(records)

    async def close(self) -> None:
        """Let go of whoever waits in `put`."""
        await self._inbox.close()

    async def run(self) -> None:
        """Feed and write until cancelled."""
        await self._find_place()
        with self._sink.rules_log.followed_by(self), self._stored():
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._feed_records())
                loops.create_task(self._writer.run())
                loops.create_task(self._watch_chains())

    @contextlib.contextmanager
    def _stored(self) -> Iterator[None]:
        """What is put away and shown is there for the time of the context."""
        self._store.open()
        try:
            yield
        finally:
            self._store.close()
            self._watch.hide()
            with contextlib.suppress(KeyError):
                self._sink.metrics.sink_paused.remove(str(self.partition))

    async def _find_place(self) -> None:
        """Adopt the chains as they go on if the log doesn't hold what the shard wants next."""
        topic, shard = self._sink.names.deltas, self._shard
        ends = await self._sink.broker.probe.ends(topic, shard.index)
        if ends.low <= self.start_offset <= ends.high:
            return
        log.error(
            "the log doesn't hold the wanted offset: going on with what it has",
            topic=topic,
            partition=shard.index,
            wanted=self.start_offset,
            log_start=ends.low,
            log_end=ends.high,
        )
        self._sink.metrics.records_lost.labels("sink").inc(max(ends.low - self.start_offset, 0))
        shard.adopt()
        self._inbox.next_offset = ends.low

    async def _feed_records(self) -> None:
        """Feed what is delivered. Windows are completed one at a time, each when the one before is with the writer."""
        loop, threads = asyncio.get_running_loop(), self._sink.threads
        while True:
            taken = await self._inbox.take(FEED_BYTES)
            self._feeding = True
            lost, self._inbox.lost = self._inbox.lost, 0
            self._sink.metrics.records_lost.labels("sink").inc(lost)
            feeding = self._feed(taken, lost=lost)
            while (completed := await loop.run_in_executor(threads, next, feeding, None)) is not None:
                await self._writer.put(completed)
            while self._shard.store_full:
                self._disk_full = True
                await asyncio.sleep(DISK_POLL_S)
                await loop.run_in_executor(threads, self._shard.spill_again)
            self._disk_full = self._feeding = False

    def _feed(self, taken: Sequence[LogRecord], *, lost: int) -> Iterator[Completed]:
        """Feed records; each step runs in a thread. If some were `lost` to retention, chains go on behind the hole."""
        for record in taken:
            if lost and record.offset > self._shard.next_offset:
                self._shard.adopt()
            item = self._decode(record)
            if item is None:
                self._shard.next_offset = record.offset + 1
                continue
            if isinstance(item, ConfigChange):
                self._hear(record, item)
            else:
                self._watch.note(record.offset, item, self._shard.take(record.offset, item))
            for window in self._shard.completed():
                yield self._completed(window)

    def _completed(self, window: WindowSamples) -> Completed:
        """The window, with a cut if one is due."""
        self._since_cut += 1
        if self._since_cut < self._sink.work.snapshot_every_windows:
            return Completed(window)
        self._since_cut = 0
        return Completed(window, self._shard.snapshot())

    def _hear(self, record: LogRecord, change: ConfigChange) -> None:
        """Take over what a configuration record decides; rules that this program can't follow change nothing."""
        try:
            self._shard.take(record.offset, change)
        except Malformed as error:
            self._sink.metrics.config.unreadable.labels("sink").inc()
            log.error(  # noqa: TRY400 -- the reason says all
                "rules in the log that can't be followed: those before hold",
                topic=self._sink.names.deltas,
                partition=self.partition,
                offset=record.offset,
                reason=str(error),
            )

    def _decode(self, record: LogRecord) -> Item | None:
        """What a record says; None for what the shard has no use for."""
        try:
            return delta_item(record.value, record.headers, self._controls)
        except Malformed as error:
            self._pass_over(record, error)
            return None

    def _pass_over(self, record: LogRecord, error: Malformed) -> None:
        """A control record of somebody who hasn't our key."""
        self._sink.metrics.controls_refused.labels("sink").inc()
        log.error(
            "a control record that isn't ours was passed over",
            topic=self._sink.names.deltas,
            partition=self.partition,
            offset=record.offset,
            reason=str(error),
        )

    async def _watch_chains(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            self._sink.metrics.sink_paused.labels(self.partition).set(self.paused)
            if self._is_idle():
                await self._watch.look(self._is_idle)

    def _is_idle(self) -> bool:
        return self.at_end and not self.paused

    async def _save(self, cut: Cut) -> None:
        """Save a cut, then delete older ones, then commit for those who watch the lag."""
        sink, loop = self._sink, asyncio.get_running_loop()
        cut = replace(cut, shards=sink.shards)
        records = await loop.run_in_executor(sink.threads, snapshot_records, cut, sink.writer, sink.record_limit)
        *parts, manifest = records
        await self._worker.save(cut.shard, dict(parts))
        await self._worker.save(cut.shard, dict([manifest]))  # a part that failed would leave a snapshot with a hole
        old = obsolete_keys(list(self._worker.table.data), cut)
        await self._worker.save(cut.shard, dict.fromkeys(old))
        await self._worker.commit(cut.shard, cut.next_offset)
        sink.metrics.snapshots.labels(cut.shard).inc()


async def run(
    config: Config,
    stop: asyncio.Event,
    metrics: OwnMetrics,
    *,
    live: LiveConfig | None = None,
    embedded: bool = False,
    ready: asyncio.Event | None = None,
    endpoints: Sequence[Endpoint] = (),
) -> None:
    """Run a sink until `stop` is set; raises what made it fail. `endpoints` are written besides the configured ones.

    `live` is for stages that share a process, whose affair it is then to watch it.
    """
    names = TopicNames.of(config)
    counts = await check_topics(config, embedded=embedded, only=(names.deltas, names.snapshots))
    await asyncio.to_thread(warm_up, config)
    collect_rarely()
    settings = WorkerSettings(
        app_id=names.sink_app,
        topic=names.deltas,
        partitions=counts[names.deltas],
        table="snapshots",
        data_dir=config.spanmill.sink.data_dir,
        newest_record_only=False,
        max_record_bytes=CHANGELOG_MAX_RECORD_BYTES,
        broker=kafka.faust_settings(config),
        client=kafka.client_settings(config),
    )
    async with contextlib.AsyncExitStack() as running:
        if live is None:
            live = LiveConfig(config, metrics.config, embedded=embedded)
            await running.enter_async_context(live.watched())
        current = live
        configured = await running.enter_async_context(remote_write_endpoints(lambda: current.current, metrics))
        broker = kafka_broker(config)
        running.push_async_callback(asyncio.to_thread, broker.producer.close)
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="complete")
        running.callback(threads.shutdown, wait=False, cancel_futures=True)
        endpoints = [*configured, *endpoints]
        writer = uuid.uuid4().bytes
        sink = Sink(
            config,
            live,
            metrics,
            endpoints,
            broker,
            threads,
            writer=writer,
            clocks=Clocks(),
            shards=counts[names.deltas],
            embedded=embedded,
        )
        await running.enter_async_context(sink.rules_log.running())
        await Worker(settings, sink.owner, metrics, "sink").run(stop, ready)
    await leave_if_gone(config, names.sink_app)
