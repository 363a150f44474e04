from agents.generated import Generated
from schemas.native_histogram import NativeHistogram
from streams.registry import TenantSamples
from streams.series import Sample, Series
from streams.shard import WindowSamples

START_MS, END_MS = 1_700_000_010_000, 1_700_000_015_000


async def test_native_histograms_are_left_out_of_the_text() -> None:
    calls, latency = Series((("__name__", "calls_total"),)), Series((("__name__", "latency"),))
    zeros = [Sample(calls, 0.0), Sample(latency, NativeHistogram(3, 0, 0.0, 0, ()))]
    values = [Sample(calls, 2.0), Sample(latency, NativeHistogram(3, 1, 0.5, 0, ((-8, 1),)))]
    generated = Generated()
    samples = TenantSamples("t", START_MS, zeros, values, 2, 0)
    await generated.write(WindowSamples(0, START_MS, END_MS, (samples,), 0))
    assert generated.exposition().decode().splitlines() == [
        "# TYPE calls_total counter",
        f"calls_total 2 {END_MS}",
    ]
    assert [(increase.labels, increase.value) for increase in generated.increases()] == [(calls.labels, 2.0)]
