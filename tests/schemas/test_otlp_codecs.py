"""Record codecs (Tempo KFK-3 to KFK-6)."""

import random

import pytest

from schemas.otlp import Codec, SpanFrame, scan_records
from schemas.record import Record
from tests.otlp_oracle import span_rows
from tests.otlp_samples import length_delimited, trace, trace_records, traces_data

SKIP_METRICS = b"\x28\x01"
BAD_TRACE = b"\x0a\x05"


def push_bytes(*traces: bytes, rest: bytes = b"") -> bytes:
    """A push-bytes value: traces and their IDs."""
    ids = b"".join(length_delimited(3, bytes([i % 256]) * 16) for i in range(len(traces)))
    return b"".join(length_delimited(2, each) for each in traces) + ids + rest


def scan(*values: bytes, no_metrics: bool = False) -> SpanFrame:
    records = [Record(i, i, value, no_metrics=no_metrics) for i, value in enumerate(values)]
    return scan_records(records, ("service.name",), Codec.PUSH_BYTES)


def test_each_trace_of_a_push_bytes_record_is_a_message() -> None:
    """INT-1: a request each, while a whole record is one of the codec otlp."""
    traces = trace_records(1, 3)
    frame = scan(push_bytes(*traces[:2]), push_bytes(traces[2]))
    assert frame.errors == ()
    assert frame.messages.record.tolist() == [0, 0, 1]
    assert frame.spans.record.tolist() == [0] * 16 + [1] * 8
    assert frame.spans.index.tolist() == [*range(16), *range(8)]
    assert [int(frame.resources.message[i]) for i in frame.spans.resource] == [0] * 8 + [1] * 8 + [2] * 8


def test_its_spans_are_those_of_the_otlp_codec() -> None:
    traces = trace_records(2, 4)
    one = span_rows(scan_records([Record(0, 0, b"".join(traces))], ("service.name",), Codec.OTLP))
    assert span_rows(scan(push_bytes(*traces))) == one


def test_fields_may_come_in_any_order_and_unknown_ones_are_skipped() -> None:
    traces = trace_records(3, 2)
    ids = length_delimited(3, b"i" * 16) * 2
    unknown = b"\x08\x05" + b"\x39" + b"\x00" * 8 + b"\x0b\x0c" + b"\x12\x00"
    value = SKIP_METRICS + ids + unknown + length_delimited(2, traces[1]) + length_delimited(2, traces[0])
    frame = scan(value)
    assert frame.errors == ()
    assert len(frame.messages.record) == 3  # an empty trace is one without spans
    assert len(frame.spans.kind) == 16


@pytest.mark.parametrize(
    ("rest", "skips"),
    [
        (b"", False),
        (SKIP_METRICS, True),
        (b"\x28\x00", False),
        (b"\x28\x80\x02", True),
        (SKIP_METRICS + b"\x28\x00", False),
    ],
)
def test_skip_metrics_generation_is_the_records_flag(rest: bytes, skips: bool) -> None:
    value = push_bytes(*trace_records(1, 1), rest=rest)
    assert scan(value, push_bytes()).records.no_metrics.tolist() == [skips, False]
    assert scan(value, no_metrics=True).records.no_metrics.tolist() == [True]


def test_an_undecodable_trace_costs_that_trace_only() -> None:
    traces = trace_records(4, 2)
    value = push_bytes(traces[0], BAD_TRACE, traces[1])
    frame = scan(push_bytes(traces[0]), value)
    (error,) = frame.errors
    assert (error.record, error.position) == (1, value.index(length_delimited(2, BAD_TRACE)) + 2)
    assert frame.messages.record.tolist() == [0, 1, 1]
    assert len(frame.spans.kind) == 24


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (b"\x12\x05a", "the length goes beyond the end of the message"),
        (b"\x28", "the value ends before its end"),
        (b"\x00", "the field number is 0"),
        (b"\x2f", "there is no such wire type"),
        (b"\x0c", "the group's end doesn't belong here"),
    ],
)
def test_an_undecodable_record_costs_all_of_it(rest: bytes, reason: str) -> None:
    value = push_bytes(*trace_records(5, 2), rest=SKIP_METRICS)
    frame = scan(value + rest, value)
    (error,) = frame.errors
    assert (error.record, error.position, error.reason) == (0, len(value), reason)
    assert frame.messages.record.tolist() == [1, 1]
    assert frame.records.no_metrics.tolist() == [False, True]


def test_errors_come_in_the_order_of_the_log() -> None:
    frame = scan(push_bytes(BAD_TRACE), b"\x00", push_bytes(BAD_TRACE, BAD_TRACE))
    assert [error.record for error in frame.errors] == [0, 1, 2, 2]
    assert [error.position for error in frame.errors] == [2, 0, 2, 6]


def test_an_empty_value_has_no_message() -> None:
    frame = scan(b"", b"")
    assert frame.errors == ()
    assert len(frame.messages.record) == len(frame.spans.kind) == 0
    assert len(frame.records.offset) == 2


def test_many_traces_in_few_records_have_room() -> None:
    small = traces_data(trace(random.Random(1))[:1]).SerializeToString()
    frame = scan(push_bytes(*[small] * 500), push_bytes(*[small] * 700))
    assert len(frame.messages.record) == len(frame.spans.kind) == 1200
    assert frame.spans.index[-1] == 699
