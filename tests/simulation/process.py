"""A process that runs owners, as `agents.worker.Worker` does: it may be killed, stopped, frozen, or fail by itself."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from agents.inbox import LogRecord
from agents.rules_log import RulesLog
from tests.simulation.kafka import Log, Producer, Record, Worker

CURRENT: "ContextVar[Process | None]" = ContextVar("process", default=None)
"""The process whose code runs: what it asks of the loop is late while it is frozen."""


LOOK_EVERY_S = 5.0
PATIENCE_LOOKS = 3


class StalledError(Exception):
    """Records wait that aren't delivered."""


class Owner(Protocol):
    """As `agents.worker.Owner`."""

    start_offset: int
    next_offset: int
    paused: bool

    async def put(self, records: Sequence[LogRecord]) -> None: ...

    async def run(self) -> None: ...

    async def close(self) -> None: ...


class Stage(Protocol):
    """`agents.generator.Generator` or `agents.sink.Sink`."""

    rules_log: RulesLog

    def owner(self, worker: Any, partition: int, table: Mapping[bytes, bytes]) -> Any: ...


class Fetching:
    """How a process' consumer delivers, and what goes wrong with it."""

    def __init__(self, most: int) -> None:
        self.most = most
        """Records at once."""
        self.skips = 0
        """So many of the next deliveries are lost on their way."""
        self.lost = False
        """Whether that happened."""
        self.repeats = 0
        """So many of the next deliveries begin before the position."""


class Process:
    """One process of a stage. `latency` is how long anything takes that crosses its border."""

    def __init__(
        self,
        name: str,
        kind: str,
        logs: Sequence[Log],
        producer: Producer,
        worker: Worker,
        fetching: Fetching,
        latency: Callable[[], float],
        choose: Callable[[int, int], int],
        failed: "Callable[[Process, BaseException], None]",
    ) -> None:
        self.name, self.kind = name, kind
        self.owners: dict[int, Owner] = {}
        self.is_alive = True
        self.is_joining = False
        """Whether it has owned a partition that had no state: what is delivered too early is passed over."""
        self.thaws_at = 0.0
        """Until then nothing reaches it, and nothing leaves it."""
        self.cut: list[Callable[[], None]] = []
        """What else ends with it."""
        self.fetching, self.producer, self.worker = fetching, producer, worker
        self._logs, self._latency, self._choose, self._failed = logs, latency, choose, failed
        self._tasks: dict[int, list[asyncio.Task[None]]] = {}
        self.stage: Stage | None = None
        self._watching: list[asyncio.Task[None]] = []

    def start(self, stage: Stage) -> None:
        """Begin to watch the rules, without a partition yet."""
        self.stage = stage
        self._watching = [self._spawn(self._watch_rules(stage)), self._spawn(self._watch_progress())]

    def latency(self) -> float:
        """Until something arrives, here or there."""
        now = asyncio.get_running_loop().time()
        return max(self.thaws_at - now, 0.0) + self._latency()

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        self.thaws_at = asyncio.get_running_loop().time() + seconds

    def assign(self, partition: int) -> None:
        """Own a partition from now on."""
        if self.is_alive and partition not in self._tasks:
            self._tasks[partition] = []
            self._tasks[partition].append(self._spawn(self._own(partition)))

    async def drop(self, partition: int) -> None:
        """Own it no longer: what is queued still goes on its way."""
        owner = self.owners.pop(partition, None)
        tasks = self._tasks.pop(partition, [])
        if owner is not None:
            await owner.close()
        await _end(tasks)

    async def stop(self) -> None:
        """SIGTERM."""
        for partition in list(self._tasks):
            await self.drop(partition)
        self._end()

    def kill(self) -> None:
        """SIGKILL: from now on nothing leaves the process but what already has."""
        self.producer.kill()
        self._end()
        for tasks in self._tasks.values():
            for task in tasks:
                task.cancel()
        self._tasks, self.owners = {}, {}

    def _end(self) -> None:
        self.is_alive, self.worker.is_dead = False, True
        for cut in self.cut:
            cut()
        for task in self._watching:
            task.cancel()

    def _spawn(self, work: Any) -> "asyncio.Task[None]":
        before = CURRENT.set(self)
        try:
            return asyncio.get_running_loop().create_task(work)
        finally:
            CURRENT.reset(before)

    async def _watch_rules(self, stage: Stage) -> None:
        async with stage.rules_log.running():
            await asyncio.get_running_loop().create_future()

    async def _watch_progress(self) -> None:
        """As `agents.watchdog`: a consumer from which nothing comes any more."""
        before: dict[int, tuple[int, int]] = {}
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for partition, owner in list(self.owners.items()):
                position, looks = before.get(partition, (-1, 0))
                is_due = self.worker.ends.get(partition, 0) > owner.next_offset and not owner.paused
                looks = looks + 1 if is_due and position == owner.next_offset else 0
                before[partition] = owner.next_offset, looks
                if looks > PATIENCE_LOOKS:
                    self._fail(StalledError(f"{self.name}: nothing comes from partition {partition}"))

    async def _own(self, partition: int) -> None:
        """Recover the table, make the owner, run it."""
        assert self.stage is not None
        await asyncio.sleep(self.latency())
        self.is_joining |= not self.worker.recover(partition)
        try:
            owner: Owner = self.stage.owner(self.worker, partition, self.worker.table.data)
            self.owners[partition] = owner
            self._tasks[partition].append(self._spawn(self._consume(partition, owner)))
            await owner.run()
        except ExceptionGroup as group:
            self._fail(group.exceptions[0])
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self.is_alive:
            self._failed(self, error)

    async def _consume(self, partition: int, owner: Owner) -> None:
        log, position, fetching = self._logs[partition], owner.start_offset, self.fetching
        while True:
            await asyncio.sleep(self.latency())
            if not log.low <= position <= log.high:
                position = log.low  # auto.offset.reset=earliest
            start = position
            if fetching.repeats:
                fetching.repeats -= 1
                start = max(log.low, position - self._choose(1, 4))
            records: list[Record] = log.read(start, position - start + self._choose(1, fetching.most))
            self.worker.ends[partition] = log.high
            if not records or records[-1].offset < position:
                await log.grown(position)
                continue
            position = records[-1].offset + 1
            if fetching.skips:
                fetching.skips -= 1
                fetching.lost = True
                continue
            await owner.put(records)


async def _end(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task
