"""How many different things were seen lately: HyperLogLog sketches that slide (Tempo LIM-8).

A sketch is 2^10 registers (standard error 3.25 %). There is one for each period of five minutes of stream time, and an
estimate is that of the union of the latest ones. Estimates decide samples (LIM-10), so they depend on what was inserted
and on nothing else: hashes are ours, and estimates need no logarithm, whose last bit differs between machines.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from schemas.limiters import REGISTERS, Sketches, SketchPeriod
from streams.interner import hash_bytes
from streams.kernels import kernel, wide

PERIOD_MS = 300_000
"""How long a sketch takes what is seen; also the time between two prunings of span names (DRN-9)."""

_RANK_BITS = np.uint64(54)
"""What of a hash isn't the number of its register."""
_LAST_RANK = 55
_ALPHA = 0.7213475204444817  # 1 / (2 ln 2)
_MOST = 2.0**62
_SEED = 0x5350414E4D494C4C

Hashes = npt.NDArray[np.uint64]
Registers = npt.NDArray[np.uint8]


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
        # By period, ascending, where anything was inserted: one sketch a row. Only that of the current period changes;
        # earlier ones may have fewer rows.
        self._periods: dict[int, Registers] = {}

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

    def current(self) -> Registers:
        """The sketches of the period, all keys' of now, for kernels that insert."""
        registers = self._periods.get(self._period)
        if registers is None or len(registers) < len(self._rows):
            grown = np.zeros((len(self._rows), REGISTERS), np.uint8)
            if registers is not None:
                grown[: len(registers)] = registers
            registers = self._periods[self._period] = grown
        return registers

    def insert(self, rows: npt.NDArray[np.int64], hashes: Hashes) -> None:
        """Insert one thing each into the sketches of these rows."""
        _insert_all(self.current(), rows, hashes)

    def estimates(self) -> Mapping[str, int]:
        """How many different things each key saw in all periods that count."""
        union = np.zeros((len(self._rows), REGISTERS), np.uint8)
        for registers in self._periods.values():
            known = union[: len(registers)]
            np.maximum(known, registers, out=known)
        estimates = np.empty(len(union), np.int64)
        _estimate_all(union, np.empty(_LAST_RANK + 1, np.int64), estimates)
        return dict(zip(self._rows, estimates.tolist(), strict=True))

    def state(self) -> Sketches:
        """All of it, immutable."""
        periods = (SketchPeriod(period, registers.tobytes()) for period, registers in self._periods.items())
        return Sketches(tuple(self._rows), tuple(periods))

    def restore(self, state: Sketches) -> None:
        """Put back what `state` gave."""
        self._rows = {key: row for row, key in enumerate(state.keys)}
        self._periods = {
            period: np.frombuffer(registers, np.uint8).reshape(-1, REGISTERS).copy()
            for period, registers in state.periods
        }


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
def insert_hash(registers: Registers, row: int, hashed: np.uint64) -> None:
    """Insert a hash into the sketch of a row."""
    register = hashed >> _RANK_BITS
    rest = hashed << np.uint64(10)
    rank = 1
    while rank < _LAST_RANK and rest & np.uint64(0x8000000000000000) == np.uint64(0):
        rest <<= np.uint64(1)
        rank += 1
    registers[row, register] = max(registers[row, register], rank)


@kernel
def _hash_all(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32], hashes: Hashes) -> None:
    for text in range(len(hashes)):
        start = wide(offsets[text])
        hashes[text] = hash_text(data, start, wide(offsets[text + 1]) - start)


@kernel
def _insert_all(registers: Registers, rows: npt.NDArray[np.int64], hashes: Hashes) -> None:
    for i in range(len(rows)):
        insert_hash(registers, rows[i], hashes[i])


@kernel
def _estimate_all(sketches: Registers, counts: npt.NDArray[np.int64], estimates: npt.NDArray[np.int64]) -> None:
    for row in range(len(sketches)):
        counts[:] = 0
        for register in range(REGISTERS):
            counts[sketches[row, register]] += 1
        estimates[row] = np.int64(min(_estimate(counts) + 0.5, _MOST))


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
