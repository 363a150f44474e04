"""Routing: the partition of each span, and which IDs are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from schemas.murmur2 import count_misplaced, partition_of
from schemas.otlp import Codec, SpanFrame, scan_records
from schemas.otlp.routing import IdReason, InvalidIdError, route
from schemas.record import Record

trace_ids = st.binary(min_size=16, max_size=16).filter(any)
span_ids = st.binary(min_size=8, max_size=8).filter(any)
parents = st.one_of(st.just(b""), st.just(bytes(8)), span_ids)


def frame_of(*spans: Span) -> SpanFrame:
    message = TracesData()
    message.resource_spans.add().scope_spans.add().spans.extend(spans)
    return scan_records([Record(0, 0, message.SerializeToString())], (), Codec.OTLP)


@given(st.lists(st.tuples(trace_ids, span_ids, parents), max_size=5), st.integers(1, 1000))
def test_a_trace_goes_where_kafkas_partitioner_puts_its_hex(ids: list[tuple[bytes, bytes, bytes]], count: int) -> None:
    """KFK-9: its ID and the number of partitions alone decide."""
    frame = frame_of(*(Span(trace_id=t, span_id=s, parent_span_id=p) for t, s, p in ids))
    routes = route(frame, count)
    assert routes.partitions.tolist() == [partition_of(trace.hex().encode(), count) for trace, _, _ in ids]
    assert routes.rootless.tolist() == [parent == bytes(8) for _, _, parent in ids]


@given(st.binary(max_size=20), st.binary(max_size=10), st.binary(max_size=10))
def test_ids_are_ids_or_refused(trace: bytes, span: bytes, parent: bytes) -> None:
    frame = frame_of(
        Span(trace_id=b"t" * 16, span_id=b"s" * 8), Span(trace_id=trace, span_id=span, parent_span_id=parent)
    )
    reasons = []
    if len(trace) != 16 or not any(trace):
        reasons.append(IdReason.TRACE_ID)
    elif len(span) != 8 or not any(span):
        reasons.append(IdReason.SPAN_ID)
    elif len(parent) not in (0, 8):
        reasons.append(IdReason.PARENT_SPAN_ID)
    if not reasons:
        assert len(route(frame, 3).partitions) == 2
        return
    with pytest.raises(InvalidIdError) as refused:
        route(frame, 3)
    assert [refused.value.reason] == reasons


def test_keys_that_belong_elsewhere_are_counted_and_other_keys_are_not() -> None:
    ids = [bytes(range(i, i + 16)).hex().encode() for i in range(64)]
    here = [key for key in ids if partition_of(key, 4) == 2]
    assert 0 < len(here) < len(ids)
    assert count_misplaced(here, 2, 4) == 0
    assert count_misplaced(ids, 2, 4) == len(ids) - len(here)
    assert count_misplaced([b"team-a", b"g" * 32, b""], 2, 4) == 0
    assert count_misplaced([], 2, 4) == 0
