"""Bucket layouts of classic histograms, the longest latency of each bucket, and which histograms tenants have."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.config import HistogramSettings
from schemas.deltas import Layout

_FOREVER_NS = (1 << 63) - 1
_EXACT_NS = 1 << 53


NO_SCHEMA = -128
"""Stands for the schema where there are no native histograms."""


class HistogramKinds(NamedTuple):
    """Which histograms there are, one row per tenant (Tempo REG-14)."""

    classic: npt.NDArray[np.bool_]
    schema: npt.NDArray[np.int8]
    """That of native histograms, or `NO_SCHEMA`."""


def histogram_kinds(every: Sequence[HistogramSettings]) -> HistogramKinds:
    """The kinds of tenants in their order."""
    return HistogramKinds(
        classic=np.array([s.classic for s in every], np.bool_),
        schema=np.array([s.native_schema if s.native else NO_SCHEMA for s in every], np.int8),
    )


def layout_of(buckets: Sequence[float]) -> Layout:
    """Bounds as batches want them: ascending, each once, without +Inf, which is always there."""
    return tuple(sorted({bound for bound in buckets if bound < float("inf")}))


def limits_ns(layout: Layout) -> list[int]:
    """Per bound: the longest latency for which `latency_ns / 1e9 <= bound` holds in float64 (Tempo PRIM-10, REG-9)."""
    return [limit_ns(bound) for bound in layout]


def limit_ns(bound: float) -> int:
    """The greatest number of nanoseconds that is not more than a bound in seconds; -1 if none is."""
    if bound < 0:
        return -1
    if bound * 1e9 >= _EXACT_NS:
        return _FOREVER_NS  # latencies are clamped to 2^53
    limit = int(bound * 1e9)
    while limit / 1e9 > bound:
        limit -= 1
    while (limit + 1) / 1e9 <= bound:
        limit += 1
    return limit
