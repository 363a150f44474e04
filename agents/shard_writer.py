"""The writing half of a sink's shard: completed windows to every endpoint, in order, then the cuts that they allow."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from agents.endpoint import Endpoint
from agents.own_metrics import OwnMetrics
from streams.shard import Cut, WindowSamples

WINDOWS_IN_FLIGHT = 2
"""Completed windows that wait to be written; when they are so many, the shard isn't fed."""

SaveCut = Callable[[Cut], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Completed:
    """A window to be written; with the last one of a feed, perhaps a cut to be saved after it."""

    window: WindowSamples
    cut: Cut | None = None


class ShardWriter:
    """Writes the windows of one shard. `save` keeps a cut at a window that every endpoint has."""

    def __init__(self, endpoints: Sequence[Endpoint], metrics: OwnMetrics, save: SaveCut) -> None:
        self.paused = False
        """True while `put` waits: the shard isn't fed on purpose."""
        self._endpoints, self._metrics, self._save = tuple(endpoints), metrics, save
        self._completed: asyncio.Queue[Completed] = asyncio.Queue(WINDOWS_IN_FLIGHT)

    async def put(self, completed: Completed) -> None:
        """Take the next window; waits while too many are waiting."""
        self.paused = self._completed.full()
        await self._completed.put(completed)
        self.paused = False

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            completed = await self._completed.get()
            await self._write(completed.window)
            if completed.cut is not None:
                await self._save(completed.cut)

    async def _write(self, window: WindowSamples) -> None:
        """Write a window to every endpoint; done when all of them have it."""
        await asyncio.gather(*(endpoint.write(window) for endpoint in self._endpoints))
        self._metrics.windows_completed.inc()
        self._metrics.active_series.labels(window.shard).set(sum(tenant.active_series for tenant in window.tenants))
