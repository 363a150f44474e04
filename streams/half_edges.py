"""The half-edges that wait for their other half: a hash map by (tenant, trace ID, span ID), and a queue per tenant.

Everything here is a kernel or an array that kernels change; `streams.service_graphs` owns them.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.interner import EMPTY, copy_bytes, hash_bytes, mixed, same_bytes, slots_for
from streams.kernels import kernel, wide
from streams.span_columns import SpanColumns

PLAIN, MESSAGING, DATABASE, VIRTUAL = 0, 1, 2, 3
"""Connection types (Tempo SG-2)."""

HALF = np.dtype(
    [
        ("hash", np.uint64),
        ("client_end_ns", np.uint64),
        ("server_start_ns", np.uint64),
        ("weight", np.uint64),
        ("client_ns", np.int64),
        ("server_ns", np.int64),
        ("arrival_ms", np.int64),
        ("seen_ms", np.int64),
        ("seen_offset", np.int64),
        ("key_start", np.int64),
        ("bytes", np.int64),
        ("key_room", np.int32),
        ("trace_bytes", np.int32),
        ("span_bytes", np.int32),
        ("seen_index", np.int32),
        ("tenant", np.int32),
        ("kind", np.int32),
        ("client", np.int32),
        ("server", np.int32),
        ("peer", np.int32),
        ("older", np.int32),
        ("newer", np.int32),
        ("connection", np.uint8),
        ("failed", np.uint8),
        ("traced", np.uint8),
        ("counted", np.uint8),
    ]
)
"""An edge of which one half is known (Tempo SG-4).

`arrival_ms` is the stream time of its first span; `seen_*` is the position of its last one, and that one's stream time.
Texts are the interner's, 0 where nothing is known. `traced`: its trace ID is known (SG-10). `counted`: its deadline is
after stream time, so that it counts towards the limits. `newer` also links the rows that are free.
"""

QUEUE = np.dtype([("oldest", np.int32), ("newest", np.int32), ("due", np.int32), ("counted", np.int64)])
"""A tenant's half-edges in the order in which they were made, as a list; `due` is the oldest one that counts."""

_FREE, _KEY_END, _COUNTED_BYTES, _HALVES = range(4)

HALF_BYTES = 160
DIMENSION_BYTES = 48
"""What a half-edge, and each dimension that isn't empty, costs in the limit by bytes, besides texts and IDs.

They are about what these take in a checkpoint before it is compressed, so that the limit bounds the checkpoint.
"""


class HalfEdges(NamedTuple):
    """All half-edges of a partition."""

    slots: npt.NDArray[np.int32]
    """A hash table with open addressing: rows, -1 is free; at most half full."""
    rows: npt.NDArray[Any]
    """Of `HALF`."""
    values: npt.NDArray[np.int32]
    """Per row and slot of the tenant: the value of a dimension."""
    keys: npt.NDArray[np.uint8]
    """Trace and span IDs. A row keeps its place here when it is used again."""
    queues: npt.NDArray[Any]
    """Per tenant, of `QUEUE`."""
    state: npt.NDArray[np.int64]
    """The first free row, the end of the keys, the bytes of half-edges that count, how many half-edges there are."""


class Key(NamedTuple):
    """Where the IDs of a key lie in some bytes."""

    trace_start: int
    trace_bytes: int
    span_start: int
    span_bytes: int


def new_half_edges(capacity: int, values: int, tenants: int, key_bytes: int) -> HalfEdges:
    """No half-edges yet."""
    half_edges = HalfEdges(
        slots=np.full(slots_for(capacity), -1, np.int32),
        rows=np.zeros(capacity, HALF),
        values=np.zeros((capacity, values), np.int32),
        keys=np.empty(key_bytes, np.uint8),
        queues=_new_queues(tenants),
        state=np.zeros(4, np.int64),
    )
    _chain_free(half_edges.rows, 0)
    return half_edges


def resized_half_edges(old: HalfEdges, capacity: int, values: int, tenants: int, key_bytes: int) -> HalfEdges:
    """The same half-edges in tables that are as large or larger."""
    rows, width = old.values.shape
    capacity, values = max(capacity, rows), max(values, width)
    tenants, key_bytes = max(tenants, len(old.queues)), max(key_bytes, len(old.keys))
    if (capacity, values, tenants, key_bytes) == (rows, width, len(old.queues), len(old.keys)):
        return old
    new = new_half_edges(capacity, values, tenants, key_bytes)
    new.rows[:rows], new.values[:rows, :width] = old.rows, old.values
    new.keys[: len(old.keys)], new.queues[: len(old.queues)] = old.keys, old.queues
    new.state[:] = old.state
    if capacity > rows:
        # The free rows of old come last: a table grows when it has none.
        _chain_free(new.rows, rows)
        new.rows["newer"][capacity - 1] = old.state[_FREE]
        new.state[_FREE] = rows
    _enter_all(new)
    return new


def grown_half_edges(old: HalfEdges, key_bytes: int) -> HalfEdges:
    """The same half-edges with room for one more, whose key has that length."""
    rows = len(old.rows) if old.state[_FREE] >= 0 else 2 * len(old.rows)
    needed = int(old.state[_KEY_END]) + 2 * key_bytes + 8
    room = len(old.keys)
    while room < needed:
        room *= 2
    return resized_half_edges(old, rows, 0, 0, room)


def half_count(half_edges: HalfEdges) -> int:
    """How many half-edges wait."""
    return int(half_edges.state[_HALVES])


def queued_rows(half_edges: HalfEdges, tenant: int) -> npt.NDArray[np.int64]:
    """The rows of a tenant's half-edges, in the order in which they were made."""
    out = np.empty(half_count(half_edges), np.int64)
    return out[: _walk(half_edges, tenant, out)]


def _new_queues(tenants: int) -> npt.NDArray[Any]:
    queues = np.zeros(tenants, QUEUE)
    for end in ("oldest", "newest", "due"):
        queues[end] = -1
    return queues


def _chain_free(rows: npt.NDArray[Any], first: int) -> None:
    """Link the rows from `first` on, which were never used, as free ones."""
    rows["newer"][first:] = np.arange(first + 1, len(rows) + 1)
    rows["newer"][-1:] = -1
    rows["key_room"][first:] = 0


@kernel
def _walk(half_edges: HalfEdges, tenant: int, out: Any) -> int:
    count = 0
    row = half_edges.queues[tenant].oldest
    while row >= 0:
        out[count] = row
        count += 1
        row = half_edges.rows[row].newer
    return count


@kernel
def _enter_all(half_edges: HalfEdges) -> None:
    for tenant in range(len(half_edges.queues)):
        row = wide(half_edges.queues[tenant].oldest)
        while row >= 0:
            enter(half_edges, row)
            row = wide(half_edges.rows[row].newer)


@kernel
def has_room(half_edges: HalfEdges, key_bytes: int) -> bool:
    """Whether one more half-edge with a key of that length has a place."""
    return bool(half_edges.state[_FREE] >= 0 and half_edges.state[_KEY_END] + 2 * key_bytes + 8 <= len(half_edges.keys))


@kernel
def key_hash(tenant: int, data: Any, key: Key) -> np.uint64:
    """The hash of a key; lengths take part (Tempo SG-5)."""
    trace = hash_bytes(data, key.trace_start, key.trace_bytes, tenant)
    return mixed(trace, hash_bytes(data, key.span_start, key.span_bytes, tenant))


@kernel
def find_half(half_edges: HalfEdges, hashed: np.uint64, tenant: int, data: Any, key: Key) -> int:
    """The row of a key, or -1."""
    mask = len(half_edges.slots) - 1
    at = np.int64(hashed) & mask
    while half_edges.slots[at] >= 0:
        row = wide(half_edges.slots[at])
        half = half_edges.rows[row]
        if (
            half.hash == hashed
            and half.tenant == tenant
            and half.trace_bytes == key.trace_bytes
            and half.span_bytes == key.span_bytes
            and same_bytes(half_edges.keys, half.key_start, data, key.trace_start, key.trace_bytes)
            and same_bytes(half_edges.keys, half.key_start + key.trace_bytes, data, key.span_start, key.span_bytes)
        ):
            return row
        at = (at + 1) & mask
    return -1


@kernel
def take_row(half_edges: HalfEdges, hashed: np.uint64, tenant: int, data: Any, key: Key) -> int:
    """A row for a new edge of this key, everything unknown; it isn't in the map or the queue yet. Needs `has_room`."""
    row = int(half_edges.state[_FREE])
    half = half_edges.rows[row]
    half_edges.state[_FREE] = half.newer
    length = key.trace_bytes + key.span_bytes
    if half.key_room < length:
        half.key_start = half_edges.state[_KEY_END]
        # Half as much again: a row that is used for longer and longer keys doesn't waste more than it holds.
        half.key_room = length + length // 2
        half_edges.state[_KEY_END] += half.key_room
    copy_bytes(data, key.trace_start, key.trace_bytes, half_edges.keys, half.key_start)
    copy_bytes(data, key.span_start, key.span_bytes, half_edges.keys, half.key_start + key.trace_bytes)
    half.hash, half.tenant, half.trace_bytes, half.span_bytes = hashed, tenant, key.trace_bytes, key.span_bytes
    half.client = half.server = half.peer = 0
    half.client_ns = half.server_ns = 0
    half.client_end_ns = half.server_start_ns = 0
    half.connection, half.failed, half.traced, half.counted = PLAIN, 0, 0, 0
    half_edges.values[row, :] = 0
    return row


@kernel
def free_row(half_edges: HalfEdges, row: int) -> None:
    """Give back a row that isn't in the map and the queue."""
    half_edges.rows[row].newer = half_edges.state[_FREE]
    half_edges.state[_FREE] = row


@kernel
def enter(half_edges: HalfEdges, row: int) -> None:
    """Put a row into the map."""
    mask = len(half_edges.slots) - 1
    at = np.int64(half_edges.rows[row].hash) & mask
    while half_edges.slots[at] >= 0:
        at = (at + 1) & mask
    half_edges.slots[at] = row


@kernel
def append(half_edges: HalfEdges, row: int) -> None:
    """Put a new row into the map and at the end of its tenant's queue."""
    enter(half_edges, row)
    half = half_edges.rows[row]
    queue = half_edges.queues[half.tenant]
    half.older, half.newer = queue.newest, -1
    if queue.newest >= 0:
        half_edges.rows[queue.newest].newer = row
    else:
        queue.oldest = row
    queue.newest = row
    if queue.due < 0:
        queue.due = row
    half.counted = 1
    queue.counted += 1
    half_edges.state[_COUNTED_BYTES] += half.bytes
    half_edges.state[_HALVES] += 1


@kernel
def remove(half_edges: HalfEdges, row: int) -> None:
    """Take a row out of the map and the queue, and free it."""
    _leave_map(half_edges, row)
    half = half_edges.rows[row]
    queue = half_edges.queues[half.tenant]
    if queue.due == row:
        queue.due = half.newer
    if half.older >= 0:
        half_edges.rows[half.older].newer = half.newer
    else:
        queue.oldest = half.newer
    if half.newer >= 0:
        half_edges.rows[half.newer].older = half.older
    else:
        queue.newest = half.older
    if half.counted:
        discount(half_edges, row)
    half_edges.state[_HALVES] -= 1
    free_row(half_edges, row)


@kernel
def discount(half_edges: HalfEdges, row: int) -> None:
    """Count a half-edge towards the limits no longer."""
    half = half_edges.rows[row]
    half.counted = 0
    half_edges.queues[half.tenant].counted -= 1
    half_edges.state[_COUNTED_BYTES] -= half.bytes


@kernel
def settle(half_edges: HalfEdges, tenant: int, now_ms: int, wait_ms: int) -> int:
    """Discount a tenant's half-edges whose deadline isn't after `now_ms`; how many count then."""
    queue = half_edges.queues[tenant]
    while queue.due >= 0 and half_edges.rows[queue.due].arrival_ms + wait_ms <= now_ms:
        discount(half_edges, wide(queue.due))
        queue.due = half_edges.rows[queue.due].newer
    return int(queue.counted)


@kernel
def counted_bytes(half_edges: HalfEdges) -> int:
    """The bytes of all half-edges that count."""
    return int(half_edges.state[_COUNTED_BYTES])


@kernel
def weigh(half_edges: HalfEdges, row: int, text_starts: Any) -> None:
    """Set what a half-edge costs: `HALF_BYTES`, IDs, texts, dimensions. If it counts, the sum changes too."""
    half = half_edges.rows[row]
    cost = HALF_BYTES + half.trace_bytes + half.span_bytes
    for text in (half.client, half.server, half.peer):
        cost += text_starts[text + 1] - text_starts[text]
    for value in half_edges.values[row]:
        if value != EMPTY:
            cost += DIMENSION_BYTES + text_starts[value + 1] - text_starts[value]
    if half.counted:
        half_edges.state[_COUNTED_BYTES] += cost - half.bytes
    half.bytes = cost


@kernel
def _leave_map(half_edges: HalfEdges, row: int) -> None:
    """Free a row's slot, and move up what lies behind it in its chain."""
    slots, rows = half_edges.slots, half_edges.rows
    mask = len(slots) - 1
    gap = np.int64(rows[row].hash) & mask
    while slots[gap] != row:
        gap = (gap + 1) & mask
    at = (gap + 1) & mask
    while slots[at] >= 0:
        home = np.int64(rows[slots[at]].hash) & mask
        if (at - home) & mask >= (at - gap) & mask:
            slots[gap] = slots[at]
            gap = at
        at = (at + 1) & mask
    slots[gap] = -1


@kernel
def key_of(spans: SpanColumns, row: int, parent: bool) -> Key:
    """Where the parts of a span's key lie: its trace ID and, for a server's side, its parent's ID (Tempo SG-5)."""
    trace, trace_bytes = wide(spans.trace_start[row]), wide(spans.trace_bytes[row])
    if parent:
        return Key(trace, trace_bytes, wide(spans.parent_start[row]), wide(spans.parent_bytes[row]))
    return Key(trace, trace_bytes, wide(spans.span_start[row]), wide(spans.span_bytes[row]))
