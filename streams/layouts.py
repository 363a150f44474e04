"""Bucket layouts of classic histograms, and the longest latency of each bucket."""

from collections.abc import Sequence

from schemas.deltas import Layout

_FOREVER_NS = (1 << 63) - 1
_EXACT_NS = 1 << 53


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
