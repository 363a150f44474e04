"""Metrics that the client library has no class for, or too slow a one for every request.

Counters without `_total`, quantiles, histograms that are observed often or fed in bulk.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import HistogramMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

SUMMARY_OF_S = 60.0
SUMMARY_SAMPLES = 10_000
QUANTILES = (0.5, 0.99, 1.0)


class Cell:
    """One series of a counter."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class BareCounter(Collector):
    """A counter under a name that doesn't end in `_total`, which the client library would append to any counter.

    It is exposed without a type.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._text, self.label_names = name, text, tuple(labels)
        self._cells: dict[tuple[str, ...], Cell] = {}
        registry.register(self)

    def cell(self, *labels: str) -> Cell:
        """The series with these values, which is exposed from now on."""
        return self._cells.setdefault(labels, Cell())

    def describe(self) -> Iterable[Metric]:
        """The family without samples."""
        yield UnknownMetricFamily(self._name, self._text, labels=self.label_names)

    def collect(self) -> Iterator[Metric]:
        """The family, its series in order."""
        family = UnknownMetricFamily(self._name, self._text, labels=self.label_names)
        for labels, cell in sorted(self._cells.items()):
            family.add_metric(labels, cell.count)
        yield family


class RecentQuantiles(Collector):
    """A summary of what was observed in the last minute: its median, 99th percentile and maximum (Tempo §15.6).

    Of more than `SUMMARY_SAMPLES` observations the newest count.
    """

    label_names = ()

    def __init__(
        self, name: str, text: str, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._text, self._clock = name, text, clock
        self._recent: deque[tuple[float, float]] = deque(maxlen=SUMMARY_SAMPLES)
        self._count, self._sum = 0, 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        """Note a value."""
        self._recent.append((self._clock(), value))
        self._count += 1
        self._sum += value

    def describe(self) -> Iterable[Metric]:
        """The family without samples."""
        yield Metric(self._name, self._text, "summary")

    def collect(self) -> Iterator[Metric]:
        """The quantiles, NaN if nothing was observed lately, as in Go's client."""
        family = Metric(self._name, self._text, "summary")
        oldest = self._clock() - SUMMARY_OF_S
        values = sorted(value for at, value in list(self._recent) if at >= oldest)
        for quantile in QUANTILES:
            value = values[min(int(quantile * len(values)), len(values) - 1)] if values else float("nan")
            family.add_sample(self._name, {"quantile": f"{quantile:g}"}, value)
        family.add_sample(f"{self._name}_sum", {}, self._sum)
        family.add_sample(f"{self._name}_count", {}, self._count)
        yield family


class Tallies:
    """One series of a histogram: how many values are in each bucket, the last of them +Inf's, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts, self.total = [0] * buckets, 0

    def add(self, counts: Sequence[int], total: int) -> None:
        """Add values that were sorted into buckets elsewhere."""
        for bucket, count in enumerate(counts):
            self.counts[bucket] += count
        self.total += total


class OwnHistogram(Collector):
    """A histogram without labels of which every request observes something: the client library's takes 4 us for that.

    All of it happens in one thread.
    """

    label_names = ()

    def __init__(self, name: str, text: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._text, self._bounds = name, text, [float(bound) for bound in bounds]
        self._counts, self._sum = [0] * (len(bounds) + 1), 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def describe(self) -> Iterable[Metric]:
        """The family without samples."""
        yield HistogramMetricFamily(self._name, self._text)

    def collect(self) -> Iterator[Metric]:
        """The family."""
        bounds = [*map(str, self._bounds), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(self._counts)), strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets, self._sum)


class BulkHistogram(Collector):
    """A histogram by tenant that takes many values at once: `observe` of the client library takes 1 us for each."""

    label_names = ("tenant",)

    def __init__(self, name: str, text: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._text = name, text
        self._bounds = [*(f"{bound:.1f}" for bound in bounds), "+Inf"]
        self._tenants: dict[str, Tallies] = {}
        registry.register(self)

    def of(self, tenant: str) -> Tallies:
        """The tenant's series, which is exposed from now on."""
        tallies = self._tenants.get(tenant)
        if tallies is None:
            tallies = self._tenants[tenant] = Tallies(len(self._bounds))
        return tallies

    def describe(self) -> Iterable[Metric]:
        """The family without samples."""
        yield HistogramMetricFamily(self._name, self._text, labels=self.label_names)

    def collect(self) -> Iterator[Metric]:
        """The family, its tenants in order."""
        family = HistogramMetricFamily(self._name, self._text, labels=self.label_names)
        for tenant, tallies in sorted(self._tenants.items()):
            buckets, below = [], 0
            for bound, count in zip(self._bounds, tallies.counts, strict=True):
                below += count
                buckets.append((bound, float(below)))
            family.add_metric([tenant], buckets, tallies.total)
        yield family
