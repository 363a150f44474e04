import hashlib
import random
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cache

import cramjam
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import deltas_pb2 as pb
from schemas.deltas import (
    MAX_BATCH_BYTES,
    NATIVE_LAYOUTS,
    NO_BUCKET,
    NO_LAYOUT,
    PART_LIMIT_BYTES,
    ZERO_BUCKET,
    Batch,
    LedgerKey,
    RoutedRows,
    Window,
    decode_batch,
    encode_window,
    join,
    join_parts,
    merge_rows,
    native_layout,
    split,
)
from schemas.errors import Malformed
from schemas.labels import encode_labels, shard_of
from schemas.metrics import METRICS, Kind, MetricId
from tests.delta_dicts import COLUMNS, EXEMPLAR, delta_rows, dicts, routed_rows

LAYOUTS = ((0.002,), (0.1, 0.5, 16.384))
KEY = ("tenant", "labels", "metric", "bucket", "layout")

Row = dict[str, object]


def row(
    *,
    tenant="acme",
    labels=(("service", "a"),),
    metric=MetricId.CALLS,
    bucket=NO_BUCKET,
    layout=NO_LAYOUT,
    value=1,
    total=0,
    exemplar=None,
    route=b"a",
) -> Row:
    (value_lo, value_hi), (sum_lo, sum_hi) = split(value), split(total)
    trace, value_ns, timestamp_ms, offset, index = exemplar or (None,) * 5
    return {
        "tenant": tenant,
        "metric": int(metric),
        "labels": encode_labels(labels),
        "bucket": bucket,
        "layout": layout,
        "value_lo": value_lo,
        "value_hi": value_hi,
        "sum_lo": sum_lo,
        "sum_hi": sum_hi,
        "ex_trace": trace,
        "ex_value_ns": value_ns,
        "ex_timestamp_ms": timestamp_ms,
        "ex_offset": offset,
        "ex_index": index,
        "route": route,
    }  # fmt: skip


def table(rows: Iterable[Row]) -> RoutedRows:
    return routed_rows(rows)


def window(rows: Iterable[Row] = (), ledger=None, **other) -> Window:
    return replace(Window(30_000, 15_000, table(rows), LAYOUTS, ledger or {}, 1), **other)


def key_of(one: Row) -> tuple[object, ...]:
    return tuple(one[name] for name in KEY)


def content(batches: Iterable[Batch]) -> list[Row]:
    """The rows of batches, with their layouts themselves in place of the layouts' numbers."""
    return [
        {**one, "layout": one["layout"] if one["layout"] >= NATIVE_LAYOUTS else batch.layouts[one["layout"]]}
        for batch in batches
        for one in dicts(batch.rows)
    ]


def expected(rows: Iterable[Row]) -> list[Row]:
    return [
        {name: value for name, value in one.items() if name != "route"}
        | {"layout": one["layout"] if one["layout"] >= NATIVE_LAYOUTS else LAYOUTS[one["layout"]]}
        for one in sorted(rows, key=lambda one: (one["tenant"].encode(), *key_of(one)[1:]))
    ]


COUNTS = st.integers(0, 2**127 - 1) | st.sampled_from([1 << 32, (1 << 64) - 1, 1 << 64])
TEXTS = st.sampled_from(["a", "b", "é", "用户", "a" * 130])
EXEMPLARS = st.none() | st.tuples(
    st.binary(max_size=16), st.integers(0, 2**53), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)
)


@st.composite
def drawn_row(draw: st.DrawFn, count=COUNTS) -> Row:
    metric = METRICS[draw(st.sampled_from(list(METRICS)))]
    labels = draw(st.dictionaries(TEXTS, TEXTS, max_size=2).map(lambda d: tuple(sorted(d.items()))))
    common = {"tenant": draw(TEXTS), "labels": labels, "metric": metric.id, "route": draw(TEXTS).encode()}
    if metric.kind is Kind.GAUGE:
        return row(**common, value=draw(st.integers(-(2**127), 2**127 - 1)))
    if metric.kind is Kind.COUNTER:
        return row(**common, value=draw(count))
    exemplar = draw(EXEMPLARS)
    if draw(st.booleans()):
        layout, bucket = native_layout(draw(st.integers(-4, 8))), draw(st.integers(-7653, 5915) | st.just(ZERO_BUCKET))
        whole = draw(count) >> 32 << 32
        return row(**common, bucket=bucket, layout=layout, value=whole, total=draw(count), exemplar=exemplar)
    layout = draw(st.integers(0, len(LAYOUTS) - 1))
    bucket = draw(st.integers(0, len(LAYOUTS[layout])))
    return row(**common, bucket=bucket, layout=layout, value=draw(count), total=draw(count), exemplar=exemplar)


def tables(count=COUNTS):
    return st.lists(drawn_row(count), max_size=12, unique_by=key_of)


LEDGERS = st.dictionaries(
    st.builds(LedgerKey, TEXTS, TEXTS.map(lambda t: (("reason", "x"), ("tenant", t)))),
    st.integers(0, 2**64 - 1),
    max_size=4,
)


@given(tables(), LEDGERS, st.integers(1, 4))
def test_shards_get_every_row_and_ledger_entry_once(rows, ledger, shards):
    parts = encode_window(window(rows, ledger), partition=2, partitions=3, shards=shards)
    assert len(parts) == shards
    for shard, values in enumerate(parts):
        batches = [decode_batch(value) for value in values]
        assert content(batches) == expected(r for r in rows if shard_of(r["tenant"], r["route"], shards) == shard)
        entries = {k: n for k, n in ledger.items() if n and shard_of(dict(k.labels)["tenant"], b"", shards) == shard}
        assert [entry for batch in batches for entry in batch.ledger.items()] == sorted(entries.items())


@given(tables(), LEDGERS, st.randoms(use_true_random=False))
def test_the_same_window_gives_the_same_bytes_in_whatever_order_it_comes(rows, ledger, rng):
    shuffled, entries = rng.sample(rows, len(rows)), rng.sample(list(ledger.items()), len(ledger))
    turned = [r if r["layout"] >= NATIVE_LAYOUTS else {**r, "layout": 1 - r["layout"]} for r in shuffled]
    other = window(turned, dict(entries), layouts=LAYOUTS[::-1])
    assert encode_window(other, 0, 1, 2) == encode_window(window(rows, ledger), 0, 1, 2)


def large(series: int) -> list[Row]:
    rng = random.Random(series)
    return [
        row(
            labels=(("service", rng.randbytes(40).hex()),),
            metric=MetricId.LATENCY,
            bucket=bucket,
            layout=1,
            value=rng.getrandbits(100),
            exemplar=(rng.randbytes(16), *(rng.getrandbits(31) for _ in range(4))),
        )
        for _ in range(series)
        for bucket in range(4)
    ]


def test_a_large_window_is_cut_into_parts_that_fit_into_records():
    rows = large(3_000)
    ledger = {LedgerKey("spans", (("tenant", f"tenant {i}"),)): i + 1 for i in range(9_000)}
    [values] = encode_window(window(rows, ledger), 0, 1, 1)
    batches = [decode_batch(value) for value in values]
    assert [(batch.part, batch.parts) for batch in batches] == [(i, len(values)) for i in range(len(values))]
    assert len({batch.digest for batch in batches}) == 1
    assert len(values) > 3
    assert all(len(value) < PART_LIMIT_BYTES for value in values)
    # The estimate is one of bytes that aren't compressed; a stream's schema and padding come on top.
    assert all(pb.DeltaBatch.FromString(value).rows_size < PART_LIMIT_BYTES + 4096 for value in values)
    assert content(batches) == expected(rows)
    whole = join_parts(random.Random(0).sample(batches, len(batches)))
    assert (whole.part, whole.parts, whole.ledger) == (0, 1, ledger)
    assert content([whole]) == expected(rows)


def test_no_batch_is_longer_than_the_limit_even_if_nothing_compresses():
    longest = [row(labels=[(f"{n:04}", f"{i}" * 2040) for n in range(127)]) for i in range(3)]
    layouts = tuple(tuple(i / 100 + bound for bound in range(100)) for i in range(120))
    rows = [{**one, "layout": i % 120, "bucket": 0} for i, one in enumerate(large(1_000)[::4])]
    [values] = encode_window(window([*longest, *rows], layouts=layouts), 0, 1, 1)
    sizes = [
        len(value) - len(batch.rows) + batch.rows_size
        for value in values
        for batch in [pb.DeltaBatch.FromString(value)]
    ]
    assert [len(decode_batch(value).rows) for value in values][:1] == [2]  # of the longest rows only two fit into one
    assert PART_LIMIT_BYTES < max(sizes) < MAX_BATCH_BYTES - 10_000
    assert MAX_BATCH_BYTES < 1_000_000


@given(tables())
def test_parts_join_only_into_the_whole_that_they_were_cut_from(rows):
    [value], [other] = (encode_window(window(r), 0, 1, 1)[0] for r in (rows, [*rows, row(tenant="another")]))
    batch = decode_batch(value)
    assert content([join_parts([batch])]) == expected(rows)
    for wrong in (replace(batch, rows=decode_batch(other).rows), replace(batch, revision=2), replace(batch, parts=2)):
        with pytest.raises(Malformed):
            join_parts([wrong])
    with pytest.raises(Malformed):
        join_parts([batch, batch])


def test_an_empty_window_is_a_watermark_for_every_shard():
    parts = encode_window(window(previous_end_ms=None), partition=1, partitions=2, shards=3)
    assert [len(values) for values in parts] == [1, 1, 1]
    batch = decode_batch(parts[2][0])
    assert (batch.partition, batch.partitions, batch.end_ms, batch.previous_end_ms) == (1, 2, 30_000, None)
    assert (batch.part, batch.parts, batch.revision, batch.layouts, batch.ledger) == (0, 1, 1, (), {})
    assert dicts(batch.rows) == []


def test_the_digest_of_a_window_never_changes_with_the_libraries():
    """It may change with FORMAT_VERSION only: parts of two versions must not make one set."""
    rows = [
        row(),
        row(metric=MetricId.LATENCY, bucket=3, layout=1, value=5, total=7, exemplar=(b"\1" * 16, 2, 3, 4, 5)),
    ]
    [[value]] = encode_window(window(rows, {LedgerKey("spans", (("tenant", "acme"),)): 3}), 0, 1, 1)
    assert decode_batch(value).digest.hex() == "779a5fb854e92de7b9fd020e318124f2"


@pytest.mark.parametrize(("trace", "kept"), [(b"\1" * 64, b"\1" * 64), (b"\1" * 65, b""), (b"", b""), (None, None)])
def test_a_trace_id_that_no_exemplar_can_hold_counts_as_empty(trace, kept):
    one = row(metric=MetricId.LATENCY, bucket=0, layout=0, exemplar=(trace, 1, 2, 3, 4))
    [[value]] = encode_window(window([one]), 0, 1, 1)
    [decoded] = dicts(decode_batch(value).rows)
    assert [decoded[name] for name in ("ex_trace", "ex_value_ns", "ex_index")] == [
        kept,
        *([None] * 2 if trace is None else [1, 4]),
    ]


BROKEN = {
    "an unknown metric": row(metric=9),
    "a bucket beyond +Inf": row(metric=MetricId.LATENCY, bucket=2, layout=0),
    "a negative bucket": row(metric=MetricId.LATENCY, bucket=-2, layout=0),
    "a layout that isn't there": row(metric=MetricId.LATENCY, bucket=0, layout=2),
    "no layout": row(metric=MetricId.LATENCY, bucket=0),
    "a counter's bucket": row(bucket=0),
    "a counter's layout": row(layout=0),
    "a counter's sum": row(total=1),
    "a negative count": row(value=-1),
    "a negative sum": row(metric=MetricId.LATENCY, bucket=0, layout=0, total=-1),
    "half a native observation": row(metric=MetricId.LATENCY, bucket=0, layout=native_layout(3), value=1 << 31),
    "a native bucket of a counter": row(bucket=0, layout=native_layout(3)),
    "a native layout of no schema": row(metric=MetricId.LATENCY, bucket=0, layout=native_layout(8) + 1),
    "labels beyond the limit": row(labels=[("a", "x" * (1 << 18))]),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_rows_that_break_a_rule_never_reach_the_log(broken):
    with pytest.raises(Malformed) as refused:
        encode_window(window([broken]), 0, 1, 1)
    assert refused.value.reason == "rows"


def test_windows_that_break_a_rule_never_reach_the_log():
    with pytest.raises(Malformed, match="out of order"):
        encode_window(window([row(), row()]), 0, 1, 1)
    with pytest.raises(ValueError, match="negative ledger"):
        encode_window(window(ledger={LedgerKey("spans", ()): -1}), 0, 1, 1)
    many = tuple((float(i),) * 1 for i in range(8_000))
    rows = [row(labels=[("a", str(i))], metric=MetricId.LATENCY, bucket=0, layout=i) for i in range(8_000)]
    with pytest.raises(ValueError, match="8000 bucket layouts"):
        encode_window(window(rows, layouts=many), 0, 1, 1)
    with pytest.raises(ValueError, match="don't ascend"):
        encode_window(window([row(metric=MetricId.LATENCY, bucket=0, layout=0)], layouts=((2.0, 1.0),)), 0, 1, 1)


@cache
def small_batch() -> bytes:
    rows = [row(), row(metric=MetricId.LATENCY, bucket=1, layout=1, exemplar=(b"\1", 2, 3, 4, 5))]
    [[value]] = encode_window(window(rows, {LedgerKey("spans", (("tenant", "acme"),)): 3}), 1, 2, 1)
    return value


def sealed(**changes: object) -> bytes:
    """The small batch with fields of its envelope changed; the checksum fits the body."""
    message = pb.DeltaBatch.FromString(small_batch())
    for name, new in changes.items():
        setattr(message, name, new)
    message.rows_checksum = hashlib.blake2b(message.rows, digest_size=8).digest()
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format_version": 2}, "version"),
        ({"format_version": 0}, "version"),
        ({"partition": 2}, "field"),
        ({"partitions": 2**31}, "field"),
        ({"part": 1}, "field"),
        ({"parts": 0}, "field"),
        ({"end_ms": -1}, "field"),
        ({"previous_end_ms": 30_000}, "field"),
        ({"digest": b"short"}, "field"),
        ({"rows_size": 0}, "compression"),
        ({"rows_size": 1 << 31}, "compression"),
        ({"rows_size": 100}, "compression"),
        ({"rows_size": 1 << 20}, "compression"),
        ({"rows": b"not zstd"}, "compression"),
    ],
    ids=str,
)
def test_envelopes_that_break_a_rule_are_malformed(changes, reason):
    with pytest.raises(Malformed) as refused:
        decode_batch(sealed(**changes))
    assert refused.value.reason == reason


def test_a_body_that_is_not_the_envelopes_is_malformed():
    message = pb.DeltaBatch.FromString(small_batch())
    message.rows_checksum = bytes(8)
    with pytest.raises(Malformed, match="checksum"):
        decode_batch(message.SerializeToString())


@cache
def plain_body(value: bytes) -> bytes:
    return bytes(cramjam.zstd.decompress(pb.DeltaBatch.FromString(value).rows))


def with_body(plain: bytes) -> bytes:
    return sealed(rows=bytes(cramjam.zstd.compress(plain, level=1)), rows_size=len(plain))


def stream(batch: pa.RecordBatch, times: int = 1) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(times):
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def good_batch() -> pa.RecordBatch:
    return pa.ipc.open_stream(plain_body(small_batch())).read_next_batch()


def replaced(name: str, values: pa.Array) -> pa.RecordBatch:
    batch = good_batch()
    columns = [
        values if field.name == name else column for field, column in zip(batch.schema, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def dictionary(values: list[object], kind: pa.DataType, indices: Iterable[int] = (0, 0)) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(values, kind), safe=False)


HOSTILE = {
    "no batch": lambda: stream(good_batch(), 0),
    "two batches": lambda: stream(good_batch(), 2),
    "a column less": lambda: stream(good_batch().drop_columns(["ex_index"])),
    "an index beyond the dictionary": lambda: stream(replaced("labels", dictionary([b"\1a\1b"], pa.binary(), (0, 7)))),
    "a negative index": lambda: stream(replaced("labels", dictionary([b"\1a\1b"], pa.binary(), (0, -1)))),
    "labels that aren't label bytes": lambda: stream(replaced("labels", dictionary([b"\1a\2b"], pa.binary()))),
    "a label set twice": lambda: stream(replaced("labels", dictionary([b"\1a\1b"] * 2, pa.binary(), (0, 1)))),
    "half an exemplar": lambda: stream(replaced("ex_index", pa.array([1, 5], pa.int32()))),
    "a null label set": lambda: stream(replaced("labels", dictionary([None], pa.binary()))),
    "a null index": lambda: stream(replaced("labels", dictionary([b"\1a\1b"], pa.binary(), (0, None)))),
    "a null": lambda: stream(replaced("value_lo", pa.array([None, 1], pa.uint64()))),
    "rows out of order": lambda: stream(good_batch().take(pa.array([1, 0]))),
    "an unknown metric": lambda: stream(replaced("metric", pa.array([10, 9], pa.uint16()))),
    "a tenant that isn't UTF-8": lambda: stream(good_batch()).replace(b"acme", b"\xff\xff\xff\xff"),
    "a column of another type": lambda: stream(
        good_batch().set_column(1, pa.field("metric", pa.int16(), nullable=False), pa.array([10, 11], pa.int16()))
    ),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_bodies_that_break_a_rule_are_malformed(body):
    with pytest.raises(Malformed) as refused:
        decode_batch(with_body(body()))
    assert refused.value.reason in {"schema", "rows", "labels"}


def test_a_dictionary_whose_buffers_are_longer_than_what_is_used_of_them_is_read():
    labels = pa.DictionaryArray.from_arrays(
        pa.array([0, 0], pa.int32()),
        pa.Array.from_buffers(pa.binary(), 1, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0\7"), pa.py_buffer(b"\1a\1b!")]),
    )
    rows = decode_batch(with_body(stream(replaced("labels", labels)))).rows
    assert [row["labels"] for row in dicts(rows)] == [b"\1a\1b"] * 2


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_malformed(value):
    with pytest.raises(Malformed):
        decode_batch(value)


@given(st.integers(0, 10_000))
def test_a_batch_that_was_cut_short_is_malformed_or_another_batch(length):
    value = small_batch()
    with suppress(Malformed):
        decode_batch(value[: length % len(value)])


@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_damaged_bodies_are_batches_or_malformed_and_nothing_else(seed):
    """Twenty mutations an example, behind a checksum that fits, so that Arrow meets them."""
    plain, rng = plain_body(small_batch()), random.Random(seed)
    for _ in range(20):
        damaged = bytearray(plain)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.getrandbits(8)])
        with suppress(Malformed):
            decode_batch(with_body(bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])))


def signed128(number: int) -> int:
    return (number + (1 << 127)) % (1 << 128) - (1 << 127)


def merged_by_dict(frames: list[tuple[int, list[Row]]]) -> list[Row]:
    """What `merge_rows` does, with Python's integers."""
    merged: dict[tuple[object, ...], Row] = {}
    places: dict[tuple[object, ...], tuple[object, ...]] = {}
    for partition, rows in frames:
        for one in rows:
            key = key_of(one)
            have = merged.setdefault(
                key, row() | dict(zip(KEY, key, strict=True)) | dict.fromkeys(EXEMPLAR) | {"value_lo": None}
            )
            value, total = join(one["value_lo"], one["value_hi"]), join(one["sum_lo"], one["sum_hi"])
            if have["value_lo"] is not None:
                before = join(have["value_lo"], have["value_hi"])
                gauge = METRICS[one["metric"]].kind is Kind.GAUGE
                value = max(before, value) if gauge else signed128(before + value)
                total = signed128(join(have["sum_lo"], have["sum_hi"]) + total)
            have["value_lo"], have["value_hi"] = split(value)
            have["sum_lo"], have["sum_hi"] = split(total)
            if one["ex_trace"] is not None:
                place = (
                    one["ex_timestamp_ms"],
                    partition,
                    one["ex_offset"],
                    one["ex_index"],
                    one["ex_value_ns"],
                    one["ex_trace"],
                )
                if key not in places or place > places[key]:
                    places[key] = place
                    have.update({name: one[name] for name in EXEMPLAR})
    ordered = sorted(merged.values(), key=lambda one: (one["tenant"].encode(), *key_of(one)[1:]))
    return [{name: one[name] for name in COLUMNS} for one in ordered]


FRAMES = st.lists(st.tuples(st.integers(0, 2), tables()), max_size=4)


def merge(frames: Iterable[tuple[int, list[Row]]]) -> list[Row]:
    return dicts(merge_rows([(partition, delta_rows(rows)) for partition, rows in frames]))


@given(FRAMES, st.randoms(use_true_random=False))
def test_merging_equals_adding_in_a_dict_in_any_order(frames, rng):
    merged = merge(frames)
    assert merged == merged_by_dict(frames)
    assert merge(rng.sample(frames, len(frames))) == merged


@given(FRAMES, st.data())
def test_one_partitions_rows_may_be_merged_in_steps(frames, data):
    of_one = [(0, delta_rows(rows)) for _, rows in frames]
    at = data.draw(st.integers(0, len(of_one)))
    halves = [(0, merge_rows(half)) for half in (of_one[:at], of_one[at:])]
    assert dicts(merge_rows(halves)) == dicts(merge_rows(of_one))


def test_sums_pass_64_bits():
    rows = [row(value=2**64 - 1), row(value=2**64 - 1), row(value=2**126)]
    [merged] = merge((partition, [one]) for partition, one in enumerate(rows))
    assert join(merged["value_lo"], merged["value_hi"]) == 2 * (2**64 - 1) + 2**126


def latency(exemplar):
    return row(metric=MetricId.LATENCY, bucket=0, layout=0, exemplar=exemplar)


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        ((b"a", 1, 10, 0, 0), (b"b", 2, 11, 0, 0), b"b"),
        ((b"a", 1, 11, 0, 0), (b"b", 2, 10, 9, 9), b"a"),
        ((b"a", 1, 10, 9, 9), (b"b", 2, 10, 0, 0), b"b"),  # the greater partition, whatever its offset
        ((b"a", 1, 10, 0, 0), None, b"a"),  # nothing was offered
        ((b"a", 1, 10, 0, 0), (b"", 2, 11, 0, 0), b""),  # no trace ID: erases
        ((b"", 1, 12, 0, 0), (b"b", 2, 11, 0, 0), b""),
        (None, None, None),
    ],
    ids=["later", "earlier", "greater partition", "none", "empty erases", "empty stays", "none at all"],
)
def test_the_exemplar_of_the_greatest_position_stays(first, second, left):
    [merged] = merge([(0, [latency(first)]), (1, [latency(second)])])
    assert merged["ex_trace"] == left


@given(st.integers(-(2**127), 2**127 - 1))
def test_limbs_join_into_the_number_they_were_split_from(number):
    lo, hi = split(number)
    assert 0 <= lo < 2**64
    assert -(2**63) <= hi < 2**63
    assert join(lo, hi) == number


@pytest.mark.parametrize("number", [2**127, -(2**127) - 1])
def test_numbers_beyond_128_bits_are_not_split(number):
    with pytest.raises(OverflowError):
        split(number)
