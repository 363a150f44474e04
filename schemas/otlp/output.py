"""Writing the columns, in numba kernels."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.otlp import columns as col
from schemas.otlp.attributes import DOUBLE, STRING, Mode, Plain, WantedKeys, find_key
from schemas.otlp.columns import AttributeColumns, MessageColumns, ResourceColumns, SpanColumns
from schemas.otlp.jit import inlined, kernel
from schemas.otlp.machine import Ints, Registers, u
from schemas.otlp.messages import RESOURCE, SPAN, STATUS
from schemas.otlp.wire import Bytes, word_at

# Field numbers of Span and of Status.
TRACE_ID, SPAN_ID, TRACE_STATE, PARENT_ID, NAME, KIND, START, END = range(1, 9)
STATUS_MESSAGE, STATUS_CODE = 2, 3

MAX_LATENCY_NS = 1 << 53

_FIRST, _FIRST_POSITIVE_DOUBLE = int(Mode.FIRST), int(Mode.FIRST_POSITIVE_DOUBLE)
_INFINITY = 0x7FF << 52
"""The bits of a double: above 0 are those from 1 up to these; signed, those of negative ones are below 0."""


class Output(NamedTuple):
    """Everything that the scan writes; `counters` are rows in use, and the end of the data in use."""

    spans: SpanColumns
    resources: ResourceColumns
    messages: MessageColumns
    counters: Ints


@inlined
def attributes_of(message: int, out: Output) -> tuple[AttributeColumns, int]:
    """Where the attributes of a message go: columns and row, which is -1 if they go nowhere."""
    if message == SPAN:
        return out.spans.attributes, out.counters[col.SPANS]
    return out.resources.attributes, out.counters[col.RESOURCES] if message == RESOURCE else -1


@kernel
def take_back(out: Output, before: tuple[int, int, int]) -> None:
    """Remove the rows of a message: attributes must be absent in rows that are not in use."""
    _forget(out.spans.attributes, before[0], out.counters[col.SPANS])
    _forget(out.resources.attributes, before[1], out.counters[col.RESOURCES])
    out.counters[col.SPANS], out.counters[col.RESOURCES], out.counters[col.USED] = before


@kernel
def _forget(attributes: AttributeColumns, start: int, end: int) -> None:
    """Make the attributes of rows absent, of the half-filled row `end` too."""
    keys, rows = attributes.kind.shape
    for key in range(keys):
        for row in range(start, min(end + 1, rows)):
            attributes.kind[key, row] = 0


@inlined
def enter_attribute(data: Bytes, attribute: Plain, wanted: WantedKeys, columns: AttributeColumns, row: int) -> None:
    """Enter an attribute where its key is wanted and none was entered before that counts (PRIM-1)."""
    key = find_key(wanted, data, attribute.key_at, attribute.key_length)
    if key < 0:
        return
    if not wanted.plain[key]:
        _enter_by_mode(data, attribute, wanted, columns, row, key)
    elif columns.kind[key, row] == 0:
        columns.kind[key, row] = attribute.kind
        columns.offset[key, row] = attribute.offset
        columns.length[key, row] = attribute.length


@kernel
def _enter_by_mode(
    data: Bytes, attribute: Plain, wanted: WantedKeys, columns: AttributeColumns, row: int, key: int
) -> None:
    """Enter an attribute for all keys with its name. Kept out of the loop over attributes, which it made 7% slower."""
    while key >= 0:
        if columns.kind[key, row] == 0 and _counts(data, attribute, wanted.modes[key]):
            columns.kind[key, row] = attribute.kind
            columns.offset[key, row] = attribute.offset
            columns.length[key, row] = attribute.length
        key = np.int64(wanted.twins[key])  # type: ignore[assignment]  # numba: int


@kernel
def _counts(data: Bytes, attribute: Plain, mode: int) -> bool:
    """Whether an attribute is one that the mode looks for."""
    if mode == _FIRST:
        return True
    if mode == _FIRST_POSITIVE_DOUBLE:
        if attribute.kind != DOUBLE:
            return False
        bits = word_at(data, attribute.offset + attribute.length - 8)
        return 0 < bits <= _INFINITY
    return bool(attribute.kind == STRING and attribute.length > 0)


@inlined
def _text(ints: npt.NDArray[np.int32], column: int, n: int, regs: Registers, row: int, field: int) -> None:
    ints[column, n] = regs.values[u(row), u(field)]
    ints[column + 1, n] = regs.lengths[u(row), u(field)] if regs.sizes[u(row), u(field)] > 0 else 0


@inlined
def _value(regs: Registers, row: int, field: int) -> int:
    return regs.values[u(row), u(field)] if regs.sizes[u(row), u(field)] > 0 else 0


@inlined
def add_span(record: int, size: int, regs: Registers, out: Output) -> None:
    """Write the row of a complete span of this size: its fields and its status are in the registers."""
    n = out.counters[col.SPANS]
    ints, longs = out.spans.ints, out.spans.longs
    ints[col.RESOURCE, n] = out.counters[col.RESOURCES]
    ints[col.RECORD, n] = record
    ints[col.INDEX, n] = n - out.counters[col.FIRST_SPAN]
    ints[col.KIND, n] = _value(regs, SPAN, KIND)
    ints[col.STATUS_CODE, n] = _value(regs, STATUS, STATUS_CODE)
    _text(ints, col.TRACE_ID, n, regs, SPAN, TRACE_ID)
    _text(ints, col.SPAN_ID, n, regs, SPAN, SPAN_ID)
    _text(ints, col.PARENT_ID, n, regs, SPAN, PARENT_ID)
    _text(ints, col.NAME, n, regs, SPAN, NAME)
    _text(ints, col.TRACE_STATE, n, regs, SPAN, TRACE_STATE)
    _text(ints, col.STATUS_MESSAGE, n, regs, STATUS, STATUS_MESSAGE)
    start, end = np.uint64(_value(regs, SPAN, START)), np.uint64(_value(regs, SPAN, END))
    latency = end - start if end > start else np.uint64(0)
    longs[col.START_NS, n], longs[col.END_NS, n] = np.int64(start), np.int64(end)
    longs[col.LATENCY_NS, n] = np.int64(min(latency, np.uint64(MAX_LATENCY_NS)))
    ints[col.CLAMPED, n] = latency > np.uint64(MAX_LATENCY_NS)
    longs[col.SPAN_SIZE, n] = size
    out.counters[col.SPANS] = n + 1


@inlined
def add_resource(record: int, size: int, out: Output) -> None:
    """Write the row of a complete ResourceSpans of this size."""
    n = out.counters[col.RESOURCES]
    out.resources.ints[col.MESSAGE, n] = out.counters[col.MESSAGES]
    out.resources.ints[col.RESOURCE_RECORD, n] = record
    out.resources.ints[col.SPAN_COUNT, n] += out.counters[col.SPANS]
    out.resources.size[n] = size
    out.counters[col.RESOURCES] = n + 1
