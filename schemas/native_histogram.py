"""Native histograms: the value of a sample, and its buckets as spans, as Prometheus defines them.

A histogram of schema n has buckets whose upper bounds, inclusive, are 2^(index * 2^-n). Latencies aren't negative, so
there are no negative buckets, and only 0 itself is not above the zero threshold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MIN_SCHEMA, MAX_SCHEMA = -4, 8

ZERO_THRESHOLD = 2.0**-128
"""The client library's default (Tempo REG-16)."""

MAX_EMPTY_BETWEEN = 2
"""Gaps of so many buckets are written as empty buckets: less than what another span costs."""


class BucketExemplar(NamedTuple):
    """An exemplar of a native histogram, whose time is its sample's."""

    labels: tuple[tuple[str, str], ...]
    value: float


@dataclass(frozen=True, slots=True)
class NativeHistogram:
    """The value of a sample of a native histogram. `buckets` are (index, count), ascending, and so are exemplars."""

    schema: int
    count: int
    sum: float
    zero_count: int
    buckets: tuple[tuple[int, int], ...]
    exemplars: tuple[BucketExemplar, ...] = ()


class Span(NamedTuple):
    """Consecutive buckets: how many are passed over before them (of the first span: its index), and how many follow."""

    offset: int
    length: int


def coarser(index: int, steps: int) -> int:
    """The bucket of a schema lower by `steps` that contains a bucket."""
    return ((index - 1) >> steps) + 1


def spans(buckets: Sequence[tuple[int, int]]) -> tuple[list[Span], list[int]]:
    """Buckets as spans and, for each of their buckets, by how much its count exceeds that of the one before."""
    found: list[Span] = []
    deltas: list[int] = []
    before = offset = length = end = 0
    for index, count in buckets:
        gap = index - end
        if length and gap <= MAX_EMPTY_BETWEEN:
            if gap:
                deltas += [-before, *[0] * (gap - 1)]
                before = 0
            length += gap + 1
        else:
            if length:
                found.append(Span(offset, length))
            offset, length = gap, 1
        deltas.append(count - before)
        before, end = count, index + 1
    if length:
        found.append(Span(offset, length))
    return found, deltas


def unspanned(found: Sequence[Span], deltas: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The buckets of spans, as a receiver reads them; empty ones are left out."""
    index = count = at = 0
    for offset, length in found:
        index += offset
        for _ in range(length):
            count += deltas[at]
            if count:
                yield index, count
            index, at = index + 1, at + 1
