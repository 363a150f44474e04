"""Random bytes that are nearly OTLP: messages after the schema's grammar in odd encodings, and mutations of bytes."""

import math
import random
import struct
from collections.abc import Sequence

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.otlp import Mode, WantedKey
from tests.otlp_samples import uvarint

NAMES = ("a", "bb", "service.name", "a key that is longer than others", "")
"""Keys of attributes: grammatical messages use little else."""
KEYS: tuple[str | WantedKey, ...] = (
    *NAMES,
    *(WantedKey(name, mode) for mode in (Mode.FIRST_POSITIVE_DOUBLE, Mode.FIRST_NON_EMPTY_STRING) for name in NAMES),
)
"""What tests look for."""

_WIRE_TYPES = {
    FieldDescriptor.TYPE_FIXED64: 1,
    FieldDescriptor.TYPE_DOUBLE: 1,
    FieldDescriptor.TYPE_FIXED32: 5,
    FieldDescriptor.TYPE_INT64: 0,
    FieldDescriptor.TYPE_INT32: 0,
    FieldDescriptor.TYPE_UINT32: 0,
    FieldDescriptor.TYPE_ENUM: 0,
    FieldDescriptor.TYPE_BOOL: 0,
}
_NUMBERS = (0, 0, 1, 1, 2, 3, 5, 127, 128, 300, (1 << 31) - 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_DOUBLES = (*(struct.pack("<d", x) for x in (0.25, -0.5, 5e-324, -0.0, math.inf, -math.inf, math.nan)), bytes(8))
_TEXTS = (b"", b"x", b"name", b"\xff\xfe", b"y" * 127, b"z" * 128, "ü".encode())


def varint(rng: random.Random, number: int, longest: int = 10, odd: float = 0.05) -> bytes:
    """A varint, now and then longer than it need be."""
    short = uvarint(number)
    if rng.random() >= odd or len(short) >= longest:
        return short
    padding = rng.randint(1, longest - len(short))
    return short[:-1] + bytes([short[-1] | 0x80]) + b"\x80" * (padding - 1) + b"\x00"


def message(rng: random.Random, descriptor: Descriptor = TracesData.DESCRIPTOR, depth: int = 0) -> bytes:
    """A message of up to a few fields, in any order, repeated and merged, with unknown fields between them."""
    least, most = (1, 3) if depth < 3 else (0, 6) if depth == 3 else (0, 3) if depth < 10 else (0, 1)
    return b"".join(_field(rng, descriptor, depth) for _ in range(rng.randint(least, most)))


def _field(rng: random.Random, descriptor: Descriptor, depth: int) -> bytes:
    if rng.random() < 0.06:
        return _unknown(rng, depth)
    field = rng.choice(descriptor.fields)
    if rng.random() < (0.8 if depth < 3 else 0.4):  # what leads to spans, attributes and values
        field = rng.choice([each for each in descriptor.fields if each.message_type is not None] or [field])
    if field.message_type is not None:
        return _delimited(rng, field.number, message(rng, field.message_type, depth + 1))
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        texts = [name.encode() for name in NAMES] if field.name == "key" else _TEXTS
        return _delimited(rng, field.number, rng.choice(texts))
    wire_type = _WIRE_TYPES[field.type]
    return varint(rng, field.number << 3 | wire_type, 5) + _scalar(rng, wire_type)


def _delimited(rng: random.Random, number: int, payload: bytes) -> bytes:
    return varint(rng, number << 3 | 2, 5) + varint(rng, len(payload), 5) + payload


def _scalar(rng: random.Random, wire_type: int) -> bytes:
    number = rng.choice(_NUMBERS)
    if wire_type == 0:
        return varint(rng, number)
    if wire_type == 1 and rng.random() < 0.5:
        return rng.choice(_DOUBLES)
    size = 8 if wire_type == 1 else 4
    return (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _unknown(rng: random.Random, depth: int) -> bytes:
    """A field that no message knows, or a known number with any wire type, or a group."""
    number = rng.choice((*range(1, 20), 99, 5000, (1 << 29) - 1))
    wire_type = rng.choice((0, 1, 2, 3, 5))
    tag = varint(rng, number << 3 | wire_type, 5)
    if wire_type == 2:
        return tag + varint(rng, 3, 5) + b"\x12\x34\x56"
    if wire_type != 3:
        return tag + _scalar(rng, wire_type)
    inside = b"".join(_unknown(rng, depth + 1) for _ in range(rng.randint(0, 2 if depth < 12 else 0)))
    return tag + inside + varint(rng, number << 3 | 4, 5)


def mutate(rng: random.Random, value: bytes, others: Sequence[bytes]) -> bytes:
    """The value with a few changes."""
    data = bytearray(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _change(rng, data, others)
    return bytes(data)


def _change(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 10, 60)))
    match rng.randrange(8):
        case 0:
            data[at:end] = b""
        case 1:
            del data[at:]
        case 2:
            data[at:at] = rng.choice((b"\x00", b"\x80", b"\xff", b"\x0b", b"\x0c", b"\xff" * 9, b"\x80" * 10, b"\x7f"))
        case 3:
            data[at:at] = data[at:end]
        case 4:
            other = rng.choice(others)
            start = rng.randint(0, len(other))
            data[at:end] = other[start : start + rng.randint(0, 40)]
        case 5:
            data[at:end] = rng.randbytes(end - at)
        case _:
            if at < len(data):
                data[at] = rng.choice((data[at] ^ 1 << rng.randrange(8), (data[at] + rng.choice((-1, 1))) & 0xFF))
