import random
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import hypothesis
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.topics import CHANGELOG_MAX_RECORD_BYTES
from agents.worker import RECORD_OVERHEAD_BYTES
from schemas import checkpoint_pb2 as pb
from schemas.checkpoint import (
    DROPPED_SIDE_SCHEMA,
    HALF_EDGE_SCHEMA,
    MAX_CHECKPOINT_BYTES,
    Checkpoint,
    decode_checkpoint,
    encode_checkpoint,
    pack_half_edges,
)
from schemas.config import TenantSettings
from schemas.config.rules import MAX_HALF_EDGE_BYTES, MAX_PACKED_BYTES, Rules
from schemas.errors import Malformed
from schemas.rules_in_force import COMING_AT_MOST, MAX_RULES_BYTES, SEEN_AT_MOST, Decided, RulesInForce, encode_rules
from streams.dropped_sides import DROPPED_BYTES
from streams.half_edges import DIMENSION_BYTES, HALF_BYTES
from tests.streams.log import CLIENT, PRODUCER, SERVER, T0_MS, Told, new_fold, record, samples, settings, tick

TOTAL = "traces_service_graph_request_total"


def graphs(**changes: Any) -> TenantSettings:
    return settings(service_graphs=changes)


def checkpoint_after(tenants: TenantSettings, *told: Told) -> Checkpoint:
    """The checkpoint that a tick writes, with these spans' half-edges."""
    log = [record(0, 14_000, *told, tenant="b"), record(1, 14_500, *told[:1], tenant="a"), tick(2, 15_000)]
    (closing,) = new_fold(tenants).feed(log).closings
    return closing.checkpoint


def some_half_edges() -> Checkpoint:
    told = [
        Told("a", PRODUCER, 1, trace=7, latency_ns=5, status=2, attributes={"d": 5, "peer.service": "p"}),
        Told("b", SERVER, 2, b"\0", trace=b"", attributes={"d": ""}),
    ]
    return checkpoint_after(graphs(dimensions=("d", "é")), *told)


def test_half_edges_are_a_table_with_everything_that_their_other_half_needs() -> None:
    table = some_half_edges().half_edges

    assert table.schema == HALF_EDGE_SCHEMA
    assert table["tenant"].to_pylist() == ["a", "b", "b"]
    assert table.to_pylist()[1] == {
        "tenant": "b",
        "trace_id": bytes(15) + b"\7",
        "span_id": bytes(7) + b"\1",
        "kind": PRODUCER,
        "connection": 1,
        "failed": True,
        "traced": True,
        "client": b"a",
        "server": b"",
        "peer": b"p",
        "client_ns": 5,
        "server_ns": 0,
        "client_end_ns": (T0_MS + 14_000) * 10**6,
        "server_start_ns": 0,
        "weight": 1 << 32,
        "arrival_ms": T0_MS + 14_000,
        "seen_ms": T0_MS + 14_000,
        "seen_offset": 0,
        "seen_index": 0,
        "dimensions": [b"d", b"5"],
    }
    last = table.to_pylist()[2]
    assert (last["trace_id"], last["span_id"], last["dimensions"]) == (b"", b"\0", [])


@pytest.mark.parametrize("checkpoint", [Checkpoint.initial(0), Checkpoint(5, 0, 9, 0, 3), some_half_edges()])
def test_a_checkpoint_comes_back_as_it_was(checkpoint: Checkpoint) -> None:
    encoded = encode_checkpoint(checkpoint)
    decoded = decode_checkpoint(encoded)

    assert decoded.half_edges.equals(checkpoint.half_edges)
    for name in ("next_offset", "next_timestamp_ms", "stream_time_ms", "previous_end_ms", "revision"):
        assert getattr(decoded, name) == getattr(checkpoint, name)
    assert encode_checkpoint(decoded) == encoded


def test_a_dimension_that_is_configured_no_longer_is_left_out() -> None:
    checkpoint = checkpoint_after(graphs(dimensions=("d", "e")), Told("a", CLIENT, 1, attributes={"d": "1", "e": "2"}))
    fold = new_fold(graphs(dimensions=("e", "f")), checkpoint=checkpoint)

    closing = fold.feed([record(2, 15_000, Told("b", SERVER, 2, 1), tenant="b"), tick(3, 30_000)]).closings[0]

    (name,) = (name for name in samples(closing.windows) if TOTAL in name)
    assert name == f"b {TOTAL}{{client=a,e=2,server=b}}"


def test_half_edges_of_a_processor_that_is_off_are_dropped() -> None:
    checkpoint = checkpoint_after(graphs(), Told("a", CLIENT, 1))
    fold = new_fold(settings(), checkpoint=checkpoint)

    (closing,) = fold.feed([tick(2, 15_000), tick(3, 30_000)]).closings

    assert not closing.checkpoint.half_edges.num_rows
    assert not len(closing.windows[0].rows)


def test_a_million_names_fit() -> None:
    told = [Told("a" * 2000, CLIENT, i + 1, attributes={"peer.service": f"peer-{i}"}) for i in range(3000)]
    checkpoint = checkpoint_after(graphs(), *told)

    encoded = encode_checkpoint(checkpoint)

    assert len(encoded) < 300_000
    assert decode_checkpoint(encoded).half_edges.equals(checkpoint.half_edges)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format_version": 2}, "version"),
        ({"next_offset": -1}, "field"),
        ({"half_edges": b"x"}, "checksum"),
        ({"half_edges_size": 7}, "compression"),
        ({"half_edges_size": 1 << 40}, "compression"),
    ],
)
def test_other_bytes_are_malformed(changes: dict[str, Any], reason: str) -> None:
    message = pb.CheckpointRecord.FromString(encode_checkpoint(some_half_edges()))
    for name, value in changes.items():
        setattr(message, name, value)

    with pytest.raises(Malformed) as error:
        decode_checkpoint(message.SerializeToString())

    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("name", "broken", "reason"),
    [
        ("peer", pa.array([None], pa.large_binary()), "rows"),
        ("dimensions", pa.array([[b"d"]], pa.large_list(pa.large_binary())), "rows"),
        ("dimensions", pa.array([[b"d", None]], pa.large_list(pa.large_binary())), "rows"),
        ("kind", pa.array([0], pa.int64()), "schema"),
        ("more", pa.array([0], pa.int64()), "schema"),
    ],
)
def test_half_edges_that_are_not_whole_are_malformed(name: str, broken: pa.Array, reason: str) -> None:
    one = some_half_edges().half_edges.slice(0, 1)
    table = pa.RecordBatch.from_pydict(dict(zip(one.schema.names, one.columns, strict=True)) | {name: broken})
    message = pb.CheckpointRecord(format_version=1)
    pack_half_edges(message, table)

    with pytest.raises(Malformed) as error:
        decode_checkpoint(message.SerializeToString())

    assert error.value.reason == reason


@hypothesis.settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60) | st.tuples(st.integers(0, 10**4), st.integers(1, 255)))
def test_arbitrary_bytes_are_a_checkpoint_or_malformed(change: bytes | tuple[int, int]) -> None:
    if isinstance(change, bytes):
        value = change
    else:
        whole = bytearray(encode_checkpoint(SOME))
        whole[change[0] % len(whole)] ^= change[1]
        value = bytes(whole)
    with suppress(Malformed):
        assert decode_checkpoint(value).next_offset >= 0


SOME = some_half_edges()


def full_table(schema: pa.Schema, rows: int, text_bytes: int, dimensions: int) -> pa.RecordBatch:
    """Rows that don't compress; a text has so many bytes, a dimension's name 32 at most, a trace ID 16, a span ID 8."""
    chance = random.Random(7)
    sizes = {"tenant": 4, "trace_id": 16, "span_id": 8}
    columns: list[pa.Array] = []
    for field in schema:
        if pa.types.is_large_list(field.type):
            lengths = (min(text_bytes, 32), text_bytes) * dimensions * rows
            texts = pa.array([chance.randbytes(length) for length in lengths], pa.large_binary())
            offsets = pa.array(range(0, 2 * dimensions * rows + 1, 2 * dimensions) if dimensions else [0] * (rows + 1))
            columns.append(pa.LargeListArray.from_arrays(offsets.cast(pa.int64()), texts))
        elif pa.types.is_large_string(field.type):
            columns.append(pa.array(["team"] * rows, field.type))
        elif pa.types.is_large_binary(field.type):
            size = sizes.get(field.name, text_bytes)
            columns.append(pa.array([chance.randbytes(size) for _ in range(rows)], field.type))
        elif pa.types.is_boolean(field.type):
            columns.append(pa.array([chance.random() < 0.5 for _ in range(rows)]))
        else:
            width = field.type.bit_width
            plain = pa.py_buffer(chance.randbytes(rows * width // 8))
            columns.append(pa.Array.from_buffers(field.type, rows, [None, plain]))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


@pytest.mark.parametrize(("text_bytes", "dimensions"), [(0, 0), (20, 0), (3, 4), (40_000, 1)])
def test_the_largest_half_edges_take_no_more_than_their_limit(text_bytes: int, dimensions: int) -> None:
    """Longer names of dimensions compress, as they are few."""
    cost = HALF_BYTES + 16 + 8 + 3 * text_bytes + dimensions * (DIMENSION_BYTES + text_bytes)
    rows = 2_000_000 // cost
    encoded = encode_checkpoint(Checkpoint(0, half_edges=full_table(HALF_EDGE_SCHEMA, rows, text_bytes, dimensions)))
    assert 500_000 < len(encoded) < rows * cost + 10_000


def test_the_most_rejected_sides_take_no_more_than_their_limit() -> None:
    cost = DROPPED_BYTES + 16 + 8
    rows = 1_000_000 // cost
    encoded = encode_checkpoint(Checkpoint(0, dropped_sides=full_table(DROPPED_SIDE_SCHEMA, rows, 0, 0)))
    assert 300_000 < len(encoded) < rows * cost + 10_000


def test_the_longest_checkpoint_fits_into_a_record_of_the_changelog() -> None:
    rules = cast("Rules", SimpleNamespace(packed=bytes(MAX_PACKED_BYTES)))
    decided = Decided(2**62, 2**62, rules, "p" * 40, 2**31 - 1)
    seen = tuple((2**62, "f" * 32) for _ in range(SEEN_AT_MOST))
    counts = tuple((2**62, 2**31 - 1) for _ in range(500))
    longest = RulesInForce(decided, (decided,) * COMING_AT_MOST, seen, counts)
    assert (1 + COMING_AT_MOST) * MAX_PACKED_BYTES < len(encode_rules(longest)) <= MAX_RULES_BYTES
    assert MAX_CHECKPOINT_BYTES >= MAX_HALF_EDGE_BYTES + MAX_RULES_BYTES
    assert MAX_CHECKPOINT_BYTES <= CHANGELOG_MAX_RECORD_BYTES - RECORD_OVERHEAD_BYTES
