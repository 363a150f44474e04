"""A replay's windows to remote-write endpoints: in order, each until every endpoint has it."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from prometheus_client import Counter

from agents.own_metrics import OwnMetrics
from agents.remote_write.endpoint import RemoteWriteEndpoint
from agents.remote_write.endpoints import remote_write_endpoints
from schemas.config import Config
from streams.shard import WindowSamples


class NoEndpointError(Exception):
    """There is nothing to write to."""


class RemoteWriter:
    """Writes to the endpoints of a configuration, in a loop of its own; a context, after which all is written.

    With a `replay_id` the windows' markers carry it, so that they aren't taken for the live stages'. Only `tenant`'s
    samples are written if it is given.
    """

    def __init__(self, config: Config, *, replay_id: str = "", tenant: str | None = None) -> None:
        if not config.metrics_generator.storage.remote_write:
            raise NoEndpointError("the configuration has no remote_write entry: give a URL to --remote-write")
        self._config, self._replay_id, self._tenant = config, replay_id, tenant
        self._metrics = OwnMetrics()
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self._endpoints: list[RemoteWriteEndpoint] = []

    def __enter__(self) -> Self:
        self._runner.run(self._connect())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self._open.aclose())
        finally:
            self._runner.close()

    def add(self, window: WindowSamples) -> None:
        """Write a window; tries again until each endpoint has it, or refuses it for good."""
        if self._tenant is not None:
            window = replace(window, tenants=tuple(each for each in window.tenants if each.tenant == self._tenant))
        self._runner.run(self._write(window))

    def summary(self) -> Iterator[str]:
        """What became of the samples, by endpoint."""
        metrics = self._metrics
        for endpoint in self._endpoints:
            written = sum(_values(metrics.samples_written, endpoint.name).values())
            notes = [f"{written:.0f} samples written"]
            notes += [f"{n:.0f} refused ({why})" for why, n in _values(metrics.refused_samples, endpoint.name).items()]
            skipped = _values(metrics.windows_skipped, endpoint.name)
            notes += [f"{n:.0f} windows passed over ({why})" for why, n in skipped.items()]
            yield f"{endpoint.name}: {', '.join(notes)}"

    async def _connect(self) -> None:
        endpoints = remote_write_endpoints(lambda: self._config, self._metrics, replay_id=self._replay_id)
        self._endpoints = await self._open.enter_async_context(endpoints)

    async def _write(self, window: WindowSamples) -> None:
        await asyncio.gather(*(endpoint.write(window) for endpoint in self._endpoints))


def _values(counter: Counter, endpoint: str) -> dict[str, float]:
    """A counter's values of an endpoint, by its other label."""
    found: dict[str, float] = {}
    for family in counter.collect():
        for sample in family.samples:
            labels = dict(sample.labels)
            if sample.name.endswith("_total") and labels.pop("endpoint", None) == endpoint and sample.value:
                found[", ".join(labels.values())] = sample.value
    return found
