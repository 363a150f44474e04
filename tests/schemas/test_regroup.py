"""Regrouping is scan, routing and splicing in one go: it gives what the three give, request after request."""

import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from schemas.errors import Malformed
from schemas.otlp import Codec, scan_records
from schemas.otlp.regroup import CROWDED, KEPT_BYTES, SMALLEST_SPAN_BYTES, Regrouping
from schemas.otlp.routing import InvalidIdError, route
from schemas.otlp.splice import Piece, SpanTooLargeError, splice
from schemas.record import Record
from tests.otlp_samples import span_records

PARTITIONS, LIMIT = 3, 400

Result = tuple[int, list[Piece] | tuple[str, object]] | tuple[str, int | None]


def one_by_one(body: bytes) -> Result:
    """The three steps, each as a function of its own."""
    frame = scan_records([Record(0, 0, body)], (), Codec.OTLP)
    if frame.errors:
        return frame.errors[0].reason, frame.errors[0].position
    spans = len(frame.spans.start_ns)
    try:
        routes = route(frame, PARTITIONS)
        return spans, splice(body, routes.partitions, LIMIT, routes.rootless)
    except InvalidIdError as error:
        return spans, (error.reason, error.detail)
    except SpanTooLargeError as error:
        return spans, (str(error), error.index)


def in_one_go(regrouping: Regrouping, body: bytes) -> Result:
    try:
        spans = regrouping.read(body).spans
    except Malformed as error:
        return error.reason, error.position
    try:
        return spans, regrouping.pieces()
    except InvalidIdError as error:
        return spans, (error.reason, error.detail)
    except SpanTooLargeError as error:
        return spans, (str(error), error.index)


span_messages = st.builds(
    Span,
    trace_id=st.one_of(st.binary(min_size=16, max_size=16), st.just(bytes(16)), st.binary(max_size=17)),
    span_id=st.one_of(st.just(b"8 bytes!"), st.just(b"8 bytes!"), st.binary(max_size=9)),
    parent_span_id=st.sampled_from([b"", bytes(8), b"a parent", b"?"]),
    name=st.text(max_size=40),
)
good_spans = st.builds(
    Span,
    trace_id=st.binary(min_size=16, max_size=16).filter(any),
    span_id=st.just(b"8 bytes!"),
    parent_span_id=st.sampled_from([b"", bytes(8), b"a parent"]),
    name=st.text(max_size=200),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    message = TracesData()
    for _ in range(draw(st.integers(0, 3))):
        resource = message.resource_spans.add(schema_url=draw(st.text(max_size=3)))
        for _ in range(draw(st.integers(0, 2))):
            each = draw(st.sampled_from([good_spans, good_spans, span_messages]))
            resource.scope_spans.add().spans.extend(draw(st.lists(each, max_size=6)))
    body = message.SerializeToString()
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=3)) + body[at + 1 :]
    return body


@given(st.lists(bodies(), min_size=1, max_size=6))
def test_one_request_after_the_other_gives_what_the_steps_give(requests: Sequence[bytes]) -> None:
    regrouping = Regrouping(PARTITIONS, LIMIT)
    for body in requests:
        assert in_one_go(regrouping, body) == one_by_one(body)


@pytest.mark.parametrize("spans", [200, 4000])
def test_requests_of_any_size_find_room(spans: int) -> None:
    """Above what is kept, with more rows than bytes would have spans of usual size, and small ones after them."""
    regrouping = Regrouping(7, 10_000)
    (usual,) = span_records(1, 1, spans)
    many = TracesData()
    tiny = Span(trace_id=b"t" * 16, span_id=b"s" * 8)
    many.resource_spans.add().scope_spans.add().spans.extend([tiny] * (100 * spans))
    small = many.SerializeToString()
    for body in (usual, small, usual):
        read = regrouping.read(body).spans
        assert sum(piece.spans for piece in regrouping.pieces()) == read
    assert max(len(usual), len(small)) > KEPT_BYTES or spans == 200
    assert regrouping.read(b"").spans == 0
    assert regrouping.pieces() == []


@pytest.mark.parametrize("nothing", [b"\x0a\x00", b"\x0a\x03\x1a\x01u", b"\x0a\x04\x12\x02\x12\x00"])
def test_rows_without_ids_take_little_memory(nothing: bytes) -> None:
    """A request of 20 MiB, 20 kB with gzip, asked for 40 GiB of rows: resources without spans, or spans without IDs."""
    regrouping = Regrouping(PARTITIONS, 1_000_000)
    body = nothing * ((4 << 20) // len(nothing))
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match=CROWDED):
            regrouping.read(body)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(body)
    finally:
        tracemalloc.stop()
    (usual,) = span_records(1, 1, 200)
    assert regrouping.read(usual).spans == 200


def test_spans_may_be_as_small_as_their_ids() -> None:
    span = Span(trace_id=b"t" * 16, span_id=b"s" * 8)
    message = TracesData()
    message.resource_spans.add().scope_spans.add().spans.extend([span] * 50_000)
    body = message.SerializeToString()
    assert len(body) - SMALLEST_SPAN_BYTES * 50_000 < 20
    assert Regrouping(PARTITIONS, 1_000_000).read(body).spans == 50_000
    assert Regrouping(PARTITIONS, 1_000_000).read(b"\x0a\x00" * 1000).spans == 0
