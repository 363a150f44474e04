"""Cut a TracesData into several by copying byte ranges: the regrouping of spans by partition, without objects.

A piece is a TracesData of its own. For each ResourceSpans and each ScopeSpans that has spans in the piece, it holds all
their other fields as they stand in the message (resource, scope, schema URLs, unknown fields), then those spans, in
their order. ResourceSpans and ScopeSpans without spans are dropped, so are unknown fields of the TracesData itself.

Three steps, each one pass: `gather` finds the spans and sets the other fields together; `assign` gives each span to a
piece and computes the pieces' exact sizes; `write` copies.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.otlp.fields import copy, field, write_header
from schemas.otlp.jit import direct, kernel
from schemas.otlp.wire import MAX_DEPTH, Bytes, varint_size

Ints = npt.NDArray[np.int64]

RESOURCE_SPANS = 0x0A
"""TracesData.resource_spans, length-delimited."""
NESTED = 0x12
"""ResourceSpans.scope_spans and ScopeSpans.spans: field 2 of their message, length-delimited."""
PARENT_SPAN_ID = 0x22
"""Span.parent_span_id, length-delimited."""

NO_LIMIT = (1 << 31) - 1

MOST_REPEATED_BYTES = 1 << 26
"""What a message's pieces may have in all beyond the message: each piece repeats the resources and scopes of its spans.

Without it a resource of almost the pieces' limit, and many small spans, would make gigabytes of a few megabytes.
"""

# Columns of the layout's tables.
START, END, OWNER = 0, 1, 2
# The counters of a layout: rows in use, and where the next shared bytes go.
SPANS, SCOPES, RESOURCES, USED = 0, 1, 2, 3
# Columns of pieces.
PARTITION, FROM, TO, NUMBER = 0, 1, 2, 3
# What a span begins in its piece.
NEW_PIECE, NEW_RESOURCE, NEW_SCOPE, NOTHING_NEW = 0, 1, 2, 3


class Layout(NamedTuple):
    """Where a message's parts are. Rows only for what has spans; each table has room for as many as there are spans."""

    space: Bytes
    """The message, and behind it the fields that pieces share, put together, and spans that lost their parent ID."""
    spans: Ints
    """[n, 3]: range of the span's field in `space`, row of its scope."""
    scopes: Ints
    """[n, 3]: range of the other fields of the ScopeSpans, row of its resource."""
    resources: Ints
    """[n, 3]: range of the other fields of the ResourceSpans."""
    counters: Ints
    groups: Ints
    """Working memory of skipped groups."""


class Open(NamedTuple):
    """The messages that are open at a piece's end; a row per piece."""

    closed: Ints
    """Bytes of the ResourceSpans before the open one."""
    outer: Ints
    """Bytes of the open ResourceSpans, without the open ScopeSpans."""
    inner: Ints
    """Bytes of the open ScopeSpans."""
    resource_head: Ints
    """The first span of the open ResourceSpans."""
    scope_head: Ints
    """The first span of the open ScopeSpans."""


class Plan(NamedTuple):
    """Which piece each span goes to, and the lengths to be written before it."""

    pieces: Ints
    """[n, 4], of which the pieces' rows are used: partition, range in the output, spans."""
    span_piece: Ints
    """[n]."""
    scope_size: Ints
    """[n]: length of the ScopeSpans that the span begins in its piece; 0 if it begins none."""
    resource_size: Ints
    """[n]: length of the ResourceSpans that the span begins in its piece; 0 if it begins none."""
    state: Open
    """By piece."""


class Piece(NamedTuple):
    """One TracesData, for one partition, with `spans` spans."""

    partition: int
    value: bytes
    spans: int


class SpanTooLargeError(ValueError):
    """A single span makes a piece above the limit, even alone. `index` is its position in the message."""

    def __init__(self, index: int, limit: int) -> None:
        super().__init__(f"span {index} and its resource exceed the maximum record size of {limit} bytes")
        self.index = index
        self.limit = limit


class RepetitionError(ValueError):
    """The resources and scopes are too large to be repeated in each piece that needs them."""

    def __init__(self, repeated: int) -> None:
        super().__init__(
            f"the records would repeat {repeated} bytes of resources and scopes, more than {MOST_REPEATED_BYTES}; "
            "send less in them, or fewer spans in a request"
        )


def splice(
    message: bytes,
    partitions: npt.NDArray[np.int32],
    limit: int = NO_LIMIT,
    rootless: npt.NDArray[np.bool_] | None = None,
) -> list[Piece]:
    """The pieces of a message, ordered by their first spans; several for a partition where `limit` bytes need it.

    `partitions` has a number, from 0 on, for each span in the message's order (that of the scan's rows); where
    `rootless` is true, the span's parent ID is left out. The message must have been accepted by the scan: here anything
    malformed, and a wrong number of spans, is a ValueError. Raises `SpanTooLargeError`, `RepetitionError`.
    """
    count = len(partitions)
    if count == 0:
        return []
    numbers = np.ascontiguousarray(partitions, np.int32)
    drop = np.zeros(count, np.bool_) if rootless is None else rootless
    layout = empty_layout(len(message), count)
    layout.space[: len(message)] = np.frombuffer(message, np.uint8)
    if numbers.min() < 0 or not gather(layout, len(message), drop) or layout.counters[SPANS] != count:
        raise ValueError(f"the message isn't a TracesData of {count} spans, or there is a negative partition")
    plan = empty_plan(count)
    newest = np.full(int(numbers.max()) + 1, -1, np.int64)
    used, too_large = assign(layout, numbers, limit, newest, plan)
    if too_large >= 0:
        raise SpanTooLargeError(too_large, limit)
    return written(layout, plan, plan.pieces[:used], len(message))


def written(layout: Layout, plan: Plan, pieces: Ints, size: int) -> list[Piece]:
    """The pieces of a message of `size` bytes; their rows in the plan are `pieces`, at least one.

    Raises `RepetitionError`.
    """
    total = int(pieces[-1, TO])
    if total - size > MOST_REPEATED_BYTES:
        raise RepetitionError(total - size)
    value = np.empty(total, np.uint8)
    _written(layout, plan, pieces[:, FROM].copy(), value)
    return [Piece(partition, value[start:end].tobytes(), number) for partition, start, end, number in pieces.tolist()]


def empty_layout(size: int, count: int) -> Layout:
    """Room for a message of `size` bytes, which is still to be put in, and `count` spans."""
    space = np.empty(2 * size, np.uint8)  # what is put behind the message is never more than the message
    counters = np.zeros(4, np.int64)
    counters[USED] = size
    spans, scopes, resources = (np.empty((count, 3), np.int64) for _ in range(3))
    return Layout(space, spans, scopes, resources, counters, np.empty(MAX_DEPTH + 1, np.int64))


def empty_plan(count: int) -> Plan:
    """Room for the plan of so many spans."""
    zeros = np.zeros((2, count), np.int64)
    state = Open(*np.empty((5, count), np.int64))
    return Plan(np.zeros((count, 4), np.int64), np.empty(count, np.int64), zeros[0], zeros[1], state)


@kernel
def _copy_others(layout: Layout, start: int, end: int, without: int, to: int) -> int:
    """Copy a message's fields except those with the tag `without`; gives the position after them, -1 if malformed."""
    at = start
    while at < end:
        tag, _, after = field(layout.space, at, end, layout.groups)
        if after < 0:
            return -1
        if tag != without:
            to = copy(layout.space, to, layout.space, at, after)
        at = after
    return to


@kernel
def _without_parent(layout: Layout, start: int, end: int, to: int) -> int:
    """Write a span's field without its parent ID; gives the position after it, -1 if malformed."""
    size = 0
    at = start
    while at < end:
        tag, _, after = field(layout.space, at, end, layout.groups)
        if after < 0:
            return -1
        if tag != PARENT_SPAN_ID:
            size += after - at
        at = after
    return _copy_others(layout, start, end, PARENT_SPAN_ID, write_header(layout.space, to, NESTED, size))


@kernel
def gather(layout: Layout, end: int, drop: npt.NDArray[np.bool_]) -> bool:
    """Fill the layout; False if the message is malformed or has more spans than there are rows."""
    at = 0
    while at < end:
        tag, body, after = field(layout.space, at, end, layout.groups)
        if after < 0 or (tag == RESOURCE_SPANS and not _gather_resource(layout, body, after, drop)):
            return False
        at = after
    return True


@kernel
def _gather_resource(layout: Layout, start: int, end: int, drop: npt.NDArray[np.bool_]) -> bool:
    """The rows of one ResourceSpans; False as above."""
    counters = layout.counters
    spans_before, used_before = counters[SPANS], counters[USED]
    used = _copy_others(layout, start, end, NESTED, used_before)
    if used < 0:
        return False
    counters[USED] = used
    at = start
    while at < end:
        tag, body, after = field(layout.space, at, end, layout.groups)
        if tag == NESTED and not _gather_scope(layout, body, after, drop):
            return False
        at = after
    if counters[SPANS] == spans_before:
        counters[USED] = used_before
        return True
    row = counters[RESOURCES]
    layout.resources[row, START] = used_before
    layout.resources[row, END] = used
    counters[RESOURCES] += 1
    return True


@kernel
def _gather_scope(layout: Layout, start: int, end: int, drop: npt.NDArray[np.bool_]) -> bool:
    """The rows of one ScopeSpans; False as above."""
    counters = layout.counters
    spans_before, used_before = counters[SPANS], counters[USED]
    used = _copy_others(layout, start, end, NESTED, used_before)
    if used < 0:
        return False
    counters[USED] = used
    at = start
    while at < end:
        tag, body, after = field(layout.space, at, end, layout.groups)
        if tag == NESTED:
            row = counters[SPANS]
            if row == len(drop) or not _gather_span(layout, at, body, after, drop=drop[row]):
                return False
        at = after
    if counters[SPANS] == spans_before:
        counters[USED] = used_before
        return True
    row = counters[SCOPES]
    layout.scopes[row, START] = used_before
    layout.scopes[row, END] = used
    layout.scopes[row, OWNER] = counters[RESOURCES]
    counters[SCOPES] += 1
    return True


@kernel
def _gather_span(layout: Layout, at: int, body: int, end: int, drop: bool) -> bool:
    """The row of one span; False if it is malformed."""
    counters = layout.counters
    row = counters[SPANS]
    start, after = at, end
    if drop:
        start = counters[USED]
        after = _without_parent(layout, body, end, start)
        if after < 0:
            return False
        counters[USED] = after
    layout.spans[row, START] = start
    layout.spans[row, END] = after
    layout.spans[row, OWNER] = counters[SCOPES]
    counters[SPANS] += 1
    return True


@kernel
def _field_size(length: int) -> int:
    """The size of a field of `length` bytes, its length and a tag of one byte included."""
    return 1 + varint_size(length) + length


@kernel
def assign(layout: Layout, partitions: npt.NDArray[np.int32], limit: int, newest: Ints, plan: Plan) -> tuple[int, int]:
    """Give each span to the newest piece of its partition, or to a new one where the limit would be passed.

    `newest` has -1 for each partition. Gives the number of pieces, and the index of a span that is above the limit even
    alone (then there is no plan), else -1.
    """
    pieces, state = plan.pieces, plan.state
    used = 0
    for i in range(len(partitions)):
        piece = newest[partitions[i]]
        begins, closed, outer, inner = NEW_PIECE, 0, 0, 0
        if piece >= 0:
            begins, closed, outer, inner = _appended(layout, state, piece, i)
        if begins == NEW_PIECE or closed + _field_size(outer + _field_size(inner)) > limit:
            begins, closed, outer, inner = _alone(layout, i)
            if _field_size(outer + _field_size(inner)) > limit:
                return 0, i
            piece = used
            used += 1
            newest[partitions[i]] = piece
            pieces[piece, PARTITION] = partitions[i]
        if begins < NOTHING_NEW:
            state.scope_head[piece] = i
        if begins < NEW_SCOPE:
            state.resource_head[piece] = i
        state.closed[piece], state.outer[piece], state.inner[piece] = closed, outer, inner
        plan.scope_size[state.scope_head[piece]] = inner
        plan.resource_size[state.resource_head[piece]] = outer + _field_size(inner)
        plan.span_piece[i] = piece
        pieces[piece, NUMBER] += 1
    at = 0
    for piece in range(used):
        pieces[piece, FROM] = at
        at += state.closed[piece] + _field_size(state.outer[piece] + _field_size(state.inner[piece]))
        pieces[piece, TO] = at
    return used, -1


@kernel
def _appended(layout: Layout, state: Open, piece: int, i: int) -> tuple[int, int, int, int]:
    """What span `i` would begin in a piece, and the piece's closed, outer and inner bytes with it."""
    size = layout.spans[i, END] - layout.spans[i, START]
    scope = layout.spans[i, OWNER]
    open_scope = layout.spans[state.scope_head[piece], OWNER]
    closed, outer, inner = state.closed[piece], state.outer[piece], state.inner[piece]
    if open_scope == scope:
        return NOTHING_NEW, closed, outer, inner + size
    scope_bytes = layout.scopes[scope, END] - layout.scopes[scope, START]
    resource = layout.scopes[scope, OWNER]
    outer += _field_size(inner)
    if layout.scopes[open_scope, OWNER] == resource:
        return NEW_SCOPE, closed, outer, scope_bytes + size
    resource_bytes = layout.resources[resource, END] - layout.resources[resource, START]
    return NEW_RESOURCE, closed + _field_size(outer), resource_bytes, scope_bytes + size


@kernel
def _alone(layout: Layout, i: int) -> tuple[int, int, int, int]:
    """The same for a new piece."""
    scope = layout.spans[i, OWNER]
    resource = layout.scopes[scope, OWNER]
    resource_bytes = layout.resources[resource, END] - layout.resources[resource, START]
    scope_bytes = layout.scopes[scope, END] - layout.scopes[scope, START]
    return NEW_PIECE, 0, resource_bytes, scope_bytes + layout.spans[i, END] - layout.spans[i, START]


@kernel
def write(layout: Layout, plan: Plan, position: Ints, target: Bytes) -> None:
    """Write the pieces, one after the other; `position` has each one's beginning."""
    space = layout.space
    for i in range(layout.counters[SPANS]):
        piece = plan.span_piece[i]
        to = position[piece]
        scope = layout.spans[i, OWNER]
        if plan.resource_size[i] > 0:
            resource = layout.scopes[scope, OWNER]
            to = write_header(target, to, RESOURCE_SPANS, plan.resource_size[i])
            to = copy(target, to, space, layout.resources[resource, START], layout.resources[resource, END])
        if plan.scope_size[i] > 0:
            to = write_header(target, to, NESTED, plan.scope_size[i])
            to = copy(target, to, space, layout.scopes[scope, START], layout.scopes[scope, END])
        position[piece] = copy(target, to, space, layout.spans[i, START], layout.spans[i, END])


_written = direct(write)
