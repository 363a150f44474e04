"""The scan: one pass over the wire bytes of many messages, into columns.

A stack machine over the tables of `messages`: the fields of the message being read are kept in a row of registers,
whatever their order, and go to the columns when the message is complete. A message that comes in several pieces (a
singular one that is there twice) finds the registers as its last piece left them, which is what merging means; so each
non-recursive message has a row of its own, the recursive ones (attribute values) have one per level.
"""

import numpy as np

from schemas.otlp import columns as col
from schemas.otlp.attributes import UNSET, Plain, WantedKeys, plain_attribute, short_length
from schemas.otlp.columns import AttributeColumns
from schemas.otlp.jit import inlined, kernel
from schemas.otlp.machine import Ints, Machine, Registers, clear, field_size, row_of, total_size, u
from schemas.otlp.messages import (
    ANY_VALUE,
    FIELDS,
    KEY_VALUE,
    RESOURCE,
    RESOURCE_SPANS,
    SPAN,
    TAGS,
    TRACES,
    Action,
)
from schemas.otlp.output import Output, add_resource, add_span, attributes_of, enter_attribute, take_back
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

# Numba has no cheap constants out of enums.
_UNKNOWN, _TEXT, _TEXTS, _MESSAGE, _MESSAGES = (int(action) for action in list(Action)[:5])
_FIXED64, _FIXED32, _INT64, _INT32, _UINT32, _BOOL = (int(action) for action in list(Action)[5:])

_KEY = 1
"""KeyValue.key."""

FULL, NO_SPACE = 1, 2
"""Why the scan stopped before a message: no room for its rows, or none behind the data for values that it joins."""


@kernel
def scan_messages(data: Bytes, ranges: Ints, first: int, state: Machine, out: Output) -> tuple[int, int]:
    """Scan the messages `ranges[first:]` (start, end, record). Gives the message at which it stopped, and why.

    A message that is refused leaves a row in `errors`, and none elsewhere.
    """
    counters = out.counters
    for m in range(first, len(ranges)):
        before = (counters[col.SPANS], counters[col.RESOURCES], counters[col.USED])
        record = ranges[m, 2]
        if record != counters[col.THIS_RECORD]:
            counters[col.THIS_RECORD], counters[col.FIRST_SPAN] = record, counters[col.SPANS]
        position, fault = _walk(data, ranges[m, 0], ranges[m, 1], record, state, out)
        if fault == 0:
            out.messages.record[counters[col.MESSAGES]] = record
            counters[col.MESSAGES] += 1
            continue
        take_back(out, before)
        if fault > 0:
            return m, fault
        error = counters[col.ERRORS]
        out.messages.errors[error, 0] = record
        out.messages.errors[error, 1] = position
        out.messages.errors[error, 2] = -fault
        counters[col.ERRORS] += 1
    return len(ranges), 0


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
            row = row_of(message, level, tables)
            continue
        field_at = at
        tag, at = read_tag(data, at, end)
        if at < 0:
            return field_at, at
        field = tag >> 3
        action = byte_at(tables.actions, message * TAGS + tag) if field < FIELDS else _UNKNOWN
        if action in (_MESSAGE, _MESSAGES):
            length, at = read_length(data, at, end)
            if at < 0:
                return field_at, at
            child = byte_at(tables.children, message * FIELDS + field)
            if child == KEY_VALUE and level <= MAX_DEPTH - 2:
                after, size = _plain_attributes(data, tag, field_at, end, state.wanted, *attributes_of(message, out))
                if after > field_at:
                    regs.sizes[row, field] += size
                    at = after
                    continue
            level += 1
            fault = _open(data, field_at, at + length, action, child, field, level, state, out)
            if fault != 0:
                return field_at, fault
            end = at + length
            message = child
            row = row_of(message, level, tables)
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
    if action in (_TEXT, _TEXTS):
        length, at = read_length(data, at, end)
        size = tag_size + varint_size(length) + length
        value, unset = at, length == 0
        regs.lengths[u(row), u(field)] = length
        at += length
        if action == _TEXTS:
            regs.sizes[u(row), u(field)] += size
            return at
    else:
        value, at, size = _number(data, action, at, end)
        size += tag_size
        unset = value == 0
        if message == ANY_VALUE:
            value = field_at
            regs.lengths[u(row), u(field)] = at - field_at
    regs.values[u(row), u(field)] = value
    regs.sizes[u(row), u(field)] = 0 if unset and message != ANY_VALUE else size
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
            enter_attribute(data, plain, wanted, columns, row)
        at = body + length
    return at, at - start


@inlined
def _open(
    data: Bytes, field_at: int, end: int, action: int, message: int, field: int, level: int, state: Machine,
    out: Output,
) -> int:  # fmt: skip
    """Begin to read a message at `level`; gives 0, or why that can't be."""
    tables, _, regs, stack = state
    if level > MAX_DEPTH:
        return DEPTH
    row = row_of(message, level, tables)
    if action == _MESSAGES:
        if message == SPAN and out.counters[col.SPANS] == out.spans.ints.shape[1]:
            return FULL
        if message == RESOURCE_SPANS:
            if out.counters[col.RESOURCES] == out.resources.ints.shape[1]:
                return FULL
            resource = out.counters[col.RESOURCES]
            out.resources.ints[col.SPAN_COUNT, resource] = -out.counters[col.SPANS]
            out.resources.ints[col.FIELD_AT, resource] = field_at
            out.resources.ints[col.FIELD_BYTES, resource] = end - field_at
        clear(regs, row)
        i = 0
        while tables.singular[message, i] >= 0:
            clear(regs, row_of(tables.singular[message, i], level + 1, tables))
            i += 1
    elif stack.message[level - 1] == ANY_VALUE:
        around = row_of(ANY_VALUE, level - 1, tables)
        if regs.last[around] != field:
            clear(regs, row)
            regs.last[around] = field
            regs.values[around, field], regs.lengths[around, field] = field_at, end - field_at
        elif stack.message[level - 3] in (SPAN, RESOURCE) and not _join(data, around, field, field_at, end, regs, out):
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


@inlined
def _close(data: Bytes, record: int, level: int, state: Machine, out: Output) -> None:
    """A message at `level` is complete: its size goes to the message around it, its row to the columns."""
    tables, _, regs, stack = state
    message, around, field = stack.message[level], stack.message[level - 1], stack.field[level]
    row, row_around = row_of(message, level, tables), row_of(around, level - 1, tables)
    content = regs.sizes[row, regs.last[row]] if message == ANY_VALUE else total_size(regs, row)
    size = field_size(field, content)
    if byte_at(tables.actions, around * TAGS + (field << 3 | 2)) == _MESSAGES:
        size += regs.sizes[row_around, field]
    regs.sizes[row_around, field] = size
    if message == SPAN:
        add_span(record, content, regs, out)
    elif message == RESOURCE_SPANS:
        add_resource(record, content, out)
    elif message == KEY_VALUE and around in (SPAN, RESOURCE):
        value = row_of(ANY_VALUE, level + 1, tables)
        kind = regs.last[value]
        key_length = regs.lengths[row, _KEY] if regs.sizes[row, _KEY] > 0 else 0
        attribute = Plain(
            regs.values[row, _KEY],
            key_length,
            kind if kind > 0 else UNSET,
            regs.values[value, kind],
            regs.lengths[value, kind],
        )
        columns, n = attributes_of(around, out)
        enter_attribute(data, attribute, state.wanted, columns, n)
