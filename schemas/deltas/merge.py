"""Several partitions' rows of one window, merged into one row per key."""

from collections.abc import Sequence

import polars as pl

from schemas import int128
from schemas.deltas.types import CANONICAL_ORDER, DELTA_SCHEMA, EXEMPLAR_COLUMNS
from schemas.metrics import METRICS, Kind

_GAUGES = [int(metric.id) for metric in METRICS.values() if metric.kind is Kind.GAUGE]
# The last two decide nothing between spans: no two of them have one position.
_EXEMPLAR_ORDER = ["ex_timestamp_ms", "partition", "ex_offset", "ex_index", "ex_value_ns", "ex_trace"]


def merge_rows(frames: Sequence[tuple[int, pl.DataFrame]]) -> pl.DataFrame:
    """The rows of (partition, delta rows) pairs as one table of delta rows, in canonical order.

    The frames' `layout`s must refer to the same layouts. Values and sums are added (modulo 2^128), gauges merge by
    maximum, and the exemplar of the greatest (timestamp, partition, offset, index) stays. The order of the frames
    doesn't matter, and one partition may have several.
    """
    rows = pl.concat(
        [DELTA_SCHEMA.to_frame().with_columns(partition=pl.lit(None, pl.Int32))]
        + [frame.select(DELTA_SCHEMA.names()).with_columns(partition=pl.lit(p, pl.Int32)) for p, frame in frames]
    )
    is_gauge = pl.col("metric").is_in(_GAUGES)
    merged = pl.concat([_added(rows.filter(~is_gauge)), _greatest(rows.filter(is_gauge))])
    return (
        merged.join(_exemplars(rows), on=CANONICAL_ORDER, how="left").select(DELTA_SCHEMA.names()).sort(CANONICAL_ORDER)
    )


def _added(rows: pl.DataFrame) -> pl.DataFrame:
    limbs = rows.group_by(CANONICAL_ORDER).agg(int128.sum_expressions("value") + int128.sum_expressions("sum"))
    return limbs.select(*CANONICAL_ORDER, *int128.recombined("value"), *int128.recombined("sum"))


def _greatest(rows: pl.DataFrame) -> pl.DataFrame:
    hi, lo = pl.col("value_hi"), pl.col("value_lo")
    return rows.group_by(CANONICAL_ORDER).agg(
        lo.filter(hi == hi.max()).max(),
        hi.max(),
        sum_lo=pl.lit(0, pl.UInt64),
        sum_hi=pl.lit(0, pl.Int64),
    )


def _exemplars(rows: pl.DataFrame) -> pl.DataFrame:
    """The exemplar of each key that was offered one: groups keep the order of rows, so the last is the greatest."""
    offered = rows.filter(pl.col("ex_trace").is_not_null()).sort(_EXEMPLAR_ORDER)
    return offered.group_by(CANONICAL_ORDER).agg(pl.col(EXEMPLAR_COLUMNS).last())
