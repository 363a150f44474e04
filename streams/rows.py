"""Delta rows of a window, from what was added up per group of spans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.deltas import DELTA_SCHEMA, NO_BUCKET, NO_LAYOUT, merge_rows
from schemas.labels import decode_labels, label_set
from schemas.metrics import MetricId
from streams.groups import CellTable

ROW_SCHEMA = pl.Schema({**DELTA_SCHEMA, "route": pl.Binary()})
"""Rows of a window: delta rows and the value of the label by which their series finds its owner."""

_EXEMPLARS = ("ex_value_ns", "ex_timestamp_ms", "ex_offset", "ex_index")

ROW = np.dtype(
    [
        ("group", np.int32),
        ("metric", np.uint16),
        ("bucket", np.int16),
        ("layout", np.uint16),
        ("value_lo", np.uint64),
        ("value_hi", np.int64),
        ("sum_lo", np.uint64),
        ("sum_hi", np.int64),
        ("ex_value_ns", np.int64),
        ("ex_timestamp_ms", np.int64),
        ("ex_offset", np.int64),
        ("ex_index", np.int32),
    ]
)
"""A row whose labels are those of a numbered group."""

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


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one metric, and of each row the trace ID of its exemplar, None if there was none to offer."""

    rows: Columns
    """Of `ROW`."""
    traces: list[bytes | None]


@dataclass(frozen=True, slots=True)
class ProcessorRows:
    """What a processor has for a window: its metrics' rows, and the tenant and labels of each of its groups."""

    blocks: Sequence[Block]
    keys: Sequence[tuple[str, LabelSet]]


def counter_rows(metric: MetricId, chosen: Columns, lo: Columns, hi: Columns) -> Block:
    """Rows of a counter or gauge for the chosen groups; all columns have one row per group."""
    groups = np.flatnonzero(chosen)
    rows = np.zeros(len(groups), ROW)
    rows["group"], rows["metric"] = groups, int(metric)
    rows["bucket"], rows["layout"] = NO_BUCKET, NO_LAYOUT
    rows["value_lo"], rows["value_hi"] = lo[groups], hi[groups]
    return Block(rows, [None] * len(groups))


def histogram_rows(metric: MetricId, table: CellTable, chosen: Columns, buckets: Columns, layouts: Columns) -> Block:
    """Rows of a histogram: the chosen cells, and per chosen cell its bucket and the number of its layout."""
    return cell_rows(metric, table, chosen, table.cells["group"][chosen], buckets, layouts)


def cell_rows(
    metric: MetricId, table: CellTable, chosen: Columns, groups: Columns, buckets: Columns, layouts: Columns
) -> Block:
    """The same where cells don't know their groups."""
    cells = table.cells[chosen]
    rows = np.zeros(len(cells), ROW)
    rows["metric"], rows["group"], rows["bucket"], rows["layout"] = int(metric), groups, buckets, layouts
    rows["value_lo"], rows["value_hi"] = cells["weight_lo"], cells["weight_hi"]
    for name in ("sum_lo", "sum_hi", *_EXEMPLARS):
        rows[name] = cells[name]
    traces = zip(table.traces[chosen], cells["trace_bytes"].tolist(), strict=True)
    return Block(rows, [ids.tobytes()[:length] if length >= 0 else None for ids, length in traces])


def window_rows(processors: Sequence[ProcessorRows]) -> pl.DataFrame:
    """The rows of all processors in canonical order, with `ROW_SCHEMA`.

    Rows of groups with invalid labels are left out; those of groups with the same labels are merged.
    """
    keys = [key for processor in processors for key in processor.keys]
    valid = [group for group, (_, made) in enumerate(keys) if made.labels is not None]
    if not valid:
        return ROW_SCHEMA.to_frame()
    order = sorted(valid, key=lambda group: (keys[group][0], keys[group][1].labels))
    ranks = np.full(len(keys), -1, np.int64)
    ranks[order] = np.arange(len(order))
    rows, traces = _stacked(processors)
    row_ranks = ranks[rows["group"]]
    # Of groups of two processors with the same labels the first processor's come first, and so do its metrics.
    canonical = np.lexsort((rows["layout"], rows["bucket"], rows["metric"], row_ranks))
    canonical = canonical[np.searchsorted(row_ranks[canonical], 0) :]
    table = _table(rows[canonical], [traces[row] for row in canonical.tolist()], keys)
    return _merged(table) if _repeats(processors) else table


def _stacked(processors: Sequence[ProcessorRows]) -> tuple[Columns, list[bytes | None]]:
    """The rows of all blocks, their groups numbered through, and the exemplars' trace IDs."""
    stacked: list[Columns] = []
    groups = 0
    for processor in processors:
        for block in processor.blocks:
            block.rows["group"] += groups
            stacked.append(block.rows)
        groups += len(processor.keys)
    traces = [trace for processor in processors for block in processor.blocks for trace in block.traces]
    return np.concatenate(stacked), traces


def _repeats(processors: Sequence[ProcessorRows]) -> bool:
    """Whether two groups of a processor have the same labels."""
    valid = ([(tenant, made.labels) for tenant, made in each.keys if made.labels is not None] for each in processors)
    return any(len(set(labels)) < len(labels) for labels in valid)


def _table(rows: Columns, traces: Sequence[bytes | None], keys: Sequence[tuple[str, LabelSet]]) -> pl.DataFrame:
    """Rows with the texts of their groups. No expressions: those cost half a millisecond each, however few rows."""
    own = [keys[group] for group in rows["group"].tolist()]
    absent = np.array([trace is None for trace in traces], np.bool_)
    columns: dict[str, Any] = {
        "tenant": [tenant for tenant, _ in own],
        "labels": [made.labels for _, made in own],
        "route": [made.route for _, made in own],
        # Lower-case hex without leading zeros (Tempo PRIM-9); empty for an ID of zeros.
        "ex_trace": [None if trace is None else trace.hex().lstrip("0").encode() for trace in traces],
    }
    for name in rows.dtype.names or ():
        column = np.ascontiguousarray(rows[name])
        columns[name] = pa.array(column, mask=absent) if name in _EXEMPLARS else column
    return pl.DataFrame([pl.Series(name, columns[name], dtype=kind) for name, kind in ROW_SCHEMA.items()])


def _merged(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of which several may have one key, as one each."""
    routes = rows.select("tenant", "labels", "route").unique(["tenant", "labels"])
    return merge_rows([(0, rows)]).join(routes, on=["tenant", "labels"], how="left").select(ROW_SCHEMA.names())
