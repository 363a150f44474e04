"""Prometheus 3 as an endpoint of remote write 2.0."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agents.own_metrics import OwnMetrics
from schemas.metrics import METRICS, MetricId
from schemas.native_histogram import BucketExemplar, NativeHistogram
from schemas.remote_write import Exemplar
from streams.series import Sample, Series
from streams.shard import TenantSamples, WindowSamples
from tests.agents.windows import endpoint, value_of
from tests.servers.missing import missing
from tests.servers.prometheus import Prometheus

pytestmark = pytest.mark.peers

BINARY = Path(__file__).resolve().parents[2] / ".cache" / "bin" / "prometheus3"
INTERVAL_MS = 5000
TRACE = (("traceID", "0af7651916cd43dd8448eb211c80319c"),)
CALLS, LATENCY = METRICS[MetricId.CALLS].name, METRICS[MetricId.LATENCY].name


@pytest.fixture
def prometheus3(tmp_path: Path) -> Iterator[Prometheus]:
    if not BINARY.exists():
        missing("Prometheus 3", "`make peers` (or tools/fetch_prometheus3.sh)")
    server = Prometheus(tmp_path, program=str(BINARY))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def window(end_ms: int, number: int) -> WindowSamples:
    """A counter with an exemplar and a native histogram, which begin with the first window."""
    calls = Series((("__name__", CALLS), ("service", "shop")))
    latency = Series((("__name__", LATENCY), ("service", "shop")))
    native = NativeHistogram(3, 2 * number, 0.5 * number, 0, ((-8, number), (2, number)), (BucketExemplar(TRACE, 0.5),))
    empty = NativeHistogram(3, 0, 0.0, 0, ())
    zeros = [Sample(calls, 0.0), Sample(latency, empty)] if number == 1 else []
    values = [Sample(calls, 3.0 * number, Exemplar(TRACE, 0.5, end_ms)), Sample(latency, native)]
    samples = TenantSamples("single-tenant", end_ms - INTERVAL_MS, zeros, values, 2, 0)
    return WindowSamples(0, end_ms - INTERVAL_MS, end_ms, (samples,), 0)


async def test_version_2_is_stored_exactly_and_confirmed(prometheus3: Prometheus) -> None:
    metrics = OwnMetrics()
    last_ms = int(time.time()) // 5 * INTERVAL_MS
    ends = [last_ms - 2 * INTERVAL_MS, last_ms - INTERVAL_MS, last_ms]
    keys = {"url": prometheus3.write_url, "protobuf_message": "io.prometheus.write.v2.Request"}
    with capture_logs() as logs:
        async with endpoint(metrics, **keys) as writer:
            for number, end_ms in enumerate(ends, 1):
                await writer.write(window(end_ms, number))
            await writer.write(window(ends[1], 2))
    assert logs == [], "neither a fall-back nor a refusal"
    at = last_ms / 1000 + 1
    (points,) = prometheus3.samples(CALLS, 60, at=at).values()
    assert points == [((ends[0] - INTERVAL_MS) / 1000, 0.0), *((e / 1000, 3.0 * n) for n, e in enumerate(ends, 1))]
    assert list(prometheus3.query(f"histogram_count({LATENCY})", at).values()) == [6.0]
    assert list(prometheus3.query(f"histogram_sum({LATENCY})", at).values()) == [1.5]
    assert value_of(metrics, "spanmill_sink_samples_written_total", endpoint="here") == 8
    assert value_of(metrics, "spanmill_sink_windows_skipped_total", endpoint="here", reason="stored") == 1
    exemplars = prometheus3.exemplars(CALLS)
    assert {each["labels"]["traceID"] for series in exemplars for each in series["exemplars"]} == {TRACE[0][1]}
