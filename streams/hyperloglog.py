"""How many different things were seen lately: HyperLogLog sketches that slide (Tempo LIM-8).

A sketch is 2^10 registers (standard error 3.25 %); as long as few things were seen their hashes stand in its place, so
small numbers are exact. There is one for each period of five minutes of stream time, and an estimate is that of the
union of the latest ones. Estimates decide samples (LIM-10), so they depend on what was inserted and on nothing else:
hashes are ours, and estimates need no logarithm, whose last bit differs between machines.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.limiters import DENSE, MAX_EXACT, REGISTERS, WORDS, Sketches, SketchPeriod
from streams.interner import hash_bytes
from streams.kernels import kernel, wide

PERIOD_MS = 300_000
"""How long a sketch takes what is seen; also the time between two prunings of span names (DRN-9)."""

_MAX_EXACT_UNION = 512
_UNION_SLOTS = 1024

_RANK_BITS = np.uint64(54)
"""What of a hash isn't the number of its register."""
_LAST_RANK = 55
_ALPHA = 0.7213475204444817  # 1 / (2 ln 2)
_MOST = 2.0**62
_SEED = 0x5350414E4D494C4C

Hashes = npt.NDArray[np.uint64]


class SketchTable(NamedTuple):
    """The sketches of a period, one a row."""

    words: Hashes
    """Eight registers each; or the slots of a hash table, 0 where one is free."""
    counts: npt.NDArray[np.int32]
    """How many hashes there are, -1 if there are registers."""
    scratch: Hashes


def period_of(end_ms: int) -> int:
    """The period of a window: one that ends where a period does belongs to it."""
    return (end_ms - 1) // PERIOD_MS


def periods_of(stale_ms: int) -> int:
    """How many sketches an estimate spans, for a stale duration."""
    return max((stale_ms + PERIOD_MS) // PERIOD_MS, 1)


class SlidingSketches:
    """Sketches of several keys, which slide together. A key is there from its first use on."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._period = 0
        # By period, ascending, where anything was inserted. Only that of the current period changes; earlier ones may
        # have fewer rows.
        self._periods: dict[int, SketchTable] = {}

    @property
    def keys(self) -> Sequence[str]:
        """All keys, in the order of their rows."""
        return tuple(self._rows)

    def row(self, key: str) -> int:
        """The row of a key's sketches."""
        return self._rows.setdefault(key, len(self._rows))

    def advance(self, period: int, periods: int) -> None:
        """Go to a period, and forget those before the latest `periods`."""
        self._period = period
        for old in [each for each in self._periods if each <= period - periods]:
            del self._periods[old]

    def current(self) -> SketchTable:
        """The sketches of the period, all keys' of now, for kernels that insert."""
        table = self._periods.get(self._period)
        if table is None or len(table.words) < len(self._rows):
            grown = _table(np.zeros((len(self._rows), WORDS), np.uint64), np.zeros(len(self._rows), np.int32))
            if table is not None:
                grown.words[: len(table.words)], grown.counts[: len(table.counts)] = table.words, table.counts
            table = self._periods[self._period] = grown
        return table

    def insert(self, rows: npt.NDArray[np.int64], hashes: Hashes) -> None:
        """Insert one thing each into the sketches of these rows."""
        _insert_all(self.current(), rows, hashes)

    def estimates(self) -> Mapping[str, int]:
        """How many different things each key saw in all periods that count."""
        words = np.zeros((len(self._periods), len(self._rows), WORDS), np.uint64)
        counts = np.zeros(words.shape[:2], np.int32)
        for n, table in enumerate(self._periods.values()):
            words[n, : len(table.words)], counts[n, : len(table.counts)] = table.words, table.counts
        estimates = np.empty(len(self._rows), np.int64)
        union = np.empty(_UNION_SLOTS, np.uint64)
        _estimate_all(
            words, counts, union, np.empty(REGISTERS, np.uint8), np.empty(_LAST_RANK + 1, np.int64), estimates
        )
        return dict(zip(self._rows, estimates.tolist(), strict=True))

    def state(self) -> Sketches:
        """All of it, immutable."""
        periods = (
            SketchPeriod(period, table.words.astype("<u8").tobytes(), tuple(table.counts.tolist()))
            for period, table in self._periods.items()
        )
        return Sketches(tuple(self._rows), tuple(periods))

    def restore(self, state: Sketches) -> None:
        """Put back what `state` gave."""
        self._rows = {key: row for row, key in enumerate(state.keys)}
        self._periods = {
            each.period: _table(
                np.frombuffer(each.words, "<u8").reshape(-1, WORDS).astype(np.uint64), np.array(each.counts, np.int32)
            )
            for each in state.periods
        }


def _table(words: Hashes, counts: npt.NDArray[np.int32]) -> SketchTable:
    return SketchTable(words, counts, np.empty(WORDS, np.uint64))


def hash_all(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32]) -> Hashes:
    """The hashes of texts that lie one behind the other; there is one offset more than there are texts."""
    hashes = np.empty(len(offsets) - 1, np.uint64)
    _hash_all(data, offsets, hashes)
    return hashes


@kernel
def hash_text(data: npt.NDArray[np.uint8], start: int, length: int) -> np.uint64:
    """The hash of a text as sketches take it: every bit of it depends on all of the text."""
    state = hash_bytes(data, start, length, _SEED)
    state = (state ^ (state >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    state = (state ^ (state >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return state ^ (state >> np.uint64(33))


@kernel
def insert_hash(table: SketchTable, row: int, hashed: np.uint64) -> None:
    """Insert a hash into the sketch of a row."""
    if hashed == np.uint64(0):
        hashed = np.uint64(1)  # 0 marks what is free
    if table.counts[row] != DENSE:
        at = _slot(table.words[row], hashed)
        if table.words[row, at] == hashed:
            return
        if table.counts[row] < MAX_EXACT:
            table.words[row, at] = hashed
            table.counts[row] += 1
            return
        _make_dense(table, row)
    _raise(table.words[row], hashed)


@kernel
def _slot(slots: Hashes, hashed: np.uint64) -> int:
    """Where a hash is, or would be, in a table that has room."""
    mask = len(slots) - 1
    at = np.int64(hashed) & mask
    while slots[at] != np.uint64(0) and slots[at] != hashed:
        at = (at + 1) & mask
    return wide(at)


@kernel
def _make_dense(table: SketchTable, row: int) -> None:
    """Put registers in place of hashes."""
    words = table.words[row]
    for word in range(WORDS):
        table.scratch[word], words[word] = words[word], 0
    table.counts[row] = DENSE
    for hashed in table.scratch:
        if hashed != np.uint64(0):
            _raise(words, hashed)


@kernel
def _raise(words: Hashes, hashed: np.uint64) -> None:
    """Raise the register of a hash, a byte of a word, to its rank."""
    register = hashed >> _RANK_BITS
    word, shift = register >> np.uint64(3), (register & np.uint64(7)) << np.uint64(3)
    rank = _rank(hashed)
    if (words[word] >> shift) & np.uint64(0xFF) < rank:
        words[word] = (words[word] & ~(np.uint64(0xFF) << shift)) | (rank << shift)


@kernel
def _rank(hashed: np.uint64) -> np.uint64:
    """One more than the zeros that a hash begins with, after the bits that name its register."""
    rest = hashed << np.uint64(10)
    rank = np.uint64(1)
    while rank < np.uint64(_LAST_RANK) and rest & np.uint64(0x8000000000000000) == np.uint64(0):
        rest <<= np.uint64(1)
        rank += np.uint64(1)
    return rank


@kernel
def _hash_all(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32], hashes: Hashes) -> None:
    for text in range(len(hashes)):
        start = wide(offsets[text])
        hashes[text] = hash_text(data, start, wide(offsets[text + 1]) - start)


@kernel
def _insert_all(table: SketchTable, rows: npt.NDArray[np.int64], hashes: Hashes) -> None:
    for i in range(len(rows)):
        insert_hash(table, rows[i], hashes[i])


@kernel
def _estimate_all(
    words: Hashes,
    counts: npt.NDArray[np.int32],
    union: Hashes,
    ranks: npt.NDArray[np.uint8],
    histogram: npt.NDArray[np.int64],
    estimates: npt.NDArray[np.int64],
) -> None:
    """Estimates of the columns of `words` (periods, keys, words); the others are room to work in."""
    for key in range(len(estimates)):
        exact = _exact_union(words[:, key], counts[:, key], union)
        if exact >= 0:
            estimates[key] = exact
            continue
        for register in range(REGISTERS):
            ranks[register] = 0
        for period in range(len(words)):
            _add_ranks(words[period, key], counts[period, key], ranks)
        for rank in range(len(histogram)):
            histogram[rank] = 0
        for register in range(REGISTERS):
            histogram[ranks[register]] += 1
        estimates[key] = np.int64(min(_estimate(histogram) + 0.5, _MOST))


@kernel
def _exact_union(words: Hashes, counts: npt.NDArray[np.int32], union: Hashes) -> int:
    """How many different hashes there are; -1 if there are registers, or too many."""
    for slot in range(len(union)):
        union[slot] = 0
    found = 0
    for period in range(len(counts)):
        if counts[period] == DENSE:
            return -1
        for hashed in words[period]:
            if hashed == np.uint64(0):
                continue
            at = _slot(union, hashed)
            if union[at] != hashed:
                if found == _MAX_EXACT_UNION:
                    return -1
                union[at] = hashed
                found += 1
    return found


@kernel
def _add_ranks(words: Hashes, count: int, ranks: npt.NDArray[np.uint8]) -> None:
    """Raise ranks to those of a sketch."""
    if count == DENSE:
        for register in range(REGISTERS):
            rank = (words[register >> 3] >> np.uint64((register & 7) << 3)) & np.uint64(0xFF)
            ranks[register] = max(ranks[register], np.uint8(rank))
        return
    for hashed in words:
        if hashed != np.uint64(0):
            register = hashed >> _RANK_BITS
            ranks[register] = max(ranks[register], np.uint8(_rank(hashed)))


@kernel
def _estimate(counts: npt.NDArray[np.int64]) -> float:
    """The estimate from how many registers have which rank, by Ertl's improved raw estimator.

    It needs neither a table of biases nor another formula for small numbers (arXiv:1702.01284, section 4).
    """
    if counts[0] == REGISTERS:
        return 0.0
    if counts[_LAST_RANK] == REGISTERS:
        return _MOST
    total = REGISTERS * _saturated(1.0 - counts[_LAST_RANK] / REGISTERS)
    for rank in range(_LAST_RANK - 1, 0, -1):
        total = 0.5 * (total + counts[rank])
    total += REGISTERS * _untouched(counts[0] / REGISTERS)
    return _ALPHA * REGISTERS * REGISTERS / total


@kernel
def _untouched(x: float) -> float:
    """What registers that saw nothing add, by their share: the sum of x^(2^k) 2^(k-1) and x."""
    factor, total, before = 1.0, x, -1.0
    while total != before:
        x *= x
        before = total
        total += x * factor
        factor += factor
    return total


@kernel
def _saturated(x: float) -> float:
    """What registers of the last rank add, by the share x of the others.

    A third of 1 - x minus the sum of (1 - x^(2^-k))^2 2^-k.
    """
    if x == 0.0 or x == 1.0:  # noqa: PLR1714  numba's sets allocate
        return 0.0
    factor, total, before = 1.0, 1.0 - x, -1.0
    while total != before:
        x = np.sqrt(x)
        before = total
        factor *= 0.5
        total -= (1.0 - x) ** 2 * factor
    return total / 3.0
