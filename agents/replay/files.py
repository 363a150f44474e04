"""Files as the OpenTelemetry Collector's file exporter writes them, record by record.

`*.bin`: each TracesData preceded by its length in four big-endian bytes. `*.json`: one TracesData in OTLP JSON a line.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple

from schemas.errors import Malformed
from schemas.otlp_json import traces_data_bytes

PIECE_BYTES = 1 << 20
"""Read at most so much at once: a length out of a broken file must not allocate what it names."""
MAX_RECORD_BYTES = (1 << 31) - 1
"""What positions in a record (32 bits, signed) and protobuf itself can take."""


class Form(StrEnum):
    """What a file is."""

    BIN = "bin"
    JSON = "json"


class InputError(Exception):
    """An input that can't be read to its end; the message says where and what to do."""


class FileRecord(NamedTuple):
    """A record of a file: its number from 1, the byte where it starts, and the TracesData or why there is none."""

    number: int
    position: int
    value: bytes
    error: Malformed | None = None


@contextmanager
def open_input(name: str) -> Iterator[BinaryIO]:
    """The file of that name, `-` for standard input; raises `InputError`."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with ExitStack() as opened:
        try:
            file = opened.enter_context(Path(name).open("rb"))
        except OSError as error:
            raise InputError(f"{name}: {error.strerror or error}") from error
        yield file


def read_records(name: str, file: BinaryIO, form: Form | None) -> Iterator[FileRecord]:
    """The records in order. Without a form, the file's name tells it, else its first byte."""
    first = b""
    if form is None:
        form = _form_of_name(name)
    if form is None:
        first = file.read(1)
        # A record of 1.9 GB and more would begin with a brace or white space too, and none is that large.
        form = Form.JSON if first.isspace() or first == b"{" else Form.BIN
    return _read_json(file, first) if form is Form.JSON else _read_bin(name, file, first)


def _form_of_name(name: str) -> Form | None:
    suffix = Path(name).suffix.lower()
    return {".bin": Form.BIN, ".json": Form.JSON, ".jsonl": Form.JSON}.get(suffix)


def _read_bin(name: str, file: BinaryIO, first: bytes) -> Iterator[FileRecord]:
    position, number = 0, 0
    while True:
        number += 1
        prefix = first + _read_exactly(file, 4 - len(first))
        first = b""
        if not prefix:
            return
        where = f"{name}: record {number} at byte {position}"
        if len(prefix) < 4:
            raise InputError(
                f"{where}: the file ends in the record's length ({len(prefix)} of 4 bytes): it is truncated"
            )
        length = int.from_bytes(prefix)
        if length > MAX_RECORD_BYTES:
            raise InputError(
                f"{where}: a length of {length} bytes can't be right: is the file OTLP with lengths (bin)?"
            )
        value = _read_exactly(file, length)
        if len(value) < length:
            raise InputError(f"{where}: {length} bytes announced, {len(value)} there: the file is truncated")
        yield FileRecord(number, position, value)
        position += 4 + length


def _read_exactly(file: BinaryIO, length: int) -> bytes:
    """`length` bytes, less at the end of the file."""
    value = file.read(min(length, PIECE_BYTES))
    if len(value) == length:
        return value
    pieces = bytearray(value)
    while len(pieces) < length:
        piece = file.read(min(length - len(pieces), PIECE_BYTES))
        if not piece:
            break
        pieces += piece
    return bytes(pieces)


def _read_json(file: BinaryIO, first: bytes) -> Iterator[FileRecord]:
    position = 0
    for number, rest in enumerate(_lines(file, first), start=1):
        if rest.strip():
            yield _json_record(number, position, rest)
        position += len(rest)


def _lines(file: BinaryIO, first: bytes) -> Iterator[bytes]:
    if first:
        yield first if first == b"\n" else first + file.readline()
    yield from file


def _json_record(number: int, position: int, line: bytes) -> FileRecord:
    try:
        return FileRecord(number, position, traces_data_bytes(line, number))
    except Malformed as error:
        return FileRecord(number, position, b"", error)
