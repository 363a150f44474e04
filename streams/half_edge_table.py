"""Half-edges and dropped sides as the tables that a checkpoint holds, and back."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.checkpoint import DROPPED_SIDE_SCHEMA, HALF_EDGE_SCHEMA, NO_DROPPED_SIDES, NO_HALF_EDGES
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
_COPIED = tuple(
    name for name in HALF_EDGE_SCHEMA.names if name in (HALF.names or ()) and name not in {"tenant", *_TEXTS}
)

_NO_TEXTS = pa.array([], pa.large_binary())

_LEAST, _LEAST_KEY_BYTES = 64, 1 << 12
"""Half-edges, and bytes of keys, for which there is room at least."""
_FEW = 100

Numbers = npt.NDArray[np.int32]


def half_edge_table(half_edges: HalfEdges, plan: Plan, interner: Interner) -> pa.RecordBatch:
    """The half-edges that wait, as `HALF_EDGE_SCHEMA` says."""
    if not half_count(half_edges):
        return NO_HALF_EDGES
    order = sorted(range(len(plan.tenants)), key=lambda number: plan.tenants[number])
    rows = np.concatenate([queued_rows(half_edges, number) for number in order])
    halves = half_edges.rows[rows]
    trace_start, trace_bytes = halves["key_start"], halves["trace_bytes"]
    columns = {
        "tenant": pa.array([plan.tenants[number] for number in halves["tenant"].tolist()], pa.large_string()),
        "trace_id": _binary(half_edges.keys, trace_start, trace_bytes),
        "span_id": _binary(half_edges.keys, trace_start + trace_bytes, halves["span_bytes"]),
        **{name: pa.array(np.ascontiguousarray(halves[name])) for name in _COPIED if name not in _FLAGS},
        **{name: pa.array(halves[name] != 0) for name in _FLAGS},
        **{name: _texts(interner, halves[name]) for name in _TEXTS},
        "dimensions": _dimensions(plan, interner, halves["tenant"], half_edges.values[rows]),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in HALF_EDGE_SCHEMA.names], schema=HALF_EDGE_SCHEMA)


def restored_half_edges(table: pa.RecordBatch, plan: Plan, interner: Interner) -> HalfEdges:
    """The half-edges of a table; the plan includes its tenants.

    A dimension that a tenant's edges have no longer is left out, and so are the half-edges of a tenant that has no
    service graphs any more (Tempo SG-32).
    """
    slots = max(int(plan.service_graphs.slot_counts.max(initial=0)), 1)
    tenants = max(len(plan.tenants), 1)
    table, numbers = _of_active(table, plan)
    if not len(numbers):
        return new_half_edges(_LEAST, slots, tenants, _LEAST_KEY_BYTES)
    trace_ids, trace_start, trace_bytes = _buffers(table.column("trace_id"))
    span_ids, span_start, span_bytes = _buffers(table.column("span_id"))
    halves = np.zeros(len(numbers), HALF)
    halves["tenant"] = numbers
    halves["trace_bytes"], halves["span_bytes"] = trace_bytes, span_bytes
    for name in _COPIED:
        halves[name] = table.column(name).to_numpy(zero_copy_only=False)
    for name in _TEXTS:
        halves[name] = _numbers(interner, table.column(name))
    values = _slot_values(plan, interner, numbers, table.column("dimensions"), slots)
    half_edges = new_half_edges(max(_LEAST, len(halves)), slots, tenants, _key_bytes(trace_ids, span_ids, len(halves)))
    keys = np.concatenate([trace_ids, span_ids])
    _append_all(half_edges, halves, values, keys, trace_start, span_start + len(trace_ids), interner.starts)
    return half_edges


def dropped_side_table(dropped: HalfEdges, plan: Plan) -> pa.RecordBatch:
    """The sides that filters rejected, as `DROPPED_SIDE_SCHEMA` says."""
    if not half_count(dropped):
        return NO_DROPPED_SIDES
    order = sorted(range(len(plan.tenants)), key=lambda number: plan.tenants[number])
    queues = [number * SIDES + side for number in order for side in range(SIDES)]
    rows = dropped.rows[np.concatenate([queued_rows(dropped, queue) for queue in queues])]
    trace_start, trace_bytes = rows["key_start"], rows["trace_bytes"]
    tenants = [plan.tenants[queue // SIDES] for queue in rows["tenant"].tolist()]
    columns = {
        "tenant": pa.array(tenants, pa.large_string()),
        "is_server": pa.array(rows["tenant"] % SIDES != 0),
        "trace_id": _binary(dropped.keys, trace_start, trace_bytes),
        "span_id": _binary(dropped.keys, trace_start + trace_bytes, rows["span_bytes"]),
        "dropped_ms": pa.array(np.ascontiguousarray(rows["arrival_ms"])),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in DROPPED_SIDE_SCHEMA.names], schema=DROPPED_SIDE_SCHEMA)


def restored_dropped_sides(table: pa.RecordBatch, plan: Plan) -> HalfEdges:
    """The sides of a table; the plan includes its tenants. Those of a tenant without service graphs are left out."""
    tenants = SIDES * max(len(plan.tenants), 1)
    table, numbers = _of_active(table, plan)
    if not len(numbers):
        return new_half_edges(_LEAST, 1, tenants, _LEAST_KEY_BYTES)
    trace_ids, trace_start, trace_bytes = _buffers(table.column("trace_id"))
    span_ids, span_start, span_bytes = _buffers(table.column("span_id"))
    queues = numbers * SIDES + table.column("is_server").to_numpy(zero_copy_only=False)
    dropped = new_half_edges(max(_LEAST, len(queues)), 1, tenants, _key_bytes(trace_ids, span_ids, len(queues)))
    keys = np.concatenate([trace_ids, span_ids])
    dropped_ms = np.array(table.column("dropped_ms").to_numpy())
    _note_all(dropped, queues, keys, trace_start, span_start + len(trace_ids), trace_bytes, span_bytes, dropped_ms)
    return dropped


def _of_active(table: pa.RecordBatch, plan: Plan) -> tuple[pa.RecordBatch, Numbers]:
    """The rows of tenants that have service graphs, and the tenants' numbers."""
    numbers = np.array([plan.numbers[tenant] for tenant in table.column("tenant").to_pylist()], np.int32)
    active = plan.service_graphs.active[numbers]
    return (table, numbers) if active.all() else (table.filter(pa.array(active)), numbers[active])


def _key_bytes(trace_ids: npt.NDArray[np.uint8], span_ids: npt.NDArray[np.uint8], halves: int) -> int:
    """Room for these keys, and some more."""
    return 2 * (len(trace_ids) + len(span_ids)) + 8 * halves + _LEAST_KEY_BYTES


def _binary(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: Numbers) -> pa.Array:
    """Ranges of bytes as a column."""
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    copied = np.empty(int(offsets[-1]), np.uint8)
    _copy_ranges(data, starts, offsets, copied)
    return pa.Array.from_buffers(pa.large_binary(), len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(copied)])


def _buffers(array: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], Numbers]:
    """The bytes of a column, and where each value begins and how long it is."""
    _, offsets, data = array.buffers()
    if offsets is None or len(array) == 0:
        return np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int32)
    # A copy: kernels are compiled apart for arrays that can't be written to.
    starts = np.array(np.frombuffer(offsets, np.int64, len(array) + 1, 8 * array.offset))
    return (
        np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8),
        starts[:-1],
        np.diff(starts).astype(np.int32),
    )


def _texts(interner: Interner, numbers: Numbers) -> pa.Array:
    """The texts of a column of numbers, each made once."""
    if len(numbers) <= _FEW:
        return pa.array([interner.text(number) for number in numbers.tolist()], pa.large_binary())
    distinct, places = np.unique(numbers, return_inverse=True)
    texts = pa.array([interner.text(number) for number in distinct.tolist()], pa.large_binary())
    return texts.take(pa.array(places))


def _numbers(interner: Interner, texts: pa.Array) -> Numbers:
    """The numbers of a column of texts."""
    data, starts, lengths = _buffers(texts)
    rows = len(texts)
    kinds, wanted = np.full(rows, STRING, np.uint8), np.ones(rows, np.bool_)
    return interner.column(data, kinds, starts.astype(np.int32), lengths, wanted)


def _dimensions(plan: Plan, interner: Interner, tenants: Numbers, values: Numbers) -> pa.Array:
    """Per half-edge, the names and values in turn of its dimensions that aren't empty."""
    rows, slots = np.nonzero(values)
    if not len(rows):
        return pa.LargeListArray.from_arrays(pa.array(np.zeros(len(tenants) + 1, np.int64)), _NO_TEXTS)
    names = np.zeros((len(plan.tenants), values.shape[1]), np.int32)
    for tenant, settings in enumerate(plan.settings):
        if settings.service_graphs is not None:
            for slot, name in enumerate(edge_slots(settings.service_graphs).names):
                names[tenant, slot] = interner.add(name.encode())
    pairs = np.stack([names[tenants[rows], slots], values[rows, slots]], axis=1)
    offsets = np.zeros(len(tenants) + 1, np.int64)
    np.cumsum(2 * np.bincount(rows, minlength=len(tenants)), out=offsets[1:])
    return pa.LargeListArray.from_arrays(pa.array(offsets), _texts(interner, pairs.ravel()))


def _slot_values(plan: Plan, interner: Interner, tenants: Numbers, dimensions: pa.Array, slots: int) -> Numbers:
    values = np.zeros((len(tenants), slots), np.int32)
    texts = dimensions.flatten()
    if not len(texts):
        return values
    numbers = _numbers(interner, texts)
    rows = np.repeat(np.arange(len(tenants)), np.diff(dimensions.offsets.to_numpy()) // 2)
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
