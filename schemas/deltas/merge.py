"""Several partitions' rows of one window, merged into one row per key."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from schemas import int128
from schemas.deltas.rows import NO_ROWS, DeltaRows, Numbers, ascend, concatenated, sort_keys
from schemas.metrics import METRICS, Kind

_GAUGES = [int(metric.id) for metric in METRICS.values() if metric.kind is Kind.GAUGE]
_EXEMPLAR = ("ex_timestamp_ms", "ex_offset", "ex_index", "ex_value_ns", "offered")


def merge_rows(frames: Sequence[tuple[int, DeltaRows]]) -> DeltaRows:
    """The rows of (partition, delta rows) pairs as one table of delta rows, in canonical order.

    The frames' `layout`s must refer to the same layouts. Values and sums are added (modulo 2^128), gauges merge by
    maximum, and the exemplar of the greatest (timestamp, partition, offset, index) stays. The order of the frames
    doesn't matter, and one partition may have several.
    """
    if not frames:
        return NO_ROWS
    rows = concatenated([own for _, own in frames])
    keys = sort_keys(rows)
    if len(frames) == 1 and ascend(*keys).all():
        return rows
    order = np.lexsort(keys[::-1])
    changes = ascend(*(key[order] for key in keys))
    starts = np.flatnonzero(np.concatenate([[True], changes])[: len(order)])
    if len(starts) == len(order):
        return rows.take(order)
    partitions = np.repeat(np.array([partition for partition, _ in frames]), [len(own) for _, own in frames])
    return _merged(rows.take(order), starts, partitions[order])


def _merged(rows: DeltaRows, starts: Numbers, partitions: Numbers) -> DeltaRows:
    """One row for each run of rows of one key; runs begin at `starts`."""
    given = rows.cells
    cells = given[starts]
    for name in ("value", "sum"):
        lo, hi = int128.sums(given[f"{name}_lo"], given[f"{name}_hi"], starts)
        cells[f"{name}_lo"], cells[f"{name}_hi"] = lo, hi
    is_gauge = np.isin(cells["metric"], _GAUGES)
    if is_gauge.any():
        lo, hi = int128.maxima(given["value_lo"], given["value_hi"], starts)
        cells["value_lo"][is_gauge], cells["value_hi"][is_gauge] = lo[is_gauge], hi[is_gauge]
        cells["sum_lo"][is_gauge] = cells["sum_hi"][is_gauge] = 0
    chosen = _exemplars(rows, starts, partitions)
    for name in _EXEMPLAR:
        cells[name] = given[name][chosen]
    return DeltaRows(cells, rows.tenants, rows.labels, rows.traces.take(pa.array(chosen)))


def _exemplars(rows: DeltaRows, starts: Numbers, partitions: Numbers) -> Numbers:
    """Per run, the row whose exemplar stays: the one of the greatest position. Its first one if none was offered."""
    chosen = starts.copy()
    offered = np.flatnonzero(rows.cells["offered"])
    if not len(offered):
        return chosen
    cells, run = rows.cells[offered], np.searchsorted(starts, offered, side="right") - 1
    # The value decides nothing between spans: no two of them have one position.
    position = (cells[name] for name in ("ex_value_ns", "ex_index", "ex_offset"))
    keys = [*position, partitions[offered], cells["ex_timestamp_ms"], run]
    order = np.lexsort(keys)
    last = np.flatnonzero(np.diff(run[order], append=-1))
    chosen[run[order[last]]] = offered[order[last]]
    same = np.logical_and.reduce([np.diff(key[order], prepend=~key[order[0]]) == 0 for key in keys])
    for end in last[same[last]].tolist():
        # Only what no generator sends gets here: by the trace ID, so that still no order of frames decides.
        start = end - int(np.argmin(same[end::-1]))
        tied = offered[order[start : end + 1]].tolist()
        chosen[run[order[end]]] = max(tied, key=lambda row: rows.traces[row].as_py())
    return chosen
