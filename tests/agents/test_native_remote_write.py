"""Native histograms in a real Prometheus: what it makes of our requests."""

import time
import urllib.error
import urllib.request

import pytest

from schemas.config import HistogramSettings
from schemas.remote_write import Row, encode_write_request
from streams.label_set import Samples
from tests.servers.prometheus import Prometheus
from tests.streams.test_native_histograms import BOTH, LATENCY, NATIVE, Written, limited, spans, took

WINDOW_MS = 15_000


def post(prometheus: Prometheus, rows: list[Row]) -> tuple[int, str]:
    """Status and text of the answer to a request."""
    request = urllib.request.Request(prometheus.write_url, encode_write_request(rows), method="POST")
    request.add_header("Content-Encoding", "snappy")
    request.add_header("Content-Type", "application/x-protobuf")
    request.add_header("X-Prometheus-Remote-Write-Version", "0.1.0")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def rows(samples: Samples, end_ms: int) -> list[Row]:
    """Zeros, then values; those of one series in the order of time."""
    return [
        *(sample.row(end_ms - WINDOW_MS) for sample in samples.zeros),
        *(sample.row(end_ms) for sample in samples.values),
    ]


def now_ms() -> int:
    """A window's end, lately."""
    return int(time.time()) // 15 * WINDOW_MS - 4 * WINDOW_MS


@pytest.mark.prometheus
@pytest.mark.parametrize("histograms", [NATIVE, BOTH], ids=["native", "both"])
def test_prometheus_reads_counts_sums_and_quantiles_of_native_histograms(
    prometheus: Prometheus, histograms: HistogramSettings
) -> None:
    """REG-15, REG-17: and increases from the zero on."""
    service = f"native-{histograms.classic}"
    registry, end_ms = Written(spans(histograms)), now_ms()
    for window in range(2):
        told = [took(seconds, service, trace=window + 1) for seconds in (0.0, 0.25, 0.5, 1.0, 2.0)]
        assert post(prometheus, rows(registry.complete(*told), end_ms + window * WINDOW_MS)) == (204, "")
    selector = f'{LATENCY}{{service="{service}"}}'
    at = (end_ms + WINDOW_MS) / 1000

    def value(promql: str) -> float:
        [found] = prometheus.query(promql, at).values()
        return found

    assert value(f"histogram_count({selector})") == 10
    assert value(f"histogram_sum({selector})") == 7.5
    assert value(f"histogram_fraction(0.25, 1, {selector})") == pytest.approx(0.4, rel=1e-6)
    assert value(f"histogram_quantile(0.5, {selector})") == pytest.approx(0.5, rel=0.1)
    assert value(f"histogram_count(increase({selector}[45s]))") >= 10
    shown = [each for found in prometheus.exemplars(f'{{service="{service}"}}') for each in found["exemplars"]]
    traces = {each["labels"]["traceID"] for each in shown}
    # Prometheus 2.42 takes one exemplar of a series and a time, later ones take all, in the order of values.
    assert traces == {"1", "2"} if histograms.classic else "1" in traces


@pytest.mark.prometheus
def test_a_refused_zero_costs_no_value(prometheus: Prometheus) -> None:
    """REG-17, REG-25: the zero of a series that Prometheus has lately is out of order, its value isn't."""
    end_ms = now_ms()
    first, again = (Written(spans(BOTH)).complete(took(1.0, "came-back", trace=1)) for _ in range(2))
    assert post(prometheus, rows(first, end_ms)) == (204, "")
    refused = [post(prometheus, [zero.row(end_ms - WINDOW_MS)]) for zero in again.zeros]
    assert all(status == 400 and "out of order" in text for status, text in refused)
    assert post(prometheus, [sample.row(end_ms + WINDOW_MS) for sample in again.values]) == (204, "")


@pytest.mark.prometheus
def test_prometheus_takes_lower_resolutions_and_resets(prometheus: Prometheus) -> None:
    """REG-16: as it does those of its own client library."""
    registry, end_ms = Written(limited(3, 2 * WINDOW_MS)), now_ms() - 2 * WINDOW_MS
    told = [[1.0, 2.0, 4.0, 8.0], [16.0], [32.0], [64.0]]
    schemas = []
    for window, seconds in enumerate(told):
        samples = registry.complete(*(took(each, "limited") for each in seconds))
        schemas += [sample.value.schema for sample in samples.values]  # type: ignore[union-attr]
        assert post(prometheus, rows(samples, end_ms + window * WINDOW_MS)) == (204, "")
    selector = f'{LATENCY}{{service="limited"}}'
    counts = [
        prometheus.query(f"histogram_count({selector})", (end_ms + window * WINDOW_MS) / 1000).popitem()[1]
        for window in range(4)
    ]
    assert (schemas, counts) == ([-1, -1, 3, 3], [4, 5, 1, 2])
