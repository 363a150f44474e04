import math
import struct
from contextlib import suppress

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import remote_write_pb2 as pb
from schemas.errors import Malformed
from schemas.metric_families import METRIC_FAMILIES, MetricFamily, family_of
from schemas.metrics import METRICS, Kind
from schemas.native_histogram import BucketExemplar, NativeHistogram, coarser, spans, unspanned
from schemas.remote_write import (
    Exemplar,
    Row,
    decode_metadata_request,
    decode_write_request,
    encode_metadata_request,
    encode_series_labels,
    encode_write_request,
)

LABELS = st.dictionaries(st.text(max_size=12), st.text(max_size=200), max_size=5).map(
    lambda labels: tuple(sorted(labels.items()))
)
TIMES = st.sampled_from([0, 1, -1, 1_700_000_000_000, 2**63 - 1, -(2**63)]) | st.integers(-(2**63), 2**63 - 1)
VALUES = st.floats() | st.sampled_from([0.0, -0.0, math.nan, math.inf])
EXEMPLARS = st.builds(Exemplar, LABELS, VALUES, TIMES)
SAMPLES = st.lists(st.tuples(LABELS, VALUES, TIMES, st.none() | EXEMPLARS), max_size=5)
BUCKETS = st.dictionaries(st.integers(-10_000, 10_000) | st.integers(-5, 5), st.integers(1, 2**40), max_size=12)


@st.composite
def histograms(draw):
    buckets, zeros = tuple(sorted(draw(BUCKETS).items())), draw(st.integers(0, 2**40))
    shown = draw(st.lists(st.builds(BucketExemplar, LABELS, VALUES), max_size=2))
    total = zeros + sum(count for _, count in buckets)
    return NativeHistogram(draw(st.integers(-4, 8)), total, draw(VALUES), zeros, buckets, tuple(shown))


HISTOGRAMS = st.lists(st.tuples(LABELS, histograms(), TIMES), max_size=4)


def rows(samples):
    return [Row(encode_series_labels(labels), *rest) for labels, *rest in samples]


def request(samples):
    """The same through the generated classes."""
    message = pb.WriteRequest()
    for labels, value, timestamp_ms, exemplar in samples:
        series = message.timeseries.add()
        for name, text in labels:
            series.labels.add(name=name, value=text)
        series.samples.add(value=value, timestamp=timestamp_ms)
        if exemplar is not None:
            shown = series.exemplars.add(value=exemplar.value, timestamp=exemplar.timestamp_ms)
            for name, text in exemplar.labels:
                shown.labels.add(name=name, value=text)
    return message


@given(SAMPLES)
def test_requests_have_the_bytes_that_protobuf_writes(samples):
    body = encode_write_request(rows(samples))
    assert bytes(cramjam.snappy.decompress_raw(body)) == request(samples).SerializeToString()


def add_histogram(series, value, timestamp_ms):
    """A native histogram through the generated classes."""
    found, deltas = spans(value.buckets)
    message = series.histograms.add(
        count_int=value.count,
        sum=value.sum,
        schema=value.schema,
        zero_threshold=2.0**-128,
        zero_count_int=value.zero_count,
        positive_deltas=deltas,
        timestamp=timestamp_ms,
    )
    for offset, length in found:
        message.positive_spans.add(offset=offset, length=length)


@given(HISTOGRAMS)
def test_native_histograms_have_the_bytes_that_protobuf_writes(samples):
    message = pb.WriteRequest()
    for labels, value, timestamp_ms in samples:
        series = message.timeseries.add()
        for name, text in labels:
            series.labels.add(name=name, value=text)
        for exemplar in value.exemplars:
            shown = series.exemplars.add(value=exemplar.value, timestamp=timestamp_ms)
            for name, text in exemplar.labels:
                shown.labels.add(name=name, value=text)
        add_histogram(series, value, timestamp_ms)
    body = encode_write_request(rows(samples))
    assert bytes(cramjam.snappy.decompress_raw(body)) == message.SerializeToString()


@given(HISTOGRAMS)
def test_receivers_read_the_native_histograms_that_were_written(samples):
    decoded = decode_write_request(encode_write_request(rows(samples)))
    for series, (labels, value, timestamp_ms) in zip(decoded, samples, strict=True):
        assert (series.labels, series.samples) == (labels, ())
        [(read, read_timestamp)] = series.histograms
        assert bits(read.sum) == bits(value.sum)
        assert (read.schema, read.count, read.zero_count, read.buckets, read_timestamp) == (
            value.schema,
            value.count,
            value.zero_count,
            value.buckets,
            timestamp_ms,
        )
        assert [(e.labels, bits(e.value), e.timestamp_ms) for e in series.exemplars] == [
            (e.labels, bits(e.value), timestamp_ms) for e in value.exemplars
        ]


@given(BUCKETS)
def test_spans_hold_all_buckets_and_pass_over_gaps_of_more_than_two(buckets):
    wanted = tuple(sorted(buckets.items()))
    found, deltas = spans(wanted)
    assert tuple(unspanned(found, deltas)) == wanted
    assert all(span.offset > 2 for span in found[1:])
    assert sum(span.length for span in found) == len(deltas)


def test_gaps_of_one_or_two_are_empty_buckets_of_one_span():
    assert spans(((-3, 5), (-1, 2), (2, 2), (6, 1))) == ([(-3, 6), (3, 1)], [5, -5, 2, -2, 0, 2, -1])
    assert spans(()) == ([], [])


def test_a_wider_bucket_ends_where_its_last_narrow_one_does():
    assert [coarser(index, 1) for index in range(-4, 5)] == [-2, -1, -1, 0, 0, 1, 1, 2, 2]
    assert coarser(5, 2) == coarser(coarser(5, 1), 1) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count_int": 4}, "a count that isn't that of all buckets"),
        ({"positive_deltas": [3, -4]}, "a bucket with a negative count"),
        ({"positive_deltas": [3]}, "spans of other lengths"),
        ({"zero_threshold": 0.5}, "not a native histogram of integers"),
    ],
)
def test_histograms_that_prometheus_refuses_are_malformed(change, message):
    request = pb.WriteRequest()
    series = request.timeseries.add()
    add_histogram(series, NativeHistogram(3, 6, 1.0, 0, ((0, 3), (1, 3))), 1)
    decode_write_request(bytes(cramjam.snappy.compress_raw(request.SerializeToString())))
    for name, value in change.items():
        series.histograms[0].ClearField(name)
        series.histograms[0].MergeFrom(pb.Histogram(**{name: value}))
    with pytest.raises(Malformed, match=message):
        decode_write_request(bytes(cramjam.snappy.compress_raw(request.SerializeToString())))


def test_metadata_is_type_and_help_of_every_family_that_the_sink_writes():
    """ST-8: Tempo has none."""
    families = list(METRIC_FAMILIES.values())
    assert decode_metadata_request(encode_metadata_request(families)) == tuple(families)
    assert {metric.name for metric in METRICS.values()} <= set(METRIC_FAMILIES)
    assert all(family.help.endswith(".") for family in families)


@pytest.mark.parametrize(
    ("series", "family"),
    [
        ("traces_spanmetrics_latency_bucket", "traces_spanmetrics_latency"),
        ("traces_spanmetrics_latency_sum", "traces_spanmetrics_latency"),
        ("traces_spanmetrics_latency_count", "traces_spanmetrics_latency"),
        ("traces_spanmetrics_latency", "traces_spanmetrics_latency"),
        ("traces_spanmetrics_calls_total", "traces_spanmetrics_calls_total"),
        ("traces_target_info", "traces_target_info"),
        ("spanmill_ledger_spans_received_total", "spanmill_ledger_spans_received_total"),
        ("spanmill_sink_window", "spanmill_sink_window"),
        ("traces_target_info_sum", None),
        ("somebody_s_own", None),
    ],
)
def test_a_series_finds_its_family(series, family):
    found = family_of(series)
    assert (found.name if isinstance(found, MetricFamily) else None) == family
    assert found is None or found.kind in Kind


def bits(value):
    return struct.pack("<d", value)


@given(SAMPLES)
def test_receivers_read_what_was_written(samples):
    decoded = decode_write_request(encode_write_request(rows(samples)))
    assert [series.labels for series in decoded] == [labels for labels, *_ in samples]
    for series, (_, value, timestamp_ms, exemplar) in zip(decoded, samples, strict=True):
        [(read_value, read_timestamp)] = series.samples
        assert (bits(read_value), read_timestamp) == (bits(value), timestamp_ms)
        read = [(e.labels, bits(e.value), e.timestamp_ms) for e in series.exemplars]
        assert read == ([] if exemplar is None else [(exemplar.labels, bits(exemplar.value), exemplar.timestamp_ms)])


def test_a_request_in_full():
    labels = (("__name__", "traces_spanmetrics_calls_total"), ("service", "checkout"))
    exemplar = Exemplar((("traceID", "1ab"),), 0.25, 1_700_000_014_000)
    [series] = decode_write_request(
        encode_write_request([Row(encode_series_labels(labels), 3.0, 1_700_000_015_000, exemplar)])
    )
    assert series == (labels, ((3.0, 1_700_000_015_000),), (exemplar,), ())


@pytest.mark.parametrize("field", ["timeseries", "metadata"])
def test_field_numbers_are_those_of_prometheus(field):
    assert pb.WriteRequest.DESCRIPTOR.fields_by_name[field].number == {"timeseries": 1, "metadata": 3}[field]
    assert [f.number for f in pb.TimeSeries.DESCRIPTOR.fields] == [1, 2, 3, 4]
    assert [(f.name, f.number) for f in pb.Sample.DESCRIPTOR.fields] == [("value", 1), ("timestamp", 2)]
    assert [(f.name, f.number) for f in pb.Label.DESCRIPTOR.fields] == [("name", 1), ("value", 2)]
    assert [(f.name, f.number) for f in pb.Exemplar.DESCRIPTOR.fields] == [
        ("labels", 1),
        ("value", 2),
        ("timestamp", 3),
    ]


def test_field_numbers_of_native_histograms_are_those_of_prometheus():
    assert {field.name: field.number for field in pb.Histogram.DESCRIPTOR.fields} == {
        "count_int": 1,
        "sum": 3,
        "schema": 4,
        "zero_threshold": 5,
        "zero_count_int": 6,
        "positive_spans": 11,
        "positive_deltas": 12,
        "reset_hint": 14,
        "timestamp": 15,
    }
    assert [(f.name, f.number) for f in pb.BucketSpan.DESCRIPTOR.fields] == [("offset", 1), ("length", 2)]


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda b: bytes(cramjam.snappy.compress_raw(b))))
def test_arbitrary_bytes_are_a_request_or_malformed(body):
    with suppress(Malformed):
        decode_write_request(body)


def test_a_bomb_is_refused_before_it_is_unpacked():
    body = bytes(cramjam.snappy.compress_raw(bytes(1 << 20)))
    with pytest.raises(Malformed, match="1048576 bytes unpacked, at most 1048575"):
        decode_write_request(body, max_bytes=(1 << 20) - 1)
