"""Wanted attribute keys, and the commonest form of an attribute, in numba kernels."""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from schemas.otlp.wire import Bytes

STRING, BOOL, INT, DOUBLE, ARRAY_VALUE, KEY_VALUE_LIST, BYTES, STRING_INDEX = range(1, 9)
"""Field numbers of AnyValue: the kinds of attribute columns."""
ABSENT, UNSET = 0, 255
"""The kinds of an attribute that isn't there, and of one without a value."""

_SLOTS = 256


class WantedKeys(NamedTuple):
    """Keys in a hash table with chains."""

    text: npt.NDArray[np.uint8]
    bounds: npt.NDArray[np.int64]
    """One more than there are keys."""
    slots: npt.NDArray[np.int32]
    """By hash: a key, -1 if none has it."""
    following: npt.NDArray[np.int32]
    """By key: another one with its hash, or -1."""


def wanted_keys(keys: Sequence[str]) -> WantedKeys:
    """The table of keys, which are numbered in their order."""
    texts = [key.encode() for key in keys]
    text = np.frombuffer(b"".join(texts), np.uint8)
    bounds = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    slots, following = np.full(_SLOTS, -1, np.int32), np.full(len(texts), -1, np.int32)
    for key in range(len(texts)):
        slot = _slot(text, int(bounds[key]), len(texts[key]))
        following[key], slots[slot] = slots[slot], key
    return WantedKeys(text, bounds, slots, following)


@numba.njit(cache=True, nogil=True)
def _slot(data: Bytes, at: int, length: int) -> int:
    """A hash of a few bytes: keys that share them are told apart by comparison."""
    if length == 0:
        return 0
    last = np.int64(data[at + length - 1])
    middle = np.int64(data[at + length // 2])
    return (length * 23 + last * 5 + middle * 11 + np.int64(data[at])) & (_SLOTS - 1)


@numba.njit(cache=True, nogil=True)
def find_key(wanted: WantedKeys, data: Bytes, at: int, length: int) -> int:
    """The number of the key that is these bytes, or -1."""
    key = wanted.slots[_slot(data, at, length)]
    while key >= 0:
        start = wanted.bounds[key]
        if wanted.bounds[key + 1] - start == length and _same(wanted.text, start, data, at, length):
            return np.int64(key)
        key = wanted.following[key]
    return -1


@numba.njit(cache=True, nogil=True)
def _same(a: Bytes, a_start: int, b: Bytes, b_start: int, length: int) -> bool:
    for i in range(length):
        if a[a_start + i] != b[b_start + i]:
            return False
    return True
