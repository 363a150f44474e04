"""Long attribute keys and values cut, in numba kernels (Tempo DIST-10).

A message that isn't longer than the limit holds no text that is: so only longer ones are looked into, which of usual
spans are none. Two passes over those: `measure` finds the texts and the new lengths of all messages around them,
`rewrite` copies.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from schemas.otlp.fields import copy, field, write_header
from schemas.otlp.jit import direct, inlined, kernel
from schemas.otlp.machine import Ints
from schemas.otlp.wire import MAX_DEPTH, Bytes, varint_size


class Scope(IntEnum):
    """Where an attribute stands: Tempo's values of the label `scope`, in lower case."""

    RESOURCE = 0
    SCOPE = 1
    SPAN = 2
    EVENT = 3
    LINK = 4


# What a field holds: nothing that is looked into, a message, or a text.
OTHER, TRACES, RESOURCE_SPANS, RESOURCE, SCOPE_SPANS, SCOPE, SPAN, EVENT, LINK, KEY_VALUE, ANY_VALUE, TEXT = range(12)
FIELDS = 16
LEVELS = 8
"""More than messages are nested in each other on the way to an attribute's value."""

HOLDS = np.zeros((TEXT, FIELDS), np.int64)
"""[message, field number]: what the field holds."""
for _message, _field, _content in (
    (TRACES, 1, RESOURCE_SPANS),
    (RESOURCE_SPANS, 1, RESOURCE),
    (RESOURCE_SPANS, 2, SCOPE_SPANS),
    (RESOURCE, 1, KEY_VALUE),
    (SCOPE_SPANS, 1, SCOPE),
    (SCOPE_SPANS, 2, SPAN),
    (SCOPE, 3, KEY_VALUE),
    (SPAN, 9, KEY_VALUE),
    (SPAN, 11, EVENT),
    (SPAN, 13, LINK),
    (EVENT, 3, KEY_VALUE),
    (LINK, 4, KEY_VALUE),
    (KEY_VALUE, 1, TEXT),
    (KEY_VALUE, 2, ANY_VALUE),
    (ANY_VALUE, 1, TEXT),
):
    HOLDS[_message, _field] = _content

SCOPES = np.full(TEXT, -1, np.int64)
"""[message]: the `Scope` of its attributes."""
for _scope, _message in ((0, RESOURCE), (1, SCOPE), (2, SPAN), (3, EVENT), (4, LINK)):
    SCOPES[_message] = _scope

# Columns of the stack: of an open message, its end, its place among the lengths, where its field and its content begin,
# and the bytes that its fields lose.
MESSAGE, END, PLACE, FIELD_AT, CONTENT_AT, LOST = range(6)


class Cuts(NamedTuple):
    """Working memory, and what was found."""

    lengths: Ints
    """The new length of each message and text that is longer than the limit, in the order of their beginnings."""
    counts: Ints
    """[scope]: texts to be cut."""
    example: Ints
    """The range of the first attribute with one."""
    stack: Ints
    """[level, ...]: the open messages."""
    groups: Ints


def cuts(size: int, limit: int) -> Cuts:
    """Memory for a message of `size` bytes and texts of at most `limit` bytes, at least one."""
    nested = LEVELS * (size // (limit + 1) + 1)  # of each level no more than there is room for
    return Cuts(
        np.empty(nested, np.int64),
        np.zeros(len(Scope), np.int64),
        np.zeros(2, np.int64),
        np.empty((LEVELS, 6), np.int64),
        np.empty(MAX_DEPTH + 1, np.int64),
    )


class Truncated(NamedTuple):
    """A message without long texts."""

    value: bytes
    counts: tuple[int, ...]
    """By `Scope`: texts that were cut."""
    example: bytes
    """The first attribute with one, a KeyValue as it was; empty if there is none."""


NOTHING_CUT = (0,) * len(Scope)


def truncated(message: bytes, limit: int) -> Truncated:
    """A TracesData whose keys and string values of attributes have at most `limit` bytes, at least one.

    What can't be read stays as it is.
    """
    data, found = np.frombuffer(message, np.uint8), cuts(len(message), limit)
    size = _measured(data, len(message), limit, found)
    if size == len(message):
        return Truncated(message, NOTHING_CUT, b"")
    target = np.empty(size, np.uint8)
    rewrite(data, len(message), limit, found, target)
    first, end = found.example.tolist()
    return Truncated(target.tobytes(), tuple(found.counts.tolist()), message[first:end])


@kernel
def measure(data: Bytes, size: int, limit: int, found: Cuts) -> int:
    """Fill `found` for the message `data[:size]`; gives its new size, the same if it can't be read."""
    for scope in range(len(found.counts)):
        found.counts[scope] = 0
    stack = found.stack
    message, at, end, level, places = TRACES, 0, size, 0, 0
    _open(stack, 0, TRACES, size, 0, 0, 0)
    while True:
        if at == end:
            if level == 0:
                return int(size - stack[0, LOST])
            length = end - stack[level, CONTENT_AT] - stack[level, LOST]
            found.lengths[stack[level, PLACE]] = length
            lost = end - stack[level, FIELD_AT] - _field_size(length)
            level -= 1
            stack[level, LOST] += lost
            message, end = stack[level, MESSAGE], stack[level, END]
            continue
        tag, content, after = field(data, at, end, found.groups)
        if after < 0:
            return size
        held = _held(message, tag, after - content, limit)
        if held == TEXT:
            length = _cut(data, content, limit)
            found.lengths[places] = length
            stack[level, LOST] += after - at - _field_size(length)
            _count(found, level if message == KEY_VALUE else level - 1)
        if held in (TEXT, OTHER):
            at = after
        else:
            level += 1
            _open(stack, level, held, after, places, at, content)
            message, at, end = held, content, after
        if held != OTHER:
            places += 1


@kernel
def rewrite(data: Bytes, size: int, limit: int, found: Cuts, target: Bytes) -> None:
    """Copy the message `data[:size]` to `target` as `measure` has found that it should be."""
    stack = found.stack
    message, at, end, level, places, to = TRACES, 0, size, 0, 0, 0
    _open(stack, 0, TRACES, size, 0, 0, 0)
    while level > 0 or at < end:
        if at == end:
            level -= 1
            message, end = stack[level, MESSAGE], stack[level, END]
            continue
        tag, content, after = field(data, at, end, found.groups)
        held = _held(message, tag, after - content, limit)
        if held == OTHER:
            to = copy(target, to, data, at, after)
            at = after
            continue
        length = found.lengths[places]
        to = write_header(target, to, tag, length)
        if held == TEXT:
            to = copy(target, to, data, content, content + length)
            at = after
        else:
            level += 1
            _open(stack, level, held, after, places, at, content)
            message, at, end = held, content, after
        places += 1


@inlined
def _open(stack: Ints, level: int, message: int, end: int, place: int, field_at: int, content_at: int) -> None:
    stack[level, MESSAGE], stack[level, END], stack[level, PLACE] = message, end, place
    stack[level, FIELD_AT], stack[level, CONTENT_AT], stack[level, LOST] = field_at, content_at, 0


@inlined
def _held(message: int, tag: int, length: int, limit: int) -> int:
    """What a field holds, if it is long enough to be looked into."""
    if length <= limit or tag & 7 != 2 or tag >> 3 >= FIELDS:
        return OTHER
    return int(HOLDS[message, tag >> 3])


@inlined
def _field_size(length: int) -> int:
    return 1 + varint_size(length) + length


@kernel
def _cut(data: Bytes, start: int, limit: int) -> int:
    """At most `limit` bytes, and no half of a character: a parser of protobuf would refuse it."""
    for length in range(limit, max(limit - 4, -1), -1):
        if data[start + length] & 0xC0 != 0x80:
            return length
    return limit  # it is no UTF-8 anyway


@kernel
def _count(found: Cuts, level: int) -> None:
    """Count a text of the attribute that is open at `level`."""
    if found.counts.sum() == 0:
        found.example[0], found.example[1] = found.stack[level, CONTENT_AT], found.stack[level, END]
    found.counts[SCOPES[found.stack[level - 1, MESSAGE]]] += 1


_measured = direct(measure)
