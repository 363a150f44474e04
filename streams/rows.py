"""Delta rows of a window, from what was added up per group of spans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.deltas import NO_BUCKET, NO_LAYOUT, NO_ROUTED_ROWS, ROW, DeltaRows, RoutedRows, merge_rows
from schemas.labels import decode_labels, label_set
from schemas.metrics import MetricId
from streams.groups import CellTable

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
    """Rows of one metric, and of each row the trace ID of its exemplar as text, empty if there was none to offer."""

    rows: Columns
    """Of `ROW`; in place of the label set stands the number of the group."""
    traces: list[bytes]


NO_BLOCK = Block(np.empty(0, ROW), [])


@dataclass(frozen=True, slots=True)
class ProcessorRows:
    """What a processor has for a window: its metrics' rows, and the tenant and labels of each of its groups."""

    blocks: Sequence[Block]
    keys: Sequence[tuple[str, LabelSet]]


def counter_rows(metric: MetricId, chosen: Columns, lo: Columns, hi: Columns) -> Block:
    """Rows of a counter or gauge for the chosen groups; all columns have one row per group."""
    groups = chosen.nonzero()[0]
    if not len(groups):
        return NO_BLOCK
    rows = np.zeros(len(groups), ROW)
    rows["labels"], rows["metric"] = groups, int(metric)
    rows["bucket"], rows["layout"] = NO_BUCKET, NO_LAYOUT
    rows["value_lo"], rows["value_hi"] = lo[groups], hi[groups]
    return Block(rows, [b""] * len(groups))


def histogram_rows(metric: MetricId, table: CellTable, chosen: Columns, buckets: Columns, layouts: Columns) -> Block:
    """Rows of a histogram: the chosen cells, and per chosen cell its bucket and the number of its layout."""
    return cell_rows(metric, table, chosen, table.cells["group"][chosen], buckets, layouts)


def cell_rows(
    metric: MetricId, table: CellTable, chosen: Columns, groups: Columns, buckets: Columns, layouts: Columns
) -> Block:
    """The same where cells don't know their groups."""
    if not len(chosen):
        return NO_BLOCK
    cells = table.cells[chosen]
    rows = np.zeros(len(cells), ROW)
    rows["metric"], rows["labels"], rows["bucket"], rows["layout"] = int(metric), groups, buckets, layouts
    rows["value_lo"], rows["value_hi"] = cells["weight_lo"], cells["weight_hi"]
    rows["offered"] = cells["trace_bytes"] >= 0
    for name in ("sum_lo", "sum_hi", "ex_value_ns", "ex_timestamp_ms", "ex_offset", "ex_index"):
        rows[name] = cells[name]
    return Block(rows, list(map(_trace_text, table.traces[chosen], cells["trace_bytes"].tolist())))


def window_rows(processors: Sequence[ProcessorRows]) -> RoutedRows:
    """The rows of all processors in canonical order.

    Rows of groups with invalid labels are left out; those of groups with the same labels are merged.
    """
    keys = [key for processor in processors for key in processor.keys]
    valid = [group for group, (_, made) in enumerate(keys) if made.labels is not None]
    if not valid:
        return NO_ROUTED_ROWS
    order = sorted(valid, key=lambda group: (keys[group][0], keys[group][1].labels))
    ranks = np.full(len(keys), -1, np.int32)
    ranks[order] = np.arange(len(order))
    cells, traces = _stacked(processors)
    cells["labels"] = ranks[cells["labels"]]
    # Of groups of two processors with the same labels the first processor's come first, and so do its metrics.
    canonical = np.lexsort((cells["layout"], cells["bucket"], cells["metric"], cells["labels"]))
    canonical = canonical[np.searchsorted(cells["labels"][canonical], 0) :]
    cells, own = cells[canonical], [keys[group] for group in order]
    tenants: dict[str, int] = {}
    cells["tenant"] = np.array([tenants.setdefault(tenant, len(tenants)) for tenant, _ in own])[cells["labels"]]
    labels = [made.labels or b"" for _, made in own]
    rows = DeltaRows(cells, tuple(tenants), labels, pa.array([traces[row] for row in canonical.tolist()], pa.binary()))
    if _repeats(processors):
        rows = merge_rows([(0, rows)])
    return RoutedRows(rows, [made.route for _, made in own], rows.cells["labels"].astype(np.int64))


def _stacked(processors: Sequence[ProcessorRows]) -> tuple[Columns, list[bytes]]:
    """The rows of all blocks, their groups numbered through, and the exemplars' trace IDs."""
    blocks = [block for processor in processors for block in processor.blocks]
    stacked = np.empty(sum(len(block.rows) for block in blocks), ROW)
    groups = at = 0
    for processor in processors:
        for block in processor.blocks:
            own = stacked[at : at + len(block.rows)]
            own[:] = block.rows
            own["labels"] += groups
            at += len(own)
        groups += len(processor.keys)
    return stacked, [trace for block in blocks for trace in block.traces]


def _repeats(processors: Sequence[ProcessorRows]) -> bool:
    """Whether two groups of a processor have the same labels."""
    valid = ([(tenant, made.labels) for tenant, made in each.keys if made.labels is not None] for each in processors)
    return any(len(set(labels)) < len(labels) for labels in valid)


def _trace_text(trace: Columns, length: int) -> bytes:
    """Lower-case hex without leading zeros (Tempo PRIM-9); empty for an ID of zeros, or where none was offered."""
    return trace[: max(length, 0)].tobytes().hex().lstrip("0").encode()
