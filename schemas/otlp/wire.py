"""Reading protobuf's wire format, in numba kernels, as strictly as protobuf's own parser (upb) does.

Every function reads at `at` or behind it and before `end`, nowhere else. What can't be read gives a negative position:
`-reason`, one of the numbers of `Fault`. The limits (five bytes of a tag or a length, ten of a varint, the nesting of
groups, field number 0 refused except inside unknown groups) are upb's, found by experiment and held by tests.
"""

from enum import IntEnum

import numba
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


class Fault(IntEnum):
    """Why bytes can't be read: negated, it stands in the place of a position."""

    TRUNCATED = 1
    VARINT = 2
    FIELD_NUMBER = 3
    WIRE_TYPE = 4
    END_GROUP = 5
    LENGTH = 6
    DEPTH = 7


TRUNCATED, VARINT, FIELD_NUMBER, WIRE_TYPE, END_GROUP, LENGTH, DEPTH = (-int(fault) for fault in Fault)

MAX_DEPTH = 100
"""upb's limit: this many messages and groups inside the outermost message."""

_MAX_TAG = (1 << 32) - 1


@numba.njit(cache=True, nogil=True)
def varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A varint of 64 bits, as a signed integer, and the position after it. Bits above the 64th are dropped."""
    value = np.uint64(0)
    for i in range(10):
        if at + i >= end:
            return 0, TRUNCATED
        byte = data[at + i]
        value |= np.uint64(byte & 0x7F) << np.uint64(7 * i)
        if byte < 0x80:
            return np.int64(value), at + i + 1  # type: ignore[return-value]  # numba: int
    return 0, VARINT


@numba.njit(cache=True, nogil=True)
def _varint32(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A varint of at most five bytes, and the position after it."""
    value = 0
    for i in range(5):
        if at + i >= end:
            return 0, TRUNCATED
        byte = np.int64(data[at + i])
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    return 0, VARINT


@numba.njit(cache=True, nogil=True)
def read_tag(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A tag and the position after it."""
    tag, at = _varint32(data, at, end)
    return tag, at if tag <= _MAX_TAG else VARINT


@numba.njit(cache=True, nogil=True)
def read_length(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A length and the position after it; that many bytes are there."""
    if at < end and data[at] < 0x80:
        length = np.int64(data[at])
        at += 1
    else:
        length, at = _varint32(data, at, end)
    if at >= 0 and length > end - at:
        return 0, LENGTH
    return length, at


@numba.njit(cache=True, nogil=True)
def skip(data: Bytes, tag: int, at: int, end: int, depth: int) -> int:
    """The position after the value of an unknown field, whose message has `depth` messages around it."""
    if tag < 8:
        return FIELD_NUMBER
    if tag & 7 == 3:
        return _skip_group(data, tag >> 3, at, end, depth)
    return _skip_value(data, tag & 7, at, end)


@numba.njit(cache=True, nogil=True)
def _skip_value(data: Bytes, wire_type: int, at: int, end: int) -> int:
    if wire_type == 0:
        return varint(data, at, end)[1]
    if wire_type == 1:
        return at + 8 if at + 8 <= end else TRUNCATED
    if wire_type == 2:
        length, at = read_length(data, at, end)
        return at + length
    if wire_type == 5:
        return at + 4 if at + 4 <= end else TRUNCATED
    return END_GROUP if wire_type == 4 else WIRE_TYPE


@numba.njit(cache=True, nogil=True)
def _skip_group(data: Bytes, number: int, at: int, end: int, depth: int) -> int:
    """The position after the end tag of a group; groups inside it have end tags of their own."""
    open_groups = np.empty(MAX_DEPTH + 1, np.int64)
    count = 0
    tag = number << 3 | 3
    while True:
        if tag & 7 == 3:
            if depth + count == MAX_DEPTH:
                return DEPTH
            open_groups[count] = tag >> 3
            count += 1
        elif tag & 7 == 4:
            if open_groups[count - 1] != tag >> 3:
                return END_GROUP
            count -= 1
            if count == 0:
                return at
        else:
            at = _skip_value(data, tag & 7, at, end)
            if at < 0:
                return at
        tag, at = read_tag(data, at, end)
        if at < 0:
            return at


@numba.njit(cache=True, nogil=True)
def varint_size(value: int) -> int:
    """The bytes of a 64-bit varint in its shortest form; a negative one has ten."""
    if 0 <= value < 0x80:
        return 1
    if value < 0:
        return 10
    size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size
