"""Own metrics of a process: what was done, on `/metrics`, with `/healthz` and `/readyz` beside it.

They count work: what is computed again after a crash counts again. The exact counts are ledger series, which the sink
writes from the log.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterable, Iterator

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

from agents.config_metrics import ConfigMetrics
from agents.registry_gauges import RegistryGauges
from agents.remote_write.metrics import RemoteStorageMetrics
from schemas.deltas import Ledger
from schemas.ledger_counters import LEDGER_COUNTERS

Labels = tuple[tuple[str, str], ...]


class LedgerTotals(Collector):
    """What the ledgers of this process's windows add up to, under Tempo's names.

    Some of Tempo's counters don't end in `_total`. The client library would append that to any counter, so these are
    exposed without a type, under their own name.
    """

    def __init__(self) -> None:
        self._totals: dict[str, dict[Labels, int]] = {}
        self._lock = threading.Lock()

    def add(self, ledger: Ledger) -> None:
        """Add the counts of a window; any thread may."""
        with self._lock:
            for key, count in ledger.items():
                series = self._totals.setdefault(key.counter, {})
                series[key.labels] = series.get(key.labels, 0) + count

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the first window."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families in order of their names."""
        with self._lock:
            totals = {name: dict(series) for name, series in self._totals.items()}
        for name, series in sorted(totals.items()):
            label_names = next(iter(series))
            names = [label for label, _ in label_names]
            family: CounterMetricFamily | UnknownMetricFamily
            if name.endswith("_total"):
                family = CounterMetricFamily(name, LEDGER_COUNTERS[name], labels=names)
            else:
                family = UnknownMetricFamily(name, LEDGER_COUNTERS[name], labels=names)
            for labels, count in sorted(series.items()):
                family.add_metric([value for _, value in labels], count)
            yield family


class OwnMetrics:
    """The registry of a process and the metrics that the stages share; a stage may register more in `registry`."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.usage: CollectorRegistry | None = None
        """What `/usage_metrics` shows, where a distributor attributes bytes (Tempo DIST-19)."""
        self.ledger = LedgerTotals()
        self.registry.register(self.ledger)
        self._define_generator()
        self._define_sink()
        self.config = ConfigMetrics(self.registry)
        self.remote_storage = RemoteStorageMetrics(self.registry)
        self.registry_gauges = RegistryGauges(self.registry)
        self.lag_records = self._gauge(
            "spanmill_lag_records", "Records that a partition's owner hasn't taken yet.", "stage", "partition"
        )
        self.lag_seconds = self._gauge(
            "spanmill_lag_seconds", "Clock minus stream time, of a partition that is read.", "stage", "partition"
        )

    def _define_generator(self) -> None:
        self.records = self._counter("spanmill_generator_records", "Records read from the spans topic.", "partition")
        self.record_bytes = self._counter("spanmill_generator_record_bytes", "Their values' bytes.", "partition")
        self.misplaced = self._counter(
            "spanmill_generator_misplaced_records",
            "Records whose key is a trace ID that belongs to another partition.",
            "partition",
        )
        self.windows_closed = self._counter("spanmill_generator_windows_closed", "Windows closed.", "partition")
        self.batches_sent = self._counter("spanmill_generator_batches_sent", "Parts of batches acknowledged.")
        self.batch_bytes = self._counter("spanmill_generator_batch_bytes", "Bytes of those parts.")
        self.checkpoints = self._counter("spanmill_generator_checkpoints", "Checkpoints acknowledged.", "partition")
        self.checkpoint_bytes = self._gauge(
            "spanmill_generator_checkpoint_bytes", "Size of the newest checkpoint.", "partition"
        )
        self.ticks = self._counter("spanmill_generator_ticks", "Ticks appended to idle partitions.", "partition")
        self.dead_letters = self._counter("spanmill_dead_letters", "Records kept in the dead-letter topic.", "reason")
        self.records_lost = self._counter(
            "spanmill_records_lost", "Records of its topic that retention took before the stage read them.", "stage"
        )
        self.controls_refused = self._counter(
            "spanmill_controls_refused", "Control records that no key of ours has signed.", "stage"
        )

    def _define_sink(self) -> None:
        self.batches_received = self._counter(
            "spanmill_sink_batches", "Parts of batches read, by what became of them.", "outcome"
        )
        self.chain_gaps = self._counter("spanmill_sink_chain_gaps", "Batches that were out of their chain.")
        self.waivers = self._counter(
            "spanmill_sink_waivers",
            "Waivers appended: a window no longer waits for a source partition (hold_back).",
            "shard",
        )
        self.waived_partitions = self._gauge(
            "spanmill_sink_waived_partitions", "Source partitions that windows are completed without.", "shard"
        )
        self.oldest_wait = self._gauge(
            "spanmill_sink_oldest_window_waits_seconds",
            "How long the oldest window has waited for source partitions, once the log is read to its end.",
            "shard",
        )
        self.sink_paused = self._gauge(
            "spanmill_sink_paused",
            "1 while a shard isn't fed on purpose: no endpoint takes windows, or the disk takes no batches.",
            "shard",
        )
        self.windows_completed = self._counter("spanmill_sink_windows_completed", "Windows completed.")
        self.windows_skipped = self._counter(
            "spanmill_sink_windows_skipped", "Windows that an endpoint has, or doesn't take.", "endpoint", "reason"
        )
        self.windows_waiting = self._gauge(
            "spanmill_sink_windows_waiting", "Completed windows that an endpoint doesn't have yet.", "endpoint", "shard"
        )
        self.written_off = self._gauge(
            "spanmill_sink_endpoint_written_off",
            "1 while an endpoint is too far behind to be waited for (endpoint_max_lag).",
            "endpoint",
            "shard",
        )
        self.windows_lost = self._counter(
            "spanmill_sink_windows_lost", "Windows that a written-off endpoint doesn't get.", "endpoint"
        )
        self.samples_written = self._counter("spanmill_sink_samples_written", "Samples acknowledged.", "endpoint")
        self.refused_samples = self._counter(
            "spanmill_sink_refused_samples", "Samples that an endpoint refused.", "endpoint", "reason"
        )
        self.requests = self._counter(
            "spanmill_sink_requests", "Remote-write requests by their outcome.", "endpoint", "outcome"
        )
        self.snapshots = self._counter("spanmill_sink_snapshots", "Snapshots acknowledged.", "partition")
        self.active_series = self._gauge("spanmill_sink_active_series", "Series alive.", "shard")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


def own_routes(metrics: OwnMetrics, ready: asyncio.Event) -> list[web.RouteDef]:
    """`/metrics`, `/usage_metrics`, `/healthz` (the loop answers) and `/readyz` (503 until `ready` is set)."""

    async def expose(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def expose_usage(_: web.Request) -> web.Response:
        if metrics.usage is None:
            raise web.HTTPNotFound
        return web.Response(body=generate_latest(metrics.usage), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readiness(_: web.Request) -> web.Response:
        if ready.is_set():
            return web.Response(text="ready\n")
        return web.Response(text="starting\n", status=503)

    return [
        web.get("/metrics", expose),
        web.get("/usage_metrics", expose_usage),
        web.get("/healthz", healthy),
        web.get("/readyz", readiness),
    ]


@contextlib.asynccontextmanager
async def serve(host: str, port: int, routes: Iterable[web.RouteDef]) -> AsyncIterator[int]:
    """Serve the routes for the time of the context; gives the port, for a `port` of 0 the one that was chosen.

    Raises OSError if the address is taken.
    """
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
