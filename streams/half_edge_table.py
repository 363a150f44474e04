"""Half-edges and dropped sides as the tables that a checkpoint holds, and back."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.checkpoint import DROPPED_SIDE_SCHEMA, HALF_EDGE_SCHEMA
from streams.dropped_sides import SIDES, note
from streams.half_edges import (
    HALF,
    HalfEdges,
    Key,
    append,
    half_count,
    key_hash,
    new_half_edges,
    queued_rows,
    take_row,
    weigh,
)
from streams.interner import STRING, Interner
from streams.kernels import kernel, wide
from streams.plan import Plan
from streams.service_graphs_plan import edge_slots

_TEXTS = ("client", "server", "peer")
_FLAGS = ("failed", "traced")
_COPIED = tuple(name for name in HALF_EDGE_SCHEMA if name in (HALF.names or ()) and name not in {"tenant", *_TEXTS})

Numbers = npt.NDArray[np.int32]


def half_edge_table(half_edges: HalfEdges, plan: Plan, interner: Interner) -> pl.DataFrame:
    """The half-edges that wait, as `HALF_EDGE_SCHEMA` says."""
    if not half_count(half_edges):
        return HALF_EDGE_SCHEMA.to_frame()
    order = sorted(range(len(plan.tenants)), key=lambda number: plan.tenants[number])
    rows = np.concatenate([queued_rows(half_edges, number) for number in order])
    halves = half_edges.rows[rows]
    trace_start, trace_bytes = halves["key_start"], halves["trace_bytes"]
    columns = {
        "tenant": pl.Series([plan.tenants[number] for number in halves["tenant"].tolist()], dtype=pl.String()),
        "trace_id": _binary(half_edges.keys, trace_start, trace_bytes),
        "span_id": _binary(half_edges.keys, trace_start + trace_bytes, halves["span_bytes"]),
        **{name: pl.Series(np.ascontiguousarray(halves[name])) for name in _COPIED if name not in _FLAGS},
        **{name: pl.Series(halves[name] != 0) for name in _FLAGS},
        **{name: pl.Series(_texts(interner, halves[name]), dtype=pl.Binary()) for name in _TEXTS},
        "dimensions": _dimensions(plan, interner, halves["tenant"], half_edges.values[rows]),
    }
    return pl.DataFrame([columns[name].alias(name) for name in HALF_EDGE_SCHEMA])


def restored_half_edges(table: pl.DataFrame, plan: Plan, interner: Interner) -> HalfEdges:
    """The half-edges of a table; the plan includes its tenants.

    A dimension that a tenant's edges have no longer is left out, and so are the half-edges of a tenant that has no
    service graphs any more (Tempo SG-32).
    """
    table = _of_active(table, plan)
    slots = max(int(plan.service_graphs.slot_counts.max(initial=0)), 1)
    trace_ids, trace_start, trace_bytes = _buffers(_array(table["trace_id"]))
    span_ids, span_start, span_bytes = _buffers(_array(table["span_id"]))
    halves = np.zeros(len(table), HALF)
    halves["tenant"] = [plan.numbers[tenant] for tenant in table["tenant"].to_list()]
    halves["trace_bytes"], halves["span_bytes"] = trace_bytes, span_bytes
    for name in _COPIED:
        halves[name] = table[name].to_numpy()
    for name in _TEXTS:
        halves[name] = _numbers(interner, _array(table[name]))
    values = _slot_values(plan, interner, halves["tenant"], table["dimensions"], slots)
    key_bytes = 2 * (len(trace_ids) + len(span_ids)) + 8 * len(table) + (1 << 12)
    half_edges = new_half_edges(max(64, len(table)), slots, max(len(plan.tenants), 1), key_bytes)
    keys = np.concatenate([trace_ids, span_ids])
    _append_all(half_edges, halves, values, keys, trace_start, span_start + len(trace_ids), interner.starts)
    return half_edges


def dropped_side_table(dropped: HalfEdges, plan: Plan) -> pl.DataFrame:
    """The sides that filters rejected, as `DROPPED_SIDE_SCHEMA` says."""
    if not half_count(dropped):
        return DROPPED_SIDE_SCHEMA.to_frame()
    order = sorted(range(len(plan.tenants)), key=lambda number: plan.tenants[number])
    queues = [number * SIDES + side for number in order for side in range(SIDES)]
    rows = dropped.rows[np.concatenate([queued_rows(dropped, queue) for queue in queues])]
    trace_start, trace_bytes = rows["key_start"], rows["trace_bytes"]
    tenants = [plan.tenants[queue // SIDES] for queue in rows["tenant"].tolist()]
    columns = {
        "tenant": pl.Series(tenants, dtype=pl.String()),
        "is_server": pl.Series(rows["tenant"] % SIDES != 0),
        "trace_id": _binary(dropped.keys, trace_start, trace_bytes),
        "span_id": _binary(dropped.keys, trace_start + trace_bytes, rows["span_bytes"]),
        "dropped_ms": pl.Series(np.ascontiguousarray(rows["arrival_ms"])),
    }
    return pl.DataFrame([columns[name].alias(name) for name in DROPPED_SIDE_SCHEMA])


def restored_dropped_sides(table: pl.DataFrame, plan: Plan) -> HalfEdges:
    """The sides of a table; the plan includes its tenants. Those of a tenant without service graphs are left out."""
    table = _of_active(table, plan)
    trace_ids, trace_start, trace_bytes = _buffers(_array(table["trace_id"]))
    span_ids, span_start, span_bytes = _buffers(_array(table["span_id"]))
    numbers = np.array([plan.numbers[tenant] for tenant in table["tenant"].to_list()], np.int32)
    queues = numbers * SIDES + table["is_server"].to_numpy()
    key_bytes = 2 * (len(trace_ids) + len(span_ids)) + 8 * len(table) + (1 << 12)
    dropped = new_half_edges(max(64, len(table)), 1, SIDES * max(len(plan.tenants), 1), key_bytes)
    keys = np.concatenate([trace_ids, span_ids])
    starts = trace_start, span_start + len(trace_ids)
    _note_all(dropped, queues, keys, *starts, trace_bytes, span_bytes, table["dropped_ms"].to_numpy())
    return dropped


def _of_active(table: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """The rows of tenants that have service graphs."""
    off = [tenant for tenant in table["tenant"].unique() if not plan.service_graphs.active[plan.numbers[tenant]]]
    return table.filter(~pl.col("tenant").is_in(off)) if off else table


def _binary(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: Numbers) -> pl.Series:
    """Ranges of bytes as a column."""
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    copied = np.empty(int(offsets[-1]), np.uint8)
    _copy_ranges(data, starts, offsets, copied)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(copied)]
    return pl.Series(pa.Array.from_buffers(pa.large_binary(), len(starts), buffers), dtype=pl.Binary())


def _array(column: pl.Series) -> pa.Array:
    return column.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())


def _buffers(array: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], Numbers]:
    """The bytes of a column, and where each value begins and how long it is."""
    _, offsets, data = array.buffers()
    if offsets is None or len(array) == 0:
        return np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int32)
    starts = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return (
        np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8),
        starts[:-1],
        np.diff(starts).astype(np.int32),
    )


def _texts(interner: Interner, numbers: Numbers) -> pa.Array:
    """The texts of a column of numbers, each made once."""
    distinct, places = np.unique(numbers, return_inverse=True)
    texts = pa.array([interner.text(number) for number in distinct.tolist()], pa.large_binary())
    return texts.take(pa.array(places))


def _numbers(interner: Interner, texts: pa.Array) -> Numbers:
    """The numbers of a column of texts."""
    data, starts, lengths = _buffers(texts)
    rows = len(texts)
    kinds, wanted = np.full(rows, STRING, np.uint8), np.ones(rows, np.bool_)
    return interner.column(data, kinds, starts.astype(np.int32), lengths, wanted)


def _dimensions(plan: Plan, interner: Interner, tenants: Numbers, values: Numbers) -> pl.Series:
    """Per half-edge, the names and values in turn of its dimensions that aren't empty."""
    names = np.zeros((len(plan.tenants), values.shape[1]), np.int32)
    for tenant, settings in enumerate(plan.settings):
        if settings.service_graphs is not None:
            for slot, name in enumerate(edge_slots(settings.service_graphs).names):
                names[tenant, slot] = interner.add(name.encode())
    rows, slots = np.nonzero(values)
    pairs = np.stack([names[tenants[rows], slots], values[rows, slots]], axis=1)
    offsets = np.zeros(len(tenants) + 1, np.int64)
    np.cumsum(2 * np.bincount(rows, minlength=len(tenants)), out=offsets[1:])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), _texts(interner, pairs.ravel()))
    return pl.Series(lists, dtype=pl.List(pl.Binary()))


def _slot_values(plan: Plan, interner: Interner, tenants: Numbers, dimensions: pl.Series, slots: int) -> Numbers:
    values = np.zeros((len(tenants), slots), np.int32)
    lists = _array(dimensions)
    numbers = _numbers(interner, lists.flatten())
    rows = np.repeat(np.arange(len(tenants)), np.diff(lists.offsets.to_numpy()) // 2)
    names = numbers[::2]
    for tenant in np.unique(tenants[rows]).tolist():
        settings = plan.settings[tenant].service_graphs
        for slot, name in enumerate(() if settings is None else edge_slots(settings).names):
            chosen = (tenants[rows] == tenant) & (names == interner.add(name.encode()))
            values[rows[chosen], slot] = numbers[1::2][chosen]
    return values


@kernel
def _copy_ranges(data: Any, starts: Any, offsets: Any, out: Any) -> None:
    for row in range(len(starts)):
        start, at = starts[row], offsets[row]
        for i in range(offsets[row + 1] - at):
            out[at + i] = data[start + i]


@kernel
def _note_all(
    dropped: HalfEdges, queues: Any, keys: Any, traces: Any, spans: Any, trace_bytes: Any, span_bytes: Any, at_ms: Any
) -> None:
    """Note sides in the order of their rows, with their IDs at these places of `keys`; there must be room."""
    for i in range(len(queues)):
        queue = wide(queues[i])
        key = Key(wide(traces[i]), wide(trace_bytes[i]), wide(spans[i]), wide(span_bytes[i]))
        note(dropped, queue, key_hash(queue, keys, key), keys, key, at_ms[i])


@kernel
def _append_all(
    half_edges: HalfEdges, given_halves: Any, values: Any, keys: Any, traces: Any, spans: Any, text_starts: Any
) -> None:
    """Append half-edges in the order of their rows, with their IDs at these places of `keys`; there must be room."""
    for i in range(len(given_halves)):
        given = given_halves[i]
        tenant = wide(given.tenant)
        key = Key(wide(traces[i]), wide(given.trace_bytes), wide(spans[i]), wide(given.span_bytes))
        row = take_row(half_edges, key_hash(tenant, keys, key), tenant, keys, key)
        half = half_edges.rows[row]
        half.kind, half.connection, half.failed, half.traced = given.kind, given.connection, given.failed, given.traced
        half.client, half.server, half.peer = given.client, given.server, given.peer
        half.client_ns, half.server_ns = given.client_ns, given.server_ns
        half.client_end_ns, half.server_start_ns = given.client_end_ns, given.server_start_ns
        half.arrival_ms, half.weight = given.arrival_ms, given.weight
        half.seen_ms, half.seen_offset, half.seen_index = given.seen_ms, given.seen_offset, given.seen_index
        for slot in range(values.shape[1]):
            half_edges.values[row, slot] = values[i, slot]
        weigh(half_edges, row, text_starts)
        append(half_edges, row)
