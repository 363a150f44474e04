"""Series as they are written: what one label set of one metric becomes, and its samples.

The order of a label set's series is Tempo's (REG-11): `_sum`, `_count`, then the buckets, ascending, `+Inf` last, and
the native histogram.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from schemas.deltas import Layout, LedgerKey
from schemas.labels import decode_labels, encode_labels, float_text
from schemas.ledger_counters import ledger_series_name
from schemas.metrics import METRICS, Kind, Metric, MetricId
from schemas.native_histogram import NativeHistogram
from schemas.remote_write import Exemplar, Row, encode_series_labels
from schemas.snapshot import SeriesTotals

Labels = tuple[tuple[str, str], ...]
"""Label names and values, sorted by name and unique."""

ROUTE_LABELS = ("service", "server")
"""The labels whose values decide which shard has a series, of metrics about spans and about edges."""
CARDINALITY_OVERFLOW = "__cardinality_overflow__"
"""What all values of a label become that has too many (LIM-10)."""

NAME_LABEL, BOUND_LABEL = "__name__", "le"

_MAX_EXEMPLAR_CHARACTERS = 128
"""OpenMetrics' limit for all labels of an exemplar; Prometheus refuses longer ones."""


class Series:
    """One series. Series are equal if their labels are; the bytes of the labels are made once, when first asked for."""

    __slots__ = ("_block", "labels")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self._block: bytes | None = None

    @property
    def labels_block(self) -> bytes:
        """The labels as remote write has them."""
        if self._block is None:
            self._block = encode_series_labels(self.labels)
        return self._block

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Series) and self.labels == other.labels)

    def __hash__(self) -> int:
        return hash(self.labels)

    def __repr__(self) -> str:
        return f"Series({self.labels!r})"


class Sample(NamedTuple):
    """A value of a series, at a time that all samples of its list share. A native histogram has its exemplars in it."""

    series: Series
    value: float | NativeHistogram
    exemplar: Exemplar | None = None

    def row(self, timestamp_ms: int) -> Row:
        """The sample as remote write takes it."""
        return Row(self.series.labels_block, self.value, timestamp_ms, self.exemplar)


@cache
def overflow_labels(shard: int) -> bytes:
    """The label bytes of the series that takes what a limit refuses (LIM-7).

    Every shard has its own, since a series has one owner only.
    """
    return encode_labels((("metric_overflow", "true"), ("shard", str(shard))))


class Naming(NamedTuple):
    """How the series of a tenant in a shard are named. External labels replace own ones (REG-27)."""

    shard: int
    external: tuple[tuple[str, str], ...] = ()
    host_info: str = METRICS[MetricId.HOST_INFO].name
    """The name of `MetricId.HOST_INFO` (HI-2)."""
    trace_id: str = "traceID"
    """The label of exemplars."""


def metric_series(metric: Metric, labels: bytes, naming: Naming, totals: SeriesTotals) -> tuple[Series, ...]:
    """The series of one label set (label bytes), in order; those of totals like these.

    Of `overflow_labels` the own ones stay whatever the external ones are, and so does the shard of a label set that
    lost its route to a limit: they tell shards' series apart.
    """
    own = decode_labels(labels)
    if labels == overflow_labels(naming.shard):
        merged = with_external(naming.external, own)
    else:
        shard = (("shard", str(naming.shard)),)
        lost = any((route, CARDINALITY_OVERFLOW) in own for route in ROUTE_LABELS) and shard[0] in own
        merged = with_external(own, (*naming.external, *shard) if lost else naming.external)
    if metric.kind is not Kind.HISTOGRAM:
        return (named(naming.host_info if metric.id is MetricId.HOST_INFO else metric.name, merged),)
    native = () if totals.native is None else (named(metric.name, merged),)  # REG-15
    if not totals.counts:
        return native
    buckets = [named(f"{metric.name}_bucket", merged, bound) for bound in bound_texts(totals.layout)]
    return (named(f"{metric.name}_sum", merged), named(f"{metric.name}_count", merged), *buckets, *native)


def ledger_series(key: LedgerKey, external: Iterable[tuple[str, str]]) -> Series:
    """The series of a ledger counter."""
    return named(ledger_series_name(key.counter), with_external(key.labels, external))


def with_external(own: Iterable[tuple[str, str]], external: Iterable[tuple[str, str]]) -> Labels:
    """Labels with the external ones in them. An empty value means that the label isn't there."""
    merged = {**dict(own), **dict(external)}
    return tuple(sorted((name, value) for name, value in merged.items() if value and name != NAME_LABEL))


def named(name: str, labels: Labels, bound: str | None = None) -> Series:
    """The series of a name, and of a bucket's bound, with these labels otherwise."""
    at = bisect_left(labels, (NAME_LABEL, ""))
    with_name = (*labels[:at], (NAME_LABEL, name), *labels[at:])
    if bound is None:
        return Series(with_name)
    at = bisect_left(with_name, (BOUND_LABEL, ""))
    after = at + (with_name[at : at + 1] != () and with_name[at][0] == BOUND_LABEL)
    return Series((*with_name[:at], (BOUND_LABEL, bound), *with_name[after:]))


@lru_cache(maxsize=256)
def bound_texts(layout: Layout) -> Sequence[str]:
    """The values of `le`, `+Inf` last (REG-10)."""
    return (*map(float_text, layout), "+Inf")


def exemplar(label: str, trace: bytes, value_ns: int, timestamp_ms: int) -> Exemplar | None:
    """The exemplar of a trace ID (text, PRIM-9) and the raw observation in seconds (REG-12); None if it is too long."""
    labels = exemplar_labels(label, trace)
    return Exemplar(labels, value_ns / 1_000_000_000, timestamp_ms) if labels else None


def exemplar_labels(label: str, trace: bytes) -> Labels:
    """The one label of an exemplar; none if it is too long."""
    text = trace.decode(errors="replace")
    return () if len(label) + len(text) > _MAX_EXEMPLAR_CHARACTERS else ((label, text),)
