import struct
from contextlib import suppress

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import remote_write_v2_pb2 as pb
from schemas.errors import Malformed
from schemas.metrics import Kind
from schemas.native_histogram import BucketExemplar, NativeHistogram
from schemas.remote_write import Exemplar, Row, decode_write_request, encode_series_labels, encode_write_request
from schemas.remote_write_v2 import decode_write_request_v2, encode_write_request_v2
from tests.schemas.test_remote_write import LABELS, SAMPLES, histograms, rows

END_MS = 1_700_000_015_000
NAMES = st.sampled_from(["traces_spanmetrics_calls_total", "traces_spanmetrics_latency_bucket", "renamed"])


def named(samples, name):
    """The samples with a name and with labels in order."""
    return [(tuple(sorted({**dict(labels), "__name__": name}.items())), *rest) for labels, *rest in samples]


def exact(series):
    """Decoded series such that every float counts by its bits."""
    return [
        (
            each.labels,
            [(struct.pack("<d", value), at) for value, at in each.samples],
            [(e.labels, struct.pack("<d", e.value), e.timestamp_ms) for e in each.exemplars],
            [(h.schema, h.count, struct.pack("<d", h.sum), h.zero_count, h.buckets, at) for h, at in each.histograms],
        )
        for each in series
    ]


@given(SAMPLES, NAMES)
def test_receivers_read_the_same_as_from_1_0(samples, name):
    written = rows(named(samples, name))
    decoded = decode_write_request_v2(encode_write_request_v2(written))
    assert exact(each.series for each in decoded) == exact(decode_write_request(encode_write_request(written)))


@given(st.lists(st.tuples(LABELS, histograms(), st.integers(1, 2**62)), max_size=4))
def test_the_same_of_native_histograms(samples):
    written = rows(named(samples, "traces_spanmetrics_latency"))
    decoded = decode_write_request_v2(encode_write_request_v2(written))
    assert exact(each.series for each in decoded) == exact(decode_write_request(encode_write_request(written)))
    assert {each.family for each in decoded} <= {(Kind.HISTOGRAM, "Durations of spans in seconds.")}


def test_a_request_has_the_bytes_that_protobuf_writes():
    labels = (("__name__", "traces_spanmetrics_latency_bucket"), ("le", "1"), ("service", "checkout"))
    shown = Exemplar((("traceID", "1ab"),), 0.25, END_MS)
    written = [
        Row(encode_series_labels(labels), 3.0, END_MS, shown),
        Row(encode_series_labels((("__name__", "renamed"), ("service", "checkout"))), 0.0, END_MS),
    ]
    texts = ["", "__name__", labels[0][1], "Durations of spans in seconds.", "le", "1", "service", "checkout"]
    request = pb.Request(symbols=[*texts, "traceID", "1ab", "renamed"])
    request.timeseries.add(
        labels_refs=[1, 2, 4, 5, 6, 7],
        samples=[pb.Sample(value=3.0, timestamp=END_MS)],
        exemplars=[pb.Exemplar(labels_refs=[8, 9], value=0.25, timestamp=END_MS)],
        metadata=pb.Metadata(type=pb.Metadata.HISTOGRAM, help_ref=3),
    )
    request.timeseries.add(labels_refs=[1, 10, 6, 7], samples=[pb.Sample(timestamp=END_MS)])
    body = encode_write_request_v2(written)
    assert bytes(cramjam.snappy.decompress_raw(body)) == request.SerializeToString()


def test_a_native_histogram_in_full():
    labels = (("__name__", "traces_spanmetrics_latency"), ("service", "a"))
    value = NativeHistogram(3, 6, 1.5, 1, ((-8, 2), (0, 3)), (BucketExemplar((("traceID", "f"),), 0.5),))
    [decoded] = decode_write_request_v2(encode_write_request_v2([Row(encode_series_labels(labels), value, END_MS)]))
    assert decoded.series.histograms == ((NativeHistogram(3, 6, 1.5, 1, ((-8, 2), (0, 3))), END_MS),)
    assert decoded.series.exemplars == (Exemplar((("traceID", "f"),), 0.5, END_MS),)
    assert decoded.family == (Kind.HISTOGRAM, "Durations of spans in seconds.")


NAMED = {"labels_refs": [1, 2], "samples": [pb.Sample(timestamp=1)]}


@pytest.mark.parametrize(
    ("symbols", "series", "message"),
    [
        (["__name__", "a"], [], "don't begin with an empty one"),
        (["", "__name__", "a", "a"], [], "a symbol that is there twice"),
        (["", "__name__", "a"], [{**NAMED, "labels_refs": [1]}], "references that aren't pairs"),
        (["", "__name__", "a"], [{**NAMED, "labels_refs": [1, 3]}], "references that aren't pairs"),
        (["", "__name__", "a"], [{**NAMED, "labels_refs": [2, 1, 1, 2]}], "labels out of order"),
        (["", "__name__", "a"], [{**NAMED, "labels_refs": [2, 1]}], "a series without a name"),
        (["", "__name__", "a"], [{**NAMED, "samples": []}], "with samples and histograms, or with neither"),
        (["", "__name__", "a"], [{**NAMED, "metadata": pb.Metadata(type=1, help_ref=9)}], "metadata that isn't"),
    ],
)
def test_what_the_specification_forbids_is_malformed(symbols, series, message):
    request = pb.Request(symbols=symbols, timeseries=[pb.TimeSeries(**each) for each in series])
    with pytest.raises(Malformed, match=message):
        decode_write_request_v2(bytes(cramjam.snappy.compress_raw(request.SerializeToString())))


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda b: bytes(cramjam.snappy.compress_raw(b))))
def test_arbitrary_bytes_are_a_request_or_malformed(body):
    with suppress(Malformed):
        decode_write_request_v2(body)


@pytest.mark.parametrize(
    ("message", "numbers"),
    [
        (pb.Request, {"symbols": 4, "timeseries": 5}),
        (
            pb.TimeSeries,
            {
                "labels_refs": 1,
                "samples": 2,
                "histograms": 3,
                "exemplars": 4,
                "metadata": 5,
                "created_timestamp": 6,
            },
        ),
        (pb.Exemplar, {"labels_refs": 1, "value": 2, "timestamp": 3}),
        (pb.Sample, {"value": 1, "timestamp": 2}),
        (pb.Metadata, {"type": 1, "help_ref": 3, "unit_ref": 4}),
    ],
)
def test_field_numbers_are_those_of_the_specification(message, numbers):
    assert {field.name: field.number for field in message.DESCRIPTOR.fields} == numbers
