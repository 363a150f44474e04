"""Halves become edges: the pass over spans in log order, and expiry at a window's end (Tempo §7.3 to §7.6)."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.dropped_sides import CLIENT_DROPPED, SERVER_DROPPED, forget, is_dropped, remember, side_bytes
from streams.groups import CellTable, GroupTable, Observation, bucket_of, find_group, observe
from streams.half_edges import (
    DATABASE,
    MESSAGING,
    PLAIN,
    VIRTUAL,
    HalfEdges,
    append,
    counted_bytes,
    find_half,
    free_row,
    has_room,
    key_hash,
    key_of,
    remove,
    settle,
    take_row,
    weigh,
)
from streams.interner import ABSENT, CLIENT, EMPTY, SERVER, USER
from streams.kernels import kernel, wide
from streams.layouts import NO_SCHEMA
from streams.limbs import added
from streams.native_cells import NativeCells, observe_native, observed_weight
from streams.service_graphs_plan import ServiceGraphsPlan
from streams.span_columns import (
    KIND_CONSUMER,
    KIND_PRODUCER,
    KIND_SERVER,
    STATUS_ERROR,
    SpanColumns,
)

EDGE_TENANT, EDGE_CLIENT, EDGE_SERVER, EDGE_CONNECTION, EDGE_VALUES = range(5)
"""Places in the key of a group of edges."""

HISTOGRAMS = 3
SERVER_SECONDS, CLIENT_SECONDS, QUEUE_SECONDS = range(HISTOGRAMS)
"""The histograms of an edge: a cell's place is bucket * HISTOGRAMS + histogram."""
NOT_MEASURED = -1

EDGE_TOTALS = np.dtype(
    [
        ("edges", np.int64),
        ("total_lo", np.uint64),
        ("total_hi", np.int64),
        ("failed_lo", np.uint64),
        ("failed_hi", np.int64),
    ]
)
"""What a group of edges adds up to: edges as they are, weighted ones, weighted failed ones."""

MADE, DROPPED = 0, 1
COUNTERPARTS, OVERFLOWS, JOINED, ALONE, OUTGROWN = 6, 7, 8, 9, 10
"""Columns of the counts: half-edges made, spans dropped, and from KIND_SERVER on half-edges expired by last kind.

Then halves whose other half was rejected by a filter, and rejected sides for which there was no place. Then spans that
came to an edge that waited; of the counterparts, spans that came later than the other half; of the dropped, half-edges
that waited and grew.
"""
COUNTS = 11


class EdgeTotals(NamedTuple):
    """Everything that a window adds up about edges."""

    groups: GroupTable
    totals: npt.NDArray[Any]
    """Per group, of `EDGE_TOTALS`."""
    cells: CellTable
    counts: npt.NDArray[np.int64]
    """Per tenant, see `MADE`."""
    native: NativeCells


@kernel
def fold_edges(
    spans: SpanColumns,
    plan: ServiceGraphsPlan,
    half_edges: HalfEdges,
    dropped: HalfEdges,
    state: EdgeTotals,
    text_starts: Any,
    max_bytes: int,
    first: int,
) -> int:
    """Take the spans from row `first` on, in log order; the row at which there was no room, or their count."""
    for row in range(first, len(spans.kind)):
        tenant, kind = spans.tenant[row], spans.kind[row]
        if not spans.measured[row] or not plan.active[tenant] or kind < KIND_SERVER or kind > KIND_CONSUMER:
            continue
        if spans.service[spans.resource[row]] == ABSENT:
            continue  # SG-7
        if not _has_room(half_edges, dropped, state, spans, row):
            return row
        if spans.for_service_graphs.accepted[row]:
            _take_span(spans, plan, half_edges, dropped, state, text_starts, max_bytes, row)
        else:
            _drop_span(spans, plan, half_edges, dropped, state, max_bytes, row)
    return len(spans.kind)


@kernel
def expire_half_edges(
    plan: ServiceGraphsPlan, half_edges: HalfEdges, dropped: HalfEdges, state: EdgeTotals, end_ms: int
) -> bool:
    """Expire what waited until the window's end (SG-19); False if there was no room: go on after making some."""
    for tenant in range(len(half_edges.queues)):
        forget(dropped, wide(tenant), end_ms, plan.wait_ms[tenant])
        queue = half_edges.queues[tenant]
        while queue.oldest >= 0 and half_edges.rows[queue.oldest].arrival_ms + plan.wait_ms[tenant] <= end_ms:
            if not _cells_have_room(state):
                return False
            _expire(plan, half_edges, state, tenant, wide(queue.oldest))
    return True


@kernel
def _cells_have_room(state: EdgeTotals) -> bool:
    """Whether one more edge has a place in its group and in a cell of each histogram."""
    groups, cells = state.groups, state.cells
    if groups.used[0] == len(groups.hashes) or cells.used[0] + HISTOGRAMS > len(cells.cells):
        return False
    return bool(state.native.cells.used[0] + HISTOGRAMS <= len(state.native.cells.cells))


@kernel
def _has_room(half_edges: HalfEdges, dropped: HalfEdges, state: EdgeTotals, spans: SpanColumns, row: int) -> bool:
    key_bytes = wide(spans.trace_bytes[row] + max(spans.span_bytes[row], spans.parent_bytes[row]))
    return _cells_have_room(state) and has_room(half_edges, key_bytes) and has_room(dropped, key_bytes)


@kernel
def _drop_span(
    spans: SpanColumns,
    plan: ServiceGraphsPlan,
    half_edges: HalfEdges,
    dropped: HalfEdges,
    state: EdgeTotals,
    max_bytes: int,
    row: int,
) -> None:
    """Note the side of a span that filters rejected; what waits for it waits no longer (SG-20)."""
    tenant, now_ms = wide(spans.tenant[row]), spans.stream_ms[spans.record[row]]
    is_server = spans.kind[row] == KIND_SERVER or spans.kind[row] == KIND_CONSUMER
    key = key_of(spans, row, is_server)
    edge = find_half(half_edges, key_hash(tenant, spans.data, key), tenant, spans.data, key)
    if edge >= 0 and (half_edges.rows[edge].server != EMPTY) != is_server:
        remove(half_edges, edge)
        state.counts[tenant, COUNTERPARTS] += 1
    if is_server and key.span_bytes == 0:
        return  # nobody waits for a root's server
    side = wide(SERVER_DROPPED if is_server else CLIENT_DROPPED)
    fits = not _exceeds(plan, half_edges, dropped, now_ms, side_bytes(key), max_bytes)
    most = plan.max_items[tenant] if fits else wide(0)
    if not remember(dropped, tenant, side, spans.data, key, now_ms, plan.wait_ms[tenant], most):
        state.counts[tenant, OVERFLOWS] += 1


@kernel
def _take_span(
    spans: SpanColumns,
    plan: ServiceGraphsPlan,
    half_edges: HalfEdges,
    dropped: HalfEdges,
    state: EdgeTotals,
    text_starts: Any,
    max_bytes: int,
    row: int,
) -> None:
    """Create or update the edge of a span, and emit it when both services are known (SG-8, SG-18)."""
    tenant = wide(spans.tenant[row])
    is_server = spans.kind[row] == KIND_SERVER or spans.kind[row] == KIND_CONSUMER
    key = key_of(spans, row, is_server)
    hashed = key_hash(tenant, spans.data, key)
    edge = find_half(half_edges, hashed, tenant, spans.data, key)
    new = edge < 0
    now_ms = spans.stream_ms[spans.record[row]]
    if new:
        other = wide(CLIENT_DROPPED if is_server else SERVER_DROPPED)
        if is_dropped(dropped, tenant, other, spans.data, key, now_ms, plan.wait_ms[tenant]):
            state.counts[tenant, COUNTERPARTS] += 1
            state.counts[tenant, ALONE] += 1
            return
        edge = take_row(half_edges, hashed, tenant, spans.data, key)
        half_edges.rows[edge].arrival_ms = now_ms
    else:
        state.counts[tenant, JOINED] += 1
    if is_server:
        _apply_server(spans, plan, half_edges, row, edge)
    else:
        _apply_client(spans, plan, half_edges, row, edge)
    half = half_edges.rows[edge]
    if half.client and half.server:  # neither is EMPTY
        _emit(plan, half_edges, state, tenant, edge)
        state.counts[tenant, MADE] += new
        if new:
            free_row(half_edges, edge)
        else:
            remove(half_edges, edge)
        return
    weigh(half_edges, edge, text_starts)
    if not new:
        # It has grown beyond the limit by bytes, which Tempo hasn't: the checkpoint must fit into a record.
        if _exceeds(plan, half_edges, dropped, now_ms, wide(0), max_bytes) and half.counted:
            remove(half_edges, edge)
            state.counts[tenant, DROPPED] += 1
            state.counts[tenant, OUTGROWN] += 1
    elif _is_full(plan, half_edges, dropped, tenant, now_ms, max_bytes, half.bytes):
        free_row(half_edges, edge)
        state.counts[tenant, DROPPED] += 1
    else:
        append(half_edges, edge)
        state.counts[tenant, MADE] += 1


@kernel
def _is_full(
    plan: ServiceGraphsPlan,
    half_edges: HalfEdges,
    dropped: HalfEdges,
    tenant: int,
    now_ms: int,
    max_bytes: int,
    more_bytes: int,
) -> bool:
    """Whether there is no place for one more half-edge of a tenant; those past their deadline don't count."""
    if settle(half_edges, tenant, now_ms, plan.wait_ms[tenant]) >= plan.max_items[tenant]:
        return True
    return _exceeds(plan, half_edges, dropped, now_ms, more_bytes, max_bytes)


@kernel
def _exceeds(
    plan: ServiceGraphsPlan, half_edges: HalfEdges, dropped: HalfEdges, now_ms: int, more_bytes: int, max_bytes: int
) -> bool:
    """Whether all half-edges and dropped sides that count take more than the limit, with so many bytes more."""
    if counted_bytes(half_edges) + counted_bytes(dropped) + more_bytes <= max_bytes:
        return False
    for other in range(len(half_edges.queues)):
        settle(half_edges, other, now_ms, plan.wait_ms[other])
        forget(dropped, wide(other), now_ms, plan.wait_ms[other])
    return counted_bytes(half_edges) + counted_bytes(dropped) + more_bytes > max_bytes


@kernel
def _lookup(spans: SpanColumns, attribute: int, row: int) -> int:
    """An attribute of a span, resource first (PRIM-2)."""
    value = spans.resource_values[attribute, spans.resource[row]]
    return wide(value if value != ABSENT else spans.values[attribute, row])


@kernel
def _apply_common(spans: SpanColumns, plan: ServiceGraphsPlan, half: Any, row: int) -> None:
    """What both sides set (SG-9, SG-10): the last one counts, but a failure stays."""
    record = spans.record[row]
    half.kind = spans.kind[row]
    half.failed |= spans.status[row] == STATUS_ERROR
    half.weight = spans.for_service_graphs.weight[row]
    half.seen_ms = spans.stream_ms[record]
    half.seen_offset = spans.offset[record]
    half.seen_index = spans.position[row]
    tenant = spans.tenant[row]
    for i in range(plan.peer_counts[tenant]):
        value = spans.values[plan.peers[tenant, i], row]
        if value != ABSENT:
            half.peer = value  # SG-13
            break


@kernel
def _apply_client(spans: SpanColumns, plan: ServiceGraphsPlan, half_edges: HalfEdges, row: int, edge: int) -> None:
    """SG-9."""
    half, tenant = half_edges.rows[edge], spans.tenant[row]
    _apply_common(spans, plan, half, row)
    half.traced = 1
    half.connection = MESSAGING if spans.kind[row] == KIND_PRODUCER else PLAIN
    half.client = spans.service[spans.resource[row]]
    half.client_ns = spans.latency_ns[row]
    half.client_end_ns = spans.end_ns[row]
    for i in range(plan.dimension_counts[tenant]):
        value = _lookup(spans, plan.dimensions[tenant, i], row)
        if value != ABSENT:
            half_edges.values[edge, plan.client_slots[tenant, i]] = value
    _apply_database(spans, plan, half, row)


@kernel
def _apply_server(spans: SpanColumns, plan: ServiceGraphsPlan, half_edges: HalfEdges, row: int, edge: int) -> None:
    """SG-10."""
    half, tenant = half_edges.rows[edge], spans.tenant[row]
    _apply_common(spans, plan, half, row)
    if spans.parent_bytes[row] == 0:
        half.traced = 1
    half.connection = MESSAGING if spans.kind[row] == KIND_CONSUMER else PLAIN
    half.server = spans.service[spans.resource[row]]
    half.server_ns = spans.latency_ns[row]
    half.server_start_ns = spans.start_ns[row]
    for i in range(plan.dimension_counts[tenant]):
        value = _lookup(spans, plan.dimensions[tenant, i], row)
        if value != ABSENT:
            half_edges.values[edge, plan.server_slots[tenant, i]] = value


@kernel
def _apply_database(spans: SpanColumns, plan: ServiceGraphsPlan, half: Any, row: int) -> None:
    """SG-14: a client span that names a database is the whole edge."""
    tenant = spans.tenant[row]
    database = ABSENT
    for i in range(plan.database_counts[tenant]):
        database = _lookup(spans, plan.databases[tenant, i], row)
        if database != ABSENT:
            break
    if database == ABSENT:
        return
    half.connection = DATABASE
    half.server_ns = spans.latency_ns[row]
    callee = _lookup(spans, plan.callee[0], row)
    if callee == ABSENT:
        callee = _lookup(spans, plan.callee[1], row)
    if callee == ABSENT:
        callee = spans.callee_host[row]
    if callee == ABSENT and database != EMPTY:
        callee = database
    if callee != ABSENT:
        half.server = callee


@kernel
def _expire(plan: ServiceGraphsPlan, half_edges: HalfEdges, state: EdgeTotals, tenant: int, edge: int) -> None:
    """SG-26 to SG-29: a virtual node where the other side can be named, else a count."""
    half = half_edges.rows[edge]
    virtual = EMPTY
    if half.client == EMPTY:
        if half.span_bytes == 0:
            half.client = half.peer if half.peer != EMPTY else USER
            virtual = CLIENT
    elif half.server == EMPTY and half.peer != EMPTY:
        half.server = half.peer
        virtual = SERVER
    if virtual == EMPTY:
        state.counts[tenant, half.kind] += 1
    else:
        half.connection = VIRTUAL
        if plan.virtual_slots[tenant] >= 0:
            half_edges.values[edge, plan.virtual_slots[tenant]] = virtual
        _emit(plan, half_edges, state, tenant, edge)
    remove(half_edges, edge)


@kernel
def _emit(plan: ServiceGraphsPlan, half_edges: HalfEdges, state: EdgeTotals, tenant: int, edge: int) -> None:
    """Add an edge to its group (SG-22); there must be room."""
    half = half_edges.rows[edge]
    values = plan.slot_counts[tenant]
    key = state.groups.scratch
    key[EDGE_TENANT], key[EDGE_CLIENT], key[EDGE_SERVER] = tenant, half.client, half.server
    key[EDGE_CONNECTION] = half.connection
    for i in range(values):
        key[EDGE_VALUES + i] = half_edges.values[edge, i]
    group = find_group(state.groups, EDGE_VALUES + values)
    total, nothing = state.totals[group], np.int64(0)
    total.edges += 1
    total.total_lo, total.total_hi = added(total.total_lo, total.total_hi, half.weight, nothing)
    if half.failed:
        total.failed_lo, total.failed_hi = added(total.failed_lo, total.failed_hi, half.weight, nothing)
    limits_ns = plan.limits_ns[tenant, : plan.limit_counts[tenant]]
    for histogram in range(HISTOGRAMS):
        latency_ns = _measured(plan, half, tenant, wide(histogram))
        if latency_ns == NOT_MEASURED:
            continue
        seen = Observation(
            observed_weight(plan.kinds, tenant, half.weight),
            latency_ns,
            half.seen_ms,
            half.seen_offset,
            half.seen_index,
            half_edges.keys,
            half.key_start,
            np.int64(half.trace_bytes if half.traced else 0),
        )
        if plan.kinds.classic[tenant]:
            observe(state.groups, state.cells, group, bucket_of(limits_ns, latency_ns) * HISTOGRAMS + histogram, seen)
        if plan.kinds.schema[tenant] != NO_SCHEMA:
            observe_native(state.native, plan.kinds, tenant, group, wide(histogram), seen)


@kernel
def _measured(plan: ServiceGraphsPlan, half: Any, tenant: int, histogram: int) -> np.int64:
    """What one of the histograms observes of an edge, or `NOT_MEASURED`."""
    if histogram == QUEUE_SECONDS:
        queued = half.connection == MESSAGING and half.server_start_ns > half.client_end_ns
        if not plan.messaging[tenant] or not queued:
            return np.int64(NOT_MEASURED)
        return np.int64(min(half.server_start_ns - half.client_end_ns, np.uint64(1 << 53)))
    if not plan.latency[tenant]:
        return np.int64(NOT_MEASURED)
    return np.int64(half.server_ns if histogram == SERVER_SECONDS else half.client_ns)
