"""The OTLP messages below TracesData as tables for the kernel, from the descriptors of opentelemetry-proto.

So the kernel knows exactly the fields that protobuf's own parser of the installed version knows.
"""

from collections.abc import Iterator
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

# The messages that the kernel itself knows; `messages()` gives every message its number, these first.
TRACES, RESOURCE_SPANS, RESOURCE, SCOPE_SPANS, SPAN, STATUS, KEY_VALUE, ANY_VALUE, ARRAY, KEY_VALUES = range(10)
_NUMBERED = (
    "opentelemetry.proto.trace.v1.TracesData",
    "opentelemetry.proto.trace.v1.ResourceSpans",
    "opentelemetry.proto.resource.v1.Resource",
    "opentelemetry.proto.trace.v1.ScopeSpans",
    "opentelemetry.proto.trace.v1.Span",
    "opentelemetry.proto.trace.v1.Status",
    "opentelemetry.proto.common.v1.KeyValue",
    "opentelemetry.proto.common.v1.AnyValue",
    "opentelemetry.proto.common.v1.ArrayValue",
    "opentelemetry.proto.common.v1.KeyValueList",
)
_RECURSIVE = (KEY_VALUE, ANY_VALUE, ARRAY, KEY_VALUES)

FIELDS = 20
"""More than any field number."""
TAGS = 8 * FIELDS
"""More than any tag."""
NO_MESSAGE = 255


class Action(IntEnum):
    """What a tag means in a message: how its value is read and kept."""

    UNKNOWN = 0
    TEXT = 1
    TEXTS = 2
    MESSAGE = 3
    MESSAGES = 4
    FIXED64 = 5
    FIXED32 = 6
    INT64 = 7
    INT32 = 8
    UINT32 = 9
    BOOL = 10


_ACTIONS = {
    FieldDescriptor.TYPE_STRING: (Action.TEXT, 2),
    FieldDescriptor.TYPE_BYTES: (Action.TEXT, 2),
    FieldDescriptor.TYPE_MESSAGE: (Action.MESSAGE, 2),
    FieldDescriptor.TYPE_FIXED64: (Action.FIXED64, 1),
    FieldDescriptor.TYPE_DOUBLE: (Action.FIXED64, 1),
    FieldDescriptor.TYPE_FIXED32: (Action.FIXED32, 5),
    FieldDescriptor.TYPE_INT64: (Action.INT64, 0),
    FieldDescriptor.TYPE_INT32: (Action.INT32, 0),
    FieldDescriptor.TYPE_ENUM: (Action.INT32, 0),
    FieldDescriptor.TYPE_UINT32: (Action.UINT32, 0),
    FieldDescriptor.TYPE_BOOL: (Action.BOOL, 0),
}
"""By type: the action of a singular field, and the wire type."""
_REPEATED = {Action.TEXT: Action.TEXTS, Action.MESSAGE: Action.MESSAGES}


class Messages(NamedTuple):
    """One row per message."""

    actions: npt.NDArray[np.uint8]
    """[message, tag]: an `Action`."""
    children: npt.NDArray[np.uint8]
    """[message, field number]: the field's message, `NO_MESSAGE` if it is none."""
    singular: npt.NDArray[np.int64]
    """[message, ...]: the messages in its singular fields, then -1; those of a oneof not."""


@cache
def messages() -> Messages:
    """The tables. A field that the kernel has no way to read is a ValueError: a new version of OTLP."""
    found = {descriptor.full_name: descriptor for descriptor in _walk(TracesData.DESCRIPTOR, set())}
    names = [*_NUMBERED, *sorted(set(found) - set(_NUMBERED))]
    tables = Messages(
        actions=np.zeros((len(names), TAGS), np.uint8),
        children=np.full((len(names), FIELDS), NO_MESSAGE, np.uint8),
        singular=np.full((len(names), FIELDS), -1, np.int64),
    )
    for row, name in enumerate(names):
        _enter(tables, row, found[name], names)
    return tables


def _enter(tables: Messages, row: int, descriptor: Descriptor, names: list[str]) -> None:
    singular = 0
    for field in descriptor.fields:
        if (
            field.number >= FIELDS
            or field.type not in _ACTIONS
            or (field.is_repeated and _ACTIONS[field.type][0] not in _REPEATED)
        ):
            raise ValueError(f"{field.full_name}: a field that the kernel isn't prepared for")
        action, wire_type = _ACTIONS[field.type]
        if field.is_repeated:
            action = _REPEATED[action]
        tables.actions[row, field.number << 3 | wire_type] = action
        if field.message_type is None:
            continue
        tables.children[row, field.number] = names.index(field.message_type.full_name)
        if action == Action.MESSAGE and field.containing_oneof is None:
            tables.singular[row, singular] = tables.children[row, field.number]
            singular += 1
    if (descriptor.oneofs and row != ANY_VALUE) or (row in _RECURSIVE and singular > 1):
        raise ValueError(f"{descriptor.full_name}: its fields have changed, which the kernel isn't prepared for")


def _walk(descriptor: Descriptor, seen: set[str]) -> Iterator[Descriptor]:
    if descriptor.full_name in seen:
        return
    seen.add(descriptor.full_name)
    yield descriptor
    for field in descriptor.fields:
        if field.message_type is not None:
            yield from _walk(field.message_type, seen)
