"""The newest samples of every generated series, in memory: what `spanmill dev` shows instead of a Prometheus."""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from aiohttp import web

from agents.overview import Increase
from schemas.native_histogram import NativeHistogram
from schemas.openmetrics import EXPOSITION_CONTENT_TYPE, Labels, exposition
from streams.shard import WindowSamples

SAMPLES_KEPT = 7
"""Of each series: with windows of 5 s, rates are over 30 s."""
FORGOTTEN_AFTER_MS = 300_000
"""A series that got no sample for so long is gone, as for a query to Prometheus."""

Key = tuple[str, Labels]
"""Tenant and labels."""


@dataclass(slots=True)
class Shown:
    """What is known of a shard: (time in ms, value) of the last samples of each of its series."""

    end_ms: int = 0
    windows: int = 0
    series: dict[Key, deque[tuple[int, float]]] = field(default_factory=dict)


class Generated:
    """An endpoint of the sink that keeps the newest samples, but native histograms: its text format has none."""

    name = "generated"

    def __init__(self) -> None:
        self._shards: dict[int, Shown] = {}
        self.changed = asyncio.Event()
        """Set by each window; whoever shows the samples clears it."""

    async def write(self, window: WindowSamples) -> None:
        """Take over a window's samples; one that is repeated changes nothing."""
        shard = self._shards.setdefault(window.shard, Shown())
        if window.end_ms <= shard.end_ms:
            return
        shard.end_ms = window.end_ms
        shard.windows += 1
        for samples in window.tenants:
            for at_ms, zero in samples.timed_zeros():
                if not isinstance(zero.value, NativeHistogram):
                    kept = deque([(at_ms, zero.value)], SAMPLES_KEPT)
                    shard.series[samples.tenant, zero.series.labels] = kept
            for sample in samples.values:
                if not isinstance(sample.value, NativeHistogram):
                    key = (samples.tenant, sample.series.labels)
                    shard.series.setdefault(key, deque(maxlen=SAMPLES_KEPT)).append((window.end_ms, sample.value))
        oldest = window.end_ms - FORGOTTEN_AFTER_MS
        shard.series = {key: kept for key, kept in shard.series.items() if kept[-1][0] > oldest}
        self.changed.set()

    @property
    def end_ms(self) -> int:
        """The end of the newest window of any shard; 0 before the first one."""
        return max((shard.end_ms for shard in self._shards.values()), default=0)

    @property
    def series(self) -> int:
        """How many series there are."""
        return sum(len(shard.series) for shard in self._shards.values())

    def increases(self) -> Iterator[Increase]:
        """How much each series grew over its kept samples."""
        for shard in self._shards.values():
            for (_, labels), kept in shard.series.items():
                if kept[-1][0] == shard.end_ms:
                    (first_ms, first), (last_ms, last) = kept[0], kept[-1]
                    yield Increase(labels, last - first, (last_ms - first_ms) / 1000)

    def exposition(self) -> bytes:
        """The newest sample of each series, in Prometheus' text format, with its time.

        Series of several tenants get a label `tenant`: without it two tenants' series could be the same.
        """
        tenants = {tenant for shard in self._shards.values() for tenant, _ in shard.series}
        return exposition(
            (_with_tenant(labels, tenant) if len(tenants) > 1 else labels, *kept[-1])
            for shard in self._shards.values()
            for (tenant, labels), kept in shard.series.items()
        )

    def route(self) -> web.RouteDef:
        """`/generated`, for a Prometheus to scrape."""

        async def expose(_: web.Request) -> web.Response:
            return web.Response(body=self.exposition(), headers={"Content-Type": EXPOSITION_CONTENT_TYPE})

        return web.get("/generated", expose)


def _with_tenant(labels: Labels, tenant: str) -> Labels:
    return tuple(sorted({**dict(labels), "tenant": tenant}.items()))
