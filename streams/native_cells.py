"""The cells of native histograms in a window: which bucket an observation falls into, and what falls there adds up.

A native histogram has thousands of possible buckets and few that are used, so its cells are found by a key of their
own. Whoever calls these kernels asks for the schema first: passing the tables alone costs 50 ns.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.deltas import NATIVE_LAYOUTS, ZERO_BUCKET
from schemas.metrics import MetricId
from schemas.native_histogram import MAX_SCHEMA, MIN_SCHEMA
from streams.groups import (
    MAX_TRACE_BYTES,
    CellTable,
    GroupTable,
    Observation,
    add_observation,
    comes_after,
    find_group,
    keep_exemplar,
    new_cells,
    new_groups,
    resized_cells,
    resized_groups,
)
from streams.kernels import kernel, wide
from streams.layouts import NO_SCHEMA, HistogramKinds
from streams.rows import Block, cell_rows

_ROOTS = (
    0.7071067811865475,
    0.5946035575013605,
    0.5452538663326288,
    0.5221368912137069,
    0.5109485743270583,
    0.5054446430258502,
    0.5027149505564014,
    0.5013556375251013,
)
"""2^(2^-n - 1) for schema n from 1 on, as Go computes them: some differ from the nearest float64 in the last bit."""


def _bounds() -> npt.NDArray[np.float64]:
    """The bounds of the finest schema within [0.5, 1); each coarser one has every second of them.

    Each schema's new ones are products of the bound before and the schema's factor, as those of Prometheus' client
    library were made, so that they are the same numbers (Tempo REG-16).
    """
    bounds = [0.5]
    for root in _ROOTS:
        bounds = [each for bound in bounds for each in (bound, bound * (2 * root))]
    return np.array(bounds)


_BOUNDS = _bounds()
_WHOLE = np.uint64(32)
_ALMOST_ONE = np.uint64((1 << 32) - 1)
_GROUP, _HISTOGRAM, _BUCKET = range(3)
"""Places in a cell's key."""


class NativeCells(NamedTuple):
    """Cells by group, histogram and bucket. A cell's number is its key's."""

    keys: GroupTable
    cells: CellTable


def new_native_cells(capacity: int) -> NativeCells:
    """No cells yet."""
    return NativeCells(new_groups(capacity, _BUCKET + 1, 1), new_cells(capacity))


def grown_native_cells(old: NativeCells, more: int) -> NativeCells:
    """The same cells, and room for so many more."""
    capacity = len(old.cells.cells)
    if old.cells.used[0] + more <= capacity:
        return old
    capacity = max(2 * capacity, capacity + more)
    return NativeCells(resized_groups(old.keys, capacity, 0, 0), resized_cells(old.cells, capacity))


@kernel
def native_bucket(schema: int, latency_ns: np.int64) -> int:
    """The bucket of a latency, as that of the float64 of its seconds (PRIM-10); bounds are inclusive."""
    if latency_ns <= 0:
        return wide(ZERO_BUCKET)
    fraction, exponent = math.frexp(np.float64(latency_ns) / 1e9)
    if schema <= 0:
        power = exponent - (fraction == 0.5)
        return wide((power + (1 << -schema) - 1) >> -schema)
    step = 1 << (MAX_SCHEMA - schema)
    low, high = 0, 1 << schema
    while low < high:
        middle = (low + high) >> 1
        if _BOUNDS[middle * step] < fraction:
            low = middle + 1
        else:
            high = middle
    return wide(low + ((exponent - 1) << schema))


@kernel
def observed_weight(kinds: HistogramKinds, tenant: int, weight: np.uint64) -> np.uint64:
    """How much an observation counts: where there are native histograms it is whole, rounded up (REG-18)."""
    if kinds.schema[tenant] == NO_SCHEMA:
        return weight
    return ((weight + _ALMOST_ONE) >> _WHOLE) << _WHOLE


@kernel
def observe_native(
    native: NativeCells, kinds: HistogramKinds, tenant: int, group: int, histogram: int, seen: Observation
) -> None:
    """Add an observation of a tenant that has native histograms to its bucket; there must be room.

    It offers an exemplar, and an empty trace ID none, unless the classic part has it (REG-20).
    """
    key = native.keys.scratch
    key[_GROUP], key[_HISTOGRAM] = group, histogram
    key[_BUCKET] = native_bucket(wide(kinds.schema[tenant]), seen.latency_ns)
    number = find_group(native.keys, wide(_BUCKET + 1))
    cells = native.cells
    new = number == cells.used[0]
    if new:
        cells.used[0] = number + 1
        cells.cells[number].trace_bytes = -1
    cell = cells.cells[number]
    add_observation(cell, seen)
    if not kinds.classic[tenant] and (cell.trace_bytes < 0 or not comes_after(cell, seen)) and _has_trace(seen):
        keep_exemplar(cells, number, seen)


@kernel
def _has_trace(seen: Observation) -> bool:
    """Whether there is a trace ID, and it can be an exemplar."""
    start, end = int(seen.trace_start), int(seen.trace_start + seen.trace_bytes)
    while start < end and seen.traces[start] == 0:
        start += 1
    return bool(0 < end - start <= MAX_TRACE_BYTES)


def native_rows(
    metric: MetricId, native: NativeCells, histogram: int, kinds: HistogramKinds, tenants: npt.NDArray[np.int32]
) -> Block:
    """Rows of one histogram's native buckets; `tenants` are those of the groups."""
    keys = native.keys.keys[: native.cells.used[0]]
    chosen = np.flatnonzero(keys[:, _HISTOGRAM] == histogram)
    groups, buckets = keys[chosen, _GROUP], keys[chosen, _BUCKET]
    layouts = NATIVE_LAYOUTS - MIN_SCHEMA + kinds.schema[tenants[groups]].astype(np.int64)
    return cell_rows(metric, native.cells, chosen, groups, buckets, layouts)
