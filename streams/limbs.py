"""128-bit sums in kernels: a low limb (uint64) and a high one (int64), in two's complement as in `schemas.int128`."""

import numpy as np

from streams.kernels import kernel

_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_FRACTION = np.uint64(16)
_REST = np.uint64(0xFFFF)
_TIE = np.uint64(0x8000)
_UPPER = np.uint64(64) - _FRACTION
_ONE = np.uint64(1)


@kernel
def added(lo: np.uint64, hi: np.int64, plus_lo: np.uint64, plus_hi: np.int64) -> tuple[np.uint64, np.int64]:
    """The sum of two numbers."""
    total = lo + plus_lo
    return total, hi + plus_hi + np.int64(total < lo)


@kernel
def weighted_latency(weight: np.uint64, latency_ns: np.int64) -> tuple[np.uint64, np.int64]:
    """A latency (not negative) times a weight (in 2^-32), in 2^-16 ns, rounded half to even."""
    a0, a1 = weight & _MASK, weight >> _HALF
    b = np.uint64(latency_ns)
    b0, b1 = b & _MASK, b >> _HALF
    low, cross0, cross1 = a0 * b0, a0 * b1, a1 * b0
    middle = (low >> _HALF) + (cross0 & _MASK) + (cross1 & _MASK)
    lo = (low & _MASK) | (middle << _HALF)
    hi = a1 * b1 + (cross0 >> _HALF) + (cross1 >> _HALF) + (middle >> _HALF)
    # Units of 2^-32 ns become units of 2^-16 ns.
    rest = lo & _REST
    lo = (lo >> _FRACTION) | (hi << _UPPER)
    hi >>= _FRACTION
    up = np.uint64(rest > _TIE or (rest == _TIE and lo & _ONE == _ONE))
    return added(lo, np.int64(hi), up, np.int64(0))
