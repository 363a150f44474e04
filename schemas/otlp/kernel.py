"""The scan: one pass over the wire bytes of many messages, into columns.

A stack machine over the tables of `messages`: the fields of the message being read are kept in a row of registers,
whatever their order, and go to the columns when the message is complete. A message that comes in several pieces (a
singular one that is there twice) finds the registers as its last piece left them, which is what merging means; so each
non-recursive message has a row of its own, the recursive ones (attribute values) have one per level.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.otlp import columns as col
from schemas.otlp.attributes import UNSET, Plain, WantedKeys, find_key, plain_attribute, short_length
from schemas.otlp.columns import AttributeColumns, MessageColumns, ResourceColumns, SpanColumns
from schemas.otlp.jit import inlined, kernel
from schemas.otlp.messages import (
    ANY_VALUE,
    FIELDS,
    KEY_VALUE,
    KEY_VALUES,
    RESOURCE,
    RESOURCE_SPANS,
    SPAN,
    STATUS,
    TRACES,
    Action,
    Messages,
    messages,
)
from schemas.otlp.wire import (
    DEPTH,
    MAX_DEPTH,
    TRUNCATED,
    Bytes,
    byte_at,
    half_at,
    read_length,
    read_tag,
    read_varint,
    skip,
    varint_size,
    word_at,
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
    """The canonical size of the field, tag included: 0 if it is unset, of a number or a text also if it is 0 or empty.

    Only these are cleared when a message begins: values and lengths mean nothing where the size is 0.
    """
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


class Machine(NamedTuple):
    """Tables and working memory of a scan."""

    tables: Messages
    wanted: WantedKeys
    regs: Registers
    stack: Stack


def machine(wanted: WantedKeys) -> Machine:
    """A machine that looks for these keys."""
    tables = messages()
    levels = MAX_DEPTH + 1
    rows = len(tables.children) + levels + 1  # an attribute of the last level clears the value that it can't have
    sizes, values, lengths = (np.zeros((rows, FIELDS), np.int64) for _ in range(3))
    stack = Stack(np.zeros(levels, np.int64), np.zeros(levels, np.int64), np.zeros(levels, np.int64))
    return Machine(tables, wanted, Registers(sizes, values, lengths, np.zeros(rows, np.int64)), stack)


@kernel
def scan_messages(data: Bytes, ranges: Ints, first: int, state: Machine, out: Output) -> tuple[int, int]:
    """Scan the messages `ranges[first:]` (start, end, record). Gives the message at which it stopped, and why.

    A message that is refused leaves a row in `errors`, and none elsewhere.
    """
    counters = out.counters
    for m in range(first, len(ranges)):
        before = (counters[col.SPANS], counters[col.RESOURCES], counters[col.USED])
        record = ranges[m, 2]
        position, fault = _walk(data, ranges[m, 0], ranges[m, 1], record, state, out)
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


@kernel
def _take_back(out: Output, before: tuple[int, int, int]) -> None:
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
def _row(message: int, level: int, tables: Messages) -> int:
    """The row of registers of a message."""
    return len(tables.children) + level if KEY_VALUE <= message <= KEY_VALUES else message


@inlined
def _clear(regs: Registers, row: int) -> None:
    for field in range(FIELDS):
        regs.sizes[row, field] = 0
    regs.last[row] = 0


@inlined
def _total(regs: Registers, row: int) -> int:
    """The canonical size of a message that isn't an AnyValue."""
    total = 0
    for field in range(FIELDS):
        total += regs.sizes[row, field]
    return total


@inlined
def _field_size(field: int, length: int) -> int:
    """The size of a field of `length` bytes with its tag and its length."""
    return (1 if field < 16 else 2) + varint_size(length) + length


@inlined
def _walk(data: Bytes, start: int, end: int, record: int, state: Machine, out: Output) -> tuple[int, int]:
    """Read a TracesData. Gives 0, or the position of the field that can't be read and why, or why it has to stop."""
    tables, _, regs, stack = state
    level, message, row, at = 0, TRACES, TRACES, start
    stack.message[0], stack.end[0] = message, end
    while True:
        if at == end:
            if level == 0:
                return at, 0
            _close(data, record, level, state, out)
            level -= 1
            message, end = stack.message[level], stack.end[level]
            row = _row(message, level, tables)
            continue
        field_at = at
        tag, at = read_tag(data, at, end)
        if at < 0:
            return field_at, at
        field = tag >> 3
        action = tables.actions[message, tag] if field < FIELDS else _UNKNOWN
        if action == _MESSAGE or action == _MESSAGES:
            length, at = read_length(data, at, end)
            if at < 0:
                return field_at, at
            child = tables.children[message, field]
            if child == KEY_VALUE and level <= MAX_DEPTH - 2:
                after, size = _plain_attributes(data, tag, field_at, end, state.wanted, *_place(message, out))
                if after > field_at:
                    regs.sizes[row, field] += size
                    at = after
                    continue
            level += 1
            fault = _open(data, field_at, at, at + length, action, child, field, level, state, out)
            if fault != 0:
                return field_at, fault
            end = at + length
            message = child
            row = _row(message, level, tables)
        elif action == _UNKNOWN:
            at = skip(data, tag, at, end, level, stack.field)
        else:
            at = _read(data, action, field, field_at, at, end, message, row, regs)
        if at < 0:
            return field_at, at


@inlined
def _read(
    data: Bytes, action: int, field: int, field_at: int, at: int, end: int, message: int, row: int, regs: Registers
) -> int:
    """Read a field that isn't a message into the registers; gives the position after it."""
    tag_size = 1 if field < 16 else 2
    if action == _TEXT or action == _TEXTS:
        length, at = read_length(data, at, end)
        size = tag_size + varint_size(length) + length
        value, unset = at, length == 0
        regs.lengths[row, field] = length
        at += length
        if action == _TEXTS:
            regs.sizes[row, field] += size
            return at
    else:
        value, at, size = _number(data, action, at, end)
        size += tag_size
        unset = value == 0
        if message == ANY_VALUE:
            value = field_at
            regs.lengths[row, field] = at - field_at
    regs.values[row, field] = value
    regs.sizes[row, field] = 0 if unset and message != ANY_VALUE else size
    regs.last[row] = field
    return at


@inlined
def _number(data: Bytes, action: int, at: int, end: int) -> tuple[int, int, int]:
    """A number: its bits, the position after it, its canonical size without the tag."""
    if action == _FIXED64:
        return (word_at(data, at), at + 8, 8) if end - at >= 8 else (0, TRUNCATED, 8)
    if action == _FIXED32:
        return (half_at(data, at), at + 4, 4) if end - at >= 4 else (0, TRUNCATED, 4)
    value, at = read_varint(data, at, end)
    if action == _INT32:
        value = int(np.int32(value))
    elif action == _UINT32:
        value &= 0xFFFFFFFF
    elif action == _BOOL:
        value = 1 if value != 0 else 0
    return value, at, varint_size(value)


@inlined
def _place(message: int, out: Output) -> tuple[AttributeColumns, int]:
    """Where the attributes of a message go: columns and row, which is -1 if they go nowhere."""
    if message == SPAN:
        return out.spans.attributes, out.counters[col.SPANS]
    return out.resources.attributes, out.counters[col.RESOURCES] if message == RESOURCE else -1


@kernel
def _plain_attributes(
    data: Bytes, tag: int, at: int, end: int, wanted: WantedKeys, columns: AttributeColumns, row: int
) -> tuple[int, int]:
    """Take the plain attributes that follow each other, with this tag. Gives the position after them, and their size.

    They are entered in a row of the columns unless that is negative. Kept out of `_walk`, where there are not enough
    processor registers: attributes are two thirds of the bytes.
    """
    start = at
    while at < end and byte_at(data, at) == tag:
        length, body = short_length(data, at + 1, end)
        if length == 0 or length > end - body:
            break
        plain = plain_attribute(data, body, body + length)
        if plain.kind == 0:
            break
        if row >= 0:
            _enter(data, plain, wanted, columns, row)
        at = body + length
    return at, at - start


@kernel
def _open(
    data: Bytes, field_at: int, at: int, end: int, action: int, message: int, field: int, level: int, state: Machine,
    out: Output,
) -> int:  # fmt: skip
    """Begin to read a message at `level`; gives 0, or why that can't be."""
    tables, _, regs, stack = state
    if level > MAX_DEPTH:
        return DEPTH
    row = _row(message, level, tables)
    if action == _MESSAGES:
        if message == SPAN and out.counters[col.SPANS] == out.spans.ints.shape[1]:
            return FULL
        if message == RESOURCE_SPANS and out.counters[col.RESOURCES] == out.resources.ints.shape[1]:
            return FULL
        _clear(regs, row)
        i = 0
        while tables.singular[message, i] >= 0:
            _clear(regs, _row(tables.singular[message, i], level + 1, tables))
            i += 1
    elif stack.message[level - 1] == ANY_VALUE:
        around = _row(ANY_VALUE, level - 1, tables)
        if regs.last[around] != field:
            _clear(regs, row)
            regs.last[around] = field
            regs.values[around, field], regs.lengths[around, field] = field_at, end - field_at
        elif (stack.message[level - 3] == SPAN or stack.message[level - 3] == RESOURCE) and not _join(
            data, around, field, field_at, end, regs, out
        ):
            return NO_SPACE
    stack.message[level], stack.field[level], stack.end[level] = message, field, end
    return 0


@kernel
def _join(data: Bytes, row: int, field: int, start: int, end: int, regs: Registers, out: Output) -> bool:
    """Put a further piece of an attribute's value behind its first ones; False if there is no space behind the data."""
    offset, length = regs.values[row, field], regs.lengths[row, field]
    if offset + length == start:  # it is there already
        regs.lengths[row, field] = end - offset
        return True
    used = out.counters[col.USED]
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


@kernel
def _close(data: Bytes, record: int, level: int, state: Machine, out: Output) -> None:
    """A message at `level` is complete: its size goes to the message around it, its row to the columns."""
    tables, _, regs, stack = state
    message, around, field = stack.message[level], stack.message[level - 1], stack.field[level]
    row, row_around = _row(message, level, tables), _row(around, level - 1, tables)
    content = regs.sizes[row, regs.last[row]] if message == ANY_VALUE else _total(regs, row)
    size = _field_size(field, content)
    if tables.actions[around, field << 3 | 2] == _MESSAGES:
        size += regs.sizes[row_around, field]
    regs.sizes[row_around, field] = size
    if message == SPAN:
        _add_span(record, content, regs, out)
    elif message == RESOURCE_SPANS:
        _add_resource(record, content, out)
    elif message == KEY_VALUE and (around == SPAN or around == RESOURCE):
        value = _row(ANY_VALUE, level + 1, tables)
        kind = regs.last[value]
        key_length = regs.lengths[row, KEY] if regs.sizes[row, KEY] > 0 else 0
        attribute = Plain(
            regs.values[row, KEY],
            key_length,
            kind if kind > 0 else UNSET,
            regs.values[value, kind],
            regs.lengths[value, kind],
        )
        columns, n = _place(around, out)
        _enter(data, attribute, state.wanted, columns, n)


@inlined
def _enter(data: Bytes, attribute: Plain, wanted: WantedKeys, columns: AttributeColumns, row: int) -> None:
    """Enter an attribute if its key is wanted and wasn't there before (PRIM-1)."""
    key = find_key(wanted, data, attribute.key_at, attribute.key_length)
    if key >= 0 and columns.kind[key, row] == 0:
        columns.kind[key, row] = attribute.kind
        columns.offset[key, row] = attribute.offset
        columns.length[key, row] = attribute.length


@inlined
def _text(ints: npt.NDArray[np.int32], column: int, n: int, regs: Registers, row: int, field: int) -> None:
    ints[column, n] = regs.values[row, field]
    ints[column + 1, n] = regs.lengths[row, field] if regs.sizes[row, field] > 0 else 0


@inlined
def _value(regs: Registers, row: int, field: int) -> int:
    return regs.values[row, field] if regs.sizes[row, field] > 0 else 0


@inlined
def _add_span(record: int, size: int, regs: Registers, out: Output) -> None:
    n = out.counters[col.SPANS]
    ints, longs = out.spans.ints, out.spans.longs
    ints[col.RESOURCE, n] = out.counters[col.RESOURCES]
    ints[col.RECORD, n] = record
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
    longs[col.LATENCY_NS, n] = np.int64(latency) if latency <= np.uint64(MAX_LATENCY_NS) else -1
    longs[col.SPAN_SIZE, n] = size
    out.counters[col.SPANS] = n + 1


@inlined
def _add_resource(record: int, size: int, out: Output) -> None:
    n = out.counters[col.RESOURCES]
    out.resources.ints[col.MESSAGE, n] = out.counters[col.MESSAGES]
    out.resources.ints[col.RESOURCE_RECORD, n] = record
    out.resources.size[n] = size
    out.counters[col.RESOURCES] = n + 1
