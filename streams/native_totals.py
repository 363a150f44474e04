"""How native histograms add up: a window's rows, the limit on buckets, and exemplars (Tempo REG-16, REG-20).

The client library checks its limit at each observation. Our unit is the completed window: its rows are added, and then
the limit is enforced once, so that the order of observations, which a log of many partitions doesn't have, decides
nothing.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from schemas.deltas import ZERO_BUCKET
from schemas.metrics import SUM_UNITS_PER_SECOND
from schemas.native_histogram import MIN_SCHEMA, BucketExemplar, NativeHistogram, coarser
from schemas.native_totals import NativeSettings, NativeTotals, OfferedExemplar
from streams.series import exemplar_labels

MAX_EXEMPLARS = 10
EXEMPLAR_TTL_MS = 300_000
"""The client library's defaults."""


class NativeRow(NamedTuple):
    """A delta row of a native bucket. `latency` is in 2^-16 ns."""

    bucket: int
    schema: int
    observations: int
    latency: int
    trace: bytes | None
    value_ns: int | None


def begun(settings: NativeSettings, end_ms: int) -> NativeTotals:
    """A histogram without observations."""
    return NativeTotals(settings, settings.schema, end_ms)


def emptied(totals: NativeTotals, end_ms: int) -> NativeTotals:
    """The histogram after a reset: no observations and the full resolution; its exemplars stay."""
    return totals._replace(schema=totals.settings.schema, reset_ms=end_ms, zero_count=0, buckets=())


def may_reset(totals: NativeTotals, end_ms: int) -> bool:
    """Whether the last reset is long enough ago."""
    min_reset_ms = totals.settings.min_reset_ms
    return 0 < min_reset_ms <= end_ms - totals.reset_ms


def is_full(totals: NativeTotals) -> bool:
    """Whether there are more buckets than are wanted."""
    return 0 < totals.settings.max_buckets < len(totals.buckets)


def is_reduced(totals: NativeTotals) -> bool:
    """Whether the resolution was lowered: a reset undoes that as soon as one may be."""
    return totals.schema < totals.settings.schema


def added(totals: NativeTotals, rows: Sequence[NativeRow]) -> NativeTotals:
    """The histogram with the observations of rows, each at the resolution that both have."""
    counts = dict(totals.buckets)
    zeros = totals.zero_count
    for row in rows:
        if row.bucket == ZERO_BUCKET:
            zeros += row.observations
        else:
            index = _at_schema(row.bucket, row.schema, totals.schema)
            counts[index] = counts.get(index, 0) + row.observations
    return totals._replace(zero_count=zeros, buckets=tuple(sorted((i, n) for i, n in counts.items() if n)))


def limited(totals: NativeTotals) -> NativeTotals:
    """The histogram with buckets twice as wide, again and again, until they are few enough or can't be wider.

    Tempo leaves the greatest zero threshold at 0, so the zero bucket, the library's other means, is never widened.
    """
    while is_full(totals) and totals.schema > MIN_SCHEMA:
        counts: dict[int, int] = {}
        for index, count in totals.buckets:
            counts[coarser(index, 1)] = counts.get(coarser(index, 1), 0) + count
        totals = totals._replace(schema=totals.schema - 1, buckets=tuple(sorted(counts.items())))
    return totals


def with_exemplars(totals: NativeTotals, rows: Sequence[NativeRow], end_ms: int) -> NativeTotals:
    """The histogram with what the rows offer; an empty trace ID offers nothing."""
    exemplars = totals.exemplars
    for row in rows:
        if row.trace:
            exemplars = _kept(exemplars, OfferedExemplar(row.value_ns or 0, row.trace, end_ms))
    return totals._replace(exemplars=exemplars)


def sample_value(totals: NativeTotals, sum_units: int) -> NativeHistogram:
    """The sample's value, without exemplars."""
    total_sum = sum_units / SUM_UNITS_PER_SECOND
    return NativeHistogram(totals.schema, totals.observations, total_sum, totals.zero_count, totals.buckets)


def empty_value(totals: NativeTotals) -> NativeHistogram:
    """The zero that begins the series (REG-17)."""
    return NativeHistogram(totals.schema, 0, 0.0, 0, ())


def written(totals: NativeTotals, label: str) -> tuple[tuple[BucketExemplar, ...], NativeTotals]:
    """The exemplars of a sample, which are all that are kept but the one that was written last, and what remains."""
    last, shown = totals.last_written, []
    for exemplar in totals.exemplars:
        labels = exemplar_labels(label, exemplar.trace)
        if labels and (last is None or exemplar[:2] != last[:2]):
            shown.append(BucketExemplar(labels, exemplar.value_ns / 1_000_000_000))
            last = exemplar
    return tuple(shown), totals._replace(last_written=last)


def _at_schema(index: int, schema: int, wanted: int) -> int:
    """The bucket of another schema that has this one's upper bound, or that contains it."""
    return index << wanted - schema if schema < wanted else coarser(index, schema - wanted)


def _kept(exemplars: tuple[OfferedExemplar, ...], new: OfferedExemplar) -> tuple[OfferedExemplar, ...]:
    """The exemplars with a new one, as the client library spreads them over the values."""
    if len(exemplars) < MAX_EXEMPLARS:
        at = bisect_right(exemplars, new.value_ns, key=_value)
        return (*exemplars[:at], new, *exemplars[at:])
    oldest = min(exemplars, key=lambda exemplar: exemplar.seen_ms)
    replaced = oldest if new.seen_ms - oldest.seen_ms > EXEMPLAR_TTL_MS else _crowded(exemplars, new)
    others = list(exemplars)
    others.remove(replaced)
    at = bisect_left(others, new.value_ns, key=_value)
    return (*others[:at], new, *others[at:])


def _value(exemplar: OfferedExemplar) -> int:
    return exemplar.value_ns


def _crowded(exemplars: Sequence[OfferedExemplar], new: OfferedExemplar) -> OfferedExemplar:
    """Which one to replace: the older of the closest two, or a neighbour that the new one is still closer to."""
    closest = min(pairwise(exemplars), key=lambda pair: _Ratio(pair[0].value_ns, pair[1].value_ns))
    nearest = _Ratio(closest[0].value_ns, closest[1].value_ns)
    replaced = closest[1] if closest[1].seen_ms < closest[0].seen_ms else closest[0]
    for neighbour in _neighbours(exemplars, new):
        distance = _Ratio(neighbour.value_ns, new.value_ns)
        if distance < nearest:
            replaced, nearest = neighbour, distance
    return replaced


def _neighbours(exemplars: Sequence[OfferedExemplar], new: OfferedExemplar) -> Sequence[OfferedExemplar]:
    at = bisect_left(exemplars, new.value_ns, key=_value)
    return exemplars[max(at - 1, 0) : at + 1]


class _Ratio:
    """How far two values are from each other, of integers: logarithms would differ from one machine to another."""

    __slots__ = ("greater", "less")

    def __init__(self, one: int, other: int) -> None:
        self.less, self.greater = sorted((one, other))
        if not self.less:
            self.greater = 1  # all are equally far from 0

    def __lt__(self, other: "_Ratio") -> bool:
        return self.greater * other.less < other.greater * self.less
