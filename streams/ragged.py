"""Rows of different lengths as arrays that kernels read."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def counts(rows: Sequence[Sequence[object]]) -> npt.NDArray[np.int32]:
    """The length of each row."""
    return np.array([len(row) for row in rows], np.int32)


def ragged(rows: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """The rows as one array, padded with -1 to the longest, and to one column at least."""
    table = np.full((len(rows), max((len(row) for row in rows), default=0) or 1), -1, np.int64)
    for row, numbers in enumerate(rows):
        table[row, : len(numbers)] = numbers
    return table
