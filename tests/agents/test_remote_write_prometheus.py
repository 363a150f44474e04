"""Remote write into real Prometheus servers: exact in each, whatever happens to the others."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import yaml

from agents.endpoint import Endpoint
from agents.own_metrics import OwnMetrics
from agents.remote_write.endpoints import remote_write_endpoints
from agents.shard_writer import Completed, ShardWriter
from agents.spilled_windows import SpilledWindows
from schemas.config import load_config
from streams.series import Sample, Series
from streams.shard import Cut, TenantSamples, WindowSamples
from tests.agents.windows import endpoint, value_of
from tests.servers.prometheus import Prometheus

INTERVAL_MS = 5000
SERIES = 30
QUIET = {"queue_config": {"min_backoff": "10ms", "max_backoff": "200ms"}}

pytestmark = pytest.mark.prometheus


def window(end_ms: int, number: int) -> WindowSamples:
    """A window whose series each have the value of the window's number times their own."""
    series = [Series((("__name__", "exact_total"), ("series", str(i)))) for i in range(SERIES)]
    values = [Sample(each, float(number * i)) for i, each in enumerate(series)]
    samples = TenantSamples("single-tenant", end_ms - INTERVAL_MS, [], values, SERIES, 0)
    return WindowSamples(0, end_ms - INTERVAL_MS, end_ms, (samples,), 0)


@contextlib.asynccontextmanager
async def writing(
    directory: Path, metrics: OwnMetrics, endpoints: Sequence[Endpoint]
) -> AsyncIterator[Callable[[Sequence[WindowSamples]], "asyncio.Future[None]"]]:
    """A shard's writer at work, as a process has it."""

    async def save(_: Cut) -> None:
        return

    writer = ShardWriter(0, endpoints, metrics, save, SpilledWindows(directory, 0), max_lag_s=3600)
    task = asyncio.create_task(writer.run())

    async def put(windows: Sequence[WindowSamples]) -> None:
        for each in windows:
            await writer.put(Completed(each))

    try:
        yield lambda windows: asyncio.ensure_future(put(windows))
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def waiting(metrics: OwnMetrics, name: str, windows: int) -> None:
    """Until an endpoint lacks so many windows."""
    async with asyncio.timeout(60):
        while value_of(metrics, "spanmill_sink_windows_waiting", endpoint=name, shard="0") != windows:
            await asyncio.sleep(0.02)


def expected(windows: Sequence[WindowSamples]) -> dict[str, list[tuple[float, float]]]:
    return {
        str(i): [(each.end_ms / 1000, float(number * i)) for number, each in enumerate(windows, 1)]
        for i in range(SERIES)
    }


def found(server: Prometheus, at_ms: int) -> dict[str, list[tuple[float, float]]]:
    samples = server.samples("exact_total", 3600, at=at_ms / 1000 + 1)
    return {dict(labels)["series"]: points for labels, points in samples.items()}


async def test_two_endpoints_have_the_same_though_one_was_down_and_the_sink_crashed(
    tmp_path: Path, new_prometheus: Callable[..., Prometheus]
) -> None:
    one, two = new_prometheus(), new_prometheus()
    last_ms = int(time.time()) // 5 * INTERVAL_MS
    windows = [window(last_ms - (49 - i) * INTERVAL_MS, i + 1) for i in range(50)]
    metrics = OwnMetrics()
    async with (
        endpoint(metrics, url=one.write_url, **{**QUIET, "name": "one"}) as first,
        endpoint(metrics, url=two.write_url, **{**QUIET, "name": "two"}) as second,
    ):
        async with writing(tmp_path, metrics, [first, second]) as put:
            await put(windows[:5])
            await waiting(metrics, "two", 0)
            await asyncio.to_thread(two.stop)
            await put(windows[5:40])
            await waiting(metrics, "one", 0)
            await waiting(metrics, "two", 35)
            assert len(list(tmp_path.glob("0-*/*.arrow"))) == 15  # noqa: ASYNC240
            await asyncio.to_thread(two.start)
            await waiting(metrics, "two", 0)
        # The process is killed; who takes over computes from an older snapshot, and both endpoints skip what they have.
        async with writing(tmp_path, metrics, [first, second]) as put:
            await put(windows[30:])
            await waiting(metrics, "one", 0)
            await waiting(metrics, "two", 0)
    assert found(one, last_ms) == expected(windows)
    assert found(two, last_ms) == expected(windows)
    for name in ("one", "two"):
        # The newest that an endpoint has it takes again, the same as before.
        assert value_of(metrics, "spanmill_sink_windows_skipped_total", endpoint=name, reason="stored") == 9
        assert value_of(metrics, "spanmill_sink_windows_lost_total", endpoint=name) == 0


async def test_a_prometheus_without_version_2_gets_everything_in_version_1(prometheus: Prometheus) -> None:
    """Debian's 2.42 answers a request of 2.0 with 204, and stores nothing of it."""
    metrics = OwnMetrics()
    now_ms = int(time.time()) // 5 * INTERVAL_MS
    series = Series((("__name__", "fallen_back_total"), ("job", "versions")))
    samples = TenantSamples("single-tenant", now_ms - INTERVAL_MS, [], [Sample(series, 7.0)], 1, 0)
    keys = {**QUIET, "protobuf_message": "io.prometheus.write.v2.Request"}
    async with endpoint(metrics, url=prometheus.write_url, **keys) as writer:
        await writer.write(WindowSamples(9, now_ms - INTERVAL_MS, now_ms, (samples,), 0))
    stored = prometheus.samples('fallen_back_total{job="versions"}', 60, at=now_ms / 1000 + 1)
    assert list(stored.values()) == [[(now_ms / 1000, 7.0)]]


async def test_two_entries_that_lead_to_one_server_do_not_take_each_others_windows_for_their_own(
    tmp_path: Path, new_prometheus: Callable[..., Prometheus]
) -> None:
    server, metrics = new_prometheus(), OwnMetrics()
    last_ms = int(time.time()) // 5 * INTERVAL_MS
    windows = [window(last_ms - (9 - i) * INTERVAL_MS, i + 1) for i in range(10)]
    entries = [
        {"url": server.write_url, "write_relabel_configs": [{"target_label": "entry", "replacement": each}]}
        for each in ("a", "b")
    ]
    text = yaml.safe_dump({"metrics_generator": {"storage": {"remote_write": entries}}})
    config = load_config(None, text)
    async with remote_write_endpoints(lambda: config, metrics) as (first, second):
        assert (first.name, second.name) == (f"{server.write_url} (1)", f"{server.write_url} (2)")
        for each in windows:
            await first.write(each)
        for each in windows:  # far behind the first
            await second.write(each)
    samples = server.samples("exact_total", 3600, at=last_ms / 1000 + 1)
    for entry in ("a", "b"):
        points = {dict(labels)["series"]: each for labels, each in samples.items() if ("entry", entry) in labels}
        assert points == expected(windows)
    assert len(server.series("spanmill_sink_window")) == 2
