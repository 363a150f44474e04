"""What a window adds up."""

from bisect import bisect_left
from collections import Counter
from fractions import Fraction
from typing import NamedTuple

from schemas.config import HistogramSettings
from tests.reference.primitives import Labels, trace_text

ZERO_BUCKET = "zero"


class Series(NamedTuple):
    """A label set of a metric of a tenant."""

    tenant: str
    metric: str
    labels: Labels


class Cell(NamedTuple):
    """A bucket of a series' histogram: its upper bound, "+Inf", a native index or `ZERO_BUCKET`."""

    series: Series
    native: bool
    bucket: float | int | str


class Sums:
    """Counters, gauges and histograms of one window; weights are in 2^-32, sums in 2^-16 ns."""

    def __init__(self) -> None:
        self.counters: Counter[Series] = Counter()
        self.gauges: dict[Series, int] = {}
        self.weights: Counter[Cell] = Counter()
        self.latencies: Counter[Cell] = Counter()
        self.exemplars: dict[Cell, tuple[tuple[int, int, int], str, int]] = {}
        self.counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        """By the name of a ledger's counter, without Tempo's prefix, and its labels."""

    def count(self, name: str, tenant: str, amount: int = 1, **labels: str) -> None:
        """Count for the ledger."""
        self.counts[name, tuple(sorted({**labels, "tenant": tenant}.items()))] += amount

    def observe(
        self,
        series: Series,
        buckets: tuple[float, ...],
        histograms: HistogramSettings,
        weight: int,
        latency_ns: int,
        position: tuple[int, int, int],
        trace: bytes,
    ) -> None:
        """REG-9, REG-12, REG-18: with native histograms an observation is repeated, a whole number of times."""
        if histograms.native:
            weight = -(-weight >> 32) << 32
        cells = []
        if histograms.classic:
            bounds = sorted(set(buckets))
            at = bisect_left(bounds, latency_ns / 1e9)
            cells.append(Cell(series, native=False, bucket=bounds[at] if at < len(bounds) else "+Inf"))
        if histograms.native:
            cells.append(Cell(series, native=True, bucket=native_bucket(latency_ns / 1e9, histograms.native_schema)))
        for cell in cells:
            self.weights[cell] += weight
            self.latencies[cell] += round(Fraction(weight * latency_ns, 1 << 16))
            if cell.native and (histograms.classic or not trace_text(trace)):
                continue  # REG-20: of both, only classic buckets have exemplars; one without a trace is none
            known = self.exemplars.get(cell)
            if known is None or known[0] < position:
                self.exemplars[cell] = (position, trace_text(trace), latency_ns)


def native_bucket(seconds: float, schema: int) -> int | str:
    """The index i with base^(i-1) < seconds <= base^i, base = 2^(2^-schema)."""
    if seconds == 0:
        return ZERO_BUCKET
    value = Fraction(seconds)
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    # Of so many buckets at most the right one is within a power of two.
    low, high = (int(each * 2.0**schema) for each in (exponent - 2, exponent + 2))
    index = low - 1
    while not at_most(value, index, schema):
        index += 1
    assert index <= high + 1
    return index


def at_most(value: Fraction, index: int, schema: int) -> bool:
    """Whether value <= 2^(index / 2^schema), exactly."""
    if schema >= 0:
        return value ** (1 << schema) <= Fraction(2) ** index
    return value <= Fraction(2) ** (index << -schema)
