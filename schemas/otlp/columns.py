"""What the kernel writes: tables with room for more rows than there are, in columns."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Rows of `SpanColumns.ints`. A text has two: where it begins in the data, and its length.
RESOURCE, RECORD, INDEX, KIND, STATUS_CODE, CLAMPED = range(6)
TRACE_ID, SPAN_ID, PARENT_ID, NAME, STATUS_MESSAGE, TRACE_STATE = range(6, 18, 2)
SPAN_INTS = 18
# Rows of `SpanColumns.longs`.
START_NS, END_NS, LATENCY_NS, SPAN_SIZE = range(4)
SPAN_LONGS = 4
# Rows of `ResourceColumns.ints`.
MESSAGE, RESOURCE_RECORD, SPAN_COUNT, FIELD_AT, FIELD_BYTES = range(5)
RESOURCE_INTS = 5
# Counters: rows in use, where the data in use ends; the record being scanned, and its first span.
SPANS, RESOURCES, MESSAGES, ERRORS, USED, THIS_RECORD, FIRST_SPAN = range(7)
COUNTERS = 7


class AttributeColumns(NamedTuple):
    """[key, row] each; as `frame.Attributes`, with room for more rows."""

    kind: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]


class SpanColumns(NamedTuple):
    """One column per span."""

    ints: npt.NDArray[np.int32]
    longs: npt.NDArray[np.int64]
    """Times are the bits of unsigned ones."""
    attributes: AttributeColumns


class ResourceColumns(NamedTuple):
    """One column per ResourceSpans."""

    ints: npt.NDArray[np.int32]
    size: npt.NDArray[np.int64]
    attributes: AttributeColumns


class MessageColumns(NamedTuple):
    """One row per message that was accepted, one per message that was refused."""

    record: npt.NDArray[np.int32]
    errors: npt.NDArray[np.int64]
    """[message, 3]: record, position in the data, fault."""


def attribute_columns(keys: int, rows: int) -> AttributeColumns:
    """Columns in which every attribute is absent, and therefore without ranges."""
    offset, length = np.empty((keys, rows), np.int32), np.empty((keys, rows), np.int32)
    return AttributeColumns(np.zeros((keys, rows), np.uint8), offset, length)
