"""The writing half of a sink's shard: completed windows to every endpoint, in order, then the cuts that they allow.

Each endpoint goes on by itself, in a lane of its own, so that one that is slow or down doesn't hold the others. What it
doesn't have yet is kept in memory, and past a number of windows on disk. A cut is saved when every endpoint has its
window; one that is `endpoint_max_lag` behind is written off, loudly, and no longer waited for.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from agents.endpoint import Endpoint
from agents.own_metrics import OwnMetrics
from agents.spilled_windows import SpilledWindows
from streams.shard import Cut, WindowSamples

log = structlog.get_logger(__name__)

WINDOWS_IN_FLIGHT = 2
"""When so many windows wait for every endpoint the shard isn't fed: the log is the buffer."""
WINDOWS_IN_MEMORY = 20
"""What an endpoint is further behind is kept on disk."""
WINDOWS_KEPT = 1000
"""When one endpoint is so many windows behind, the others wait for it: it has time until it is written off."""
WATCH_EVERY_S = 1.0

SaveCut = Callable[[Cut], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Completed:
    """A window to be written; with the last one of a feed, perhaps a cut to be saved after it."""

    window: WindowSamples
    cut: Cut | None = None


class Pending:
    """A window that not every endpoint has. Its samples are in memory, on disk, or both."""

    __slots__ = ("end_ms", "number", "queued_at", "spilled", "window")

    def __init__(self, number: int, window: WindowSamples, queued_at: float) -> None:
        self.number, self.end_ms, self.queued_at = number, window.end_ms, queued_at
        self.window: WindowSamples | None = window
        self.spilled = False


class Lane:
    """One endpoint's way through the windows of a shard."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.waiting: deque[Pending] = deque()
        """What it doesn't have, the one that is being written first."""
        self.written_off = False
        self.arrived = asyncio.Event()

    def position(self, pending: Pending) -> int | None:
        """How many windows are to be written before that one; None if it has it, or has lost it."""
        return next((at for at, each in enumerate(self.waiting) if each is pending), None)

    def behind_ms(self) -> int:
        """How far it is behind, in the log's time."""
        return self.waiting[-1].end_ms - self.waiting[0].end_ms if self.waiting else 0


class ShardWriter:
    """Writes the windows of one shard. `save` keeps a cut at a window that every endpoint has."""

    def __init__(
        self,
        shard: int,
        endpoints: Sequence[Endpoint],
        metrics: OwnMetrics,
        save: SaveCut,
        spilled: SpilledWindows,
        max_lag_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.paused = False
        """True while `put` waits: the shard isn't fed on purpose."""
        self._shard, self._metrics, self._save = shard, metrics, save
        self._lanes = [Lane(endpoint) for endpoint in endpoints]
        self._spilled, self._max_lag_s, self._clock = spilled, max_lag_s, clock
        self._number = 0
        self._cuts: deque[tuple[int, Cut]] = deque()
        self._progress = asyncio.Condition()
        self._spilling = asyncio.Lock()

    async def put(self, completed: Completed) -> None:
        """Take the next window; waits while no endpoint is ready for it, or one is too far behind."""
        async with self._progress:
            self.paused = not self._has_room()
            try:
                await self._progress.wait_for(self._has_room)
            finally:
                self.paused = False
            self._take(completed)
            self._progress.notify_all()

    async def run(self) -> None:
        """Write until cancelled; raises what an endpoint or `save` raised."""
        self._spilled.open()
        try:
            async with asyncio.TaskGroup() as tasks:
                for lane in self._lanes:
                    tasks.create_task(self._write_lane(lane))
                tasks.create_task(self._save_cuts())
                tasks.create_task(self._watch())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        finally:
            self._spilled.close()
            self._hide()

    def _has_room(self) -> bool:
        lengths = [len(lane.waiting) for lane in self._lanes if not lane.written_off]
        return not lengths or (min(lengths) < WINDOWS_IN_FLIGHT and max(lengths) < self._kept)

    @property
    def _kept(self) -> int:
        return WINDOWS_IN_MEMORY if self._spilled.failed else WINDOWS_KEPT

    def _take(self, completed: Completed) -> None:
        window = completed.window
        self._number += 1
        pending = Pending(self._number, window, self._clock())
        for lane in self._lanes:
            if lane.written_off:
                self._lose(lane)
            lane.waiting.append(pending)
            lane.arrived.set()
        if completed.cut is not None:
            self._add_cut(completed.cut)
        self._show(window)

    def _add_cut(self, cut: Cut) -> None:
        """Of cuts that an endpoint is too slow for, only the oldest and the newest are kept: each is a whole state."""
        while len(self._cuts) > 1:
            self._cuts.pop()
        self._cuts.append((self._number, cut))

    async def _write_lane(self, lane: Lane) -> None:
        while True:
            while not lane.waiting:
                lane.arrived.clear()
                await lane.arrived.wait()
            pending = lane.waiting[0]
            window = pending.window
            if window is None:
                window = await asyncio.to_thread(self._spilled.load, pending.number)
            await lane.endpoint.write(window)
            await self._finish(lane, pending)

    async def _finish(self, lane: Lane, pending: Pending) -> None:
        """The endpoint has a window, or answered for good that it doesn't take it."""
        lane.waiting.popleft()
        if lane.written_off:
            lane.written_off = False
            log.warning(
                "endpoint is back, going on with the newest window", endpoint=lane.endpoint.name, shard=self._shard
            )
        await self._release(pending)
        self._show_lane(lane)
        async with self._progress:
            self._progress.notify_all()

    async def _release(self, pending: Pending) -> None:
        """Forget a window that all endpoints have; put one on disk that the others won't need for long."""
        positions = [at for lane in self._lanes if (at := lane.position(pending)) is not None]
        if not positions:
            self._forget(pending)
        elif min(positions) >= WINDOWS_IN_MEMORY:
            await self._spill(pending)

    async def _spill(self, pending: Pending) -> None:
        async with self._spilling:
            if pending.window is None:
                return
            pending.spilled = await asyncio.to_thread(self._spilled.save, pending.number, pending.window)
            if all(lane.position(pending) is None for lane in self._lanes):  # by now
                self._forget(pending)
            elif pending.spilled:
                pending.window = None

    async def _spill_again(self) -> None:
        """Try the disk once more with what it didn't take: while it takes nothing, nothing else is completed."""
        last = [lane.waiting[-1] for lane in self._lanes if len(lane.waiting) >= WINDOWS_IN_MEMORY]
        if last:
            await self._spill(max(last, key=lambda pending: pending.number))
            async with self._progress:
                self._progress.notify_all()

    def _forget(self, pending: Pending) -> None:
        pending.window = None
        if pending.spilled:
            self._spilled.remove(pending.number)

    async def _save_cuts(self) -> None:
        while True:
            async with self._progress:
                await self._progress.wait_for(self._has_cut)
                while len(self._cuts) > 1 and self._everyone_has(self._cuts[1][0]):
                    self._cuts.popleft()
                _, cut = self._cuts.popleft()
            await self._save(cut)

    def _has_cut(self) -> bool:
        return bool(self._cuts) and self._everyone_has(self._cuts[0][0])

    def _everyone_has(self, number: int) -> bool:
        return all(lane.written_off or not lane.waiting or lane.waiting[0].number > number for lane in self._lanes)

    async def _watch(self) -> None:
        """Write off endpoints that are too far behind, by the clock and by the log.

        By both: catching up, the log's hours pass in minutes; and while every endpoint is down the log doesn't move.
        The clock alone counts if the log doesn't move because the others wait for that one.
        """
        while True:
            await asyncio.sleep(min(WATCH_EVERY_S, self._max_lag_s / 4))
            for lane in self._lanes:
                if not lane.written_off and self._is_too_late(lane):
                    await self._write_off(lane)
            if self._spilled.failed:
                await self._spill_again()

    def _is_too_late(self, lane: Lane) -> bool:
        if not lane.waiting:
            return False
        waited_s = self._clock() - lane.waiting[0].queued_at
        is_behind = lane.behind_ms() >= self._max_lag_s * 1000 or self._is_waited_for(lane)
        return waited_s >= self._max_lag_s and is_behind

    def _is_waited_for(self, lane: Lane) -> bool:
        """Whether the log doesn't move because of this endpoint, while others are ready for more."""
        others = [len(other.waiting) for other in self._lanes if other is not lane and not other.written_off]
        return len(lane.waiting) >= self._kept and min(others, default=WINDOWS_IN_FLIGHT) < WINDOWS_IN_FLIGHT

    async def _write_off(self, lane: Lane) -> None:
        lane.written_off = True
        log.error(
            "endpoint written off: it is too far behind, its windows are lost until it answers",
            endpoint=lane.endpoint.name,
            shard=self._shard,
            behind_s=lane.behind_ms() / 1000,
            windows=len(lane.waiting) - 1,
        )
        while len(lane.waiting) > 2:
            self._lose(lane)
        self._show_lane(lane)
        async with self._progress:
            self._progress.notify_all()

    def _lose(self, lane: Lane) -> None:
        """Leave out the window after the one that a written-off endpoint is being asked to take."""
        if len(lane.waiting) < 2:
            return
        lost = lane.waiting[1]
        del lane.waiting[1]
        self._metrics.windows_lost.labels(lane.endpoint.name).inc()
        if all(other.position(lost) is None for other in self._lanes):
            self._forget(lost)

    def _show(self, window: WindowSamples) -> None:
        self._metrics.windows_completed.inc()
        self._metrics.active_series.labels(window.shard).set(sum(tenant.active_series for tenant in window.tenants))
        self._metrics.registry_gauges.show(window.shard, {tenant.tenant: tenant.gauges for tenant in window.tenants})
        for tenant in window.tenants:
            self._metrics.remote_storage.completed(tenant.tenant, window.end_ms)
        for lane in self._lanes:
            self._show_lane(lane)

    def _hide(self) -> None:
        """The shard is let go: what is shown of it is somebody else's to show."""
        self._metrics.registry_gauges.forget(self._shard)
        with contextlib.suppress(KeyError):
            self._metrics.active_series.remove(str(self._shard))
        for lane in self._lanes:
            for gauge in (self._metrics.windows_waiting, self._metrics.written_off):
                with contextlib.suppress(KeyError):
                    gauge.remove(lane.endpoint.name, str(self._shard))

    def _show_lane(self, lane: Lane) -> None:
        labels = (lane.endpoint.name, self._shard)
        self._metrics.windows_waiting.labels(*labels).set(len(lane.waiting))
        self._metrics.written_off.labels(*labels).set(lane.written_off)
