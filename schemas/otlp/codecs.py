"""Record codecs: where in a record's value the messages are, each a TracesData."""

from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.errors import Malformed
from schemas.otlp.jit import kernel
from schemas.otlp.wire import MAX_DEPTH, Bytes, read_length, read_tag, read_varint, skip

_TRACE, _ID, _SKIP_METRICS = 0x12, 0x1A, 0x28
"""Tags of a push-bytes value (Tempo KFK-3)."""


class Codec(StrEnum):
    """How records carry spans."""

    OTLP = "otlp"
    """A value is a TracesData (Tempo KFK-4)."""
    PUSH_BYTES = "push-bytes"
    """Tempo's own: a value is a list of TracesData, each of one trace (Tempo KFK-3)."""


class Split(NamedTuple):
    """The messages of a batch of records, and what stands beside them."""

    ranges: npt.NDArray[np.int64]
    """[message, 3]: start and end in the data, row of the record."""
    no_metrics: npt.NDArray[np.bool_]
    """By record: its value says so."""
    errors: list[tuple[int, int, int]]
    """Records that are no values of the codec: row, position in the data, fault."""


class Message(NamedTuple):
    """What one record holds."""

    value: bytes
    """A TracesData."""
    no_metrics: bool = False
    """Whether the record's value says so."""


def traces_data(value: bytes, codec: Codec) -> Message:
    """A record's messages as one. Raises Malformed if it is no value of the codec."""
    if codec is Codec.OTLP:
        return Message(value)
    found = split_push_bytes(np.frombuffer(value, np.uint8), np.array([0, len(value)]))
    if found.errors:
        raise Malformed("not a push-bytes value", position=found.errors[0][1])
    return Message(b"".join(value[start:end] for start, end, _ in found.ranges.tolist()), bool(found.no_metrics[0]))


def split(data: Bytes, bounds: npt.NDArray[np.int64], codec: Codec) -> Split:
    """The messages of records, whose values are `data[bounds[i] : bounds[i + 1]]`."""
    records = len(bounds) - 1
    if codec is Codec.OTLP:
        ranges = np.stack([bounds[:-1], bounds[1:], np.arange(records)], axis=1)
        return Split(ranges, np.zeros(records, np.bool_), [])
    return split_push_bytes(data, bounds)


def split_push_bytes(data: Bytes, bounds: npt.NDArray[np.int64]) -> Split:
    """The messages of push-bytes records; a record that can't be read has none (Tempo KFK-6)."""
    records = len(bounds) - 1
    no_metrics, faults = np.zeros(records, np.bool_), np.zeros((records, 2), np.int64)
    ranges, groups = np.empty((records + 1, 3), np.int64), np.empty(MAX_DEPTH + 1, np.int64)
    while (count := _split(data, bounds, ranges, no_metrics, faults, groups)) > len(ranges):
        ranges = np.empty((count, 3), np.int64)
    errors = [(int(row), int(faults[row, 0]), int(faults[row, 1])) for row in np.flatnonzero(faults[:, 1])]
    return Split(ranges[:count], no_metrics, errors)


@kernel
def _split(
    data: Bytes,
    bounds: npt.NDArray[np.int64],
    ranges: npt.NDArray[np.int64],
    no_metrics: npt.NDArray[np.bool_],
    faults: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
) -> int:
    """The number of messages; `ranges` has them only if it has room for all."""
    count = 0
    for record in range(len(bounds) - 1):
        before = count
        at, end = bounds[record], bounds[record + 1]
        while at < end:
            field_at = at
            tag, at = read_tag(data, at, end)
            if at >= 0:
                if tag in (_TRACE, _ID):
                    length, at = read_length(data, at, end)
                    if tag == _TRACE and at >= 0:
                        if count < len(ranges):
                            ranges[count, 0], ranges[count, 1], ranges[count, 2] = at, at + length, record
                        count += 1
                    at += length
                elif tag == _SKIP_METRICS:
                    flag, at = read_varint(data, at, end)
                    no_metrics[record] = flag != 0
                else:
                    at = skip(data, tag, at, end, 0, groups)
            if at < 0:
                faults[record, 0], faults[record, 1] = field_at, -at
                no_metrics[record] = False
                count = before
                break
    return count
