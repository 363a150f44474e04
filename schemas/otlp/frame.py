"""Span frames: the spans of a batch of records in columns, over the records' bytes."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.otlp.attributes import Mode, WantedKey
from schemas.otlp.jit import kernel

_INLINE = 12
"""An Arrow view holds texts up to this length itself, and four bytes of longer ones."""


class Strings(NamedTuple):
    """A column of texts: ranges of the frame's data. Unvalidated bytes; an unset one has length 0."""

    offset: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]


class Attributes(NamedTuple):
    """The wanted attributes of spans or resources: one row per key, one column per span or resource.

    `kind` is 0 where the attribute is absent, 255 where it has no value, else the field number of its AnyValue (1
    string, 2 bool, 3 int, 4 double, 5 array, 6 key-value list, 7 bytes, 8 string index). The range is the text itself
    of strings and bytes, and the AnyValue's field (tag and value; several fields if it came in pieces) of the kinds 2
    to 6 and 8; without meaning for the kinds 0 and 255.
    """

    kind: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class RecordTable:
    """One row per record that was given, refused ones included."""

    offset: npt.NDArray[np.int64]
    timestamp_ms: npt.NDArray[np.int64]
    tenant: npt.NDArray[np.int32]
    """Row in the frame's `tenants`."""
    no_metrics: npt.NDArray[np.bool_]
    """The record's flag, or that in its value (Tempo INT-7, KFK-3)."""


@dataclass(frozen=True, slots=True)
class MessageTable:
    """One row per TracesData that was accepted: Tempo's "request" (INT-1)."""

    record: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ResourceTable:
    """One row per ResourceSpans, those without spans included."""

    message: npt.NDArray[np.int32]
    record: npt.NDArray[np.int32]
    attributes: Attributes
    size: npt.NDArray[np.int64]
    """The canonical encoded size of the ResourceSpans."""
    spans: npt.NDArray[np.int32]
    """How many it has."""
    field: Strings
    """The ResourceSpans itself, with its tag and length."""


@dataclass(frozen=True, slots=True)
class SpanTable:
    """One row per span, in the order of the log."""

    resource: npt.NDArray[np.int32]
    record: npt.NDArray[np.int32]
    index: npt.NDArray[np.int32]
    """The position among the record's spans."""
    kind: npt.NDArray[np.int32]
    status: npt.NDArray[np.int32]
    trace_id: Strings
    span_id: Strings
    parent_id: Strings
    name: Strings
    status_message: Strings
    trace_state: Strings
    start_ns: npt.NDArray[np.uint64]
    end_ns: npt.NDArray[np.uint64]
    latency_ns: npt.NDArray[np.int64]
    """End minus start, 0 if that is negative (Tempo PRIM-10), at most 2^53."""
    clamped: npt.NDArray[np.bool_]
    """Whether the latency was more than that."""
    size: npt.NDArray[np.int64]
    """The canonical encoded size of the span (Tempo SM-3)."""
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class ScanError:
    """A message that is no TracesData, or a record that has no such messages: it has no rows elsewhere.

    `record` is its row, `position` the byte of the record's value at which the field begins that can't be read.
    """

    record: int
    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class SpanFrame:
    """The tables of a batch of records. `data` holds the records' values; it must not be written to."""

    data: npt.NDArray[np.uint8]
    keys: tuple[WantedKey, ...]
    tenants: tuple[str, ...]
    records: RecordTable
    messages: MessageTable
    resources: ResourceTable
    spans: SpanTable
    errors: tuple[ScanError, ...]

    def key_index(self, key: str, mode: Mode = Mode.FIRST) -> int:
        """The row of a wanted key in `Attributes`; ValueError if it isn't one."""
        return self.keys.index(WantedKey(key, mode))

    def text(self, strings: Strings, row: int) -> bytes:
        """One text of a column."""
        start = int(strings.offset[row])
        return self.data[start : start + max(int(strings.length[row]), 0)].tobytes()

    def views(self, strings: Strings) -> pa.Array:
        """A column as an Arrow array of binary views over `data`, without copying it; length -1 is null."""
        views = np.empty((len(strings.offset), 4), np.int32)
        nulls = _fill_views(self.data, strings.offset, strings.length, views)
        present = pa.py_buffer(np.packbits(strings.length >= 0, bitorder="little")) if nulls else None
        buffers = [present, pa.py_buffer(views), pa.py_buffer(self.data)]
        return pa.Array.from_buffers(pa.binary_view(), len(views), buffers)


@kernel
def _fill_views(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int32],
    lengths: npt.NDArray[np.int32],
    views: npt.NDArray[np.int32],
) -> int:
    """Arrow's layout: length, then the text itself or its first four bytes, the buffer's number, the offset."""
    nulls = 0
    views[:, :] = 0
    for row in range(len(views)):
        start, length = offsets[row], lengths[row]
        if length < 0:
            nulls += 1
            continue
        views[row, 0] = length
        for i in range(length if length <= _INLINE else 4):
            views[row, 1 + i // 4] |= np.int32(data[start + i]) << np.int32(8 * (i % 4))
        if length > _INLINE:
            views[row, 3] = start
    return nulls
