"""One schedule: the product's processes in a world of logs, tables and endpoints, while faults happen to all of them.

A process is rightful until another takes its place. One that isn't any more may go on for a while, as a zombie. When
spans and faults have ended, everything works again, and what is stored must be what the logs say (verdict.py).
"""

import asyncio
import contextlib
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import cast
from unittest.mock import patch

from confluent_kafka import KafkaException

from agents.broker import Broker
from agents.chain_watch import MissingBatchError
from agents.endpoint import Endpoint
from agents.generator import Generator
from agents.inbox import GapError
from agents.remote_write.credentials import NoCredentials
from agents.remote_write.endpoint import RemoteWriteEndpoint
from agents.rules_log import Clocks
from agents.sink import Sink
from agents.topics import TopicNames
from schemas.checkpoint import decode_checkpoint
from schemas.config import Config, RemoteWriteConfig
from schemas.control import AcceptGap
from schemas.control_format import NO_KEYS, ControlKeys
from schemas.deltas import Batch, decode_batch
from schemas.errors import Malformed
from schemas.snapshot import newest_snapshot
from streams.shard import WindowSamples
from streams.windows import window_end
from tests.simulation.kafka import EPOCH_S, Cluster, Probe, Producer, Topics, Trouble, Worker
from tests.simulation.load import Load
from tests.simulation.loop import VirtualLoop
from tests.simulation.plan import LOSING, SHIFTING, Plan, other_kind
from tests.simulation.process import CURRENT, Fetching, Process, StalledError
from tests.simulation.prometheus import Connection, Prometheus
from tests.simulation.settings import INTERVAL_MS, KEY, WAIT_MS, config, live, metrics

GENERATOR, SINK = "generator", "sink"
PATIENCE_S = 150.0
"""How long everything may take that is left when faults have ended."""
NO_THREADS = cast("ThreadPoolExecutor", None)
APPENDED_WITHIN_S = 6.0
ON_ITS_WAY_S = 8.0
"""When a process is killed, what has left it arrives within that time."""
ACCEPT_GAP = re.compile(r"spanmill sink accept-gap --shard (\d+) --partition (\d+) --after (none|\d+)")
TICKS_EVERY_S, LOOKS_EVERY_S = 1.0, 2.0
"""Polling periods, longer than the product's: each poll costs as much as a request."""


class Written:
    """An endpoint, and which windows it has."""

    def __init__(self, endpoint: RemoteWriteEndpoint, number: int, schedule: "Schedule", process: Process) -> None:
        self.name = endpoint.name
        self._endpoint, self._number, self._schedule, self._process = endpoint, number, schedule, process

    async def write(self, window: WindowSamples) -> None:
        """Write, and note it."""
        await self._endpoint.write(window)
        if self._process.is_alive:
            self._schedule.note_written(self._number, window.shard, window.end_ms)


class Schedule:
    """The world of one plan."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan, self.random = plan, Random(plan.seed)
        self.directory = directory
        self.loop = VirtualLoop(self._thread_latency)
        self.names = TopicNames.of(self._config(plan.first))
        self.cluster = Cluster(self.loop.time)
        self.cluster.create(self.names.spans, 2)
        self.cluster.create(self.names.deltas, plan.shards)
        self.cluster.create(self.names.dead_letters, 1)
        self.cluster.create(GENERATOR, 2)
        self.cluster.topics[self.names.checkpoints] = self.cluster.topics[GENERATOR]
        self.cluster.create(SINK, plan.shards)
        self.committed: dict[str, dict[int, int]] = {GENERATOR: {}, SINK: {}}
        self.trouble = Trouble()
        self.servers = [Prometheus(self.random, plan.age_ms) for _ in range(plan.endpoints)]
        self.keys = ControlKeys((KEY.encode(),)) if plan.signed else NO_KEYS
        self.load = Load(self.random, 2, many_names=plan.first == "patterns" or "rules" in plan.faults)
        self.kind = plan.first
        """The rules that a process is started with."""
        self.owners: dict[tuple[str, int], Process] = {}
        """The rightful ones."""
        self.processes: list[Process] = []
        self._waited_in_vain: set[Process] = set()
        """Sinks that stopped since nobody had delivered a batch."""
        self.failures: list[tuple[Process, BaseException]] = []
        self.happened: Counter[str] = Counter()
        self.spans_appended: Counter[str] = Counter()
        """By tenant: spans of records that can be read."""
        self.written: dict[tuple[int, int], int] = {}
        """By endpoint and shard: the newest window that it has."""
        self.delivered: dict[tuple[int, int], int] = {}
        """By partition and shard: the newest window that was sent."""
        self._seen: dict[int, int] = {}
        self.batches_lost = 0
        """Records of `[deltas]` that retention took before a snapshot had them."""
        self._is_writing = True
        self._may_generate = True
        self._before_cut: dict[int, int] = {}
        """By partition: how many checkpoints are of a topic that was replaced."""
        self.cut_at: list[tuple[int, bytes]] | None = None
        """By partition, how much the spans topic held when it was replaced, and the newest checkpoint then."""
        self.target_ms = 0
        self.stuck = ""
        self.is_over = False
        self._lost_before = _records_lost()
        self._later: set[asyncio.Task[None]] = set()
        self.decode_batch = _decode_batch if plan.remembers else decode_batch

    def run(self) -> None:
        """Do it all."""
        asyncio.set_event_loop(self.loop)
        try:
            with self._sizes():
                self.loop.run_until_complete(self._run())
                self.loop.run_until_complete(self._end())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    @property
    def records_lost(self) -> int:
        """How many records the stages said that they have lost to retention; some more than once."""
        return _records_lost() - self._lost_before

    def note_written(self, endpoint: int, shard: int, end_ms: int) -> None:
        """An endpoint has a window, and all before."""
        key = endpoint, shard
        self.written[key] = max(end_ms, self.written.get(key, 0))

    @contextlib.contextmanager
    def _sizes(self) -> Iterator[None]:
        """The product's constants that are too large for a schedule."""
        plan = self.plan
        with contextlib.ExitStack() as changed:
            set_to = partial(_set, changed)
            set_to("agents.rules_log.POLL_S", LOOKS_EVERY_S)
            set_to("agents.rules_log.PATIENCE_S", APPENDED_WITHIN_S)
            set_to("agents.sink.POLL_S", LOOKS_EVERY_S)
            set_to("agents.ticks.TickTimer.poll_s", TICKS_EVERY_S)
            set_to("streams.delta_records.decode_batch", self.decode_batch)
            if plan.part_limit:
                set_to("schemas.deltas.batches.PART_LIMIT_BYTES", plan.part_limit)
            if plan.kept_windows:
                set_to("agents.shard_writer.WINDOWS_IN_MEMORY", plan.kept_windows)
                set_to("streams.spill.WINDOWS_IN_MEMORY", plan.kept_windows)
            yield

    async def _run(self) -> None:
        for stage in (GENERATOR, SINK):
            await self._begin_stage(stage)
        load = self._spawn(self._append_spans())
        faults = self._spawn(self._happen())
        await asyncio.sleep(self.plan.active_s)
        for task in (load, faults):
            task.cancel()
        await self._settle()

    async def _begin_stage(self, stage: str) -> None:
        partitions = range(len(self.cluster.topics[stage]))
        processes = [self._start(stage) for _ in range(self.plan.processes)]
        for partition in partitions:
            self._hand(stage, partition, processes[partition % len(processes)])

    # ------------------------------------------------------------------------------------------------- processes
    def _start(self, stage: str, kind: str | None = None) -> Process:
        """A process, with the newest rules if not with others."""
        kind = kind or self.kind
        number = len(self.processes)
        latency = self._latency
        producer = Producer(self.cluster, self.trouble, lambda: process.latency(), self.random)  # noqa: PLW0108  made below
        logs = self.cluster.topics[self.names.spans if stage == GENERATOR else self.names.deltas]
        worker = Worker(self.cluster.topics[stage], self.committed[stage], producer, lambda: process.latency())  # noqa: PLW0108
        process = Process(
            f"{stage} {number}",
            kind,
            logs,
            producer,
            worker,
            Fetching(self.plan.fetch_most),
            latency,
            self.random.randint,
            self._failed,
        )
        self.processes.append(process)
        process.start(self._generator(process) if stage == GENERATOR else self._sink(process))
        return process

    def _broker(self, process: Process) -> Broker:
        topics = Topics(self.cluster, process.producer, self.names.spans, self.names.deltas, self.keys)
        return Broker(process.producer, Probe(self.cluster, process.latency), topics, self.keys)

    def _clocks(self) -> Clocks:
        off_s = self.random.uniform(-0.5, 0.5)
        return Clocks(now_s=lambda: EPOCH_S + self.loop.time() + off_s, elapsed_s=self.loop.time)

    def _generator(self, process: Process) -> Generator:
        return Generator(
            self._config(process.kind),
            live(process.kind, self.plan.work, self.directory),
            metrics(),
            len(self.cluster.topics[self.names.spans]),
            self.plan.shards,
            self._broker(process),
            NO_THREADS,
            clocks=self._clocks(),
        )

    def _sink(self, process: Process) -> Sink:
        configured = self._config(process.kind)
        own = live(process.kind, self.plan.work, self.directory)
        endpoints = [self._endpoint(number, configured, process) for number in range(self.plan.endpoints)]
        writer = self.random.randbytes(4)
        sink = Sink(
            configured,
            own,
            metrics(),
            endpoints,
            self._broker(process),
            NO_THREADS,
            writer=writer,
            clocks=self._clocks(),
        )
        sink.record_limit = self.plan.snapshot_limit
        # A process of its own place: what it has put on disk isn't for others to clear away.
        sink.directory = self.directory / process.name
        return sink

    def _endpoint(self, number: int, configured: Config, process: Process) -> Endpoint:
        connection = Connection(self.servers[number], process.latency)
        process.cut.append(connection.kill)
        endpoint = RemoteWriteEndpoint(
            _entry(number),
            configured.spanmill.app_id,
            metrics(),
            connection,
            NoCredentials(),
            org_id=True,
            now_s=lambda: EPOCH_S + self.loop.time(),
            jitter=self.random.uniform,
        )
        return Written(endpoint, number, self, process)

    def _config(self, kind: str) -> Config:
        return config(kind, self.plan.work, self.directory)

    def _hand(self, stage: str, partition: int, process: Process) -> None:
        self.owners[stage, partition] = process
        process.assign(partition)

    def _owned(self, process: Process) -> list[tuple[str, int]]:
        return [key for key, owner in self.owners.items() if owner is process]

    def _failed(self, process: Process, error: BaseException) -> None:
        """A process ends by itself; its supervisor starts it again."""
        self.failures.append((process, error))
        self.happened[f"failed: {type(error).__name__}"] += 1
        process.kill()
        if isinstance(error, MissingBatchError):
            self._missed(process, str(error))
        self._replace_later(process)

    def _missed(self, process: Process, message: str) -> None:
        """A shard has waited for a batch; where it is lost for good, an operator does what the error says."""
        found = ACCEPT_GAP.search(message)
        assert found is not None, message
        shard, partition = int(found[1]), int(found[2])
        after_end_ms = None if found[3] == "none" else int(found[3])
        log = self.cluster.topics[self.names.deltas][shard]
        if self.plan.flavour in LOSING:
            if not self._will_come(partition, after_end_ms):
                accepted = AcceptGap(partition, after_end_ms)
                log.append(b"", None, self.keys.at(self.names.deltas, shard).headers(accepted))
            return
        batches = [_decode_batch(record.value) for record in log.all if record.value]
        if (partition, after_end_ms) not in {(batch.partition, batch.previous_end_ms) for batch in batches}:
            self._waited_in_vain.add(process)

    def _will_come(self, partition: int, after_end_ms: int | None) -> bool:
        """Whether the batch after a window is delivered again: no checkpoint of its generator is behind it yet."""
        newest = self.cluster.topics[GENERATOR][partition].all[-1].value
        assert newest is not None
        return (decode_checkpoint(newest).previous_end_ms or 0) <= (after_end_ms or 0)

    def _replace_later(self, process: Process) -> None:
        owned = self._owned(process)
        if owned:
            self._spawn(self._replace(owned, self.random.uniform(0.1, 6)))

    async def _replace(self, owned: list[tuple[str, int]], after_s: float) -> None:
        await asyncio.sleep(after_s)
        while not self._may_generate and owned[0][0] == GENERATOR:
            await asyncio.sleep(1.0)
        dead = [key for key in owned if not self.owners[key].is_alive]
        if dead:
            others = self._alive(dead[0][0])
            process = self.random.choice(others) if others and self.random.random() < 0.3 else self._start(dead[0][0])
            for stage, partition in dead:
                self._hand(stage, partition, process)

    def _alive(self, stage: str) -> list[Process]:
        """Rightful ones."""
        found = dict.fromkeys(process for key, process in self.owners.items() if key[0] == stage)
        return [process for process in found if process.is_alive]

    @property
    def unexpected(self) -> list[tuple[str, BaseException]]:
        """Processes that ended for reasons of their own."""
        return [(process.name, error) for process, error in self.failures if not self._is_expected(process, error)]

    def _is_expected(self, process: Process, error: BaseException) -> bool:
        """Whether a fault explains the end: a delivery that failed, a fetch that was lost."""
        flavour = self.plan.flavour
        if isinstance(error, GapError | StalledError):
            return process.fetching.lost or flavour == "replaced" or (process.is_joining and flavour == "growth")
        if isinstance(error, MissingBatchError):
            return process in self._waited_in_vain or flavour in LOSING
        return isinstance(error, KafkaException)

    # ---------------------------------------------------------------------------------------------------- events
    async def _append_spans(self) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(1 / self.plan.spans_every_s))
            if self._is_writing:
                self._append_one()

    def _append_one(self, partition: int | None = None) -> None:
        told = self.load.next(int((EPOCH_S + self.loop.time()) * 1000))
        log = self.cluster.topics[self.names.spans][told.partition if partition is None else partition]
        log.append(told.value, None, told.headers)
        self.spans_appended[told.tenant] += told.spans

    async def _happen(self) -> None:
        """Faults, one after the other."""
        while True:
            await asyncio.sleep(self.random.expovariate(1 / self.plan.fault_every_s))
            fault = self.random.choice(self.plan.faults)
            self.happened[fault] += 1
            await self._do(fault)

    async def _do(self, fault: str) -> None:
        r = self.random
        stage = r.choice((GENERATOR, SINK))
        alive = self._alive(stage)
        process = r.choice(alive) if alive else None
        match fault:
            case "crash" if process:
                process.kill()
                self._replace_later(process)
            case "restart" if process:
                await process.stop()
                self._replace_later(process)
            case "zombie" if process:
                self._succeed(process, r.uniform(1, 15))
            case "freeze" if process:
                seconds = r.uniform(0.5, 12)
                process.freeze(seconds)
                if r.random() < 0.6:
                    self._succeed(process, seconds + r.uniform(0, 8))
            case "move":
                await self._move(stage)
            case "duplicate":
                self.trouble.duplicates = r.choice((0.0, 0.1, 0.4))
            case "failed delivery":
                self.trouble.failures = r.choice((1, 1, 2))
            case "clock step":
                r.choice(self.cluster.topics[self.names.spans]).skew_ms = r.choice((-8_000, -5_000, 0, 5_000))
            case "stale record":
                self._repeat_stale(stage)
            case "lost fetch" if process:
                process.fetching.skips = 1
            case "repeated fetch" if process:
                process.fetching.repeats = 3
            case "down" | "busy" | "lost answers":
                self._trouble_endpoint(r.choice(self.servers), fault)
            case "rules":
                self.kind = other_kind(r, self.kind)
                if process:
                    await process.stop()
                    self._replace_later(process)
            case "reload":
                self._reload()
            case "silence":
                self._silence()
            case "growth":
                self._grow()
            case "retention":
                self._forget()
            case "deltas retention":
                await self._forget_deltas()
            case "replaced topic":
                await self._replace_topic()
            case _:
                pass

    def _succeed(self, process: Process, lives_s: float) -> None:
        """Others take over while a process goes on, for so long."""
        owned = self._owned(process)
        others = [each for each in self._alive(owned[0][0]) if each is not process] if owned else []
        successor = self.random.choice(others) if others and self.random.random() < 0.3 else None
        for stage, partition in owned:
            successor = successor or self._start(stage)
            self._hand(stage, partition, successor)
        self._spawn(self._kill_later(process, lives_s))

    async def _kill_later(self, process: Process, after_s: float) -> None:
        await asyncio.sleep(after_s)
        if not self._owned(process) and process.is_alive:
            process.kill()

    async def _move(self, stage: str) -> None:
        """A partition changes hands in order."""
        (_, partition), process = self.random.choice([item for item in self.owners.items() if item[0][0] == stage])
        others = [each for each in self._alive(stage) if each is not process]
        successor = self.random.choice(others) if others and self.random.random() < 0.7 else self._start(stage)
        if process.is_alive:
            await process.drop(partition)
        self._hand(stage, partition, successor)

    def _repeat_stale(self, stage: str) -> None:
        """A paused writer's old record ends up last in the changelog."""
        partition = self.random.randrange(len(self.cluster.topics[stage]))
        log = self.cluster.topics[stage][partition]
        # Nobody runs while a topic is replaced, so nothing from before that is on its way.
        records = log.records[self._before_cut.get(partition, 0) if stage == GENERATOR else 0 :]
        if records:
            old = self.random.choice(records)
            if old.value is not None:
                log.append(old.value, old.key)

    def _trouble_endpoint(self, server: Prometheus, fault: str) -> None:
        r = self.random
        if fault == "down":
            server.is_up = not server.is_up
        elif fault == "busy":
            server.status = r.choice((0, 429, 500, 503))
        else:
            server.lost_answers = r.choice((0.0, 0.2))

    def _reload(self) -> None:
        """The tenants' overrides change while processes run: those that read them have the new ones."""
        self.kind = other_kind(self.random, self.kind)
        for process in self.processes:
            if process.is_alive and self.random.random() < 0.7:
                self._renew(process)

    def _renew(self, process: Process) -> None:
        own = process.stage.rules_log._live
        new = live(self.kind, self.plan.work, self.directory)
        process.kind = self.kind
        if own.rules != new.rules:
            own.current, own.rules, own.renewals = new.current, new.rules, own.renewals + 1

    def _silence(self) -> None:
        """A partition's owners are all gone for longer than anybody waits."""
        partition = self.random.randrange(len(self.cluster.topics[GENERATOR]))
        for process in self.processes:
            if process.is_alive and partition in process.owners:
                process.kill()
        self.owners[GENERATOR, partition].kill()
        silent = [key for key, process in self.owners.items() if not process.is_alive]
        for key in silent:
            if key[1] != partition or key[0] != GENERATOR:
                self._spawn(self._replace([key], 0.5))
        self._spawn(self._replace([(GENERATOR, partition)], self.random.uniform(9, 20)))

    def _grow(self) -> None:
        """The spans topic gets another partition."""
        partitions = len(self.cluster.topics[GENERATOR])
        if partitions > 2 or not self.cluster.topics[GENERATOR][0].records:
            return  # an app that isn't there yet has nothing to grow
        self.cluster.create(GENERATOR, partitions + 1)
        self.cluster.create(self.names.spans, partitions + 1)
        self.load.partitions += 1
        alive = self._alive(GENERATOR)
        process = self.random.choice(alive) if alive and self.random.random() < 0.5 else self._start(GENERATOR)
        self._hand(GENERATOR, partitions, process)

    def _forget(self) -> None:
        """Nobody owned a partition for so long that retention took what nobody had read."""
        partition = self.random.randrange(2)
        log = self.cluster.topics[self.names.spans][partition]
        for process in self.processes:
            if process.is_alive and partition in process.owners:
                process.kill()
        if log.high:
            log.forget(self.random.randint(log.low, log.high))
        self.owners[GENERATOR, partition].kill()
        self._replace_dead()

    async def _forget_deltas(self) -> None:
        """Nobody owned a shard for so long that retention took batches that nobody had read.

        What was written is in a snapshot: those are never older than `endpoint_max_lag`, and retention is much longer.
        """
        shard = self.random.randrange(self.plan.shards)
        for process in self.processes:
            if process.is_alive and shard in process.owners and process.name.startswith(SINK):
                process.kill()
        await asyncio.sleep(ON_ITS_WAY_S)
        found = newest_snapshot(self.cluster.topics[SINK][shard].compacted(), shard)
        newest_ms = max(server.newest_marker_ms(shard) for server in self.servers)
        if found is not None and found.cut.end_ms >= newest_ms:
            log = self.cluster.topics[self.names.deltas][shard]
            lost = self.random.randint(log.low, log.high)
            self.batches_lost += max(lost - max(found.cut.next_offset, log.low), 0)
            log.forget(lost)
        self._replace_dead()

    def _replace_dead(self) -> None:
        for key, process in list(self.owners.items()):
            if not process.is_alive:
                self._spawn(self._replace([key], self.random.uniform(0.5, 3)))

    async def _replace_topic(self) -> None:
        """The spans topic is made anew, as an operator does it: nobody writes, all is checkpointed, nobody runs."""
        if self.cut_at is not None:
            return
        self._is_writing = False
        for _ in range(20):
            await asyncio.sleep(1.0)
            if self._is_checkpointed():
                break
        self._may_generate = False
        for process in self.processes:
            if process.is_alive and process.name.startswith(GENERATOR):
                process.kill()
        await asyncio.sleep(ON_ITS_WAY_S)
        if self._is_checkpointed():
            self.cut_at = [self._cut(partition) for partition in range(2)]
        self._is_writing = self._may_generate = True
        self._replace_dead()

    def _is_checkpointed(self) -> bool:
        """Whether every partition's newest checkpoint is of the last window that it has sent."""
        self._has_delivered()
        for partition, log in enumerate(self.cluster.topics[GENERATOR]):
            saved = next(iter(log.compacted().values()), None)
            ends = {self.delivered.get((partition, shard), 0) for shard in range(self.plan.shards)}
            if saved is None or ends != {decode_checkpoint(saved).previous_end_ms or 0}:
                return False
        return True

    def _cut(self, partition: int) -> tuple[int, bytes]:
        """Replace a partition; often the new one is soon as long as the old one was."""
        log = self.cluster.topics[self.names.spans][partition]
        (saved,) = self.cluster.topics[GENERATOR][partition].compacted().values()
        length = len(log.all)
        self._before_cut[partition] = len(self.cluster.topics[GENERATOR][partition].records)
        log.replace()
        for _ in range(self.random.choice((0, 5, length + 5))):
            self._append_one(partition)
        return length, saved

    # ------------------------------------------------------------------------------------------------------- end
    async def _settle(self) -> None:
        """Everything works again; wait until what is left is done."""
        self.trouble.duplicates, self.trouble.failures = 0.0, 0
        for server in self.servers:
            server.is_up, server.status, server.lost_answers, server.age_ms = True, 0, 0.0, self.plan.age_ms
        self.is_over = self._may_generate = True
        for process in self.processes:
            process.thaws_at = 0.0
            process.fetching.skips = process.fetching.repeats = 0
            if process.is_alive and not self._owned(process):
                self._spawn(self._kill_later(process, self.random.uniform(0, 5)))
        self._replace_dead()
        logs = self.cluster.topics[self.names.spans]
        newest_ms = max((record.timestamp for log in logs for record in log.all), default=0)
        newest_ms = max(newest_ms, int((EPOCH_S + self.loop.time()) * 1000))
        self.target_ms = window_end(newest_ms + WAIT_MS, INTERVAL_MS) + INTERVAL_MS
        if self.plan.flavour in SHIFTING | {"growth"}:
            # Counts may have gone into windows that are later than their spans.
            if not await self._wait(self._has_delivered, "partitions haven't delivered all their windows"):
                return
            self.target_ms = max(self.target_ms, *self.delivered.values()) + INTERVAL_MS
        await self._wait(self._has_written, "endpoints don't have all windows")

    async def _wait(self, holds: Callable[[], bool], otherwise: str) -> bool:
        until = self.loop.time() + PATIENCE_S
        while not holds():
            if self.loop.time() > until:
                seconds = self.target_ms // 1000
                self.stuck = f"stuck: {otherwise}: {self.written}, {self.delivered}, and it should be {seconds}"
                return False
            await asyncio.sleep(1.0)
        return True

    def _has_written(self) -> bool:
        wanted = [(endpoint, shard) for endpoint in range(len(self.servers)) for shard in range(self.plan.shards)]
        return all(self.written.get(key, 0) >= self.target_ms for key in wanted)

    def _has_delivered(self) -> bool:
        """Whether every partition has sent every shard its batches."""
        for shard, log in enumerate(self.cluster.topics[self.names.deltas]):
            for record in log.all[self._seen.get(shard, 0) :]:
                with contextlib.suppress(Malformed):
                    batch = self.decode_batch(record.value or b"")
                    key = batch.partition, shard
                    self.delivered[key] = max(batch.end_ms, self.delivered.get(key, 0))
            self._seen[shard] = len(log.all)
        wanted = [(p, shard) for p in range(len(self.cluster.topics[GENERATOR])) for shard in range(self.plan.shards)]
        return all(self.delivered.get(key, 0) >= self.target_ms for key in wanted)

    async def _end(self) -> None:
        """Let go of everything."""
        for process in self.processes:
            if process.is_alive:
                process.kill()
        own = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not own]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --------------------------------------------------------------------------------------------------- latency
    def _latency(self) -> float:
        r = self.random.random()
        if r < self.plan.slow and not self.is_over:
            return self.random.uniform(0.5, 3.0)
        return r * 0.02 if r < 0.7 else r * 0.3

    def _thread_latency(self) -> float:
        process = CURRENT.get()
        frozen_s = 0.0 if process is None else max(process.thaws_at - self.loop.time(), 0.0)
        r = self.random.random()
        if r < self.plan.slow and not self.is_over:
            return frozen_s + self.random.uniform(0.1, 2.0)
        return frozen_s + r * 0.01

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> "asyncio.Task[None]":
        task = self.loop.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)
        return task


def _records_lost() -> int:
    registry = metrics().registry
    found = (registry.get_sample_value("spanmill_records_lost_total", {"stage": stage}) for stage in (GENERATOR, SINK))
    return round(sum(value or 0 for value in found))


@lru_cache(maxsize=300)
def _decode_batch(value: bytes) -> Batch:
    return decode_batch(value)


def _set(changed: contextlib.ExitStack, name: str, value: object) -> None:
    changed.enter_context(patch(name, value))


def _entry(number: int) -> RemoteWriteConfig:
    return ENTRIES[number]


def _new_entry(number: int) -> RemoteWriteConfig:
    return RemoteWriteConfig.model_validate(
        {
            "url": f"http://prometheus-{number}/api/v1/write",
            "name": f"prometheus-{number}",
            "queue_config": {"max_samples_per_send": 100, "max_backoff": "2s"},
            "metadata_config": {"send": False},
        }
    )


ENTRIES = MappingProxyType({number: _new_entry(number) for number in range(2)})


def scratch() -> Path:
    """A directory for what processes put on disk."""
    return Path(tempfile.mkdtemp(prefix="spanmill-simulation-"))


def forget_scratch(directory: Path) -> None:
    """Remove it."""
    shutil.rmtree(directory, ignore_errors=True)
