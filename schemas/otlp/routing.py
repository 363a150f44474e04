"""Where spans go: their IDs are checked, and each trace gets its partition.

The partition is the one that Kafka's own producers pick for the trace ID's lower-case hex as the key, so others may
write the same topic.
"""

from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.errors import Malformed
from schemas.murmur2 import murmur2_range
from schemas.otlp.frame import SpanFrame, Strings
from schemas.otlp.jit import kernel

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8

HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


class IdReason(StrEnum):
    """Why a request's IDs were refused; the first two are Tempo's reasons of discarded spans (DIST-11)."""

    TRACE_ID = "invalid_trace_id"
    SPAN_ID = "invalid_span_id"
    PARENT_SPAN_ID = "invalid_parent_span_id"


FAULTS = {
    1: (IdReason.TRACE_ID, "trace ids must be 128 bit, received {} bits"),
    2: (IdReason.SPAN_ID, "span ids must be 64 bit and not all zero, received {} bits"),
    3: (IdReason.PARENT_SPAN_ID, "parent span ids must be 64 bit, received {} bits"),
}


class InvalidIdError(Malformed):
    """A span's ID is none; `reason` is an `IdReason`, `detail` Tempo's text."""


class Routes(NamedTuple):
    """One row per span of a frame."""

    partitions: npt.NDArray[np.int32]
    rootless: npt.NDArray[np.bool_]
    """The parent ID is there and all zero, which means none (Tempo DIST-2)."""


class Ids(NamedTuple):
    """The columns of a frame's IDs."""

    trace: Strings
    span: Strings
    parent: Strings


def route(frame: SpanFrame, partitions: int) -> Routes:
    """The partition of each span, out of `partitions`. Raises `InvalidIdError` for the first span with a bad ID."""
    spans = frame.spans
    count = len(spans.start_ns)
    routes = Routes(np.empty(count, np.int32), np.empty(count, np.bool_))
    ids = Ids(spans.trace_id, spans.span_id, spans.parent_id)
    fault, bits = route_spans(frame.data, ids, partitions, routes, np.empty(2 * TRACE_ID_BYTES, np.uint8))
    if fault:
        raise invalid_id(fault, bits)
    return routes


def invalid_id(fault: int, bits: int) -> InvalidIdError:
    """The error of a fault that `route_spans` found."""
    reason, text = FAULTS[fault]
    return InvalidIdError(reason, text.format(bits))


@kernel
def route_spans(
    data: npt.NDArray[np.uint8], ids: Ids, partitions: int, routes: Routes, text: npt.NDArray[np.uint8]
) -> tuple[int, int]:
    """Fill the routes; gives a key of FAULTS (0: none) and the bits of the ID. `text` has room for an ID's hex."""
    for i in range(len(routes.partitions)):
        at, length = ids.trace.offset[i], ids.trace.length[i]
        if length != TRACE_ID_BYTES:
            return 1, max(length, 0) * 8
        if _zero(data, at, length):
            return 1, 0  # a receiver takes it for none (Tempo DIST-2)
        span_at, span_length = ids.span.offset[i], ids.span.length[i]
        if span_length != SPAN_ID_BYTES or _zero(data, span_at, span_length):
            return 2, max(span_length, 0) * 8
        parent_at, parent_length = ids.parent.offset[i], ids.parent.length[i]
        if parent_length > 0 and parent_length != SPAN_ID_BYTES:
            return 3, parent_length * 8
        routes.rootless[i] = parent_length > 0 and _zero(data, parent_at, parent_length)
        for j in range(TRACE_ID_BYTES):
            byte = data[at + j]
            text[2 * j] = HEX[byte >> 4]
            text[2 * j + 1] = HEX[byte & 15]
        routes.partitions[i] = (murmur2_range(text, 0, len(text)) & 0x7FFFFFFF) % partitions
    return 0, 0


@kernel
def _zero(data: npt.NDArray[np.uint8], at: int, length: int) -> bool:
    for j in range(length):  # noqa: SIM110 -- numba doesn't know all()
        if data[at + j] != 0:
            return False
    return True
