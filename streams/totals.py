"""Cumulative totals of one label set of one metric: how rows of deltas add to them, and what is written of them.

Totals are integers, converted to float64 once, at the sample: a quotient of two Python integers is correctly rounded,
so the written value depends on what was counted and on nothing else.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from schemas.deltas import NO_BUCKET, Layout, join
from schemas.metrics import LATENCY_UNITS_PER_NS, WEIGHT_ONE, Kind, Metric
from schemas.snapshot import PendingExemplar, SeriesTotals

SUM_UNITS_PER_SECOND = LATENCY_UNITS_PER_NS * 1_000_000_000


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


def apply_rows(
    metric: Metric,
    totals: SeriesTotals | None,
    rows: Sequence[DeltaRow],
    layouts: Sequence[UsedLayout],
    end_ms: int,
) -> SeriesTotals:
    """The totals after a window's rows of this label set, at least one; None stands for a label set that is new."""
    if metric.kind is Kind.HISTOGRAM:
        return _observe(totals, rows, layouts, end_ms)
    _, _, _, _, _, value_lo, value_hi, *_ = rows[0]
    value = join(value_lo, value_hi)
    if metric.kind is Kind.COUNTER and totals is not None:
        value += totals.counts[0]
    return SeriesTotals(counts=(value,), updated_ms=end_ms, fresh=totals is None or totals.fresh)


def current_layout(totals: SeriesTotals | None, rows: Sequence[DeltaRow], layouts: Sequence[UsedLayout]) -> UsedLayout:
    """The layout that the totals have after these rows: the newest, unless theirs is of a higher revision."""
    newest = max(layouts[number] for number in {row[4] for row in rows})
    if totals is not None and totals.revision > newest.revision:
        return UsedLayout(totals.revision, totals.layout)
    return newest


def misfits(totals: SeriesTotals, rows: Sequence[DeltaRow], layouts: Sequence[UsedLayout]) -> int:
    """Rows of another layout than the totals after them: their observations are in `+Inf` only."""
    return sum(row[3] != NO_BUCKET and layouts[row[4]].bounds != totals.layout for row in rows)


def is_restart(before: SeriesTotals, after: SeriesTotals) -> bool:
    """Whether the buckets changed, so that the series begin anew."""
    return before.layout != after.layout


def series_count(metric: Metric, layout: Layout) -> int:
    """What a label set costs of a limit (REG-13)."""
    return len(layout) + 3 if metric.kind is Kind.HISTOGRAM else 1


def values(metric: Metric, totals: SeriesTotals) -> list[float]:
    """The samples' values, in the order of the series (REG-11): sum, count and cumulative buckets of a histogram."""
    if metric.kind is not Kind.HISTOGRAM:
        return [totals.counts[0] / metric.per_unit]
    buckets = [total / WEIGHT_ONE for total in accumulate(totals.counts)]
    return [totals.sum / SUM_UNITS_PER_SECOND, buckets[-1], *buckets]


def _observe(
    totals: SeriesTotals | None, rows: Sequence[DeltaRow], layouts: Sequence[UsedLayout], end_ms: int
) -> SeriesTotals:
    revision, bounds = current_layout(totals, rows, layouts)
    if totals is None or totals.layout != bounds:
        totals = SeriesTotals(counts=(0,) * (len(bounds) + 1), updated_ms=end_ms, fresh=True, layout=bounds)
    counts, total_sum = list(totals.counts), totals.sum
    exemplars = {pending.bucket: pending for pending in totals.exemplars}
    for _, _, _, bucket, layout, value_lo, value_hi, sum_lo, sum_hi, trace, value_ns in rows:
        total_sum += join(sum_lo, sum_hi)
        if layouts[layout].bounds != bounds:
            counts[-1] += join(value_lo, value_hi)
            continue
        counts[bucket] += join(value_lo, value_hi)
        if trace is not None:
            exemplars[bucket] = PendingExemplar(bucket, trace, value_ns or 0)
    # An empty trace ID erases what was to be written (REG-12).
    pending = tuple(exemplars[bucket] for bucket in sorted(exemplars) if exemplars[bucket].trace)
    return SeriesTotals(
        counts=tuple(counts),
        sum=total_sum,
        updated_ms=end_ms,
        fresh=totals.fresh,
        layout=bounds,
        revision=revision,
        exemplars=pending,
    )
