"""Copying whole fields of protobuf messages, in numba kernels."""

import numpy as np
import numpy.typing as npt

from schemas.otlp.jit import inlined, kernel
from schemas.otlp.wire import Bytes, read_length, read_tag, skip


@inlined
def field(data: Bytes, at: int, end: int, groups: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    """Of the field at `at`: its tag, where its value begins (after the length, if it has one), where the next one is.

    The last is negative if the field isn't inside `end`. Of a message that the scan accepted, any field is.
    `groups` is `skip`'s working memory.
    """
    tag, body = read_tag(data, at, end)
    if body < 0:
        return 0, 0, body
    if tag & 7 != 2:
        return tag, body, skip(data, tag, body, end, 0, groups)
    length, body = read_length(data, body, end)
    return tag, body, body + length if body >= 0 else body


@inlined
def copy(target: Bytes, to: int, source: Bytes, start: int, end: int) -> int:
    """Copy a range; gives the position after it."""
    # Unsigned, since numba lets signed indices count from the end, and a loop that asks for that isn't vectorised:
    # 3 us instead of 120 for 72 kB.
    first, target_first, length = np.uint64(start), np.uint64(to), np.uint64(end - start)
    i = np.uint64(0)
    while i < length:
        target[target_first + i] = source[first + i]
        i += np.uint64(1)
    return to + end - start


@kernel
def write_header(target: Bytes, to: int, tag: int, length: int) -> int:
    """Write a tag of one byte and a length; gives the position after them."""
    target[to] = tag
    to += 1
    while length >= 0x80:
        target[to] = (length & 0x7F) | 0x80
        length >>= 7
        to += 1
    target[to] = length
    return to + 1
