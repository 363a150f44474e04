"""Delta rows of a window, from what was added up per group of spans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.deltas import DELTA_SCHEMA, NO_BUCKET, NO_LAYOUT, merge_rows
from schemas.labels import decode_labels, label_set
from schemas.metrics import MetricId
from streams.groups import CellTable

ROW_SCHEMA = pl.Schema({**DELTA_SCHEMA, "route": pl.Binary()})
"""Rows of a window: delta rows and the value of the label by which their series finds its owner."""

_CANONICAL = ["tenant", "labels", "metric", "bucket", "layout"]

MAX_CACHED_LABEL_SETS = 50_000

Columns = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The label bytes of a group, None if they are invalid (Tempo PRIM-6), and the final value of the routing label."""

    labels: bytes | None
    route: bytes


class LabelCache:
    """Label sets that were made lately, so that labels aren't made anew in each window. It decides no value."""

    def __init__(self, route_label: str) -> None:
        self._route_label = route_label
        self._made: dict[tuple[tuple[bytes, ...], tuple[bytes, ...], int, int], LabelSet] = {}

    def of(self, names: tuple[bytes, ...], values: tuple[bytes, ...], max_name: int, max_value: int) -> LabelSet:
        """The label set of names and values in the order in which they are added, cut to these lengths."""
        key = (names, values, max_name, max_value)
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= MAX_CACHED_LABEL_SETS:
                self._made.clear()
            made = self._made[key] = self._make(*key)
        return made

    def _make(self, names: tuple[bytes, ...], values: tuple[bytes, ...], max_name: int, max_value: int) -> LabelSet:
        labels = label_set(zip(names, values, strict=True), max_name, max_value)
        if labels is None:
            return LabelSet(None, b"")
        route = next((value for name, value in decode_labels(labels) if name == self._route_label), "")
        return LabelSet(labels, route.encode())


def counter_rows(metric: MetricId, chosen: Columns, lo: Columns, hi: Columns) -> pl.DataFrame:
    """Rows of a counter or gauge for the chosen groups; all columns have one row per group."""
    groups = np.flatnonzero(chosen)
    return _rows(len(groups), group=groups, metric=int(metric), value_lo=lo[groups], value_hi=hi[groups])


def histogram_rows(
    metric: MetricId, table: CellTable, chosen: Columns, buckets: Columns, layouts: Columns
) -> pl.DataFrame:
    """Rows of a histogram: the chosen cells, and per chosen cell its bucket and the number of its layout."""
    cells = table.cells[chosen]
    return _rows(
        len(cells),
        group=cells["group"],
        metric=int(metric),
        bucket=buckets,
        layout=layouts,
        value_lo=cells["weight_lo"],
        value_hi=cells["weight_hi"],
        sum_lo=cells["sum_lo"],
        sum_hi=cells["sum_hi"],
        ex_trace=_trace_texts(table.traces[chosen], cells["trace_bytes"]),
        ex_value_ns=cells["ex_value_ns"],
        ex_timestamp_ms=cells["ex_timestamp_ms"],
        ex_offset=cells["ex_offset"],
        ex_index=cells["ex_index"],
    )


def window_rows(blocks: Sequence[pl.DataFrame], tenants: Sequence[str], label_sets: Sequence[LabelSet]) -> pl.DataFrame:
    """The rows of one processor's blocks, given the tenant and the labels of each group, with `ROW_SCHEMA`.

    Rows of groups with invalid labels are left out; those of groups with the same labels are merged.
    """
    if not blocks or not label_sets:
        return ROW_SCHEMA.to_frame()
    keys = pl.DataFrame(
        {
            "tenant": pl.Series(tenants, dtype=pl.String()),
            "labels": pl.Series([made.labels for made in label_sets], dtype=pl.Binary()),
            "route": pl.Series([made.route for made in label_sets], dtype=pl.Binary()),
        }
    )
    stacked = pl.concat(blocks)
    group = stacked["group"]
    rows = stacked.with_columns(keys[name].gather(group).alias(name) for name in keys.columns)
    rows = rows.filter(pl.col("labels").is_not_null()).select(ROW_SCHEMA.names())
    valid = keys.filter(pl.col("labels").is_not_null())
    distinct = valid.unique(["tenant", "labels"])
    if len(distinct) == len(valid):
        return rows
    return merge_rows([(0, rows)]).join(distinct, on=["tenant", "labels"], how="left").select(ROW_SCHEMA.names())


def canonical(processors: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The rows of all processors in canonical order."""
    return pl.concat(processors).sort(_CANONICAL)


def _rows(n: int, **columns: Any) -> pl.DataFrame:
    """A block of rows: `group` and those of `DELTA_SCHEMA` that don't follow from it; what isn't given is absent."""
    defaults: dict[str, int | None] = {"bucket": NO_BUCKET, "layout": NO_LAYOUT, "sum_lo": 0, "sum_hi": 0}
    series = [pl.Series("group", columns["group"], dtype=pl.Int32())]
    for name, kind in DELTA_SCHEMA.items():
        if name in {"tenant", "labels"}:
            continue
        column: Any = columns.get(name, defaults.get(name))
        if isinstance(column, np.ndarray | pl.Series):
            series.append(pl.Series(name, column).cast(kind))
        else:
            series.append(pl.repeat(column, n, dtype=kind, eager=True).alias(name))
    return pl.DataFrame(series)


def _trace_texts(traces: npt.NDArray[np.uint8], lengths: Columns) -> pl.Series:
    """Lower-case hex without leading zeros (Tempo PRIM-9); empty for an ID of zeros."""
    ids = pl.Series(
        [row.tobytes()[:length] for row, length in zip(traces, lengths.tolist(), strict=True)], dtype=pl.Binary()
    )
    return ids.bin.encode("hex").str.strip_chars_start("0").cast(pl.Binary())
