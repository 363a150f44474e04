"""Records into a span frame: the one way in which spans are read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.otlp import columns as col
from schemas.otlp.attributes import WantedKey, each_wanted, wanted_keys
from schemas.otlp.codecs import Codec, Split, split
from schemas.otlp.columns import (
    AttributeColumns,
    MessageColumns,
    ResourceColumns,
    SpanColumns,
    attribute_columns,
)
from schemas.otlp.frame import (
    Attributes,
    MessageTable,
    RecordTable,
    ResourceTable,
    ScanError,
    SpanFrame,
    SpanTable,
    Strings,
)
from schemas.otlp.kernel import NO_SPACE, scan_messages
from schemas.otlp.machine import machine
from schemas.otlp.output import Output
from schemas.otlp.wire import Fault
from schemas.record import Record

MAX_BATCH_BYTES = (1 << 30) - 1
"""Offsets into a frame's data have 32 bits, and joined values may double it."""

_SPAN_BYTES, _RESOURCE_BYTES = 192, 1024
"""Rows are set aside for spans of this size; where they are smaller, the tables grow."""

_ROWS_OF_A_PAGE = 1024

FAULT_TEXTS = {
    Fault.TRUNCATED: "the value ends before its end",
    Fault.VARINT: "the varint is too long",
    Fault.FIELD_NUMBER: "the field number is 0",
    Fault.WIRE_TYPE: "there is no such wire type",
    Fault.END_GROUP: "the group's end doesn't belong here",
    Fault.LENGTH: "the length goes beyond the end of the message",
    Fault.DEPTH: "messages are nested too deeply",
}


def scan_records(records: Sequence[Record], keys: Sequence[str | WantedKey], codec: Codec) -> SpanFrame:
    """The spans of records, with the attributes whose keys are wanted; of a mere name, the first with it.

    What protobuf's own parser takes for a TracesData is accepted, and invalid UTF-8; the rest is in `errors`. Control
    records must not be among them. ValueError if the values are more than `MAX_BATCH_BYTES`.
    """
    columns = tuple(zip(*records, strict=True)) or ((),) * len(Record._fields)
    offsets, timestamps, values, tenants, no_metrics, *_ = columns
    bounds = np.cumsum([0, *map(len, values)], dtype=np.int64)
    if bounds[-1] > MAX_BATCH_BYTES:
        raise ValueError(f"a batch of {bounds[-1]} bytes: a frame holds at most {MAX_BATCH_BYTES}")
    data = np.frombuffer(bytearray().join(values), np.uint8)
    data, out, parts = scan_values(data, bounds, keys, codec)
    numbers = {tenant: number for number, tenant in enumerate(dict.fromkeys(tenants))}
    table = RecordTable(
        offset=np.array(offsets, np.int64),
        timestamp_ms=np.array(timestamps, np.int64),
        tenant=np.fromiter(map(numbers.__getitem__, tenants), np.int32, len(records)),
        no_metrics=parts.no_metrics | np.array(no_metrics, np.bool_),
    )
    found = map(tuple, out.messages.errors[: out.counters[col.ERRORS]].tolist())
    errors = [
        ScanError(row, position - int(bounds[row]), FAULT_TEXTS[Fault(fault)])
        for row, position, fault in sorted([*found, *parts.errors])
    ]
    spans, resources = _span_table(out), resource_table(out)
    accepted = MessageTable(out.messages.record[: out.counters[col.MESSAGES]])
    return SpanFrame(data, each_wanted(keys), tuple(numbers), table, accepted, resources, spans, tuple(errors))


def scan_values(
    data: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64], keys: Sequence[str | WantedKey], codec: Codec
) -> tuple[npt.NDArray[np.uint8], Output, Split]:
    """The scan without the tables, of the values `data[bounds[i] : bounds[i + 1]]`.

    The data that is given back may be longer: values that came in pieces are behind it.
    """
    parts = split(data, bounds, codec)
    return *_scan(data, parts.ranges, keys), parts


def _scan(
    data: npt.NDArray[np.uint8], ranges: npt.NDArray[np.int64], keys: Sequence[str | WantedKey]
) -> tuple[npt.NDArray[np.uint8], Output]:
    """Run the kernel until it is through, with more room each time that it stops."""
    state = machine(wanted_keys(keys))
    size, messages = len(data), len(ranges)
    out = empty_output(size, size // _SPAN_BYTES, size // _RESOURCE_BYTES + messages, messages, len(keys))
    at = 0
    while True:
        at, why = scan_messages(data, ranges, at, state, out)
        if at == len(ranges):
            return data, out
        if why == NO_SPACE:
            data = np.concatenate([data, np.empty(len(data), np.uint8)])
        else:
            out = _grown(out)


def empty_output(size: int, spans: int, resources: int, messages_in: int, keys: int) -> Output:
    """Empty tables for data of `size` bytes, with room for at least so many spans and ResourceSpans."""
    spans, resources = _rounded(spans), _rounded(resources)
    counters = np.zeros(col.COUNTERS, np.int64)
    counters[col.USED], counters[col.THIS_RECORD] = size, -1
    return Output(
        SpanColumns(
            np.empty((col.SPAN_INTS, spans), np.int32),
            np.empty((col.SPAN_LONGS, spans), np.int64),
            attribute_columns(keys, spans),
        ),
        ResourceColumns(
            np.empty((col.RESOURCE_INTS, resources), np.int32),
            np.empty(resources, np.int64),
            attribute_columns(keys, resources),
        ),
        MessageColumns(np.empty(messages_in, np.int32), np.empty((messages_in, 3), np.int64)),
        counters,
    )


def _rounded(rows: int) -> int:
    """Room for so many rows and some more, so that all columns begin at the same place of a page.

    A span's stores then don't look like the addresses of loads that follow them: a quarter less time in the scan.
    """
    return (rows // _ROWS_OF_A_PAGE + 1) * _ROWS_OF_A_PAGE


def _grown(out: Output) -> Output:
    """The same tables with twice the room, zeros in it."""
    spans, resources = out.spans, out.resources
    return out._replace(
        spans=SpanColumns(_wider(spans.ints), _wider(spans.longs), _wider_attributes(spans.attributes)),
        resources=ResourceColumns(
            _wider(resources.ints), _wider(resources.size), _wider_attributes(resources.attributes)
        ),
    )


def _wider_attributes(attributes: AttributeColumns) -> AttributeColumns:
    return AttributeColumns(_wider(attributes.kind), _wider(attributes.offset), _wider(attributes.length))


def _wider(columns: npt.NDArray[Any]) -> npt.NDArray[Any]:
    rows = columns.shape[-1]
    wider = np.zeros((*columns.shape[:-1], 2 * rows), columns.dtype)
    wider[..., :rows] = columns
    return wider


def _span_table(out: Output) -> SpanTable:
    n = int(out.counters[col.SPANS])
    ints, longs = out.spans.ints[:, :n], out.spans.longs[:, :n]

    def strings(row: int) -> Strings:
        return Strings(ints[row], ints[row + 1])

    return SpanTable(
        resource=ints[col.RESOURCE],
        record=ints[col.RECORD],
        index=ints[col.INDEX],
        kind=ints[col.KIND],
        status=ints[col.STATUS_CODE],
        trace_id=strings(col.TRACE_ID),
        span_id=strings(col.SPAN_ID),
        parent_id=strings(col.PARENT_ID),
        name=strings(col.NAME),
        status_message=strings(col.STATUS_MESSAGE),
        trace_state=strings(col.TRACE_STATE),
        start_ns=longs[col.START_NS].view(np.uint64),
        end_ns=longs[col.END_NS].view(np.uint64),
        latency_ns=longs[col.LATENCY_NS],
        clamped=ints[col.CLAMPED].astype(np.bool_),
        size=longs[col.SPAN_SIZE],
        attributes=_attributes(out.spans.attributes, n),
    )


def resource_table(out: Output) -> ResourceTable:
    """The rows of resources."""
    n = int(out.counters[col.RESOURCES])
    return ResourceTable(
        message=out.resources.ints[col.MESSAGE, :n],
        record=out.resources.ints[col.RESOURCE_RECORD, :n],
        attributes=_attributes(out.resources.attributes, n),
        size=out.resources.size[:n],
        spans=out.resources.ints[col.SPAN_COUNT, :n],
        field=Strings(out.resources.ints[col.FIELD_AT, :n], out.resources.ints[col.FIELD_BYTES, :n]),
    )


def _attributes(columns: AttributeColumns, rows: int) -> Attributes:
    return Attributes(columns.kind[:, :rows], columns.offset[:, :rows], columns.length[:, :rows])
