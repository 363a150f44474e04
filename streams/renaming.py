"""A window's rows under the label sets that they become (Tempo DRN-8, LIM-10), before series are made of them.

Rows of different partitions, or of different label sets, may become rows of one label set: so labels change before rows
are merged, and an exemplar is that of the greatest position whatever its labels were. Metrics about targets and hosts
keep their labels (PRIM-7).
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.deltas import DeltaRows, concatenated, sort_keys
from schemas.metrics import MetricId
from streams.series import ROUTE_LABELS
from streams.tenant_limiters import TenantLimiters

Frames = Sequence[tuple[int, DeltaRows]]
"""Partitions and their delta rows."""

Numbers = npt.NDArray[np.int64]

_KEPT = [int(MetricId.TARGET_INFO), int(MetricId.HOST_INFO)]
_ROUTES = dict(zip((int(MetricId.CALLS) // 10, int(MetricId.REQUEST_TOTAL) // 10), ROUTE_LABELS, strict=True))
"""Route labels by block of metrics."""


class _LabelSet(NamedTuple):
    """A label set of a block of metrics, and how many rows it has."""

    tenant: str
    labels: bytes
    block: int
    rows: int


def renamed(frames: Frames, tenants: Mapping[str, TenantLimiters]) -> Frames:
    """The frames with the labels that these tenants' label sets become; the same ones if none becomes another."""
    learning = {name for name, limiters in tenants.items() if limiters.renames}
    if not learning or not frames:
        return frames
    rows = concatenated([own for _, own in frames])
    learns = np.array([name in learning for name in rows.tenants], np.bool_)
    chosen = np.flatnonzero(learns[rows.cells["tenant"]] & ~np.isin(rows.cells["metric"], _KEPT))
    sets, set_of_row = _label_sets(rows, chosen)
    become = [
        labels for tenant, own in groupby(sets, attrgetter("tenant")) for labels in _become(list(own), tenants[tenant])
    ]
    if all(labels == each.labels for labels, each in zip(become, sets, strict=True)):
        return frames
    return _relabelled(frames, rows, chosen, become, set_of_row)


def _label_sets(rows: DeltaRows, chosen: Numbers) -> tuple[list[_LabelSet], Numbers]:
    """The different label sets of the chosen rows in canonical order, by block of metrics, and per row which it is.

    Rows that several partitions have count once.
    """
    own = rows.take(chosen)
    first, second = sort_keys(own)
    order = np.lexsort((second, first))
    block = own.cells["metric"] // 10
    different = np.ones(len(own), np.bool_)
    different[1:] = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    begins = np.ones(len(own), np.bool_)
    begins[1:] = (np.diff(first[order]) != 0) | (np.diff(block[order]) != 0)
    number = np.cumsum(begins) - 1
    set_of_row = np.empty(len(own), np.int64)
    set_of_row[order] = number
    counts = np.bincount(number[different]).tolist()
    cells, blocks = own.cells[order[begins]], block[order[begins]].tolist()
    tenants = [rows.tenants[number] for number in cells["tenant"].tolist()]
    labels = [rows.labels[number] for number in cells["labels"].tolist()]
    return list(map(_LabelSet, tenants, labels, blocks, counts)), set_of_row


def _become(sets: Sequence[_LabelSet], limiters: TenantLimiters) -> list[bytes]:
    """What the label sets of a tenant become."""
    routes = [_ROUTES[each.block] for each in sets]
    return limiters.rename([each.labels for each in sets], routes, [each.rows for each in sets])


def _relabelled(
    frames: Frames, rows: DeltaRows, chosen: Numbers, become: Sequence[bytes], set_of_row: Numbers
) -> Frames:
    """The frames, which `rows` are together, with other labels in the chosen rows."""
    cells = rows.cells.copy()
    cells["labels"][chosen] = len(rows.labels) + set_of_row
    whole = DeltaRows(cells, rows.tenants, (*rows.labels, *become), rows.traces)
    ends = np.cumsum([len(own) for _, own in frames]).tolist()
    return [(partition, whole.slice(end - len(own), end)) for (partition, own), end in zip(frames, ends, strict=True)]
