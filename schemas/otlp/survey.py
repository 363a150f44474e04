"""What a request's spans are like as a whole: how many traces, and how far their ends are from the clock.

In a numba kernel, over the columns of a scan (Tempo DIST-13, §15.6).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.otlp.jit import direct, kernel
from schemas.otlp.wire import Bytes, word_at

BOUNDS_S = (300, 1800, 3600)
"""Of the buckets of distances (Tempo §15.6)."""

BUCKETS = len(BOUNDS_S) + 1

SPREAD = np.int64(-7046029254386353131)
"""2^64 divided by the golden ratio: it spreads IDs that are counted up over the table."""

MOST_LOOKS = 64
"""For an ID: of IDs that were chosen to share a slot too many traces are counted, in a time that stays bounded."""

LEAST_SLOTS = 64
NO_SPAN, SAME_TRACE = -1, -1

# Where the kernel puts what it found.
FUTURE, PAST = 0, BUCKETS
FUTURE_SUM, PAST_SUM, TRACES = 2 * BUCKETS, 2 * BUCKETS + 1, 2 * BUCKETS + 2
FOUND = 2 * BUCKETS + 3

_BOUNDS = np.array(BOUNDS_S, np.int64)


class Distances(NamedTuple):
    """Whole seconds between spans' ends and the clock, on one side of it."""

    counts: Sequence[int]
    """By bucket; the last is beyond all bounds."""
    total_s: int


class Survey(NamedTuple):
    """Of a request whose spans have IDs."""

    traces: int
    future: Distances
    """Of spans that end after the clock's second."""
    past: Distances
    """Of all others."""


def slots_for(spans: int) -> npt.NDArray[np.int32]:
    """Memory for so many spans' traces: a power of two, at most half full."""
    return np.empty(max(LEAST_SLOTS, 1 << (2 * spans - 1).bit_length()), np.int32)


def survey(
    data: Bytes,
    trace_ids: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int64],
    now_s: int,
    slots: npt.NDArray[np.int32],
) -> Survey:
    """Of spans whose trace IDs of 16 bytes begin at `trace_ids`, with `ends` the bits of unsigned nanoseconds."""
    out = np.empty(FOUND, np.int64)
    _surveyed(data, trace_ids, ends, now_s, slots, out)
    found = out.tolist()
    future = Distances(found[FUTURE : FUTURE + BUCKETS], found[FUTURE_SUM])
    return Survey(found[TRACES], future, Distances(found[PAST : PAST + BUCKETS], found[PAST_SUM]))


@kernel
def _survey(
    data: Bytes,
    trace_ids: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int64],
    now_s: int,
    slots: npt.NDArray[np.int32],
    out: npt.NDArray[np.int64],
) -> None:
    for i in range(FOUND):
        out[i] = 0
    size = LEAST_SLOTS
    while size < 2 * len(ends):
        size *= 2
    for i in range(size):
        slots[i] = NO_SPAN
    for i in range(len(ends)):
        distance = np.int64(np.uint64(ends[i]) // np.uint64(1_000_000_000)) - now_s
        side, total = (FUTURE, FUTURE_SUM) if distance > 0 else (PAST, PAST_SUM)
        distance = abs(distance)
        bucket = 0
        while bucket < len(_BOUNDS) and distance > _BOUNDS[bucket]:
            bucket += 1
        out[side + bucket] += 1
        out[total] += distance
        first, second = word_at(data, int(trace_ids[i])), word_at(data, int(trace_ids[i]) + 8)
        slot = _slot(first, second, size)
        looks = 0
        while slots[slot] != NO_SPAN and looks < MOST_LOOKS:
            looks += 1
            known = int(trace_ids[slots[slot]])
            if word_at(data, known) == first and word_at(data, known + 8) == second:
                looks = SAME_TRACE
                break
            slot = (slot + 1) & (size - 1)
        if looks != SAME_TRACE:
            slots[slot] = i
            out[TRACES] += 1


@kernel
def _slot(first: int, second: int, size: int) -> int:
    mixed = int(first * SPREAD) ^ second
    mixed = int((mixed ^ (mixed >> 29)) * SPREAD)
    return (mixed >> 32) & (size - 1)


_surveyed = direct(_survey)
