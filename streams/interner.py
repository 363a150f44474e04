"""Texts of a window as small integers: grouping and joining then compare numbers, and no record's bytes are kept.

A text is an attribute's value before it is made text (Tempo PRIM-3): the field number of its AnyValue and the bytes of
that field. Two values with one text may have two numbers; they meet where labels are made.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.otlp import attribute_text
from streams.kernels import kernel, wide

STRING = 1
"""The kind of a text that is one already."""
ADDRESS = 254
"""The kind of `<address>:<port>`: its bytes are the numbers of the two texts."""
RESOURCE = 253
"""The kind of all attributes of a resource: their bytes."""
_BYTES = 7

ABSENT = -1
"""In a column: the attribute isn't there."""
EMPTY, USER, CLIENT, SERVER = 0, 1, 2, 3
"""Numbers that every interner has."""
_ALWAYS = (b"", b"user", b"client", b"server")

FULL = -2
"""What kernels answer when a table has no room: the caller grows it and goes on at the same row."""


class InternTable(NamedTuple):
    """A hash table with open addressing (`slots`: text numbers, -1 is free), at most half full."""

    slots: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]
    kinds: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    """One more than there are texts: where each begins in the arena."""
    arena: npt.NDArray[np.uint8]
    used: npt.NDArray[np.int64]
    """Texts, bytes of the arena."""


class Interner:
    """The texts of one window of one partition."""

    def __init__(self, texts: int = 512, arena_bytes: int = 1 << 14) -> None:
        self._table = _empty_table(texts, arena_bytes)
        self._texts: dict[int, bytes] = {}
        for text in _ALWAYS:
            self.add(text)

    def add(self, text: bytes) -> int:
        """The number of a text."""
        data = np.frombuffer(text, np.uint8)
        return int(self._grown(lambda table: intern(table, STRING, data, 0, len(data)), len(data)))

    def column(
        self,
        data: npt.NDArray[np.uint8],
        kinds: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.int32],
        lengths: npt.NDArray[np.int32],
        wanted: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.int32]:
        """The numbers of a column of values in `data`: `ABSENT` where the kind is 0 or the row isn't wanted."""
        out = np.full(len(kinds), ABSENT, np.int32)
        row = 0
        while (row := _intern_column(self._table, data, kinds, offsets, lengths, wanted, out, row)) < len(out):
            self._grow(int(lengths[row]))
        return out

    def addresses(self, hosts: npt.NDArray[np.int32], ports: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Rows of `<host>:<port>`, of the host alone where there is no port, `ABSENT` where there is no host."""
        out = hosts.copy()
        both = np.flatnonzero((hosts != ABSENT) & (ports != ABSENT))
        if len(both):
            pairs = np.ascontiguousarray(np.stack([hosts[both], ports[both]], axis=1))
            rows = len(both)
            out[both] = self.column(
                pairs.view(np.uint8).ravel(),
                np.full(rows, ADDRESS, np.uint8),
                np.arange(0, 8 * rows, 8, dtype=np.int32),
                np.full(rows, 8, np.int32),
                np.ones(rows, np.bool_),
            )
        return out

    def text(self, number: int) -> bytes:
        """The text of a number (`ABSENT`: empty), whatever its value was; it may be no UTF-8."""
        if number < 0:
            return b""
        known = self._texts.get(number)
        if known is None:
            known = self._texts[number] = self._make_text(number)
        return known

    def raw(self, number: int) -> bytes:
        """The bytes of a value as they came; of a `RESOURCE`, those of its attributes, which are a message Resource."""
        return self._table.arena[self._table.starts[number] : self._table.starts[number + 1]].tobytes()

    def strings(self, numbers: npt.NDArray[np.int32]) -> pa.Array:
        """The strings of numbers (none of them `ABSENT`), as binaries; empty where the value isn't a string."""
        table = self._table
        strings = np.where(table.kinds[numbers] == STRING, numbers, EMPTY)
        buffers = [None, pa.py_buffer(table.starts), pa.py_buffer(table.arena)]
        return pa.Array.from_buffers(pa.large_binary(), len(self), buffers).take(pa.array(strings))

    def __len__(self) -> int:
        return int(self._table.used[0])

    @property
    def table(self) -> InternTable:
        """The table, to read. Replaced when it grows."""
        return self._table

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each value begins; differences are lengths. Replaced when the table grows."""
        return self._table.starts

    def _make_text(self, number: int) -> bytes:
        kind, raw = int(self._table.kinds[number]), self.raw(number)
        if kind == STRING:
            return raw
        if kind == ADDRESS:
            host, port = np.frombuffer(raw, np.int32)
            return self.text(int(host)) + b":" + self.text(int(port))
        return attribute_text(kind, raw)

    def _grown(self, attempt: Callable[[InternTable], int], length: int) -> int:
        while (number := attempt(self._table)) == FULL:
            self._grow(length)
        return number

    def _grow(self, length: int) -> None:
        """Twice the texts if those are used up, and room for one more value of that length."""
        old = self._table
        texts, used = int(old.used[0]), int(old.used[1])
        capacity = len(old.hashes) * 2 if texts == len(old.hashes) else len(old.hashes)
        arena = len(old.arena)
        while arena < used + length:
            arena *= 2
        new = _empty_table(capacity, arena)
        new.hashes[:texts], new.kinds[:texts] = old.hashes[:texts], old.kinds[:texts]
        new.starts[: texts + 1], new.arena[:used] = old.starts[: texts + 1], old.arena[:used]
        new.used[:] = old.used
        fill_slots(new.slots, new.hashes, texts)
        self._table = new


def _empty_table(texts: int, arena_bytes: int) -> InternTable:
    return InternTable(
        slots=np.full(slots_for(texts), -1, np.int32),
        hashes=np.empty(texts, np.uint64),
        kinds=np.empty(texts, np.uint8),
        starts=np.zeros(texts + 1, np.int64),
        arena=np.empty(arena_bytes, np.uint8),
        used=np.zeros(2, np.int64),
    )


def slots_for(capacity: int) -> int:
    """The slots of a table for so many entries: a power of two, at least twice as many."""
    return 1 << (2 * capacity - 1).bit_length()


@kernel
def fill_slots(slots: Any, hashes: Any, entries: int) -> None:
    """Enter the first `entries` hashes into empty slots."""
    mask = len(slots) - 1
    for entry in range(entries):
        at = np.int64(hashes[entry]) & mask
        while slots[at] >= 0:
            at = (at + 1) & mask
        slots[at] = entry


@kernel
def mixed(state: np.uint64, word: np.uint64) -> np.uint64:
    """A step of a hash; both are uint64. Hashes decide where entries lie, never a result."""
    state = (state ^ word) * np.uint64(0x9E3779B97F4A7C15)
    return state ^ (state >> np.uint64(29))


@kernel
def hash_bytes(data: Any, start: int, length: int, seed: int) -> np.uint64:
    """The hash of `data[start : start + length]`."""
    state = mixed(np.uint64(seed), np.uint64(length))
    # Unsigned indices: numba then needn't look for negative ones, and eight loads become one.
    at, end = np.uint64(start), np.uint64(start + length)
    while at + np.uint64(8) <= end:
        word = np.uint64(0)
        for j in range(8):
            word |= np.uint64(data[at + np.uint64(j)]) << np.uint64(8 * j)
        state = mixed(state, word)
        at += np.uint64(8)
    word = np.uint64(0)
    while at < end:
        word = word << np.uint64(8) | np.uint64(data[at])
        at += np.uint64(1)
    state = mixed(state, word)
    return state ^ (state >> np.uint64(32))


@kernel
def same_bytes(a: Any, a_start: int, b: Any, b_start: int, length: int) -> bool:
    """Whether two ranges of one length hold the same bytes."""
    at, other = np.uint64(a_start), np.uint64(b_start)
    for i in range(np.uint64(length)):  # noqa: SIM110 -- numba has no generator expressions
        if a[at + i] != b[other + i]:
            return False
    return True


@kernel
def copy_bytes(source: Any, start: int, length: int, target: Any, at: int) -> None:
    """Copy `source[start : start + length]` to `target[at:]`."""
    first, to = np.uint64(start), np.uint64(at)
    for i in range(np.uint64(length)):
        target[to + i] = source[first + i]


@kernel
def intern(table: InternTable, kind: int, data: Any, start: int, length: int) -> int:
    """The number of a value, new or not; `FULL` if it is new and there is no room."""
    hashed = hash_bytes(data, start, length, kind)
    mask = len(table.slots) - 1
    at = np.int64(hashed) & mask
    while table.slots[at] >= 0:
        number = table.slots[at]
        begin = table.starts[number]
        if (
            table.hashes[number] == hashed
            and table.kinds[number] == kind
            and table.starts[number + 1] - begin == length
            and same_bytes(table.arena, begin, data, start, length)
        ):
            return wide(number)
        at = (at + 1) & mask
    number, begin = table.used[0], table.used[1]
    if number == len(table.hashes) or begin + length > len(table.arena):
        return FULL
    copy_bytes(data, start, length, table.arena, begin)
    table.hashes[number], table.kinds[number] = hashed, kind
    table.starts[number + 1] = begin + length
    table.used[0], table.used[1] = number + 1, begin + length
    table.slots[at] = number
    return wide(number)


@kernel
def _intern_column(
    table: InternTable, data: Any, kinds: Any, offsets: Any, lengths: Any, wanted: Any, out: Any, first: int
) -> int:
    """Number rows from `first` on; the row at which the table was full, or their count."""
    for row in range(first, len(out)):
        kind = kinds[row]
        if kind == 0 or not wanted[row]:
            continue
        length = wide(lengths[row])
        empty_kind = kind >= _BYTES and kind not in (ADDRESS, RESOURCE)
        if empty_kind or (kind == STRING and length <= 0):
            out[row] = EMPTY  # found, and its text is empty (PRIM-1, PRIM-3)
            continue
        number = intern(table, wide(kind), data, wide(offsets[row]), length)
        if number == FULL:
            return row
        out[row] = number
    return len(out)
