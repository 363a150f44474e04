"""The fields of TracesData and all below it by their names in JSON, as tables for the kernel, from the descriptors.

So it knows exactly the fields that protobuf's own reader of the installed version knows. Each has two names, `traceId`
and `trace_id`, and is a row for each.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.otlp.wire import Bytes

Ints = npt.NDArray[np.int64]


class Form(IntEnum):
    """How a field's value is written, in JSON and on the wire."""

    MESSAGE = 0
    TEXT = 1
    HEX = 2
    BASE64 = 3
    DOUBLE = 4
    BOOL = 5
    ENUM = 6
    INT32 = 7
    INT64 = 8
    UINT32 = 9
    UINT64 = 10
    FIXED32 = 11
    FIXED64 = 12


_FORMS = {
    FieldDescriptor.TYPE_MESSAGE: (Form.MESSAGE, 2),
    FieldDescriptor.TYPE_STRING: (Form.TEXT, 2),
    FieldDescriptor.TYPE_BYTES: (Form.BASE64, 2),
    FieldDescriptor.TYPE_DOUBLE: (Form.DOUBLE, 1),
    FieldDescriptor.TYPE_BOOL: (Form.BOOL, 0),
    FieldDescriptor.TYPE_ENUM: (Form.ENUM, 0),
    FieldDescriptor.TYPE_INT32: (Form.INT32, 0),
    FieldDescriptor.TYPE_INT64: (Form.INT64, 0),
    FieldDescriptor.TYPE_UINT32: (Form.UINT32, 0),
    FieldDescriptor.TYPE_UINT64: (Form.UINT64, 0),
    FieldDescriptor.TYPE_FIXED32: (Form.FIXED32, 5),
    FieldDescriptor.TYPE_FIXED64: (Form.FIXED64, 1),
}
"""With the wire type."""

HEXADECIMAL = ("trace_id", "span_id", "parent_span_id")
"""Where OTLP's JSON isn't protobuf's (OTLP, "JSON Protobuf Encoding")."""

MAX_TAG = (1 << 14) - 1
"""The kernel writes one byte or two."""


class Names(NamedTuple):
    """The members of several groups, each with its name: those of a group are rows next to each other."""

    text: Bytes
    first: Ints
    """[group]: its first row; one more than there are groups."""
    at: Ints
    """[row]: where the name begins in the text."""
    length: Ints


class Fields(NamedTuple):
    """The names of messages' fields, and what each row is."""

    names: Names
    tag: Ints
    form: Ints
    child: Ints
    """The message that it holds, or the enum."""
    repeated: npt.NDArray[np.bool_]
    present: npt.NDArray[np.bool_]
    """Whether it is written also if it is 0 or empty: a member of a oneof is."""
    bit: Ints
    """What stands for the field among those of its message."""
    excludes: Ints
    """The bits of the fields of which it can be only one: itself, or a oneof's."""
    enums: Names
    numbers: Ints
    """[row of enums]: its number."""


@cache
def fields() -> Fields:
    """The tables; message 0 is TracesData."""
    messages = list(_messages(TracesData.DESCRIPTOR, set()))
    number_of = {message.full_name: number for number, message in enumerate(messages)}
    enums: list[EnumDescriptor] = []
    names: list[list[str]] = []
    rows: list[tuple[int, ...]] = []
    for message in messages:
        bits = {field.number: 1 << position for position, field in enumerate(message.fields)}
        names.append([])
        for field in message.fields:
            if field.enum_type is not None and field.enum_type not in enums:
                enums.append(field.enum_type)
            row = _row(field, number_of, enums, bits)
            for name in dict.fromkeys((field.json_name, field.name)):
                names[-1].append(name)
                rows.append(row)
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    tag, form, child, repeated, present, bit, excludes = columns
    return Fields(
        names=_names(names),
        tag=tag,
        form=form,
        child=child,
        repeated=repeated.astype(np.bool_),
        present=present.astype(np.bool_),
        bit=bit,
        excludes=excludes,
        enums=_names([[value.name for value in enum.values] for enum in enums]),
        numbers=np.array([value.number for enum in enums for value in enum.values], np.int64),
    )


def name_of(row: int) -> str:
    """The field's name."""
    names = fields().names
    return names.text[names.at[row] : names.at[row] + names.length[row]].tobytes().decode()


def _messages(message: Descriptor, found: set[str]) -> Iterator[Descriptor]:
    """A message and all below it, each once."""
    if message.full_name not in found:
        found.add(message.full_name)
        yield message
        for field in message.fields:
            if field.message_type is not None:
                yield from _messages(field.message_type, found)


def _row(
    field: FieldDescriptor, number_of: dict[str, int], enums: Sequence[EnumDescriptor], bits: dict[int, int]
) -> tuple[int, ...]:
    form, wire_type = _FORMS[field.type]
    if field.name in HEXADECIMAL:
        form = Form.HEX
    tag = field.number << 3 | wire_type
    assert tag <= MAX_TAG, field.full_name
    assert len(bits) <= 62, field.full_name
    assert not field.is_repeated or wire_type == 2, field.full_name  # packed numbers: OTLP has none in traces
    child = -1
    if field.message_type is not None:
        child = number_of[field.message_type.full_name]
    elif field.enum_type is not None:
        child = enums.index(field.enum_type)
    oneof = field.containing_oneof
    excludes = bits[field.number] if oneof is None else sum(bits[each.number] for each in oneof.fields)
    present = field.is_repeated or oneof is not None
    return tag, form, child, field.is_repeated, present, bits[field.number], excludes


def _names(groups: Sequence[Sequence[str]]) -> Names:
    encoded = [name.encode() for group in groups for name in group]
    length = np.array([len(name) for name in encoded], np.int64)
    return Names(
        text=np.frombuffer(b"".join(encoded), np.uint8),
        first=np.cumsum([0, *map(len, groups)]),
        at=np.cumsum(length) - length,
        length=length,
    )
