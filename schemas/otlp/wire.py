"""Reading protobuf's wire format, in numba kernels, as strictly as protobuf's own parser (upb) does.

Every function reads at `at` or behind it and before `end`, nowhere else. What can't be read gives a negative position:
`-reason`, one of the numbers of `Fault`. The limits (five bytes of a tag or a length, ten of a varint, the nesting of
groups, field number 0 refused except inside unknown groups) are upb's, found by experiment and held by tests.
"""

import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from schemas.otlp.jit import inlined, kernel

Bytes = npt.NDArray[np.uint8]


def _load(bits: int, data: Any, at: Any) -> Any:
    """What numba asks of an intrinsic: the signature, and the generator of a load of so many bits, aligned or not."""
    if data.dtype != types.uint8 or not isinstance(at, types.Integer):
        return None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = context.make_array(signature.args[0])(context, builder, args[0]).data
        word = ir.IntType(bits)
        pointer = builder.bitcast(builder.gep(first, [args[1]]), word.as_pointer())
        loaded = builder.load(pointer, align=1)
        if bits > 8 and sys.byteorder == "big":
            loaded = builder.bswap(loaded)
        return builder.zext(loaded, ir.IntType(64))

    return types.int64(data, types.int64), generate


_intrinsic: Any = numba.extending.intrinsic


def _byte_at(_: Any, data: Any, at: Any) -> Any:
    return _load(8, data, at)


def _half_at(_: Any, data: Any, at: Any) -> Any:
    return _load(32, data, at)


def _word_at(_: Any, data: Any, at: Any) -> Any:
    return _load(64, data, at)


# An index of an array may be negative in Python, so numba adds a comparison and an addition to each access: a fifth of
# the scan's time. These have no such thing, and no bounds check either: the caller has compared `at` with the end.

byte_at: Callable[[Bytes, int], int] = _intrinsic(_byte_at)
"""The byte at a position."""

half_at: Callable[[Bytes, int], int] = _intrinsic(_half_at)
"""The four bytes from a position on, little-endian."""

word_at: Callable[[Bytes, int], int] = _intrinsic(_word_at)
"""The eight bytes from a position on, little-endian, as a signed integer."""


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


@kernel
def long_varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A varint of 64 bits, as a signed integer, and the position after it. Bits above the 64th are dropped."""
    value = np.uint64(0)
    for i in range(10):
        if at + i >= end:
            return 0, TRUNCATED
        byte = byte_at(data, at + i)
        value |= np.uint64(byte & 0x7F) << np.uint64(7 * i)
        if byte < 0x80:
            return np.int64(value), at + i + 1  # type: ignore[return-value]  # numba: int
    return 0, VARINT


@kernel
def long_varint32(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A varint of at most five bytes, and the position after it."""
    value = 0
    for i in range(5):
        if at + i >= end:
            return 0, TRUNCATED
        byte = byte_at(data, at + i)
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    return 0, VARINT


@inlined
def read_varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """As `long_varint`, quick for one byte."""
    if at < end and byte_at(data, at) < 0x80:
        return byte_at(data, at), at + 1
    return long_varint(data, at, end)


@inlined
def read_tag(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A tag and the position after it."""
    if at < end and byte_at(data, at) < 0x80:
        return byte_at(data, at), at + 1
    tag, at = long_varint32(data, at, end)
    return tag, at if tag <= _MAX_TAG else VARINT


@inlined
def read_length(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A length and the position after it; that many bytes are there."""
    if at < end and byte_at(data, at) < 0x80:
        length, at = byte_at(data, at), at + 1
    else:
        length, at = long_varint32(data, at, end)
    if at >= 0 and length > end - at:
        return 0, LENGTH
    return length, at


@kernel
def skip(data: Bytes, tag: int, at: int, end: int, depth: int, groups: npt.NDArray[np.int64]) -> int:
    """The position after the value of an unknown field, whose message has `depth` messages around it.

    `groups` is working memory, with a place for each level up to `MAX_DEPTH`; those up to `depth` are left alone.
    """
    if tag < 8:
        return FIELD_NUMBER
    if tag & 7 == 3:
        return _skip_group(data, tag >> 3, at, end, depth, groups)
    return _skip_value(data, tag & 7, at, end)


@kernel
def _skip_value(data: Bytes, wire_type: int, at: int, end: int) -> int:
    if wire_type == 0:
        return long_varint(data, at, end)[1]
    if wire_type == 1:
        return at + 8 if at + 8 <= end else TRUNCATED
    if wire_type == 2:
        length, at = read_length(data, at, end)
        return at + length
    if wire_type == 5:
        return at + 4 if at + 4 <= end else TRUNCATED
    return END_GROUP if wire_type == 4 else WIRE_TYPE


@kernel
def _skip_group(data: Bytes, number: int, at: int, end: int, depth: int, groups: npt.NDArray[np.int64]) -> int:
    """The position after the end tag of a group; groups inside it have end tags of their own."""
    level = depth
    tag = number << 3 | 3
    while True:
        if tag & 7 == 3:
            if level == MAX_DEPTH:
                return DEPTH
            level += 1
            groups[level] = tag >> 3
        elif tag & 7 == 4:
            if groups[level] != tag >> 3:
                return END_GROUP
            level -= 1
            if level == depth:
                return at
        else:
            at = _skip_value(data, tag & 7, at, end)
            if at < 0:
                return at
        tag, at = read_tag(data, at, end)
        if at < 0:
            return at


@kernel
def _long_varint_size(value: int) -> int:
    if value < 0:
        return 10
    size = 2
    while value >= 1 << 14:
        value >>= 7
        size += 1
    return size


@inlined
def varint_size(value: int) -> int:
    """The bytes of a 64-bit varint in its shortest form; a negative one has ten."""
    return 1 if 0 <= value < 0x80 else _long_varint_size(value)
