"""The limit of how many values a label of a tenant may have (Tempo LIM-9 to LIM-12)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.label_bytes import binary_buffers
from schemas.labels import decode_labels, encode_labels
from schemas.limiters import LabelState
from streams.hyperloglog import SketchTable, SlidingSketches, hash_all, hash_text, insert_hash
from streams.kernels import kernel, wide
from streams.series import CARDINALITY_OVERFLOW

MAX_CACHED_LABEL_SETS = 200_000
LOOK_MS = 15_000
"""The time between two looks at the estimates."""

_EXEMPT = ("__name__", "__type__", "__unit__")
_NO_ROW = -1


class Limited(NamedTuple):
    """A label set after the limit, and the names of the labels that it replaced."""

    labels: bytes
    replaced: tuple[str, ...] = ()


class LabelLimiter:
    """The values of a tenant's labels, by the name of the label, whatever the metric (LIM-12)."""

    def __init__(self, shard: int) -> None:
        self.over: frozenset[str] = frozenset()
        """The labels with too many values."""
        self.estimates: Mapping[str, int] = {}
        """How many values each label had at the last look; they stay when there is no limit any more (LIM-11)."""
        self._shard = shard
        self._sketches = SlidingSketches()
        self._names = _Names(self._sketches)
        # Of label sets and route labels that came since `over` last changed.
        self._limited: dict[tuple[bytes, str], Limited] = {}

    def advance(self, period: int, periods: int) -> None:
        """Go to a period of the sketches."""
        self._sketches.advance(period, periods)

    def insert(self, sets: pa.Array) -> None:
        """Take note of all values in an array of label bytes (valid ones, without nulls)."""
        data, offsets = binary_buffers(sets)
        at = 0
        while at < len(sets):
            at = _insert_values(data, offsets, self._names.hashes, self._names.rows, self._sketches.current(), at)
            if at < len(sets):
                self._names.add(sets[at].as_py())

    def look(self, limit: int) -> None:
        """Decide which labels are replaced from the next window on: those with more than `limit` values (LIM-10)."""
        if limit:
            self.estimates = self._sketches.estimates()
        over = frozenset(name for name, estimate in self.estimates.items() if limit and estimate > limit)
        if over != self.over:
            self.over = over
            self._limited.clear()

    def limited(self, labels: bytes, route_label: str) -> Limited:
        """A label set with the values of all labels replaced that have too many.

        If the one is among them by which rows find their shard, each shard has such a series, so it is named.
        """
        limited = self._limited.get((labels, route_label))
        if limited is None:
            if len(self._limited) >= MAX_CACHED_LABEL_SETS:
                self._limited.clear()
            limited = self._limited[labels, route_label] = self._limit(labels, route_label)
        return limited

    def state(self) -> LabelState:
        """All of it, immutable."""
        return LabelState(self._sketches.state(), tuple(sorted(self.estimates.items())), tuple(sorted(self.over)))

    def restore(self, state: LabelState) -> None:
        """Put back what `state` gave."""
        self._sketches.restore(state.sketches)
        self._names = _Names(self._sketches)
        self.estimates, self.over = dict(state.estimates), frozenset(state.over)
        self._limited.clear()

    def _limit(self, labels: bytes, route_label: str) -> Limited:
        pairs = decode_labels(labels)
        replaced = tuple(name for name, _ in pairs if name in self.over)
        if not replaced:
            return Limited(labels)
        values = {name: CARDINALITY_OVERFLOW if name in self.over else value for name, value in pairs}
        if route_label in replaced:
            values["shard"] = str(self._shard)
        return Limited(encode_labels(sorted(values.items())), replaced)


class _Names:
    """The hashes of label names and the rows of their sketches, `_NO_ROW` for those without a limit."""

    def __init__(self, sketches: SlidingSketches) -> None:
        self._sketches, self._known = sketches, dict.fromkeys(_EXEMPT, _NO_ROW)
        self._known |= {name: sketches.row(name) for name in sketches.keys}
        self._index()

    def add(self, labels: bytes) -> None:
        """Know the names of a label set."""
        for name, _ in decode_labels(labels):
            if name not in self._known:
                self._known[name] = self._sketches.row(name)
        self._index()

    def _index(self) -> None:
        names = [name.encode() for name in self._known]
        offsets = np.cumsum([0, *map(len, names)]).astype(np.int32)
        self.hashes = hash_all(np.frombuffer(b"".join(names), np.uint8), offsets)
        self.rows = np.array(list(self._known.values()), np.int64)


@kernel
def _insert_values(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int32],
    names: npt.NDArray[np.uint64],
    rows: npt.NDArray[np.int64],
    sketches: SketchTable,
    first: int,
) -> int:
    """Insert the values of label sets from `first` on; the set with a name that isn't known, or their count."""
    for number in range(first, len(offsets) - 1):
        at, end = wide(offsets[number]), wide(offsets[number + 1])
        next_name = 0
        while at < end:
            length, at = _text(data, at)
            name = _find(names, hash_text(data, at, length), next_name)
            if name < 0:
                return wide(number)
            next_name = name + 1
            at += length
            length, at = _text(data, at)
            if rows[name] >= 0:
                insert_hash(sketches, wide(rows[name]), hash_text(data, at, length))
            at += length
    return len(offsets) - 1


@kernel
def _text(data: npt.NDArray[np.uint8], at: int) -> tuple[int, int]:
    """The length of the text that begins here, and the position of its first byte."""
    length, shift = 0, 0
    while data[at] >= 0x80:
        length |= (wide(data[at]) & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return length | wide(data[at]) << shift, at + 1


@kernel
def _find(names: npt.NDArray[np.uint64], hashed: np.uint64, likely: int) -> int:
    """The number of a name, -1 if it isn't known; label sets have much the same names, in one order."""
    for i in range(len(names)):
        number = likely + i
        if number >= len(names):
            number -= len(names)
        if names[number] == hashed:
            return number
    return -1
