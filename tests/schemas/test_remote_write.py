import math
import struct
from contextlib import suppress

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import remote_write_pb2 as pb
from schemas.errors import Malformed
from schemas.remote_write import Exemplar, Row, decode_write_request, encode_series_labels, encode_write_request

LABELS = st.dictionaries(st.text(max_size=12), st.text(max_size=200), max_size=5).map(
    lambda labels: tuple(sorted(labels.items()))
)
TIMES = st.sampled_from([0, 1, -1, 1_700_000_000_000, 2**63 - 1, -(2**63)]) | st.integers(-(2**63), 2**63 - 1)
VALUES = st.floats() | st.sampled_from([0.0, -0.0, math.nan, math.inf])
EXEMPLARS = st.builds(Exemplar, LABELS, VALUES, TIMES)
SAMPLES = st.lists(st.tuples(LABELS, VALUES, TIMES, st.none() | EXEMPLARS), max_size=5)


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
    assert series == (labels, ((3.0, 1_700_000_015_000),), (exemplar,))


@pytest.mark.parametrize("field", ["timeseries", "metadata"])
def test_field_numbers_are_those_of_prometheus(field):
    assert pb.WriteRequest.DESCRIPTOR.fields_by_name[field].number == {"timeseries": 1, "metadata": 3}[field]
    assert [f.number for f in pb.TimeSeries.DESCRIPTOR.fields] == [1, 2, 3]
    assert [(f.name, f.number) for f in pb.Sample.DESCRIPTOR.fields] == [("value", 1), ("timestamp", 2)]
    assert [(f.name, f.number) for f in pb.Label.DESCRIPTOR.fields] == [("name", 1), ("value", 2)]
    assert [(f.name, f.number) for f in pb.Exemplar.DESCRIPTOR.fields] == [
        ("labels", 1),
        ("value", 2),
        ("timestamp", 3),
    ]


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda b: bytes(cramjam.snappy.compress_raw(b))))
def test_arbitrary_bytes_are_a_request_or_malformed(body):
    with suppress(Malformed):
        decode_write_request(body)


def test_a_bomb_is_refused_before_it_is_unpacked():
    body = bytes(cramjam.snappy.compress_raw(bytes(1 << 20)))
    with pytest.raises(Malformed, match="1048576 bytes unpacked, at most 1048575"):
        decode_write_request(body, max_bytes=(1 << 20) - 1)
