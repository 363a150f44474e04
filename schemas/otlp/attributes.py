"""Wanted attribute keys, and the commonest form of an attribute, in numba kernels."""

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.otlp.jit import inlined
from schemas.otlp.wire import Bytes, byte_at, word_at

STRING, BOOL, INT, DOUBLE, ARRAY_VALUE, KEY_VALUE_LIST, BYTES, STRING_INDEX = range(1, 9)
"""Field numbers of AnyValue: the kinds of attribute columns."""
ABSENT, UNSET = 0, 255
"""The kinds of an attribute that isn't there, and of one without a value."""

_SLOTS = 256
_TABLES_KEPT = 64


class Mode(IntEnum):
    """Which of the attributes with one key counts."""

    FIRST = 0
    """The first one, whatever its value (Tempo PRIM-1)."""
    FIRST_POSITIVE_DOUBLE = 1
    """The first double above 0 (Tempo PRIM-12)."""
    FIRST_NON_EMPTY_STRING = 2
    """The first string that isn't empty (Tempo HI-1)."""


class WantedKey(NamedTuple):
    """An attribute to look for. A name may be wanted in several modes: each has a row of its own."""

    name: str
    mode: Mode = Mode.FIRST


def each_wanted(keys: Sequence[str | WantedKey]) -> tuple[WantedKey, ...]:
    """Keys, of which a mere name stands for the first attribute with it."""
    return tuple(WantedKey(key) if isinstance(key, str) else key for key in keys)


class WantedKeys(NamedTuple):
    """Keys in a hash table with chains."""

    text: npt.NDArray[np.uint8]
    bounds: npt.NDArray[np.int64]
    """One more than there are keys."""
    slots: npt.NDArray[np.int32]
    """By hash: a key, -1 if none has it; of keys with one name, the first."""
    following: npt.NDArray[np.int32]
    """By key: another one with its hash, or -1."""
    modes: npt.NDArray[np.uint8]
    twins: npt.NDArray[np.int32]
    """By key: the next one with its name, or -1."""
    plain: npt.NDArray[np.bool_]
    """By key: its mode is `FIRST`, and it has no twin."""


def wanted_keys(keys: Sequence[str | WantedKey]) -> WantedKeys:
    """The table of keys, which are numbered in their order."""
    return _wanted_keys(each_wanted(keys))


@lru_cache(maxsize=_TABLES_KEPT)
def _wanted_keys(wanted: tuple[WantedKey, ...]) -> WantedKeys:
    texts = [key.name.encode() for key in wanted]
    text = np.frombuffer(b"".join(texts), np.uint8)
    bounds = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    slots = np.full(_SLOTS, -1, np.int32)
    following, twins = np.full(len(texts), -1, np.int32), np.full(len(texts), -1, np.int32)
    last: dict[bytes, int] = {}
    for key, name in enumerate(texts):
        if name in last:
            twins[last[name]] = key
        else:
            slot = _slot(text, int(bounds[key]), len(name))
            following[key], slots[slot] = slots[slot], key
        last[name] = key
    modes = np.array([key.mode for key in wanted], np.uint8)
    return WantedKeys(text, bounds, slots, following, modes, twins, (modes == Mode.FIRST) & (twins < 0))


@inlined
def _slot(data: Bytes, at: int, length: int) -> int:
    """A hash of a few bytes: keys that share them are told apart by comparison."""
    if length == 0:
        return 0
    middle, last = byte_at(data, at + (length >> 1)), byte_at(data, at + length - 1)
    return (length * 23 + last * 5 + middle * 11 + byte_at(data, at)) & (_SLOTS - 1)


@inlined
def find_key(wanted: WantedKeys, data: Bytes, at: int, length: int) -> int:
    """The number of the first key that is these bytes, or -1."""
    key = np.int64(wanted.slots[_slot(data, at, length)])
    while key >= 0:
        start = wanted.bounds[key]
        if wanted.bounds[key + 1] - start == length and _same(wanted.text, start, data, at, length):
            break
        key = np.int64(wanted.following[key])
    return key  # type: ignore[return-value]  # numba: int


@inlined
def _same(a: Bytes, a_start: int, b: Bytes, b_start: int, length: int) -> bool:
    """Whether two ranges are equal: by words, the last of which may overlap the one before."""
    if length < 8:
        i = 0
        while i < length and byte_at(a, a_start + i) == byte_at(b, b_start + i):
            i += 1
        return i == length
    i = 0
    while i < length - 8:
        if word_at(a, a_start + i) != word_at(b, b_start + i):
            return False
        i += 8
    return bool(word_at(a, a_start + length - 8) == word_at(b, b_start + length - 8))


class Plain(NamedTuple):
    """An attribute: where its key is, and its value as `frame.Attributes` has it; `kind` is 0 if it isn't plain."""

    key_at: int
    key_length: int
    kind: int
    offset: int
    length: int


_NOT_PLAIN = Plain(0, 0, 0, 0, 0)


@inlined
def plain_attribute(data: Bytes, at: int, end: int) -> Plain:
    """The attribute in a range, if it is in the form that every writer uses: a key and a string, int, bool or double.

    That is: the two fields once each, in either order, nothing else, everything in its shortest encoding. So it is
    well-formed, and its canonical size is the size of the range.
    """
    first, body = short_length(data, at + 1, end)
    second = body + first
    if first == 0 or end - second < 3:
        return _NOT_PLAIN
    length, second_body = short_length(data, second + 1, end)
    if second_body + length != end:
        return _NOT_PLAIN
    if byte_at(data, at) == 0x0A and byte_at(data, second) == 0x12:
        kind, offset, size = _plain_value(data, second_body, end)
        return Plain(body, first, kind, offset, size)
    if byte_at(data, at) == 0x12 and byte_at(data, second) == 0x0A and length > 0:
        kind, offset, size = _plain_value(data, body, second)
        return Plain(second_body, length, kind, offset, size)
    return _NOT_PLAIN


@inlined
def short_length(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A length of at most two bytes in its shortest form, and the position after it; a length of 0 if it is none."""
    if end - at < 2:
        return 0, at
    low = byte_at(data, at)
    if low < 0x80:
        return low, at + 1
    high = byte_at(data, at + 1)
    return (0, at) if high == 0 or high > 0x7F else (low & 0x7F | high << 7, at + 2)


@inlined
def _plain_value(data: Bytes, at: int, end: int) -> tuple[int, int, int]:
    """Kind, offset and length of an AnyValue, if it is plain; else a kind of 0."""
    size = end - at
    if size < 2:
        return 0, 0, 0
    tag = byte_at(data, at)
    if tag == 0x0A:
        length, text = short_length(data, at + 1, end)
        return (STRING, text, length) if text + length == end else (0, 0, 0)
    if tag == 0x18:
        return (INT, at, size) if _is_short_varint(data, at + 1, end) else (0, 0, 0)
    if tag == 0x10:
        return (BOOL, at, size) if size == 2 and byte_at(data, at + 1) < 2 else (0, 0, 0)
    return (DOUBLE, at, size) if size == 9 and tag == 0x21 else (0, 0, 0)


@inlined
def _is_short_varint(data: Bytes, at: int, end: int) -> bool:
    """Whether a range of at least one byte is one varint of at most nine bytes in its shortest form."""
    last = byte_at(data, end - 1)
    if last > 0x7F or end - at > 9 or (last == 0 and end - at > 1):
        return False
    while at < end - 1 and byte_at(data, at) > 0x7F:
        at += 1
    return at == end - 1
