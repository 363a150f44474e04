"""murmur2 as Kafka's Java producer computes it: which partition a key belongs to.

`murmur2_range` may be called from other numba kernels; the arithmetic is on 64-bit integers, masked to 32 bits after
every step, because numba widens products of 32-bit ones.
"""

import numba
import numpy as np
import numpy.typing as npt

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


@numba.njit(cache=True, nogil=True)
def murmur2_range(data: npt.NDArray[np.uint8], start: int, length: int) -> int:
    """The hash of `data[start : start + length]`, as Java's signed int. The range isn't checked."""
    h = (_SEED ^ length) & _MASK
    whole = length - length % 4
    for i in range(start, start + whole, 4):
        k = int(data[i]) | int(data[i + 1]) << 8 | int(data[i + 2]) << 16 | int(data[i + 3]) << 24
        k = (k * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    tail = 0
    for i in range(length - whole):
        tail |= int(data[start + whole + i]) << (8 * i)
    if whole < length:
        h = ((h ^ tail) * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    h ^= h >> 15
    return h - (1 << 32) if h >> 31 else h


def murmur2(data: bytes) -> int:
    """The hash of `data`, as Java's signed int."""
    return int(murmur2_range(np.frombuffer(data, np.uint8), 0, len(data)))


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner picks for a key: the hash without its sign, mod `partitions`."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


TRACE_ID_DIGITS = 32
"""A key of so many hex digits is a trace ID, as a Collector writes it; other keys mean something else."""


def count_misplaced(keys: list[bytes], partition: int, partitions: int) -> int:
    """How many of the keys are trace IDs that belong to another partition: their writer has another partitioner."""
    trace_ids = b"".join(key for key in keys if len(key) == TRACE_ID_DIGITS)
    if not trace_ids:
        return 0
    return int(_count_misplaced(np.frombuffer(trace_ids, np.uint8), partition, partitions))


@numba.njit(cache=True, nogil=True)
def _count_misplaced(keys: npt.NDArray[np.uint8], partition: int, partitions: int) -> int:
    count = 0
    for start in range(0, len(keys), TRACE_ID_DIGITS):
        digits = True
        for i in range(start, start + TRACE_ID_DIGITS):
            digit = keys[i]
            digits = digits and (48 <= digit <= 57 or 97 <= digit <= 102 or 65 <= digit <= 70)
        hashed = murmur2_range(keys, start, TRACE_ID_DIGITS) & 0x7FFFFFFF
        count += digits and hashed % partitions != partition
    return count
