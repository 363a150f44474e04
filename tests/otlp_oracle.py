"""What a span frame must say, from protobuf's own parser: it, not a second scanner, decides what bytes mean.

Strings are turned into bytes in the descriptors, because invalid UTF-8 is the one thing in which the scan differs.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from schemas.otlp import Attributes, Codec, Mode, SpanFrame, WantedKey, resource_attributes, scan_records
from schemas.record import Record

Row = dict[str, Any]

MAX_LATENCY_NS = 1 << 53


def _pool_of_bytes() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for module in (common_pb2, resource_pb2, trace_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        pending = list(file.message_type)
        while pending:
            message = pending.pop()
            pending += message.nested_type
            for field in message.field:
                if field.type == field.TYPE_STRING:
                    field.type = field.TYPE_BYTES
        pool.Add(file)
    return pool


_POOL = _pool_of_bytes()
TracesData: Any = message_factory.GetMessageClass(
    _POOL.FindMessageTypeByName("opentelemetry.proto.trace.v1.TracesData")
)
AnyValue: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("opentelemetry.proto.common.v1.AnyValue"))
Resource: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("opentelemetry.proto.resource.v1.Resource"))

_KINDS = {field.name: field.number for field in AnyValue.DESCRIPTOR.fields}


def parse(value: bytes) -> Any:
    """The message, without unknown fields; None if the parser refuses it."""
    try:
        message = TracesData.FromString(value)
    except DecodeError:
        return None
    message.DiscardUnknownFields()
    return message


def frame_of(values: Sequence[bytes], keys: Sequence[str | WantedKey]) -> SpanFrame:
    """The frame of values as records of the codec `otlp`."""
    return scan_records([Record(i, i, value) for i, value in enumerate(values)], keys, Codec.OTLP)


def assert_agrees(values: Sequence[bytes], keys: Sequence[str | WantedKey]) -> int:
    """Scan values as one batch, and compare verdicts and all columns; gives the number of values that were refused."""
    frame = frame_of(values, keys)
    parsed = [parse(value) for value in values]
    refused = [i for i, message in enumerate(parsed) if message is None]
    found = [error.record for error in frame.errors]
    if found != refused:
        row = min(set(found) ^ set(refused))
        raise AssertionError(
            f"the parser {'refuses' if row in refused else 'accepts'} {values[row].hex()}; {frame.errors}"
        )
    for error in frame.errors:
        assert 0 <= error.position <= len(values[error.record])
        assert error.reason
    spans, resources = expected_rows(parsed, keys)
    _assert_rows(resource_rows(frame), resources, values)
    _assert_rows(span_rows(frame), spans, values)
    return len(refused)


def _assert_rows(found: list[Row], expected: list[Row], values: Sequence[bytes]) -> None:
    for row, other in zip(found, expected, strict=False):
        if row != other:
            differing = {name: (row[name], other[name]) for name in row if row[name] != other[name]}
            raise AssertionError(f"found, expected: {differing} in {values[other['record']].hex()}")
    assert len(found) == len(expected)


def expected_rows(parsed: Sequence[Any], keys: Sequence[str | WantedKey]) -> tuple[list[Row], list[Row]]:
    """The rows of spans and of resources."""
    spans: list[Row] = []
    resources: list[Row] = []
    accepted = 0
    for record, message in enumerate(parsed):
        if message is None:
            continue
        index = 0
        for resource_spans in message.resource_spans:
            number = len(resources)
            before = index
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    spans.append(_span_row(span, keys) | {"resource": number, "record": record, "index": index})
                    index += 1
            resources.append(
                {
                    "message": accepted,
                    "record": record,
                    "size": resource_spans.ByteSize(),
                    "spans": index - before,
                    "attributes": _found(resource_spans.resource.attributes, keys),
                    "all": [each.SerializeToString() for each in resource_spans.resource.attributes],
                }
            )
        accepted += 1
    return spans, resources


def _span_row(span: Any, keys: Sequence[str | WantedKey]) -> Row:
    latency = max(span.end_time_unix_nano - span.start_time_unix_nano, 0)
    return {
        "kind": span.kind,
        "status": span.status.code,
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_id": span.parent_span_id,
        "name": span.name,
        "status_message": span.status.message,
        "trace_state": span.trace_state,
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "latency_ns": min(latency, MAX_LATENCY_NS),
        "clamped": latency > MAX_LATENCY_NS,
        "size": span.ByteSize(),
        "attributes": _found(span.attributes, keys),
    }


def _found(attributes: Any, keys: Sequence[str | WantedKey]) -> list[Any]:
    """Per key: None, or the kind and the value of the first attribute that counts."""
    wanted = [WantedKey(key) if isinstance(key, str) else key for key in keys]
    return [
        next(
            (
                _kind_and_value(each.value)
                for each in attributes
                if each.key == key.name.encode() and _counts(each.value, key.mode)
            ),
            None,
        )
        for key in wanted
    ]


def _counts(value: Any, mode: Mode) -> bool:
    match mode:
        case Mode.FIRST_POSITIVE_DOUBLE:
            return bool(value.double_value > 0)
        case Mode.FIRST_NON_EMPTY_STRING:
            return bool(value.string_value)
    return True


def _kind_and_value(value: Any) -> tuple[int, bytes]:
    """Values are compared as their canonical bytes."""
    case = value.WhichOneof("value")
    if case is None:
        return 255, b""
    kind = _KINDS[case]
    if kind in (1, 7):
        return kind, getattr(value, case)
    return kind, value.SerializeToString()


def span_rows(frame: SpanFrame) -> list[Row]:
    """The frame's spans as rows."""
    table = frame.spans
    columns: dict[str, Sequence[Any]] = {
        name: getattr(table, name).tolist()
        for name in (
            "kind",
            "status",
            "start_ns",
            "end_ns",
            "latency_ns",
            "clamped",
            "size",
            "resource",
            "record",
            "index",
        )
    }
    for name in ("trace_id", "span_id", "parent_id", "name", "status_message", "trace_state"):
        strings = getattr(table, name)
        assert (strings.length >= 0).all()
        columns[name] = [frame.text(strings, row) for row in range(len(table.kind))]
    columns["attributes"] = _attribute_rows(frame, table.attributes)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def resource_rows(frame: SpanFrame) -> list[Row]:
    """The frame's resources as rows."""
    table = frame.resources
    columns = {name: getattr(table, name).tolist() for name in ("message", "record", "size", "spans")}
    columns["attributes"] = _attribute_rows(frame, table.attributes)
    data, ranges = resource_attributes(frame.data, table, np.ones(len(table.size), np.bool_))
    columns["all"] = [
        _resource(data[start : start + length].tobytes()) for start, length in zip(*map(list, ranges), strict=True)
    ]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _resource(content: bytes) -> list[bytes]:
    """The attributes of a Resource that has nothing else."""
    resource = Resource.FromString(content)
    assert resource.ListFields() == [(Resource.DESCRIPTOR.fields_by_name["attributes"], resource.attributes)] or (
        not content
    )
    resource.DiscardUnknownFields()
    return [each.SerializeToString() for each in resource.attributes]


def _attribute_rows(frame: SpanFrame, attributes: Attributes) -> list[list[Any]]:
    return [
        [_attribute(frame, attributes, key, row) for key in range(len(frame.keys))]
        for row in range(attributes.kind.shape[1])
    ]


def _attribute(frame: SpanFrame, attributes: Attributes, key: int, row: int) -> Any:
    kind, start = int(attributes.kind[key, row]), int(attributes.offset[key, row])
    if kind == 0:
        return None
    if kind == 255:
        return kind, b""
    payload = frame.data[start : start + int(attributes.length[key, row])].tobytes()
    if kind in (1, 7):
        return kind, payload
    value = AnyValue.FromString(payload)
    value.DiscardUnknownFields()
    return kind, value.SerializeToString()


def fixed64(number: int) -> bytes:
    """Eight bytes, little-endian."""
    return struct.pack("<Q", number)
