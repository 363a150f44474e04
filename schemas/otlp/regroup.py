"""Requests cut by partition: scanned, their IDs checked, their spans spliced, in working memory that is used again."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from schemas.errors import Malformed
from schemas.otlp import columns as col
from schemas.otlp.attributes import wanted_keys
from schemas.otlp.frame import Strings
from schemas.otlp.jit import direct, kernel
from schemas.otlp.kernel import scan_messages
from schemas.otlp.machine import Ints, Machine, machine
from schemas.otlp.output import Output
from schemas.otlp.routing import TRACE_ID_BYTES, Ids, Routes, invalid_id, route_spans
from schemas.otlp.scan import FAULT_TEXTS, empty_output
from schemas.otlp.splice import (
    NUMBER,
    USED,
    Layout,
    Piece,
    Plan,
    SpanTooLargeError,
    assign,
    empty_layout,
    empty_plan,
    gather,
    written,
)
from schemas.otlp.survey import Survey, slots_for, survey
from schemas.otlp.truncate import NOTHING_CUT, truncated
from schemas.otlp.wire import Fault

KEPT_BYTES = 1 << 20
"""Working memory for requests up to this size is kept; a larger one has its own."""
BYTES_PER_SPAN = 128
"""Rows are set aside for spans of this size; where they are smaller, there are more."""
SMALLEST_SPAN_BYTES = 30
"""A span with nothing but its IDs: no valid request needs more rows than it has room for such spans."""

CROWDED = "too many spans without IDs, or resources without spans"
"""Why a request was refused: rows for all that could be in it would take a hundred times its size."""

# What became of a request, and what the two numbers beside it are.
CUT, MALFORMED, INVALID_ID, TOO_LARGE, NO_ROOM = range(5)
"""Pieces and the request's bytes; position and fault; an ID's fault and its bits; the span; nothing (want of room)."""


class Workspace(NamedTuple):
    """Working memory for one request at a time."""

    state: Machine
    out: Output
    ranges: Ints
    routes: Routes
    layout: Layout
    plan: Plan
    newest: Ints
    """By partition: its piece."""
    hex_digits: npt.NDArray[np.uint8]


class Read(NamedTuple):
    """What is known of a request before it is cut."""

    spans: int
    truncated: tuple[int, ...]
    """By `truncate.Scope`: keys and values of attributes that were too long."""
    example: bytes
    """The first attribute with one, a KeyValue; empty if there is none."""


class Regrouping:
    """Cuts requests (ExportTraceServiceRequest, which is a TracesData on the wire), one after the other.

    A piece is for one of `partitions` partitions and has at most `limit` bytes. For one thread: the memory is shared.
    """

    def __init__(self, partitions: int, limit: int) -> None:
        self._partitions, self._limit = partitions, limit
        self._kept = self._work = self._workspace(KEPT_BYTES // 4)
        self._outcome = CUT, 0, 0
        self._slots = slots_for(len(self._kept.routes.partitions))

    def read(self, body: bytes, max_attribute_bytes: int = 0) -> Read:
        """Begin with a request; keys and string values of attributes are cut, unless their limit is 0.

        Raises Malformed for what protobuf's own parser refuses, and for a request that is `CROWDED`.
        """
        if not 0 < max_attribute_bytes < len(body):
            return Read(self._spans(body), NOTHING_CUT, b"")
        value, cut, example = truncated(body, max_attribute_bytes)
        try:
            return Read(self._spans(value), cut, example)
        except Malformed:
            return Read(self._spans(body), NOTHING_CUT, b"")  # malformed too, at a position that the client knows

    def pieces(self) -> list[Piece]:
        """The pieces of the request that was read last, each a TracesData, ordered by their first spans.

        Raises `InvalidIdError`, `SpanTooLargeError`, `RepetitionError`.
        """
        work, (outcome, first, second) = self._work, self._outcome
        if outcome == INVALID_ID:
            raise invalid_id(first, second)
        if outcome == TOO_LARGE:
            raise SpanTooLargeError(first, self._limit)
        return written(work.layout, work.plan, work.plan.pieces[:first], second) if first else []

    def survey(self, now_s: int) -> Survey:
        """What the spans of the request that was read last are like, once it has given its pieces."""
        ints, longs, counters = self._work.out.spans.ints, self._work.out.spans.longs, self._work.out.counters
        count = int(counters[col.SPANS])
        slots = self._slots if 4 * count <= len(self._slots) else slots_for(count)
        data = self._work.layout.space
        return survey(data, ints[col.TRACE_ID, :count], longs[col.END_NS, :count], now_s, slots)

    def _spans(self, body: bytes) -> int:
        """Scan and cut; gives the number of spans."""
        size = len(body)
        work, outcome = self._attempt(body, self._room_for(size))
        rows = size // SMALLEST_SPAN_BYTES + 1
        if outcome[0] == NO_ROOM and len(work.routes.partitions) < rows:
            work, outcome = self._attempt(body, self._workspace(size, rows))
        if outcome[0] == NO_ROOM:
            raise Malformed(CROWDED, f"more than {len(work.routes.partitions)} in {size} bytes")
        self._work, self._outcome = work, outcome
        if outcome[0] == MALFORMED:
            _, position, fault = outcome
            raise Malformed(FAULT_TEXTS[Fault(fault)], position=position)
        return int(work.out.counters[col.SPANS])

    def _attempt(self, body: bytes, work: Workspace) -> tuple[Workspace, tuple[int, int, int]]:
        """Scan and cut in this memory; gives it, and what became of the request."""
        size = len(body)
        work.layout.space[:size] = np.frombuffer(body, np.uint8)
        return work, _cut(size, self._partitions, self._limit, work)

    def _room_for(self, size: int) -> Workspace:
        """The kept memory, which grows up to a limit, or memory for this request alone."""
        if 2 * size <= len(self._kept.layout.space):
            return self._kept
        work = self._workspace(size)
        if size <= KEPT_BYTES:
            self._kept = work
        return work

    def _workspace(self, size: int, rows: int = 0) -> Workspace:
        rows = max(rows, size // BYTES_PER_SPAN)
        layout = empty_layout(size, rows)
        return Workspace(
            state=machine(wanted_keys(())),
            out=empty_output(size, rows, rows, 1, 0),
            ranges=np.zeros((1, 3), np.int64),
            routes=Routes(np.empty(rows, np.int32), np.empty(rows, np.bool_)),
            layout=layout,
            plan=empty_plan(rows),
            newest=np.empty(self._partitions, np.int64),
            hex_digits=np.empty(2 * TRACE_ID_BYTES, np.uint8),
        )


def rehearse() -> None:
    """Go through the kernels with a small request: the first call compiles or loads them, for seconds."""
    span = Span(trace_id=b"t" * 16, span_id=b"s" * 8, attributes=[KeyValue(key="long")])
    request = TracesData(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])])
    regrouping = Regrouping(1, KEPT_BYTES)
    regrouping.read(request.SerializeToString(), 1)
    regrouping.pieces()
    regrouping.survey(0)


@kernel
def _regroup(size: int, partitions: int, limit: int, work: Workspace) -> tuple[int, int, int]:
    """Fill the layout and the plan for the request at the beginning of the layout's space; gives what became of it.

    One kernel for all steps: each call takes apart so many arrays.
    """
    out, layout, plan = work.out, work.layout, work.plan
    for i in range(col.COUNTERS):
        out.counters[i] = 0
    out.counters[col.USED], out.counters[col.THIS_RECORD] = size, -1
    work.ranges[0, 1] = size
    scanned, _ = scan_messages(layout.space, work.ranges, 0, work.state, out)
    count = out.counters[col.SPANS]
    if scanned == 0 or count > len(work.routes.partitions):
        return NO_ROOM, 0, 0
    if out.counters[col.ERRORS] > 0:
        return MALFORMED, out.messages.errors[0, 1], out.messages.errors[0, 2]
    if count == 0:
        return CUT, 0, 0
    ints = out.spans.ints
    ids = Ids(
        Strings(ints[col.TRACE_ID], ints[col.TRACE_ID + 1]),
        Strings(ints[col.SPAN_ID], ints[col.SPAN_ID + 1]),
        Strings(ints[col.PARENT_ID], ints[col.PARENT_ID + 1]),
    )
    routes = Routes(work.routes.partitions[:count], work.routes.rootless[:count])
    fault, bits = route_spans(layout.space, ids, partitions, routes, work.hex_digits)
    if fault != 0:
        return INVALID_ID, fault, bits
    for i in range(len(layout.counters)):
        layout.counters[i] = 0
    layout.counters[USED] = size
    gather(layout, size, routes.rootless)  # what the scan accepted is whole
    for i in range(partitions):
        work.newest[i] = -1
    for i in range(count):
        plan.scope_size[i] = 0
        plan.resource_size[i] = 0
        plan.pieces[i, NUMBER] = 0
    pieces, too_large = assign(layout, routes.partitions, limit, work.newest, plan)
    return (TOO_LARGE, too_large, 0) if too_large >= 0 else (CUT, pieces, size)


_cut = direct(_regroup)
