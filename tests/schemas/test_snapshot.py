import hashlib
from dataclasses import replace

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import snapshot_pb2 as pb
from schemas.deltas import LedgerKey
from schemas.errors import Malformed
from schemas.labels import encode_labels
from schemas.metrics import METRICS, Kind, MetricId
from schemas.native_totals import NativeSettings, NativeTotals, OfferedExemplar
from schemas.snapshot import (
    MANIFEST,
    RECORD_LIMIT_BYTES,
    Cut,
    LedgerTotal,
    PendingExemplar,
    SeriesKey,
    SeriesTotals,
    SnapshotName,
    newest_snapshot,
    obsolete_keys,
    snapshot_name,
    snapshot_records,
)

WRITER, ZOMBIE = b"\x01\x02", b"\x0a\x0b"
KEY = SeriesKey("acme", encode_labels([("service", "a")]), int(MetricId.CALLS))
TOTALS = SeriesTotals((5,), 30, fresh=False)
CUT = Cut(2, 30, 17, 3, {0: 30, 1: 15}, {2: 45}, None, [(KEY, TOTALS)], [])

counts = st.integers(0, 1 << 100)
ends = st.integers(0, 1 << 45)
names = st.text("abcü", min_size=1, max_size=4)
by_partition = st.dictionaries(st.integers(0, 99), ends, max_size=3)
keys = st.builds(
    SeriesKey,
    names,
    st.dictionaries(names, names, max_size=2).map(lambda labels: encode_labels(sorted(labels.items()))),
    st.sampled_from([int(metric) for metric in METRICS]),
)
layouts = st.lists(st.floats(1e-9, 1e9), max_size=3, unique=True).map(lambda bounds: tuple(sorted(bounds)))


@st.composite
def entries(draw, key):
    common = {"updated_ms": draw(ends), "fresh": draw(st.booleans())}
    if METRICS[MetricId(key.metric)].kind is not Kind.HISTOGRAM:
        return key, SeriesTotals((draw(counts),), **common)
    native = draw(st.none() | natives())
    if native is not None and draw(st.booleans()):
        return key, SeriesTotals((), sum=draw(counts), native=native, **common)
    layout = draw(layouts)
    n = len(layout) + 1
    exemplars = st.builds(
        PendingExemplar, st.integers(0, n - 1), st.binary(min_size=1, max_size=16), st.integers(0, 1 << 62)
    )
    return key, SeriesTotals(
        tuple(draw(st.lists(counts, min_size=n, max_size=n))),
        sum=draw(counts),
        layout=layout,
        revision=draw(st.integers(0, 1 << 60)),
        exemplars=tuple(draw(st.lists(exemplars, max_size=2))),
        native=native,
        **common,
    )


@st.composite
def natives(draw):
    """REG-16, REG-20: all that decides what a native histogram does next."""
    whole, times = st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 45)
    schemas = st.integers(-4, 8)
    exemplars = st.builds(OfferedExemplar, st.integers(0, 1 << 53), st.binary(max_size=16), times)
    return NativeTotals(
        NativeSettings(draw(schemas), draw(whole), draw(whole)),
        draw(schemas),
        draw(times),
        draw(whole),
        tuple(sorted(draw(st.dictionaries(st.integers(-8000, 6000), whole, max_size=4)).items())),
        tuple(draw(st.lists(exemplars, max_size=3))),
        draw(st.none() | exemplars),
    )


@st.composite
def cuts(draw):
    series = [draw(entries(key)) for key in sorted(draw(st.sets(keys, max_size=4)))]
    ledger_keys = st.builds(LedgerKey, names, st.tuples(st.tuples(names, names)))
    ledger = draw(st.lists(st.builds(LedgerTotal, names, ledger_keys, counts, st.booleans()), max_size=3))
    adopted_after = draw(st.none() | by_partition)
    applied, waived = draw(by_partition), draw(by_partition)
    shard, end_ms, offset, partitions, shards = (draw(st.integers(0, 1 << 30)) for _ in range(5))
    written = draw(st.dictionaries(names, ends, max_size=2))
    cut = Cut(shard, end_ms, offset, partitions, applied, waived, adopted_after, series, ledger)
    return replace(cut, shards=shards, written=written)


@settings(deadline=None)
@given(cuts(), st.integers(1, 400))
def test_records_give_their_cut_again(cut, limit):
    records = snapshot_records(cut, WRITER, limit)
    assert all(len(value) <= limit for _, value in records[:-1])
    found = newest_snapshot(dict(records), cut.shard)
    assert found is not None
    assert (found.cut, found.name) == (cut, SnapshotName(cut.shard, cut.end_ms, WRITER.hex()))


def test_the_manifest_is_written_last_under_the_writer_s_name():
    assert [key for key, _ in snapshot_records(CUT, WRITER, limit=40)] == [
        b"2/30/0102/0",
        b"2/30/0102/1",
        b"2/30/0102/manifest",
    ]
    assert RECORD_LIMIT_BYTES == 8_000_000


def test_there_is_nothing_without_records_or_for_another_shard():
    assert newest_snapshot({}, 2) is None
    assert newest_snapshot(dict(snapshot_records(CUT, WRITER)), 3) is None


def test_the_newest_complete_one_wins():
    older, newer = replace(CUT, end_ms=9), replace(CUT, end_ms=10)
    records = dict(snapshot_records(newer, WRITER, 20)) | dict(snapshot_records(older, ZOMBIE, 20))
    assert newest_snapshot(records, 2).cut == newer
    for missing in (b"2/10/0102/1", b"2/10/0102/manifest"):
        partly = {key: value for key, value in records.items() if key != missing}
        assert newest_snapshot(partly, 2).cut == older


def test_parts_without_any_manifest_are_no_snapshot():
    parts = snapshot_records(CUT, WRITER, 20)[:-1]
    assert newest_snapshot(dict(parts), 2) is None


def test_parts_of_two_writers_don_t_mix():
    other = replace(CUT, next_offset=18)
    ours, theirs = snapshot_records(CUT, WRITER, 20), snapshot_records(other, ZOMBIE, 20)
    assert newest_snapshot(dict(ours[1:]) | dict(theirs), 2).cut == other


def test_a_snapshot_that_is_half_overwritten_is_passed_over():
    older, other = replace(CUT, end_ms=9), replace(CUT, next_offset=18)
    records = dict(snapshot_records(CUT, WRITER, 20)) | dict(snapshot_records(older, WRITER, 20))
    records |= dict(snapshot_records(other, WRITER, 20)[:1])
    assert newest_snapshot(records, 2).cut == older


def test_a_lone_snapshot_that_can_t_be_read_is_malformed():
    records = snapshot_records(CUT, WRITER, 20)
    with pytest.raises(Malformed, match="parts of a snapshot"):
        newest_snapshot(dict(records[1:]), 2)


def test_a_snapshot_of_a_later_format_is_malformed():
    *parts, (key, value) = snapshot_records(CUT, WRITER)
    manifest = pb.SnapshotManifest.FromString(value)
    manifest.format_version = 2
    with pytest.raises(Malformed, match="snapshot format 2, known is 1"):
        newest_snapshot({**dict(parts), key: manifest.SerializeToString()}, 2)


@settings(deadline=None)
@given(st.integers(0, 1), st.binary(max_size=60), st.integers(0, 200), st.integers(0, 200))
def test_other_bytes_are_malformed(number, inserted, start, length):
    records = snapshot_records(CUT, WRITER)
    key, value = records[number]
    records[number] = (key, value[:start] + inserted + value[start + length :])
    try:
        found = newest_snapshot(dict(records), 2)
    except Malformed:
        return
    assert found.cut == CUT


HISTOGRAM = {"labels": encode_labels([("a", "b")]), "metric": int(MetricId.LATENCY), "layout": 1}


@pytest.mark.parametrize(
    "broken",
    [
        {"tenant": 1, "metric": 10, "counts_lo": [1]},
        {"metric": 9, "counts_lo": [1]},
        {"metric": 10, "counts_lo": [1, 2]},
        {"metric": 10, "counts_lo": [1], "counts_hi": [1, 2]},
        {"metric": 10, "counts_lo": [1], "labels": b"\x05ab"},
        HISTOGRAM | {"counts_lo": [1]},
        HISTOGRAM | {"counts_lo": [1, 2], "layout": 0},
        HISTOGRAM | {"counts_lo": [1, 2], "layout": 2},
        HISTOGRAM | {"counts_lo": [1, 2], "exemplars": [pb.Exemplar(bucket=2)]},
    ],
)
def test_series_that_break_a_rule_are_malformed(broken):
    message = pb.Snapshot(shard=2, end_ms=30, tenants=["acme"], layouts=[pb.Layout(bounds=[0.5])])
    message.series.append(pb.Series(**broken))
    with pytest.raises(Malformed):
        newest_snapshot(records_of(message), 2)


@pytest.mark.parametrize(
    "message",
    [
        pb.Snapshot(shard=1, end_ms=30),
        pb.Snapshot(shard=2, end_ms=31),
        pb.Snapshot(shard=2, end_ms=30, layouts=[pb.Layout(bounds=[1, 1])]),
        pb.Snapshot(shard=2, end_ms=30, ledger=[pb.LedgerSeries(tenant=0)]),
        pb.Snapshot(shard=2, end_ms=30, tenants=["t"], series=[pb.Series(metric=10, counts_lo=[1])] * 2),
    ],
    ids=["another shard", "another window", "bounds", "no such tenant", "twice"],
)
def test_messages_that_break_a_rule_are_malformed(message):
    with pytest.raises(Malformed):
        newest_snapshot(records_of(message), 2)


def records_of(message: pb.Snapshot) -> dict[bytes, bytes]:
    """A snapshot of shard 2 at 30 that holds any message."""
    plain = message.SerializeToString()
    body = bytes(cramjam.zstd.compress(plain))
    manifest = pb.SnapshotManifest(format_version=1, parts=1, digest=hashlib.sha256(body).digest(), size=len(plain))
    return {b"2/30/0102/0": body, b"2/30/0102/manifest": manifest.SerializeToString()}


def test_older_snapshots_are_obsolete_manifests_first():
    older, same, newer = (replace(CUT, end_ms=end) for end in (29, 30, 31))
    keys = [key for cut in (older, newer) for key, _ in snapshot_records(cut, WRITER)]
    keys += [key for key, _ in snapshot_records(same, ZOMBIE)] + [b"checkpoint", b"3/29/0102/0"]
    assert obsolete_keys(keys, CUT) == [b"2/29/0102/manifest", b"2/29/0102/0"]


def test_names_are_read_from_keys():
    name = SnapshotName(12, 345, "ab")
    assert snapshot_name(name.key(7)) == snapshot_name(name.key(MANIFEST)) == name
    assert snapshot_name(b"12/x/ab/7") is None
    assert snapshot_name(b"\xff") is None
