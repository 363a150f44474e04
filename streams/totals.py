"""Cumulative totals of one label set of one metric: how rows of deltas add to them, and what is written of them.

Totals are integers, converted to float64 once, at the sample: a quotient of two Python integers is correctly rounded,
so the written value depends on what was counted and on nothing else.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from schemas.config import HistogramSettings
from schemas.deltas import NATIVE_LAYOUTS, Layout, join, native_schema
from schemas.metrics import SUM_UNITS_PER_SECOND, WEIGHT_ONE, Kind, Metric
from schemas.native_histogram import NativeHistogram
from schemas.native_totals import NativeSettings, NativeTotals
from schemas.snapshot import PendingExemplar, SeriesTotals
from streams.native_totals import (
    NativeRow,
    added,
    begun,
    emptied,
    empty_value,
    is_full,
    is_reduced,
    limited,
    may_reset,
    sample_value,
    with_exemplars,
)


class DeltaRow(NamedTuple):
    """What of a merged window's row is read here. Plain tuples of this order pass too: naming each would cost more."""

    tenant: str
    labels: bytes
    metric: int
    bucket: int
    layout: int
    value_lo: int
    value_hi: int
    sum_lo: int
    sum_hi: int
    ex_trace: bytes | None
    ex_value_ns: int | None


class UsedLayout(NamedTuple):
    """A bucket layout of a window, and the highest revision of a batch that has it."""

    revision: int
    bounds: Layout


def fitting_rows(metric: Metric, rows: Sequence[DeltaRow], histograms: HistogramSettings) -> Sequence[DeltaRow]:
    """The rows of histograms that a tenant has: others come with batches of earlier settings, a window late."""
    if metric.kind is not Kind.HISTOGRAM or (histograms.classic and histograms.native):
        return rows
    return [row for row in rows if (row[4] >= NATIVE_LAYOUTS) == histograms.native]


def apply_rows(
    metric: Metric,
    totals: SeriesTotals | None,
    rows: Sequence[DeltaRow],
    layouts: Sequence[UsedLayout],
    histograms: HistogramSettings,
    end_ms: int,
) -> SeriesTotals:
    """The totals after a window's fitting rows of this label set, at least one; None stands for one that is new."""
    if metric.kind is Kind.HISTOGRAM:
        return _observe(totals, rows, layouts, histograms, end_ms)
    _, _, _, _, _, value_lo, value_hi, *_ = rows[0]
    value = join(value_lo, value_hi)
    if metric.kind is Kind.COUNTER and totals is not None:
        value += totals.counts[0]
    return SeriesTotals(counts=(value,), updated_ms=end_ms, fresh=totals is None or totals.fresh)


def misfits(totals: SeriesTotals, rows: Sequence[DeltaRow], layouts: Sequence[UsedLayout]) -> int:
    """Rows of another layout than the totals after them: their observations are in `+Inf` only."""
    return sum(row[4] < NATIVE_LAYOUTS and layouts[row[4]].bounds != totals.layout for row in rows)


def series_count(metric: Metric, totals: SeriesTotals) -> int:
    """What a label set costs of a limit (REG-13, REG-21)."""
    if metric.kind is not Kind.HISTOGRAM:
        return 1
    return (len(totals.counts) + 2 if totals.counts else 0) + (totals.native is not None)


def values(metric: Metric, totals: SeriesTotals) -> list[float | NativeHistogram]:
    """The samples' values, in the order of the series (REG-11): sum, count and cumulative buckets of a histogram.

    The native one, which is last, is without its exemplars.
    """
    if metric.kind is not Kind.HISTOGRAM:
        return [totals.counts[0] / metric.per_unit]
    found: list[float | NativeHistogram] = []
    if totals.counts:
        buckets = [total / WEIGHT_ONE for total in accumulate(totals.counts)]
        found += [totals.sum / SUM_UNITS_PER_SECOND, buckets[-1], *buckets]
    if totals.native is not None:
        found.append(sample_value(totals.native, totals.sum))
    return found


def zeros(metric: Metric, totals: SeriesTotals) -> list[float | NativeHistogram | None]:
    """What stands before the first samples of the same series: nothing before gauges and `_sum` (REG-8, REG-11)."""
    if metric.kind is not Kind.HISTOGRAM:
        return [None if metric.kind is Kind.GAUGE else 0.0]
    found: list[float | NativeHistogram | None] = []
    if totals.counts:
        found += [None, 0.0, *[0.0] * len(totals.counts)]
    if totals.native is not None:
        found.append(empty_value(totals.native))
    return found


def _observe(
    totals: SeriesTotals | None,
    rows: Sequence[DeltaRow],
    layouts: Sequence[UsedLayout],
    histograms: HistogramSettings,
    end_ms: int,
) -> SeriesTotals:
    classic, native = rows, _NO_ROWS
    if histograms.native:
        classic = [row for row in rows if row[4] < NATIVE_LAYOUTS]
        native = [_native_row(row) for row in rows if row[4] >= NATIVE_LAYOUTS]
    window = _Window(classic, native, layouts, end_ms)
    before, revision = _continued(totals, window, histograms)
    if before.native is not None and is_reduced(before.native) and may_reset(before.native, end_ms):
        before = _emptied(before, before.native, end_ms)
    after = _added(before, window, revision)
    if before.native is None or after.native is None or not is_full(after.native):
        return after
    if may_reset(before.native, end_ms):
        after = _added(_emptied(before, before.native, end_ms), window, revision)
    return after if after.native is None else after._replace(native=limited(after.native))


_NO_ROWS: list[NativeRow] = []


def _native_row(row: DeltaRow) -> NativeRow:
    _, _, _, bucket, layout, value_lo, value_hi, sum_lo, sum_hi, trace, value_ns = row
    count = join(value_lo, value_hi) // WEIGHT_ONE
    return NativeRow(bucket, native_schema(layout), count, join(sum_lo, sum_hi), trace, value_ns)


class _Window(NamedTuple):
    """A window's rows of a histogram."""

    classic: Sequence[DeltaRow]
    native: Sequence[NativeRow]
    layouts: Sequence[UsedLayout]
    end_ms: int


def _continued(totals: SeriesTotals | None, window: _Window, histograms: HistogramSettings) -> tuple[SeriesTotals, int]:
    """The totals to which a window's rows are added, and their revision from then on.

    They are new ones if the buckets are others, or the kinds of histograms: those series restart together.
    """
    is_classic = bool(window.classic) or (histograms.classic and totals is not None and bool(totals.counts))
    is_native = bool(window.native) or (histograms.native and totals is not None and totals.native is not None)
    revision, bounds = _current_layout(totals, window) if is_classic else UsedLayout(0, ())
    settings = NativeSettings.of(histograms) if is_native else None
    if (
        totals is not None
        and totals.layout == bounds
        and bool(totals.counts) == is_classic
        and (totals.native.settings if totals.native is not None else None) == settings
    ):
        return totals, revision
    restarted = SeriesTotals(
        counts=(0,) * (len(bounds) + 1) if is_classic else (),
        updated_ms=window.end_ms,
        fresh=True,
        layout=bounds,
        native=begun(settings, window.end_ms) if settings is not None else None,
        restarted=totals is not None and (totals.restarted or not totals.fresh),
    )
    return restarted, revision


def _current_layout(totals: SeriesTotals | None, window: _Window) -> UsedLayout:
    """The layout that the totals have after these rows: the newest, unless theirs is of a higher revision."""
    if not window.classic:
        assert totals is not None
        return UsedLayout(totals.revision, totals.layout)
    newest = max(window.layouts[number] for number in {row[4] for row in window.classic})
    if totals is not None and totals.counts and totals.revision > newest.revision:
        return UsedLayout(totals.revision, totals.layout)
    return newest


def _added(before: SeriesTotals, window: _Window, revision: int) -> SeriesTotals:
    counts, total_sum, layouts, bounds = list(before.counts), before.sum, window.layouts, before.layout
    exemplars = {pending.bucket: pending for pending in before.exemplars}
    for _, _, _, bucket, layout, value_lo, value_hi, sum_lo, sum_hi, trace, value_ns in window.classic:
        total_sum += join(sum_lo, sum_hi)
        if layouts[layout].bounds != bounds:
            counts[-1] += join(value_lo, value_hi)
            continue
        counts[bucket] += join(value_lo, value_hi)
        if trace is not None:
            exemplars[bucket] = PendingExemplar(bucket, trace, value_ns or 0)
    native = before.native
    if native is not None:
        native = added(native, window.native)
        if not before.counts:
            # Otherwise the classic rows have had these sums and exemplars (REG-20).
            total_sum += sum(row.latency for row in window.native)
            native = with_exemplars(native, window.native, window.end_ms)
    # An empty trace ID erases what was to be written (REG-12).
    pending = tuple(exemplars[bucket] for bucket in sorted(exemplars) if exemplars[bucket].trace)
    return SeriesTotals(
        counts=tuple(counts),
        sum=total_sum,
        updated_ms=window.end_ms,
        fresh=before.fresh,
        layout=bounds,
        revision=revision,
        exemplars=pending,
        native=native,
        restarted=before.restarted,
    )


def _emptied(totals: SeriesTotals, native: NativeTotals, end_ms: int) -> SeriesTotals:
    """After a reset: the classic part, which counts the same observations (REG-19), starts at 0 too."""
    return totals._replace(counts=(0,) * len(totals.counts), sum=0, native=emptied(native, end_ms))
