"""Prometheus remote write 2.0: the same rows as 1.0, with each text once in a request, and types and help texts.

Requests are written by hand too. A row's labels come encoded for 1.0; the pairs in them are looked up as they are, so
each pair is taken apart once in a request and a row costs little more than with 1.0.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from google.protobuf.message import DecodeError

from schemas import remote_write_v2_pb2 as pb
from schemas.errors import Malformed, Reason
from schemas.metric_families import MetricFamily, family_of
from schemas.metrics import Kind
from schemas.native_histogram import NativeHistogram
from schemas.remote_write import MAX_DECODED_BYTES, METRIC_TYPES, DecodedSeries, Exemplar, Row
from schemas.remote_write_wire import (
    compressed,
    double_field,
    encoded_samples,
    histogram_bytes,
    read_histogram,
    sized,
    timestamp_field,
    unpacked,
)
from schemas.varint import uvarint

PROTOBUF_MESSAGE = "io.prometheus.write.v2.Request"
"""The configuration's and the protocol's name of what a body is."""

# Field tags: number << 3 | wire type (0 varint, 1 of 8 bytes, 2 length and bytes).
_SYMBOLS, _TIMESERIES = b"\x22", b"\x2a"
_LABELS_REFS, _SAMPLES, _HISTOGRAMS, _EXEMPLARS, _METADATA = b"\x0a", b"\x12", b"\x1a", b"\x22", b"\x2a"
_EXEMPLAR_VALUE, _EXEMPLAR_TIMESTAMP = b"\x11", b"\x18"
_TYPE, _HELP_REF = b"\x08", b"\x18"

_NAME_LABEL = b"__name__"


class DecodedWithFamily(NamedTuple):
    """A series of a request, and the type and help that stand beside it."""

    series: DecodedSeries
    family: tuple[Kind, str] | None


def encode_write_request_v2(rows: Sequence[Row]) -> bytes:
    """The body of a request: a Request with one TimeSeries per row, in their order, as a snappy block."""
    symbols = _Symbols()
    samples = encoded_samples([row[1] for row in rows], [row[2] for row in rows])
    series = [sized(_TIMESERIES, _series(row, sample, symbols)) for row, sample in zip(rows, samples, strict=True)]
    return compressed(b"".join([*(sized(_SYMBOLS, symbol) for symbol in symbols), *series]))


def decode_write_request_v2(body: bytes, max_bytes: int = MAX_DECODED_BYTES) -> tuple[DecodedWithFamily, ...]:
    """The series of a request, as a strict receiver reads it. Raises Malformed for what the specification forbids."""
    try:
        request = pb.Request.FromString(unpacked(body, max_bytes))
    except DecodeError as error:
        raise Malformed(Reason.ENVELOPE, "not a remote write 2.0 request") from error
    symbols = request.symbols
    if not symbols or symbols[0]:
        raise Malformed(Reason.FIELD, "symbols that don't begin with an empty one")
    if len(set(symbols)) < len(symbols):
        raise Malformed(Reason.FIELD, "a symbol that is there twice")
    return tuple(_decoded(series, symbols) for series in request.timeseries)


class _Symbols(dict[bytes, int]):
    """The texts of a request, numbered as they are first seen, and the label pairs that were taken apart."""

    def __init__(self) -> None:
        super().__init__({b"": 0})
        self.pairs: dict[bytes, tuple[bytes, bytes]] = {}
        """By a pair as 1.0 has it: its references, and the metadata that a name says."""

    def __missing__(self, text: bytes) -> int:
        number = self[text] = len(self)
        return number

    def labels(self, block: bytes) -> tuple[bytes, bytes]:
        """The references of a block of 1.0, and the metadata field that its name says."""
        refs = metadata = b""
        at, end, pairs = 0, len(block), self.pairs
        while at < end:
            size, start = block[at + 1], at + 2
            if size > 0x7F:
                size, start = _uvarint(block, at + 1)
            at = start + size
            pair = block[start:at]
            known = pairs.get(pair) or self._pair(pair)
            refs += known[0]
            metadata = known[1] or metadata
        return refs, metadata

    def _pair(self, encoded: bytes) -> tuple[bytes, bytes]:
        name, value = _texts(encoded)
        family = family_of(value.decode()) if name == _NAME_LABEL else None
        refs = uvarint(self[name]) + uvarint(self[value])
        known = self.pairs[encoded] = refs, b"" if family is None else self._metadata(family)
        return known

    def refs(self, labels: Sequence[tuple[str, str]]) -> bytes:
        """The references of an exemplar's labels."""
        return b"".join(uvarint(self[text.encode()]) for pair in labels for text in pair)

    def _metadata(self, family: MetricFamily) -> bytes:
        content = _TYPE + uvarint(METRIC_TYPES[family.kind])
        if family.help:
            content += _HELP_REF + uvarint(self[family.help.encode()])
        return sized(_METADATA, content)


def _series(row: Row, sample: bytes, symbols: _Symbols) -> bytes:
    labels_block, value, timestamp_ms, exemplar = row
    refs, metadata = symbols.labels(labels_block)
    fields = _LABELS_REFS + uvarint(len(refs)) + refs
    if isinstance(value, NativeHistogram):
        fields += sized(_HISTOGRAMS, histogram_bytes(value, timestamp_ms))
    else:
        fields += _SAMPLES + uvarint(len(sample)) + sample
    if exemplar is not None or isinstance(value, NativeHistogram):
        fields += b"".join(_exemplar(shown, symbols) for shown in row.exemplars)
    return fields + metadata


def _exemplar(exemplar: Exemplar, symbols: _Symbols) -> bytes:
    refs = sized(_LABELS_REFS, symbols.refs(exemplar.labels)) if exemplar.labels else b""
    value = double_field(_EXEMPLAR_VALUE, exemplar.value)
    return sized(_EXEMPLARS, refs + value + timestamp_field(_EXEMPLAR_TIMESTAMP, exemplar.timestamp_ms))


def _texts(pair: bytes) -> tuple[bytes, bytes]:
    """Name and value of such a message; an empty one isn't in it."""
    texts = {1: b"", 2: b""}
    at = 0
    while at < len(pair):
        size, start = _uvarint(pair, at + 1)
        texts[pair[at] >> 3] = pair[start : start + size]
        at = start + size
    return texts[1], texts[2]


def _uvarint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = shift = 0
    while data[at] > 0x7F:
        number |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return number | data[at] << shift, at + 1


def _decoded(series: pb.TimeSeries, symbols: Sequence[str]) -> DecodedWithFamily:
    labels = _labels(series.labels_refs, symbols)
    if not any(name == "__name__" for name, _ in labels):
        raise Malformed(Reason.FIELD, "a series without a name")
    if bool(series.samples) == bool(series.histograms):
        raise Malformed(Reason.FIELD, "a series with samples and histograms, or with neither")
    decoded = DecodedSeries(
        labels,
        tuple((sample.value, sample.timestamp) for sample in series.samples),
        tuple(Exemplar(_labels(e.labels_refs, symbols), e.value, e.timestamp) for e in series.exemplars),
        tuple(map(read_histogram, series.histograms)),
    )
    if not series.HasField("metadata"):
        return DecodedWithFamily(decoded, None)
    kinds = {number: kind for kind, number in METRIC_TYPES.items()}
    if series.metadata.type not in kinds or series.metadata.help_ref >= len(symbols) or series.metadata.unit_ref:
        raise Malformed(Reason.FIELD, "metadata that isn't written here")
    return DecodedWithFamily(decoded, (kinds[series.metadata.type], symbols[series.metadata.help_ref]))


def _labels(refs: Sequence[int], symbols: Sequence[str]) -> tuple[tuple[str, str], ...]:
    if len(refs) % 2 or any(ref >= len(symbols) for ref in refs):
        raise Malformed(Reason.FIELD, "references that aren't pairs of symbols")
    labels = tuple((symbols[name], symbols[value]) for name, value in zip(refs[::2], refs[1::2], strict=True))
    if any(a >= b for (a, _), (b, _) in pairwise(labels)):
        raise Malformed(Reason.FIELD, "labels out of order")
    return labels
