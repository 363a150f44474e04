"""Checks of many label sets' bytes at once, in an Arrow array of them."""

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.errors import Malformed, Reason
from schemas.labels import decode_labels

_ASCII, _OTHER, _MALFORMED = 0, 1, 2


def binary_buffers(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """The bytes of a binary array (with rows, without nulls) and the offsets into them, one more than it has rows."""
    _, offsets, data = texts.buffers()
    # A buffer may be longer than what is used of it, by any number of bytes.
    positions = np.frombuffer(offsets, np.int32, texts.offset + len(texts) + 1)[texts.offset :]
    return (np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)), positions


def check_label_bytes(sets: pa.Array) -> None:
    """Raises Malformed unless `decode_labels` takes each of the label sets of a valid binary array without nulls."""
    if len(sets) == 0:
        return
    verdicts = _verdicts(*binary_buffers(sets))
    # The few sets that aren't ASCII are left to Python's own UTF-8; so is what is to be said of malformed ones.
    for row in np.flatnonzero(verdicts):
        decode_labels(sets[int(row)].as_py())
        if verdicts[row] == _MALFORMED:
            raise Malformed(Reason.LABELS, f"label set {row}")


@numba.njit(cache=True, nogil=True)
def _verdicts(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """What each set is, with each read inside its own bytes."""
    verdicts = np.empty(len(offsets) - 1, np.uint8)
    for row in range(len(verdicts)):
        verdicts[row] = _verdict(data, int(offsets[row]), int(offsets[row + 1]))
    return verdicts


@numba.njit(cache=True, nogil=True)
def _verdict(data: npt.NDArray[np.uint8], at: int, end: int) -> int:
    verdict = _ASCII
    texts = 0
    name_at = name_end = at
    while at < end:
        length, at = _length(data, at, end)
        if length <= 0 or length > end - at:
            return _MALFORMED
        for i in range(at, at + length):
            if data[i] > 0x7F:
                verdict = _OTHER
        if texts % 2 == 0:
            if texts > 0 and not _less(data, name_at, name_end, at, at + length):
                return _MALFORMED
            name_at, name_end = at, at + length
        texts += 1
        at += length
    return verdict if texts % 2 == 0 else _MALFORMED


@numba.njit(cache=True, nogil=True)
def _length(data: npt.NDArray[np.uint8], at: int, end: int) -> tuple[int, int]:
    """A varint of at most five bytes in its shortest form, and the position after it; -1 if there is none."""
    start, number = at, 0
    for shift in range(0, 35, 7):
        if at == end:
            return -1, at
        byte = int(data[at])
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number if byte > 0 or at == start + 1 else -1), at
    return -1, at


@numba.njit(cache=True, nogil=True)
def _less(data: npt.NDArray[np.uint8], a: int, a_end: int, b: int, b_end: int) -> bool:
    while a < a_end and b < b_end:
        if data[a] != data[b]:
            return bool(data[a] < data[b])
        a, b = a + 1, b + 1
    return a == a_end and b < b_end
