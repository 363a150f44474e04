"""Attribute values as text (Tempo PRIM-3)."""

from collections.abc import Callable
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.common.v1 import common_pb2

from schemas.labels import float_text
from schemas.otlp.attributes import ARRAY_VALUE, BOOL, DOUBLE, INT, KEY_VALUE_LIST, STRING


def attribute_text(kind: int, payload: bytes) -> bytes:
    """The text of an attribute of a span frame: its kind there, and the bytes of its range.

    It is UTF-8 as far as the strings in it are. Whatever the scan accepted has a text.
    """
    if kind == STRING:
        return payload
    if kind not in (BOOL, INT, DOUBLE, ARRAY_VALUE, KEY_VALUE_LIST):
        return b""
    return value_text(_message("AnyValue").FromString(payload))


def attribute_pairs(attributes: bytes) -> list[tuple[bytes, bytes]]:
    """The keys and texts of all attributes of a resource, in order, from their fields in a row (`resource_attributes`).

    As texts, keys are UTF-8 only if their sender's were.
    """
    # A list of key-values has them in the field that a resource has its attributes in.
    return [(pair.key, value_text(pair.value)) for pair in _message("KeyValueList").FromString(attributes).values]


def value_text(value: Any) -> bytes:
    """The text of an AnyValue whose strings are bytes."""
    case = value.WhichOneof("value")
    return _TEXTS[case](getattr(value, case)) if case in _TEXTS else b""


_TEXTS: dict[str, Callable[[Any], bytes]] = {
    "string_value": bytes,
    "bool_value": lambda value: b"true" if value else b"false",
    "int_value": lambda value: b"%d" % value,
    "double_value": lambda value: float_text(value).encode(),
    "array_value": lambda array: b"[%b]" % b"".join(map(value_text, array.values)),
    "kvlist_value": lambda pairs: (
        b"{%b}" % b"".join(b"%b:%b" % (pair.key, value_text(pair.value)) for pair in pairs.values)
    ),
}


@cache
def _message(name: str) -> Any:
    """The class of a message of OTLP's values with its strings turned into bytes: invalid UTF-8 must pass."""
    file = descriptor_pb2.FileDescriptorProto()
    common_pb2.DESCRIPTOR.CopyToProto(file)
    for message in file.message_type:
        for field in message.field:
            if field.type == field.TYPE_STRING:
                field.type = field.TYPE_BYTES
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"opentelemetry.proto.common.v1.{name}"))
