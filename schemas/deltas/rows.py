"""Delta rows in columns, and their canonical order.

The columns are plain arrays and the texts are Python's own, not a frame: a window has ten rows more often than a
hundred thousand, and each expression over a frame costs a quarter of a millisecond however few rows it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from operator import lt
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.deltas.columns import ROW

Numbers = npt.NDArray[np.int64]

Text = TypeVar("Text", str, bytes)


@dataclass(frozen=True, slots=True, eq=False)
class DeltaRows:
    """Delta rows (`ROW`), in any order unless said otherwise. Nothing in them changes once they are made."""

    cells: npt.NDArray[Any]
    tenants: Sequence[str]
    labels: Sequence[bytes]
    """Label bytes. A text that no row has, or that is there twice, changes nothing."""
    traces: pa.Array
    """Binary, per row: the exemplar's trace ID; empty where none was offered."""

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, rows: Numbers) -> "DeltaRows":
        """These rows, in this order."""
        return DeltaRows(self.cells[rows], self.tenants, self.labels, self.traces.take(pa.array(rows)))

    def slice(self, start: int, end: int) -> "DeltaRows":
        """The rows from one to before another."""
        if start == 0 and end == len(self):
            return self
        return DeltaRows(self.cells[start:end], self.tenants, self.labels, self.traces[start:end])

    def with_layouts(self, numbers: npt.NDArray[np.uint16]) -> "DeltaRows":
        """The rows with other numbers in place of the layouts 0, 1 and so on; layouts beyond `numbers` stay."""
        if (numbers == np.arange(len(numbers))).all():
            return self
        cells = self.cells.copy()
        given = cells["layout"] < len(numbers)
        cells["layout"][given] = numbers[cells["layout"][given]]
        return DeltaRows(cells, self.tenants, self.labels, self.traces)


@dataclass(frozen=True, slots=True, eq=False)
class RoutedRows:
    """The rows of a window, and of each the value of the label by which its series finds its owner."""

    rows: DeltaRows
    routes: Sequence[bytes]
    route: Numbers
    """Per row: a number of `routes`."""

    def __len__(self) -> int:
        return len(self.rows)


NO_ROWS = DeltaRows(np.empty(0, ROW), (), (), pa.array([], pa.binary()))
NO_ROUTED_ROWS = RoutedRows(NO_ROWS, (), np.empty(0, np.int64))


def concatenated(parts: Sequence[DeltaRows]) -> DeltaRows:
    """The rows of all parts in turn."""
    if len(parts) == 1:
        return parts[0]
    cells = np.empty(sum(map(len, parts)), ROW)
    tenants: dict[str, int] = {}
    labels: dict[bytes, int] = {}
    at = 0
    for part in parts:
        own = cells[at : at + len(part)]
        own[:] = part.cells
        own["tenant"] = _numbers(part.tenants, tenants)[part.cells["tenant"]]
        own["labels"] = _numbers(part.labels, labels)[part.cells["labels"]]
        at += len(part)
    return DeltaRows(cells, tuple(tenants), tuple(labels), pa.concat_arrays([part.traces for part in parts]))


def sort_keys(rows: DeltaRows) -> tuple[Numbers, Numbers]:
    """Two numbers per row by which, the first before the second, rows are in canonical order.

    The first is that of the tenant and the labels, the second that of the metric, the bucket and the layout. Rows are
    equal in both only if they have one key.
    """
    cells = rows.cells
    sets = ranks(rows.labels)[cells["labels"]]
    if len(rows.tenants) > 1:
        sets += ranks(rows.tenants)[cells["tenant"]] * len(rows.labels)
    metric, bucket = cells["metric"].astype(np.int64), cells["bucket"].astype(np.int64)
    return sets, (metric << 32) + ((bucket + 0x8000) << 16) + cells["layout"]


def ascend(first: Numbers, second: Numbers) -> npt.NDArray[np.bool_]:
    """Per row but the first: whether its keys are greater than those of the row before."""
    later = first[1:] > first[:-1]
    if later.all():
        return later
    greater: npt.NDArray[np.bool_] = later | ((first[1:] == first[:-1]) & (second[1:] > second[:-1]))
    return greater


def ranks(texts: Sequence[Text]) -> Numbers:
    """The rank of each text among them, by its bytes: code points are in the order of their UTF-8."""
    if all(map(lt, texts, islice(texts, 1, None))):
        return np.arange(len(texts))
    # They come in sorted runs, of partitions or tenants, and those merge in linear time.
    order = {text: rank for rank, text in enumerate(sorted(dict.fromkeys(texts)))}
    return np.array([order[text] for text in texts], np.int64)


def binary_lengths(texts: pa.Array) -> npt.NDArray[np.int32]:
    """The length of each text of a binary array."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, 4 * texts.offset)
    lengths: npt.NDArray[np.int32] = offsets[1:] - offsets[:-1]
    return lengths


def _numbers(texts: Sequence[Any], known: dict[Any, int]) -> npt.NDArray[np.int32]:
    """The number of each text; those that are new get the next ones."""
    return np.array([known.setdefault(text, len(known)) for text in texts], np.int32)
