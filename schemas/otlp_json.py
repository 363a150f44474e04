"""OTLP JSON: a line of it, one TracesData, to the message's bytes.

OTLP JSON is protobuf's JSON with two differences: trace and span IDs are hexadecimal instead of base64, and unknown
fields are ignored (OTLP 1.x, "JSON Protobuf Encoding"). Enums may be numbers or names, 64-bit integers strings.

Protobuf's own reader makes objects of all that it reads, wanted or not: 20 MiB may be a minute and a gigabyte.
"""

import math
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from schemas.errors import Malformed
from schemas.otlp.jit import direct
from schemas.otlp.json_fields import fields, name_of
from schemas.otlp.json_kernel import AT, DOUBLES, FAULT, LENGTHS, ROW, TO, Doubles, Fault, close_ranks, transcode, work

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MOST_BYTES = ((1 << 31) - 1) // 3
"""So that positions in what is written have 32 bits; protobuf takes no more than that either."""


class JsonReason(StrEnum):
    """Why a line was refused."""

    JSON = "json"
    """Not JSON, or no object."""
    OTLP_JSON = "otlp_json"
    """JSON, but no TracesData."""


_TEXTS = {
    Fault.JSON: "not JSON from here on",
    Fault.DEPTH: "nested too deeply",
    Fault.ROOT: "not a JSON object",
    Fault.NO_OBJECT: "not an object",
    Fault.NO_LIST: "not a list",
    Fault.NULL_IN_LIST: "null in a list",
    Fault.NO_TEXT: "not a string",
    Fault.NO_HEX: "not hexadecimal",
    Fault.NO_BASE64: "not base64",
    Fault.NO_INTEGER: "not an integer",
    Fault.RANGE: "out of its range",
    Fault.NO_DOUBLE: "not a number",
    Fault.NO_BOOL: "neither true nor false",
    Fault.NO_ENUM: "neither a number nor a name of this enum",
    Fault.TWICE: "there already, by this name or another, or by another one of the same choice",
}
_SYNTAX = (Fault.JSON, Fault.ROOT)


def traces_data_bytes(line: bytes, number: int) -> bytes:
    """The protobuf bytes of a line's TracesData; `number` is the line's, from 1, for the error.

    Raises `Malformed` with the byte in the line.
    """
    if len(line) > MOST_BYTES:
        raise Malformed(JsonReason.OTLP_JSON, f"line {number}: longer than {MOST_BYTES} bytes")
    if not line.isascii():
        line = line.removeprefix(BYTE_ORDER_MARK)
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise Malformed(JsonReason.JSON, f"line {number}: not UTF-8", error.start) from error
    data = np.frombuffer(line, np.uint8)
    made = work(len(line))
    _transcode(data, len(line), fields(), made)
    went = made.now.tolist()
    if went[FAULT]:
        raise _malformed(Fault(went[FAULT]), went[AT], went[ROW], number)
    if too_large := _put_doubles(line, went[DOUBLES], made.doubles, made.target):
        raise _malformed(Fault.RANGE, too_large, -1, number)
    target = np.empty(went[TO], np.uint8)
    size = _close_ranks(made.target, went[TO], made.lengths, went[LENGTHS], target)
    return target[:size].tobytes()


def rehearse() -> None:
    """Go through the kernels: the first call compiles or loads them, for seconds."""
    traces_data_bytes(b'{"resourceSpans": [{}]}', 1)


def _malformed(fault: Fault, position: int, row: int, number: int) -> Malformed:
    reason = JsonReason.JSON if fault in _SYNTAX else JsonReason.OTLP_JSON
    field = f"{name_of(row)}: " if row >= 0 and reason is JsonReason.OTLP_JSON else ""
    return Malformed(reason, f"line {number}: {field}{_TEXTS[fault]}", position)


def _put_doubles(line: bytes, count: int, doubles: Doubles, target: npt.NDArray[np.uint8]) -> int:
    """Put the doubles of a line where they belong; gives where one is that is too large, else 0."""
    values, ranges = doubles.value[:count], doubles.ranges[:count]
    for i in np.flatnonzero(~doubles.exact[:count]).tolist():
        start, end, _ = ranges[i]
        values[i] = value = float(line[start:end])
        if math.isinf(value):
            return int(start)
    places = ranges[:, 2, np.newaxis] + np.arange(8)
    target[places] = values.astype("<f8").view(np.uint8).reshape(count, 8)
    return 0


_transcode, _close_ranks = direct(transcode), direct(close_ranks)
