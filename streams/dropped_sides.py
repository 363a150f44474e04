"""The sides of edges that filters rejected: their other halves wait for nothing (Tempo SG-18, SG-20).

They are kept in the tables of half-edges, a queue for each tenant and side, since they too have a key, an arrival and
a deadline. One whose deadline isn't after stream time counts no longer, and is taken out when somebody looks.
"""

from typing import Any

from streams.half_edges import (
    HalfEdges,
    Key,
    append,
    find_half,
    key_hash,
    remove,
    take_row,
)
from streams.kernels import kernel, wide

CLIENT_DROPPED, SERVER_DROPPED = 0, 1
SIDES = 2

DROPPED_BYTES = 64
"""Of that, what isn't its IDs: about what it takes in a checkpoint before it is compressed."""


@kernel
def side_bytes(key: Key) -> int:
    """What a side costs in the limit by bytes."""
    return DROPPED_BYTES + key.trace_bytes + key.span_bytes


@kernel
def queue_of(tenant: int, side: int) -> int:
    """The number of the queue of a tenant's side; it takes the tenant's place in the tables."""
    return wide(tenant * SIDES + side)


@kernel
def is_dropped(dropped: HalfEdges, tenant: int, side: int, data: Any, key: Key, now_ms: int, wait_ms: int) -> bool:
    """Whether that side of a key was rejected, less than the wait ago."""
    queue = queue_of(tenant, side)
    row = find_half(dropped, key_hash(queue, data, key), queue, data, key)
    return bool(row >= 0 and dropped.rows[row].arrival_ms + wait_ms > now_ms)


@kernel
def remember(
    dropped: HalfEdges,
    tenant: int,
    side: int,
    data: Any,
    key: Key,
    now_ms: int,
    wait_ms: int,
    most: int,
) -> bool:
    """Note that a side was rejected now; False if the tenant has as many already.

    One that is noted already is noted anew, however many there are. There must be room in the tables.
    """
    forget(dropped, tenant, now_ms, wait_ms)
    queue = queue_of(tenant, side)
    hashed = key_hash(queue, data, key)
    known = find_half(dropped, hashed, queue, data, key)
    if known >= 0:
        remove(dropped, known)
    elif dropped_count(dropped, tenant) >= most:
        return False
    note(dropped, queue, hashed, data, key, now_ms)
    return True


@kernel
def note(dropped: HalfEdges, queue: int, hashed: Any, data: Any, key: Key, at_ms: int) -> None:
    """Put a new side at the end of its queue; there must be room in the tables."""
    row = take_row(dropped, hashed, queue, data, key)
    side = dropped.rows[row]
    side.arrival_ms, side.bytes = at_ms, side_bytes(key)
    append(dropped, row)


@kernel
def forget(dropped: HalfEdges, tenant: int, now_ms: int, wait_ms: int) -> None:
    """Take out a tenant's sides whose deadline isn't after that time."""
    for side in range(SIDES):
        oldest = dropped.queues[queue_of(tenant, wide(side))].oldest
        while oldest >= 0 and dropped.rows[oldest].arrival_ms + wait_ms <= now_ms:
            remove(dropped, wide(oldest))
            oldest = dropped.queues[queue_of(tenant, wide(side))].oldest


@kernel
def dropped_count(dropped: HalfEdges, tenant: int) -> int:
    """How many sides of a tenant are kept."""
    count = 0
    for side in range(SIDES):
        count += dropped.queues[queue_of(tenant, wide(side))].counted
    return int(count)
