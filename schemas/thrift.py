"""Thrift's binary protocol, as far as a list of structs needs it: structs become dicts by field number."""

from collections.abc import Mapping
from struct import Struct
from typing import Any

from schemas.errors import Malformed, Reason

STOP, BOOL, BYTE, DOUBLE, I16, I32, I64, STRING, STRUCT, MAP, SET, LIST = 0, 2, 3, 4, 6, 8, 10, 11, 12, 13, 14, 15

FIXED = {
    BOOL: Struct(">?"),
    BYTE: Struct(">b"),
    DOUBLE: Struct(">d"),
    I16: Struct(">h"),
    I32: Struct(">i"),
    I64: Struct(">q"),
}
LENGTH = FIXED[I32]
MAX_DEPTH = 32
MOST_VALUES = 500_000
"""An empty struct is one byte here and a hundred as an object: a body of some size may be a hundred times as large."""

Fields = Mapping[int, Any]


class ThriftReader:
    """Reads values one after the other. Raises Malformed for bytes that are none, with their position."""

    def __init__(self, data: bytes) -> None:
        self._data, self.position, self._values = data, 0, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The fields of a struct."""
        fields: dict[int, Any] = {}
        while (kind := self._fixed(FIXED[BYTE])) != STOP:
            number = self._fixed(FIXED[I16])
            fields[number] = self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        self._values += 1
        if self._values > MOST_VALUES:
            raise self._malformed(f"more than {MOST_VALUES} values; send smaller batches")
        if kind in FIXED:
            return self._fixed(FIXED[kind])
        if depth == MAX_DEPTH:
            raise self._malformed("nested too deeply")
        if kind == STRING:
            return self._bytes(self._length())
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in {LIST, SET}:
            item = self._fixed(FIXED[BYTE])
            return [self._value(item, depth + 1) for _ in range(self._length())]
        if kind == MAP:
            key, item = self._fixed(FIXED[BYTE]), self._fixed(FIXED[BYTE])
            return [(self._value(key, depth + 1), self._value(item, depth + 1)) for _ in range(self._length())]
        raise self._malformed(f"no type {kind}")

    def _fixed(self, form: Struct) -> Any:
        if self.position + form.size > len(self._data):
            raise self._malformed("it ends too early")
        (value,) = form.unpack_from(self._data, self.position)
        self.position += form.size
        return value

    def _length(self) -> int:
        """A length, of which each unit takes a byte at least: so nothing is set aside for what isn't there."""
        length: int = self._fixed(LENGTH)
        if not 0 <= length <= len(self._data) - self.position:
            raise self._malformed(f"a length of {length}")
        return length

    def _bytes(self, length: int) -> bytes:
        start = self.position
        self.position += length
        return self._data[start : self.position]

    def _malformed(self, what: str) -> Malformed:
        return Malformed(Reason.ENVELOPE, f"not Thrift's binary protocol: {what}", self.position)
