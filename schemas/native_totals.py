"""The cumulative state of a native histogram, and how a snapshot holds it."""

from itertools import pairwise
from typing import NamedTuple

from schemas import snapshot_pb2 as pb
from schemas.config import HistogramSettings
from schemas.errors import Malformed, Reason
from schemas.native_histogram import MAX_SCHEMA, MIN_SCHEMA


class NativeSettings(NamedTuple):
    """What a native histogram was begun with; others begin it anew (Tempo REG-16)."""

    schema: int
    max_buckets: int
    min_reset_ms: int

    @classmethod
    def of(cls, histograms: HistogramSettings) -> "NativeSettings":
        """Those of a tenant."""
        return cls(histograms.native_schema, histograms.native_max_buckets, histograms.native_min_reset_ms)


class OfferedExemplar(NamedTuple):
    """An exemplar that is written with each sample, and the window that brought it."""

    value_ns: int
    trace: bytes
    seen_ms: int


class NativeTotals(NamedTuple):
    """The buckets of a native histogram. `schema` is lower than that of `settings` where there were too many."""

    settings: NativeSettings
    schema: int
    reset_ms: int
    """The window in which it began or was reset."""
    zero_count: int = 0
    buckets: tuple[tuple[int, int], ...] = ()
    """Index and count, ascending; no count is 0."""
    exemplars: tuple[OfferedExemplar, ...] = ()
    """By value."""
    last_written: OfferedExemplar | None = None
    """The exemplar that was written last: it isn't written twice in succession (ST-2)."""

    @property
    def observations(self) -> int:
        """All of them."""
        return self.zero_count + sum(count for _, count in self.buckets)


def native_message(totals: NativeTotals) -> pb.NativeTotals:
    """The state as a message."""
    last = totals.last_written
    return pb.NativeTotals(
        configured_schema=totals.settings.schema,
        max_buckets=totals.settings.max_buckets,
        min_reset_ms=totals.settings.min_reset_ms,
        schema=totals.schema,
        reset_ms=totals.reset_ms,
        zero_count=totals.zero_count,
        indices=[index for index, _ in totals.buckets],
        counts=[count for _, count in totals.buckets],
        exemplars=[_exemplar_message(exemplar) for exemplar in totals.exemplars],
        last_written=None if last is None else _exemplar_message(last),
    )


def native_totals(message: pb.NativeTotals) -> NativeTotals:
    """The state of a message; raises Malformed."""
    indices, schemas = message.indices, (message.configured_schema, message.schema)
    if not all(MIN_SCHEMA <= schema <= MAX_SCHEMA for schema in schemas):
        raise Malformed(Reason.FIELD, f"native histograms of schemas {schemas}")
    if len(indices) != len(message.counts) or any(a >= b for a, b in pairwise(indices)):
        raise Malformed(Reason.ROWS, "buckets of a native histogram out of order")
    return NativeTotals(
        settings=NativeSettings(message.configured_schema, message.max_buckets, message.min_reset_ms),
        schema=message.schema,
        reset_ms=message.reset_ms,
        zero_count=message.zero_count,
        buckets=tuple(zip(indices, message.counts, strict=True)),
        exemplars=tuple(map(_exemplar, message.exemplars)),
        last_written=_exemplar(message.last_written) if message.HasField("last_written") else None,
    )


def _exemplar_message(exemplar: OfferedExemplar) -> pb.OfferedExemplar:
    return pb.OfferedExemplar(value_ns=exemplar.value_ns, trace=exemplar.trace, seen_ms=exemplar.seen_ms)


def _exemplar(message: pb.OfferedExemplar) -> OfferedExemplar:
    return OfferedExemplar(message.value_ns, message.trace, message.seen_ms)
