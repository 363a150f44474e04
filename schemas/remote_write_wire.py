"""What remote write 1.0 and 2.0 have in common on the wire: samples, histograms, timestamps, the snappy block."""

import struct
from collections.abc import Sequence

import cramjam

from schemas import remote_write_pb2 as pb
from schemas.errors import Malformed, Reason
from schemas.native_histogram import ZERO_THRESHOLD, NativeHistogram, Span, spans, unspanned
from schemas.varint import uvarint

# Field tags: number << 3 | wire type (0 varint, 1 of 8 bytes, 2 length and bytes).
_VALUE, _TIMESTAMP = b"\x09", b"\x10"
_COUNT, _SUM, _SCHEMA, _ZERO_THRESHOLD, _ZERO_COUNT = b"\x08", b"\x19", b"\x20", b"\x29", b"\x30"
_SPANS, _DELTAS, _HISTOGRAM_TIMESTAMP = b"\x5a", b"\x62", b"\x78"
_SPAN_OFFSET, _SPAN_LENGTH = b"\x08", b"\x10"

ZERO = bytes(8)
DOUBLE = struct.Struct("<d")
_THRESHOLD = _ZERO_THRESHOLD + DOUBLE.pack(ZERO_THRESHOLD)


def sized(tag: bytes, content: bytes) -> bytes:
    """A field of bytes."""
    return tag + uvarint(len(content)) + content


def text_field(tag: bytes, text: str) -> bytes:
    """A field of text; nothing for an empty one, as proto3 has it."""
    return sized(tag, text.encode()) if text else b""


def double_field(tag: bytes, value: float) -> bytes:
    """A field of a float64. Proto3 leaves out a zero, but not a negative one."""
    packed = DOUBLE.pack(value)
    return tag + packed if packed != ZERO else b""


def timestamp_field(tag: bytes, timestamp_ms: int) -> bytes:
    """A field of a time."""
    # Negative int64s are written as their two's complement, in ten bytes.
    return tag + uvarint(timestamp_ms & 0xFFFF_FFFF_FFFF_FFFF) if timestamp_ms else b""


def encoded_samples(values: Sequence[float | NativeHistogram], times_ms: Sequence[int]) -> list[bytes]:
    """The Samples of values and times, 20 bytes each at most; those of native histograms mean nothing.

    All values are packed at once, and a window's samples share one or two times.
    """
    numbers = [0.0 if isinstance(value, NativeHistogram) else value for value in values]
    packed = struct.pack(f"<{len(numbers)}d", *numbers)
    stamps = {at: timestamp_field(_TIMESTAMP, at) for at in set(times_ms)}
    return [
        _VALUE + value + stamps[at] if (value := packed[8 * i : 8 * i + 8]) != ZERO else stamps[at]
        for i, at in enumerate(times_ms)
    ]


def histogram_bytes(value: NativeHistogram, timestamp_ms: int) -> bytes:
    """A Histogram. Its two counts are written even if they are 0: that they are integers says which kind it is."""
    found, deltas = spans(value.buckets)
    pieces = [
        _COUNT + uvarint(value.count),
        double_field(_SUM, value.sum),
        _SCHEMA + uvarint(_zigzag(value.schema)) if value.schema else b"",
        _THRESHOLD,
        _ZERO_COUNT + uvarint(value.zero_count),
        *(sized(_SPANS, _span(span)) for span in found),
    ]
    if deltas:
        pieces.append(sized(_DELTAS, b"".join([_signed(delta) for delta in deltas])))
    pieces.append(timestamp_field(_HISTOGRAM_TIMESTAMP, timestamp_ms))
    return b"".join(pieces)


def compressed(message: bytes) -> bytes:
    """The body of a request."""
    return bytes(cramjam.snappy.compress_raw(message))


def unpacked(body: bytes, max_bytes: int) -> bytes:
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


def read_histogram(message: pb.Histogram) -> tuple[NativeHistogram, int]:
    """The value and the time, as a receiver reads them; raises Malformed for what Prometheus refuses."""
    found = [Span(span.offset, span.length) for span in message.positive_spans]
    if any(span.offset < 0 for span in found[1:]):
        raise Malformed(Reason.FIELD, "a span that goes back")
    if sum(span.length for span in found) != len(message.positive_deltas):
        raise Malformed(Reason.FIELD, "spans of other lengths than there are buckets")
    buckets = tuple(unspanned(found, message.positive_deltas))
    if any(count < 0 for _, count in buckets):
        raise Malformed(Reason.FIELD, "a bucket with a negative count")
    if message.zero_count_int + sum(count for _, count in buckets) != message.count_int:
        raise Malformed(Reason.FIELD, "a count that isn't that of all buckets")
    if message.WhichOneof("count") is None or message.zero_threshold != ZERO_THRESHOLD:
        raise Malformed(Reason.FIELD, "not a native histogram of integers, as they are written here")
    value = NativeHistogram(message.schema, message.count_int, message.sum, message.zero_count_int, buckets)
    return value, message.timestamp


def _signed(number: int) -> bytes:
    return _SMALL[number] if -len(_SMALL) // 2 <= number < len(_SMALL) // 2 else uvarint(_zigzag(number))


def _span(span: Span) -> bytes:
    offset = _SPAN_OFFSET + _signed(span.offset) if span.offset else b""
    return offset + _SPAN_LENGTH + uvarint(span.length)


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) - 1


# By number, negative ones from the end: nearly every difference of counts is in here.
_SMALL = tuple(uvarint(_zigzag(number)) for number in (*range(1 << 11), *range(-(1 << 11), 0)))
