"""Prometheus remote write 1.0: requests of one sample per series, written by hand.

Protobuf objects cost 7 µs a sample of six labels; here a series' labels are encoded once in its life, by the caller,
and a sample costs 1 µs with its compression. The bytes are those that the generated classes write (tests hold them to
it).
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cramjam
from google.protobuf.message import DecodeError

from schemas import remote_write_pb2 as pb
from schemas.errors import Malformed, Reason
from schemas.native_histogram import NativeHistogram
from schemas.varint import uvarint

MAX_DECODED_BYTES = 1 << 26
"""What `decode_write_request` unpacks at most."""

# Field tags: number << 3 | wire type (0 varint, 1 of 8 bytes, 2 length and bytes).
_TIMESERIES = _LABELS = _NAME = b"\x0a"
_SAMPLES = _LABEL_VALUE = b"\x12"
_EXEMPLARS = b"\x1a"
_SAMPLE_VALUE, _EXEMPLAR_VALUE = b"\x09", b"\x11"
_SAMPLE_TIMESTAMP, _EXEMPLAR_TIMESTAMP = b"\x10", b"\x18"

_ZERO = bytes(8)
_DOUBLE = struct.Struct("<d")


class Exemplar(NamedTuple):
    """An exemplar: its own labels (sorted by name), value and time."""

    labels: tuple[tuple[str, str], ...]
    value: float
    timestamp_ms: int


class Row(NamedTuple):
    """One sample of one series. `labels_block` is `encode_series_labels` of all its labels, `__name__` among them.

    A native histogram has its exemplars in its value.
    """

    labels_block: bytes
    value: float | NativeHistogram
    timestamp_ms: int
    exemplar: Exemplar | None = None


class DecodedSeries(NamedTuple):
    """A series of a request: its labels and, in the request's order, (value, timestamp in ms) and exemplars."""

    labels: tuple[tuple[str, str], ...]
    samples: tuple[tuple[float, int], ...]
    exemplars: tuple[Exemplar, ...]


def encode_series_labels(labels: Iterable[tuple[str, str]]) -> bytes:
    """The part of a series that never changes. The labels must be sorted by name and unique, with `__name__`."""
    pieces: list[bytes] = []
    for name, value in labels:
        label = _text(_NAME, name) + _text(_LABEL_VALUE, value)
        pieces += (_LABELS, uvarint(len(label)), label)
    return b"".join(pieces)


def encode_write_request(rows: Sequence[Row]) -> bytes:
    """The body of a request: a WriteRequest with one TimeSeries per row, in their order, as a snappy block."""
    return bytes(cramjam.snappy.compress_raw(_encode_rows(rows)))


def decode_write_request(body: bytes, max_bytes: int = MAX_DECODED_BYTES) -> tuple[DecodedSeries, ...]:
    """The series of a request, as a receiver reads it. Raises Malformed for anything else, or more than `max_bytes`."""
    try:
        request = pb.WriteRequest.FromString(_unpack(body, max_bytes))
    except DecodeError as error:
        raise Malformed(Reason.ENVELOPE, "not a remote write 1.0 request") from error
    return tuple(
        DecodedSeries(
            _pairs(series.labels),
            tuple((sample.value, sample.timestamp) for sample in series.samples),
            tuple(Exemplar(_pairs(e.labels), e.value, e.timestamp) for e in series.exemplars),
        )
        for series in request.timeseries
    )


def _encode_rows(rows: Sequence[Row]) -> bytes:
    values = struct.pack(f"<{len(rows)}d", *[row.value for row in rows])
    # A window's samples share one or two timestamps.
    timestamps: dict[int, bytes] = {}
    pieces: list[bytes] = []
    for i, (labels_block, _, timestamp_ms, exemplar) in enumerate(rows):
        timestamp = timestamps.get(timestamp_ms)
        if timestamp is None:
            timestamp = timestamps[timestamp_ms] = _timestamp(_SAMPLE_TIMESTAMP, timestamp_ms)
        value = values[8 * i : 8 * i + 8]
        # Proto3 leaves out a zero, but not a negative one.
        sample = _SAMPLE_VALUE + value + timestamp if value != _ZERO else timestamp
        tail = b"" if exemplar is None else _exemplar(exemplar)
        # The sample's tag and length are a byte each: it is at most 20 bytes long.
        size = len(labels_block) + 2 + len(sample) + len(tail)
        pieces += (_TIMESERIES, uvarint(size), labels_block, _SAMPLES, uvarint(len(sample)), sample, tail)
    return b"".join(pieces)


def _exemplar(exemplar: Exemplar) -> bytes:
    value = _DOUBLE.pack(exemplar.value)
    message = encode_series_labels(exemplar.labels)
    if value != _ZERO:
        message += _EXEMPLAR_VALUE + value
    message += _timestamp(_EXEMPLAR_TIMESTAMP, exemplar.timestamp_ms)
    return _EXEMPLARS + uvarint(len(message)) + message


def _timestamp(tag: bytes, timestamp_ms: int) -> bytes:
    # Negative int64s are written as their two's complement, in ten bytes.
    return tag + uvarint(timestamp_ms & 0xFFFF_FFFF_FFFF_FFFF) if timestamp_ms else b""


def _text(tag: bytes, text: str) -> bytes:
    encoded = text.encode()
    return tag + uvarint(len(encoded)) + encoded if encoded else b""


def _unpack(body: bytes, max_bytes: int) -> bytes:
    """The block's content. Its length stands before it, so a bomb is refused before it is unpacked."""
    size = shift = 0
    for byte in body[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    else:
        raise Malformed(Reason.COMPRESSION, "no length before the snappy block", 0)
    if size > max_bytes:
        raise Malformed(Reason.COMPRESSION, f"{size} bytes unpacked, at most {max_bytes} are taken", 0)
    try:
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as error:
        raise Malformed(Reason.COMPRESSION, "not a snappy block") from error


def _pairs(labels: Iterable[pb.Label]) -> tuple[tuple[str, str], ...]:
    return tuple((label.name, label.value) for label in labels)
