"""Snapshots of a shard: all of its state at one completed window, as records of a table.

A snapshot is one message, compressed and sliced into parts that fit into records, and a manifest, written last. Keys
name the writer, so that a zombie's parts can't mix with another's: a snapshot is complete or it isn't there.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeVar

import cramjam
from google.protobuf.message import DecodeError

from schemas import snapshot_pb2 as pb
from schemas.deltas import Layout, LedgerKey, join, split
from schemas.errors import Malformed, Reason
from schemas.labels import decode_labels
from schemas.limiters import LimiterState, limiter_message, limiter_state
from schemas.metrics import METRICS, Kind
from schemas.native_totals import NativeTotals, native_message, native_totals
from schemas.rules_in_force import RulesInForce, decode_rules, encode_rules

FORMAT_VERSION = 1

RECORD_LIMIT_BYTES = 8_000_000
"""The longest value of a record."""

MANIFEST = "manifest"
"""Stands in a manifest's key where a part's has its number."""

_MAX_SIZE = 1 << 31
_ZSTD_LEVEL = 1
_KINDS: dict[int, Kind] = {int(metric.id): metric.kind for metric in METRICS.values()}

T = TypeVar("T")


class SeriesKey(NamedTuple):
    """One label set of one metric; the order of keys is the canonical one."""

    tenant: str
    labels: bytes
    metric: int


class PendingExemplar(NamedTuple):
    """An exemplar that waits for the next sample of its bucket."""

    bucket: int
    trace: bytes
    value_ns: int


class SeriesTotals(NamedTuple):
    """The cumulative state of one label set of one metric.

    `counts` are in the metric's units: one number, or one for each bucket of a histogram, not cumulative, `+Inf` last.
    There are none where a histogram is only a native one. `sum` is in 2^-16 ns. `fresh`: no sample has been written
    yet, so the first one needs a zero before it. `restarted`: others of the same series have been written.
    """

    counts: tuple[int, ...]
    updated_ms: int
    fresh: bool
    sum: int = 0
    layout: Layout = ()
    revision: int = 0
    exemplars: tuple[PendingExemplar, ...] = ()
    native: NativeTotals | None = None
    restarted: bool = False


class LedgerTotal(NamedTuple):
    """The cumulative state of a ledger counter of a tenant's."""

    tenant: str
    key: LedgerKey
    total: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class Cut:
    """All state of a shard when `end_ms` was the last completed window; nothing in it changes any more.

    `applied` is, by source partition, the last window that completed windows contain, and `next_offset` the lowest
    offset with something that they don't: who reads from there on, and passes over what was applied, goes on exactly.
    `adopted_after` holds what was delivered when adopting began (`Shard.adopt`), None if it didn't. `rules` is None
    where whoever reads the log knows its rules from elsewhere. `shards` is how many partitions `[deltas]` has, 0 if
    that isn't known. `written` is, by tenant, the last window in which its series were.
    """

    shard: int
    end_ms: int
    next_offset: int
    partitions: int
    applied: Mapping[int, int]
    waived: Mapping[int, int]
    adopted_after: Mapping[int, int] | None
    series: Sequence[tuple[SeriesKey, SeriesTotals]]
    ledger: Sequence[LedgerTotal]
    rules: RulesInForce | None = None
    limiters: Sequence[LimiterState] = ()
    shards: int = 0
    written: Mapping[str, int] = field(default_factory=dict)


class SnapshotName(NamedTuple):
    """What all keys of one snapshot have in common. The order of names is that of age."""

    shard: int
    end_ms: int
    writer: str

    def key(self, part: int | str) -> bytes:
        """The key of a part, or of the manifest."""
        return f"{self.shard}/{self.end_ms}/{self.writer}/{part}".encode()


class Found(NamedTuple):
    """A snapshot that was read back."""

    name: SnapshotName
    cut: Cut


def snapshot_records(cut: Cut, writer: bytes, limit: int = RECORD_LIMIT_BYTES) -> list[tuple[bytes, bytes]]:
    """Keys and values in the order of writing: the manifest comes last, when the parts are acknowledged."""
    plain = _message(cut).SerializeToString(deterministic=True)
    body = bytes(cramjam.zstd.compress(plain, level=_ZSTD_LEVEL))
    name = SnapshotName(cut.shard, cut.end_ms, writer.hex())
    parts = [body[at : at + limit] for at in range(0, len(body), limit)]
    manifest = pb.SnapshotManifest(
        format_version=FORMAT_VERSION, parts=len(parts), digest=hashlib.sha256(body).digest(), size=len(plain)
    )
    return [
        *((name.key(number), part) for number, part in enumerate(parts)),
        (name.key(MANIFEST), manifest.SerializeToString(deterministic=True)),
    ]


def newest_snapshot(records: Mapping[bytes, bytes], shard: int) -> Found | None:
    """The complete snapshot of a shard with the latest window, None if there is none.

    One that isn't complete is passed over: its writer died, or is about to overwrite or delete it. Raises Malformed if
    there are manifests and nothing that can be read, since going on without any would begin all counts anew.
    """
    names = {name for key in records if (name := snapshot_name(key)) is not None and name.shard == shard}
    failure: Malformed | None = None
    for name in sorted(names, reverse=True):
        manifest = records.get(name.key(MANIFEST))
        if manifest is None:
            continue
        try:
            return Found(name, _decode(manifest, name, records))
        except Malformed as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return None


def snapshot_name(key: bytes) -> SnapshotName | None:
    """The snapshot to which a record belongs; None for keys of another kind."""
    pieces = key.decode(errors="replace").split("/")
    if len(pieces) != 4 or not (pieces[0].isdecimal() and pieces[1].isdecimal()):
        return None
    return SnapshotName(int(pieces[0]), int(pieces[1]), pieces[2])


def obsolete_keys(keys: Iterable[bytes], newest: Cut) -> list[bytes]:
    """The keys of older snapshots of a cut's shard: to be deleted once its records are acknowledged, manifests first.

    Those of the same window by other writers stay: they may be half written.
    """
    named = ((snapshot_name(key), key) for key in keys)
    old = [key for name, key in named if name and name.shard == newest.shard and name.end_ms < newest.end_ms]
    return sorted(old, key=lambda key: (not key.endswith(MANIFEST.encode()), key))


def _decode(manifest_value: bytes, name: SnapshotName, records: Mapping[bytes, bytes]) -> Cut:
    try:
        manifest = pb.SnapshotManifest.FromString(manifest_value)
        if manifest.format_version != FORMAT_VERSION:
            raise Malformed(Reason.VERSION, f"snapshot format {manifest.format_version}, known is {FORMAT_VERSION}")
        message = pb.Snapshot.FromString(_unpacked(_joined(manifest, name, records), manifest.size))
    except DecodeError as error:
        raise Malformed(Reason.ENVELOPE, "not a snapshot") from error
    if (message.shard, message.end_ms) != (name.shard, name.end_ms):
        raise Malformed(Reason.FIELD, f"a snapshot of shard {message.shard} at {message.end_ms} under another key")
    return _cut(message)


def _joined(manifest: pb.SnapshotManifest, name: SnapshotName, records: Mapping[bytes, bytes]) -> bytes:
    parts = [part for n in range(min(manifest.parts, len(records))) if (part := records.get(name.key(n))) is not None]
    if len(parts) != manifest.parts:
        raise Malformed(Reason.FIELD, f"{len(parts)} of {manifest.parts} parts of a snapshot")
    body = b"".join(parts)
    if hashlib.sha256(body).digest() != manifest.digest:
        raise Malformed(Reason.CHECKSUM, "the parts of a snapshot aren't what its manifest says")
    return body


def _unpacked(body: bytes, size: int) -> bytes:
    if size > _MAX_SIZE:
        raise Malformed(Reason.COMPRESSION, f"a snapshot of {size} bytes")
    plain = bytearray(size)
    try:
        unpacked = cramjam.zstd.decompress_into(body, plain)
    except cramjam.DecompressionError as error:
        raise Malformed(Reason.COMPRESSION, "not a zstd frame of this size") from error
    if unpacked != size:
        raise Malformed(Reason.COMPRESSION, f"{unpacked} bytes instead of {size}")
    return bytes(plain)


def _message(cut: Cut) -> pb.Snapshot:
    tenants = _Numbers[str]()
    layouts = _Numbers[Layout]()
    return pb.Snapshot(
        shard=cut.shard,
        end_ms=cut.end_ms,
        next_offset=cut.next_offset,
        partitions=cut.partitions,
        shards=cut.shards,
        applied=cut.applied,
        waived=cut.waived,
        adoption=None if cut.adopted_after is None else pb.Adoption(delivered=cut.adopted_after),
        series=[_series_message(key, totals, tenants, layouts) for key, totals in cut.series],
        ledger=[_ledger_message(entry, tenants) for entry in cut.ledger],
        limiters=map(limiter_message, cut.limiters),
        written=cut.written,
        rules=b"" if cut.rules is None else encode_rules(cut.rules),
        # After what fills them.
        tenants=list(tenants),
        layouts=[pb.Layout(bounds=layout) for layout in layouts],
    )


class _Numbers(dict[T, int]):
    """Numbers for things in the order in which they are first seen."""

    def __missing__(self, thing: T) -> int:
        number = self[thing] = len(self)
        return number


def _series_message(
    key: SeriesKey, totals: SeriesTotals, tenants: _Numbers[str], layouts: _Numbers[Layout]
) -> pb.Series:
    limbs = [split(count) for count in totals.counts]
    upper = [hi for _, hi in limbs]
    sum_lo, sum_hi = split(totals.sum)
    return pb.Series(
        tenant=tenants[key.tenant],
        labels=key.labels,
        metric=key.metric,
        layout=layouts[totals.layout] + 1 if _is_histogram(key.metric) and totals.counts else 0,
        revision=totals.revision,
        counts_lo=[lo for lo, _ in limbs],
        counts_hi=upper if any(upper) else (),
        sum_lo=sum_lo,
        sum_hi=sum_hi,
        updated_ms=totals.updated_ms,
        fresh=totals.fresh,
        exemplars=[pb.Exemplar(bucket=e.bucket, trace=e.trace, value_ns=e.value_ns) for e in totals.exemplars],
        native=None if totals.native is None else native_message(totals.native),
        restarted=totals.restarted,
    )


def _ledger_message(entry: LedgerTotal, tenants: _Numbers[str]) -> pb.LedgerSeries:
    lo, hi = split(entry.total)
    return pb.LedgerSeries(
        tenant=tenants[entry.tenant],
        counter=entry.key.counter,
        labels=[pb.LedgerLabel(name=name, value=value) for name, value in entry.key.labels],
        total_lo=lo,
        total_hi=hi,
        fresh=entry.fresh,
    )


def _cut(message: pb.Snapshot) -> Cut:
    layouts = [tuple(layout.bounds) for layout in message.layouts]
    if not all(a < b for layout in layouts for a, b in pairwise((float("-inf"), *layout, float("inf")))):
        raise Malformed(Reason.FIELD, "bounds of buckets that don't ascend")
    try:
        series = [_series(entry, message.tenants, layouts) for entry in message.series]
        ledger = [_ledger(entry, message.tenants) for entry in message.ledger]
    except (IndexError, KeyError) as error:
        raise Malformed(Reason.ROWS, "a series of a tenant, metric or layout that isn't there") from error
    if any(a >= b for (a, _), (b, _) in pairwise(series)):
        raise Malformed(Reason.ROWS, "series out of order")
    return Cut(
        shard=message.shard,
        end_ms=message.end_ms,
        next_offset=message.next_offset,
        partitions=message.partitions,
        shards=message.shards,
        applied=dict(message.applied),
        waived=dict(message.waived),
        adopted_after=dict(message.adoption.delivered) if message.HasField("adoption") else None,
        series=series,
        ledger=ledger,
        rules=decode_rules(message.rules) if message.rules else None,
        limiters=tuple(limiter_state(entry) for entry in message.limiters),
        written=dict(message.written),
    )


def _series(entry: pb.Series, tenants: Sequence[str], layouts: Sequence[Layout]) -> tuple[SeriesKey, SeriesTotals]:
    layout: Layout = ()
    expected = 1
    native = native_totals(entry.native) if entry.HasField("native") else None
    if native is not None and not entry.layout:
        expected = 0
    elif _is_histogram(entry.metric):
        # A 0 would be the last one's number.
        layout = layouts[entry.layout - 1 if entry.layout else len(layouts)]
        expected = len(layout) + 1
    counts_hi: Sequence[int] = entry.counts_hi or (0,) * expected
    if not len(entry.counts_lo) == len(counts_hi) == expected:
        raise Malformed(Reason.ROWS, f"{len(entry.counts_lo)} counts where {expected} belong")
    decode_labels(entry.labels)
    exemplars = tuple(PendingExemplar(e.bucket, e.trace, e.value_ns) for e in entry.exemplars)
    if any(e.bucket >= expected for e in exemplars):
        raise Malformed(Reason.ROWS, "an exemplar of a bucket that isn't there")
    totals = SeriesTotals(
        counts=tuple(map(join, entry.counts_lo, counts_hi)),
        updated_ms=entry.updated_ms,
        fresh=entry.fresh,
        sum=join(entry.sum_lo, entry.sum_hi),
        layout=layout,
        revision=entry.revision,
        exemplars=exemplars,
        native=native,
        restarted=entry.restarted,
    )
    return SeriesKey(tenants[entry.tenant], entry.labels, entry.metric), totals


def _ledger(entry: pb.LedgerSeries, tenants: Sequence[str]) -> LedgerTotal:
    key = LedgerKey(entry.counter, tuple((label.name, label.value) for label in entry.labels))
    return LedgerTotal(tenants[entry.tenant], key, join(entry.total_lo, entry.total_hi), entry.fresh)


def _is_histogram(metric: int) -> bool:
    return _KINDS[metric] is Kind.HISTOGRAM
