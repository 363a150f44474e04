"""Prometheus remote write 1.0: requests of one sample per series, written by hand.

Protobuf objects cost 7 µs a sample of six labels; here a series' labels are encoded once in its life, by the caller,
and a sample costs 1 µs with its compression. The bytes are those that the generated classes write (tests hold them to
it).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from schemas import remote_write_pb2 as pb
from schemas.errors import Malformed, Reason
from schemas.metric_families import MetricFamily
from schemas.metrics import Kind
from schemas.native_histogram import NativeHistogram
from schemas.remote_write_wire import (
    compressed,
    double_field,
    encoded_samples,
    histogram_bytes,
    read_histogram,
    sized,
    text_field,
    timestamp_field,
    unpacked,
)
from schemas.varint import uvarint

MAX_DECODED_BYTES = 1 << 26
"""What `decode_write_request` unpacks at most."""

# Field tags: number << 3 | wire type (0 varint, 1 of 8 bytes, 2 length and bytes).
_TIMESERIES = _LABELS = _NAME = b"\x0a"
_SAMPLES = _LABEL_VALUE = b"\x12"
_EXEMPLARS = b"\x1a"
_HISTOGRAMS = b"\x22"
_EXEMPLAR_VALUE, _EXEMPLAR_TIMESTAMP = b"\x11", b"\x18"

METRIC_TYPES = {Kind.COUNTER: 1, Kind.GAUGE: 2, Kind.HISTOGRAM: 3}
"""Of 1.0 and of 2.0."""


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

    @property
    def exemplars(self) -> Sequence[Exemplar]:
        """All exemplars."""
        if isinstance(self.value, NativeHistogram):
            return [Exemplar(*shown, self.timestamp_ms) for shown in self.value.exemplars]
        return () if self.exemplar is None else (self.exemplar,)


class DecodedSeries(NamedTuple):
    """A series of a request: its labels and, in the request's order, values with timestamps in ms, and exemplars."""

    labels: tuple[tuple[str, str], ...]
    samples: tuple[tuple[float, int], ...]
    exemplars: tuple[Exemplar, ...] = ()
    histograms: tuple[tuple[NativeHistogram, int], ...] = ()


def encode_series_labels(labels: Iterable[tuple[str, str]]) -> bytes:
    """The part of a series that never changes. The labels must be sorted by name and unique, with `__name__`."""
    pieces: list[bytes] = []
    for name, value in labels:
        label = text_field(_NAME, name) + text_field(_LABEL_VALUE, value)
        pieces += (_LABELS, uvarint(len(label)), label)
    return b"".join(pieces)


def encode_write_request(rows: Sequence[Row]) -> bytes:
    """The body of a request: a WriteRequest with one TimeSeries per row, in their order, as a snappy block."""
    return compressed(_encode_rows(rows))


def encode_metadata_request(families: Iterable[MetricFamily]) -> bytes:
    """The body of a request that says type and help of metric families, and has no samples."""
    metadata = [
        pb.MetricMetadata(
            type=pb.MetricMetadata.MetricType.Name(METRIC_TYPES[family.kind]),
            metric_family_name=family.name,
            help=family.help,
        )
        for family in families
    ]
    return compressed(pb.WriteRequest(metadata=metadata).SerializeToString(deterministic=True))


def decode_write_request(body: bytes, max_bytes: int = MAX_DECODED_BYTES) -> tuple[DecodedSeries, ...]:
    """The series of a request, as a receiver reads it. Raises Malformed for anything else, or more than `max_bytes`."""
    return tuple(
        DecodedSeries(
            _pairs(series.labels),
            tuple((sample.value, sample.timestamp) for sample in series.samples),
            tuple(Exemplar(_pairs(e.labels), e.value, e.timestamp) for e in series.exemplars),
            tuple(map(read_histogram, series.histograms)),
        )
        for series in _decoded(body, max_bytes).timeseries
    )


def decode_metadata_request(body: bytes, max_bytes: int = MAX_DECODED_BYTES) -> tuple[MetricFamily, ...]:
    """The metadata of a request, as a receiver reads it. Raises Malformed, also for types that aren't written here."""
    kinds = {number: kind for kind, number in METRIC_TYPES.items()}
    metadata = _decoded(body, max_bytes).metadata
    if any(entry.type not in kinds for entry in metadata):
        raise Malformed(Reason.FIELD, "a metric family of another type")
    return tuple(MetricFamily(entry.metric_family_name, kinds[entry.type], entry.help) for entry in metadata)


def _decoded(body: bytes, max_bytes: int) -> pb.WriteRequest:
    try:
        return pb.WriteRequest.FromString(unpacked(body, max_bytes))
    except DecodeError as error:
        raise Malformed(Reason.ENVELOPE, "not a remote write 1.0 request") from error


def _encode_rows(rows: Sequence[Row]) -> bytes:
    samples = encoded_samples([row[1] for row in rows], [row[2] for row in rows])
    pieces: list[bytes] = []
    for row, sample in zip(rows, samples, strict=True):
        labels_block, value, _, exemplar = row
        if isinstance(value, NativeHistogram):
            pieces.append(sized(_TIMESERIES, labels_block + _histogram_fields(row, value)))
            continue
        tail = b"" if exemplar is None else _exemplar_field(exemplar)
        # The sample's tag and length are a byte each: it is at most 20 bytes long.
        size = len(labels_block) + 2 + len(sample) + len(tail)
        pieces += (_TIMESERIES, uvarint(size), labels_block, _SAMPLES, uvarint(len(sample)), sample, tail)
    return b"".join(pieces)


def _histogram_fields(row: Row, value: NativeHistogram) -> bytes:
    exemplars = b"".join(map(_exemplar_field, row.exemplars))
    return exemplars + sized(_HISTOGRAMS, histogram_bytes(value, row.timestamp_ms))


def _exemplar_field(exemplar: Exemplar) -> bytes:
    value = double_field(_EXEMPLAR_VALUE, exemplar.value)
    timestamp = timestamp_field(_EXEMPLAR_TIMESTAMP, exemplar.timestamp_ms)
    return sized(_EXEMPLARS, encode_series_labels(exemplar.labels) + value + timestamp)


def _pairs(labels: Iterable[pb.Label]) -> tuple[tuple[str, str], ...]:
    return tuple((label.name, label.value) for label in labels)
