"""The scan: one pass over the wire bytes of many messages, into columns.

A stack machine over the tables of `messages`: the fields of the message being read are kept in a row of registers,
whatever their order, and go to the columns when the message is complete. A message that comes in several pieces (a
singular one that is there twice) finds the registers as its last piece left them, which is what merging means; so each
non-recursive message has a row of its own, the recursive ones (attribute values) have one per level.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from schemas.otlp import columns as col
from schemas.otlp.attributes import UNSET, WantedKeys, find_key
from schemas.otlp.columns import AttributeColumns, MessageColumns, ResourceColumns, SpanColumns
from schemas.otlp.messages import (
    ANY_VALUE,
    ARRAY,
    KEY_VALUE,
    KEY_VALUES,
    RESOURCE,
    RESOURCE_SPANS,
    SPAN,
    STATUS,
    TRACES,
    Action,
    Messages,
)
from schemas.otlp.wire import (
    DEPTH,
    MAX_DEPTH,
    TRUNCATED,
    Bytes,
    read_length,
    read_tag,
    skip,
    varint,
    varint_size,
)

Ints = npt.NDArray[np.int64]

# Numba knows no members of enums as cheap constants.
_UNKNOWN, _TEXT, _TEXTS, _MESSAGE, _MESSAGES = (int(action) for action in list(Action)[:5])
_FIXED64, _FIXED32, _INT64, _INT32, _UINT32, _BOOL = (int(action) for action in list(Action)[5:])

# Field numbers.
TRACE_ID, SPAN_ID, TRACE_STATE, PARENT_ID, NAME, KIND, START, END, ATTRIBUTES = range(1, 10)
STATUS_MESSAGE, STATUS_CODE = 2, 3
KEY, VALUE = 1, 2
RESOURCE_ATTRIBUTES = 1

FULL, NO_SPACE = 1, 2
"""Why the scan stopped before a message: no room for its rows, or none behind the data for values that it joins."""

MAX_LATENCY_NS = 1 << 53


class Registers(NamedTuple):
    """One row per message that may be open, one column per field number."""

    sizes: Ints
    """The canonical size of the field, tag included: 0 if it is unset."""
    values: Ints
    """A number, or where a text begins."""
    lengths: Ints
    last: Ints
    """[row]: the number of the field that was last set; of a oneof, the one that counts."""


class Stack(NamedTuple):
    """The open messages, one row per level."""

    message: Ints
    end: Ints
    field: Ints
    """The field number in the message around it."""


class Output(NamedTuple):
    """Everything that the scan writes; `counters` are rows in use, and the end of the data in use."""

    spans: SpanColumns
    resources: ResourceColumns
    messages: MessageColumns
    counters: Ints


def registers(tables: Messages) -> tuple[Registers, Stack]:
    """The working memory of a scan."""
    rows, fields = len(tables.children) + MAX_DEPTH + 1, tables.children.shape[1]
    sizes, values, lengths = (np.zeros((rows, fields), np.int64) for _ in range(3))
    levels = MAX_DEPTH + 1
    stack = Stack(np.zeros(levels, np.int64), np.zeros(levels, np.int64), np.zeros(levels, np.int64))
    return Registers(sizes, values, lengths, np.zeros(rows, np.int64)), stack


@numba.njit(cache=True, nogil=True)
def scan_messages(
    data: Bytes, ranges: Ints, first: int, tables: Messages, wanted: WantedKeys, regs: Registers, stack: Stack,
    out: Output,
) -> tuple[int, int]:  # fmt: skip
    """Scan the messages `ranges[first:]` (start, end, record). Gives the message at which it stopped, and why.

    A message that is refused leaves a row in `errors`, and none elsewhere.
    """
    counters = out.counters
    for m in range(first, len(ranges)):
        before = (counters[col.SPANS], counters[col.RESOURCES], counters[col.USED])
        record = ranges[m, 2]
        position, fault = _walk(data, ranges[m, 0], ranges[m, 1], record, tables, wanted, regs, stack, out)
        if fault == 0:
            out.messages.record[counters[col.MESSAGES]] = record
            counters[col.MESSAGES] += 1
            continue
        _take_back(out, before)
        if fault > 0:
            return m, fault
        error = counters[col.ERRORS]
        out.messages.errors[error, 0] = record
        out.messages.errors[error, 1] = position
        out.messages.errors[error, 2] = -fault
        counters[col.ERRORS] += 1
    return len(ranges), 0


@numba.njit(cache=True, nogil=True)
def _take_back(out: Output, before: tuple[int, int, int]) -> None:
    """Remove the rows of a message: attributes must be absent in rows that are not in use."""
    spans, resources = before[0], before[1]
    last = min(out.counters[col.SPANS] + 1, out.spans.ints.shape[1])
    out.spans.attributes.kind[:, spans:last] = 0
    last = min(out.counters[col.RESOURCES] + 1, out.resources.ints.shape[1])
    out.resources.attributes.kind[:, resources:last] = 0
    out.counters[col.SPANS], out.counters[col.RESOURCES], out.counters[col.USED] = before


@numba.njit(cache=True, nogil=True)
def _row(message: int, level: int, tables: Messages) -> int:
    return len(tables.children) + level if KEY_VALUE <= message <= KEY_VALUES else message


@numba.njit(cache=True, nogil=True)
def _clear(regs: Registers, row: int) -> None:
    regs.sizes[row, :] = 0
    regs.values[row, :] = 0
    regs.lengths[row, :] = 0
    regs.last[row] = 0


@numba.njit(cache=True, nogil=True)
def _clear_all(regs: Registers, message: int, level: int, tables: Messages) -> None:
    """Clear the registers of a message that begins, and of its singular ones."""
    _clear(regs, _row(message, level, tables))
    i = 0
    while tables.singular[message, i] >= 0:
        _clear(regs, _row(tables.singular[message, i], level + 1, tables))
        i += 1


@numba.njit(cache=True, nogil=True)
def _number(data: Bytes, action: int, at: int, end: int) -> tuple[int, int, int]:
    """A number: its bits, the position after it, its canonical size without the tag."""
    if action == _FIXED64:
        if end - at < 8:
            return 0, TRUNCATED, 8
        bits = np.uint64(0)
        for i in range(8):
            bits |= np.uint64(data[at + i]) << np.uint64(8 * i)
        return np.int64(bits), at + 8, 8
    if action == _FIXED32:
        if end - at < 4:
            return 0, TRUNCATED, 4
        value = 0
        for i in range(4):
            value |= np.int64(data[at + i]) << (8 * i)
        return value, at + 4, 4
    value, at = varint(data, at, end)
    if action == _INT32:
        value = np.int64(np.int32(value))
    elif action == _UINT32:
        value &= 0xFFFFFFFF
    elif action == _BOOL:
        value = np.int64(value != 0)
    return value, at, varint_size(value)


@numba.njit(cache=True, nogil=True)
def _field_size(number: int, length: int) -> int:
    """The size of a field of `length` bytes with its tag and length."""
    return (1 if number < 16 else 2) + varint_size(length) + length


@numba.njit(cache=True, nogil=True)
def _walk(
    data: Bytes, start: int, end: int, record: int, tables: Messages, wanted: WantedKeys, regs: Registers, stack: Stack,
    out: Output,
) -> tuple[int, int]:  # fmt: skip
    level, message, row, at = 0, TRACES, TRACES, start
    stack.message[0], stack.end[0] = message, end
    _clear(regs, row)
    while True:
        if at == end:
            if level == 0:
                return at, 0
            size = regs.sizes[row, regs.last[row]] if message == ANY_VALUE else regs.sizes[row, :].sum()
            field, child = stack.field[level], message
            level -= 1
            message, end = stack.message[level], stack.end[level]
            row = _row(message, level, tables)
            size = _field_size(field, size)
            if tables.actions[message, field << 3 | 2] == _MESSAGES:
                regs.sizes[row, field] += size
            else:
                regs.sizes[row, field] = size
            if child == KEY_VALUE:
                _attribute(data, message, field, level, tables, wanted, regs, out)
            elif child == SPAN:
                _span(record, regs, out)
            elif child == RESOURCE_SPANS:
                _resource(record, size, regs, out)
            continue
        field_at = at
        tag = np.int64(data[at])
        at += 1
        if tag >= 0x80:
            tag, at = read_tag(data, field_at, end)
            if at < 0:
                return field_at, at
        action = tables.actions[message, tag] if tag < tables.actions.shape[1] else _UNKNOWN
        field = tag >> 3
        if action == _UNKNOWN:
            at = skip(data, tag, at, end, level)
            if at < 0:
                return field_at, at
            continue
        if action >= _FIXED64:
            value, at, size = _number(data, action, at, end)
            if at < 0:
                return field_at, at
            regs.values[row, field] = value
            if message == ANY_VALUE:
                regs.values[row, field] = field_at
                regs.lengths[row, field] = at - field_at
                regs.last[row] = field
            elif value == 0:
                size = -(1 if field < 16 else 2)
            regs.sizes[row, field] = (1 if field < 16 else 2) + size
            continue
        length, at = read_length(data, at, end)
        if at < 0:
            return field_at, at
        if action == _TEXT:
            regs.values[row, field] = at
            regs.lengths[row, field] = length
            regs.sizes[row, field] = _field_size(field, length) if length > 0 or message == ANY_VALUE else 0
            regs.last[row] = field
            at += length
            continue
        if action == _TEXTS:
            regs.sizes[row, field] += _field_size(field, length)
            at += length
            continue
        if level == MAX_DEPTH:
            return field_at, DEPTH
        child = tables.children[message, field]
        if action == _MESSAGES:
            _clear_all(regs, child, level + 1, tables)
            if child == SPAN:
                if out.counters[col.SPANS] == out.spans.ints.shape[1]:
                    return at, FULL
            elif child == RESOURCE_SPANS and out.counters[col.RESOURCES] == out.resources.ints.shape[1]:
                return at, FULL
        elif message == ANY_VALUE:
            if regs.last[row] != field:
                _clear(regs, _row(child, level + 1, tables))
                regs.last[row] = field
                regs.values[row, field] = field_at
                regs.lengths[row, field] = at + length - field_at
            elif stack.message[level - 2] == SPAN or stack.message[level - 2] == RESOURCE:
                if not _join(data, row, field, field_at, at + length, regs, out):
                    return at, NO_SPACE
        level += 1
        stack.message[level], stack.field[level] = child, field
        end = at + length
        stack.end[level] = end
        message = child
        row = _row(message, level, tables)


@numba.njit(cache=True, nogil=True)
def _join(data: Bytes, row: int, field: int, start: int, end: int, regs: Registers, out: Output) -> bool:
    """Put a further piece of an attribute's value behind its first ones, in the space behind the messages."""
    used = out.counters[col.USED]
    offset, length = regs.values[row, field], regs.lengths[row, field]
    if offset + length == start:  # it is there already
        regs.lengths[row, field] = end - offset
        return True
    moved = 0 if offset + length == used else length
    if used + moved + end - start > len(data):
        return False
    for i in range(moved):
        data[used + i] = data[offset + i]
    if moved:
        regs.values[row, field] = used
        used += moved
    for i in range(end - start):
        data[used + i] = data[start + i]
    regs.lengths[row, field] = length + end - start
    out.counters[col.USED] = used + end - start
    return True


@numba.njit(cache=True, nogil=True)
def _attribute(
    data: Bytes,
    message: int,
    field: int,
    level: int,
    tables: Messages,
    wanted: WantedKeys,
    regs: Registers,
    out: Output,
) -> None:
    """A complete attribute, of a message at `level`."""
    key_value = _row(KEY_VALUE, level + 1, tables)
    value = _row(ANY_VALUE, level + 2, tables)
    kind = regs.last[value]
    if kind == 0:
        kind = UNSET
    at, length = regs.values[key_value, KEY], regs.lengths[key_value, KEY]
    if message == SPAN:
        found, rows = out.spans.attributes, out.counters[col.SPANS]
    elif message == RESOURCE:
        found, rows = out.resources.attributes, out.counters[col.RESOURCES]
    else:
        return
    offset, size = (0, 0) if kind == UNSET else (regs.values[value, kind], regs.lengths[value, kind])
    _found(data, at, length, kind, offset, size, wanted, found, rows)


@numba.njit(cache=True, nogil=True)
def _found(
    data: Bytes, key_at: int, key_length: int, kind: int, offset: int, length: int, wanted: WantedKeys,
    attributes: AttributeColumns, row: int,
) -> None:  # fmt: skip
    """Enter an attribute if its key is wanted and wasn't there before (PRIM-1)."""
    key = find_key(wanted, data, key_at, key_length)
    if key >= 0 and attributes.kind[key, row] == 0:
        attributes.kind[key, row] = kind
        attributes.offset[key, row] = offset
        attributes.length[key, row] = length


@numba.njit(cache=True, nogil=True)
def _text(ints: npt.NDArray[np.int32], column: int, n: int, regs: Registers, row: int, field: int) -> None:
    ints[column, n] = regs.values[row, field]
    ints[column + 1, n] = regs.lengths[row, field]


@numba.njit(cache=True, nogil=True)
def _span(record: int, regs: Registers, out: Output) -> None:
    """A complete span."""
    n = out.counters[col.SPANS]
    ints, longs = out.spans.ints, out.spans.longs
    ints[col.RESOURCE, n] = out.counters[col.RESOURCES]
    ints[col.RECORD, n] = record
    ints[col.KIND, n] = regs.values[SPAN, KIND]
    ints[col.STATUS_CODE, n] = regs.values[STATUS, STATUS_CODE]
    _text(ints, col.TRACE_ID, n, regs, SPAN, TRACE_ID)
    _text(ints, col.SPAN_ID, n, regs, SPAN, SPAN_ID)
    _text(ints, col.PARENT_ID, n, regs, SPAN, PARENT_ID)
    _text(ints, col.NAME, n, regs, SPAN, NAME)
    _text(ints, col.TRACE_STATE, n, regs, SPAN, TRACE_STATE)
    _text(ints, col.STATUS_MESSAGE, n, regs, STATUS, STATUS_MESSAGE)
    start, end = np.uint64(regs.values[SPAN, START]), np.uint64(regs.values[SPAN, END])
    latency = end - start if end > start else np.uint64(0)
    longs[col.START_NS, n], longs[col.END_NS, n] = np.int64(start), np.int64(end)
    longs[col.LATENCY_NS, n] = np.int64(latency) if latency <= np.uint64(MAX_LATENCY_NS) else -1
    longs[col.SPAN_SIZE, n] = regs.sizes[SPAN, :].sum()
    out.counters[col.SPANS] = n + 1


@numba.njit(cache=True, nogil=True)
def _resource(record: int, size: int, regs: Registers, out: Output) -> None:
    """A complete ResourceSpans."""
    n = out.counters[col.RESOURCES]
    out.resources.ints[col.MESSAGE, n] = out.counters[col.MESSAGES]
    out.resources.ints[col.RESOURCE_RECORD, n] = record
    out.resources.size[n] = regs.sizes[RESOURCE_SPANS, :].sum()
    out.counters[col.RESOURCES] = n + 1
