"""Integers of 128 bits as two limbs of 64: the low one unsigned, the high one signed (two's complement)."""

import numpy as np
import numpy.typing as npt

Low = npt.NDArray[np.uint64]
High = npt.NDArray[np.int64]

_32, _LOWER_HALF = np.uint64(32), np.uint64(0xFFFF_FFFF)


def split(number: int) -> tuple[int, int]:
    """The low and the high limb of a number. Raises OverflowError beyond 128 bits."""
    if not -(1 << 127) <= number < 1 << 127:
        raise OverflowError(f"{number} has more than 128 bits")
    return number & 0xFFFF_FFFF_FFFF_FFFF, number >> 64


def join(lo: int, hi: int) -> int:
    """The number of two limbs."""
    return (hi << 64) + lo


def sums(lo: Low, hi: High, starts: npt.NDArray[np.int64]) -> tuple[Low, High]:
    """The sum of each run of numbers, modulo 2^128; runs begin at `starts`, the first at 0, and none is empty."""
    # Sums of halves of a limb can't wrap below 2^32 numbers.
    lower = np.add.reduceat(lo & _LOWER_HALF, starts)
    upper = np.add.reduceat(lo >> _32, starts) + (lower >> _32)
    return upper << _32 | lower & _LOWER_HALF, np.add.reduceat(hi, starts) + (upper >> _32).astype(np.int64)


def maxima(lo: Low, hi: High, starts: npt.NDArray[np.int64]) -> tuple[Low, High]:
    """The greatest number of each run."""
    greatest = np.maximum.reduceat(hi, starts)
    highest = hi == np.repeat(greatest, np.diff(starts, append=len(hi)))
    return np.maximum.reduceat(np.where(highest, lo, np.uint64(0)), starts), greatest
