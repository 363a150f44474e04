"""Groups of rows that share a key, and the cells of their histograms: what a window adds up."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.interner import FULL, copy_bytes, fill_slots, mixed, slots_for
from streams.kernels import kernel, wide
from streams.limbs import added, weighted_latency

MAX_TRACE_BYTES = 32
"""The longest trace ID, without leading zeros, that can be an exemplar: twice as many digits. Others count as empty."""

CELL = np.dtype(
    [
        ("weight_lo", np.uint64),
        ("weight_hi", np.int64),
        ("sum_lo", np.uint64),
        ("sum_hi", np.int64),
        ("ex_value_ns", np.int64),
        ("ex_timestamp_ms", np.int64),
        ("ex_offset", np.int64),
        ("ex_index", np.int32),
        ("group", np.int32),
        ("place", np.int32),
        ("trace_bytes", np.int32),
    ]
)
"""A bucket of a group's histogram that something fell into; `place` counts through the buckets of its histograms.

`trace_bytes` is -1 where no exemplar was offered.
"""


class GroupTable(NamedTuple):
    """A hash table of keys, each some int32 values and zeros up to the width of the table."""

    slots: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]
    keys: npt.NDArray[np.int32]
    """One row per group."""
    cell_of: npt.NDArray[np.int32]
    """Per group and place: the cell, or -1."""
    used: npt.NDArray[np.int64]
    """Groups."""
    scratch: npt.NDArray[np.int32]
    """A key in the making: kernels allocate nothing."""


class CellTable(NamedTuple):
    """The cells of all groups, in the order in which something first fell into them."""

    cells: npt.NDArray[Any]
    """Of `CELL`."""
    traces: npt.NDArray[np.uint8]
    """Per cell: the exemplar's trace ID without leading zeros."""
    used: npt.NDArray[np.int64]
    """Cells."""


def new_groups(capacity: int, width: int, places: int) -> GroupTable:
    """No groups yet."""
    return GroupTable(
        slots=np.full(slots_for(capacity), -1, np.int32),
        hashes=np.empty(capacity, np.uint64),
        keys=np.zeros((capacity, width), np.int32),
        cell_of=np.full((capacity, places), -1, np.int32),
        used=np.zeros(1, np.int64),
        scratch=np.zeros(width, np.int32),
    )


def resized_groups(old: GroupTable, capacity: int, width: int, places: int) -> GroupTable:
    """The same groups with their numbers in a table that is larger, or the same if it is large enough.

    More places are more buckets of the last histogram: see the callers.
    """
    rows, old_width = old.keys.shape
    old_places = old.cell_of.shape[1]
    capacity, width, places = max(capacity, rows), max(width, old_width), max(places, old_places)
    if (capacity, width, places) == (rows, old_width, old_places):
        return old
    n = int(old.used[0])
    new = new_groups(capacity, width, places)
    new.hashes[:n] = old.hashes[:n]
    new.keys[:n, :old_width] = old.keys[:n]
    new.cell_of[:n, :old_places] = old.cell_of[:n]
    new.used[0] = n
    fill_slots(new.slots, new.hashes, n)
    return new


def new_cells(capacity: int) -> CellTable:
    """No cells yet."""
    return CellTable(np.zeros(capacity, CELL), np.empty((capacity, MAX_TRACE_BYTES), np.uint8), np.zeros(1, np.int64))


def resized_cells(old: CellTable, capacity: int) -> CellTable:
    """The same cells with their numbers in a larger table."""
    n = int(old.used[0])
    new = new_cells(capacity)
    new.cells[:n], new.traces[:n], new.used[0] = old.cells[:n], old.traces[:n], n
    return new


@kernel
def find_group(table: GroupTable, width: int) -> int:
    """The group of the first `width` values of `scratch`, new or not; `FULL` if it is new and there is no room."""
    key = table.scratch
    hashed = np.uint64(width)
    for i in range(width):
        hashed = mixed(hashed, np.uint64(np.uint32(key[i])))
    hashed ^= hashed >> np.uint64(32)
    mask = len(table.slots) - 1
    at = np.int64(hashed) & mask
    while table.slots[at] >= 0:
        group = table.slots[at]
        if table.hashes[group] == hashed and _same_key(table, group, width):
            return wide(group)
        at = (at + 1) & mask
    group = table.used[0]
    if group == len(table.hashes):
        return FULL
    table.hashes[group] = hashed
    for i in range(width):
        table.keys[group, i] = key[i]
    table.used[0] = group + 1
    table.slots[at] = group
    return wide(group)


@kernel
def _same_key(table: GroupTable, group: int, width: int) -> bool:
    for i in range(width):  # noqa: SIM110 -- numba has no generator expressions
        if table.keys[group, i] != table.scratch[i]:
            return False
    # A shorter key is another one even if the rest is zero: the first value, the tenant, decides the width.
    return True


@kernel
def bucket_of(limits_ns: Any, latency_ns: np.int64) -> int:
    """The first bucket whose limit isn't below the latency, or their count: +Inf."""
    bucket = 0
    while bucket < len(limits_ns) and limits_ns[bucket] < latency_ns:
        bucket += 1
    return bucket


class Observation(NamedTuple):
    """What falls into a cell: a latency with its weight (2^-32), and the exemplar that it offers with its position."""

    weight: np.uint64
    latency_ns: np.int64
    timestamp_ms: np.int64
    offset: np.int64
    position: np.int32
    traces: npt.NDArray[np.uint8]
    trace_start: np.int64
    trace_bytes: np.int64


@kernel
def observe(groups: GroupTable, table: CellTable, group: int, place: int, seen: Observation) -> None:
    """Add an observation to a cell of a group; there must be room for a new cell."""
    number = wide(groups.cell_of[group, place])
    new = number < 0
    if new:
        number = wide(table.used[0])
        table.used[0] = number + 1
        groups.cell_of[group, place] = number
        table.cells[number].group = group
        table.cells[number].place = place
    cell = table.cells[number]
    add_observation(cell, seen)
    if new or not comes_after(cell, seen):
        keep_exemplar(table, number, seen)


@kernel
def add_observation(cell: Any, seen: Observation) -> None:
    """Add to a cell's weight and sum."""
    sum_lo, sum_hi = weighted_latency(seen.weight, seen.latency_ns)
    cell.sum_lo, cell.sum_hi = added(cell.sum_lo, cell.sum_hi, sum_lo, sum_hi)
    cell.weight_lo, cell.weight_hi = added(cell.weight_lo, cell.weight_hi, seen.weight, np.int64(0))


@kernel
def comes_after(cell: Any, seen: Observation) -> bool:
    """Whether the cell's exemplar comes later in the log."""
    if cell.ex_timestamp_ms != seen.timestamp_ms:
        return bool(cell.ex_timestamp_ms > seen.timestamp_ms)
    if cell.ex_offset != seen.offset:
        return bool(cell.ex_offset > seen.offset)
    return bool(cell.ex_index > seen.position)


@kernel
def keep_exemplar(table: CellTable, number: int, seen: Observation) -> None:
    """Make an observation the exemplar of a cell."""
    cell = table.cells[number]
    cell.ex_timestamp_ms, cell.ex_offset, cell.ex_index = seen.timestamp_ms, seen.offset, seen.position
    cell.ex_value_ns = seen.latency_ns
    start, end = int(seen.trace_start), int(seen.trace_start + seen.trace_bytes)
    while start < end and seen.traces[start] == 0:
        start += 1
    length = end - start
    if length > MAX_TRACE_BYTES:
        length = 0
    copy_bytes(seen.traces, start, length, table.traces[number], 0)
    cell.trace_bytes = length
