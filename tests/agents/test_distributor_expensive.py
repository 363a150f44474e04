"""Requests that are made to cost more than others of their size: what they may cost."""

import gzip
import os
import threading
import zlib

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, TracesData

from agents.distributor.aside import LONG_BYTES, Aside
from agents.distributor.bodies import FED_BYTES, MOST_MEMBERS, decoded
from agents.distributor.status import Code, RefusedError
from schemas.otlp import splice
from tests.agents.test_distributor_watching import Distributor, started

EMPTY_MEMBER = gzip.compress(b"", mtime=0)


def test_a_body_has_a_limited_number_of_streams() -> None:
    """20 MiB of empty ones took a quarter of an hour: what follows a stream was copied for each."""
    assert decoded(EMPTY_MEMBER * MOST_MEMBERS, "gzip", 0) == b""
    with pytest.raises(RefusedError, match=f"more than {MOST_MEMBERS} streams") as refused:
        decoded(EMPTY_MEMBER * (MOST_MEMBERS + 1), "gzip", 1)
    assert refused.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_streams_of_any_length_are_put_together(encoding: str) -> None:
    compress = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    streams = [os.urandom(size) for size in (1, FED_BYTES - 100, FED_BYTES, 3 * FED_BYTES + 1, 5)]
    plain, body = b"".join(streams), b"".join(compress(stream) for stream in streams)
    assert decoded(body, encoding, len(plain)) == plain
    with pytest.raises(RefusedError, match="too early"):
        decoded(body[:-1], encoding, len(plain))
    with pytest.raises(RefusedError, match=f"isn't {encoding}"):
        decoded(body + b"?", encoding, len(plain))


async def test_only_long_bodies_are_worked_on_beside_the_loop() -> None:
    threads: list[int] = []

    def work(body: bytes) -> bytes:
        threads.append(threading.get_ident())
        if not body.isascii():
            raise ValueError("no text")
        return body[::-1]

    aside, here = Aside(), threading.get_ident()
    try:
        assert await aside.done(work, b"ab") == b"ba"
        assert await aside.done(work, b"a" * (LONG_BYTES + 1)) == b"a" * (LONG_BYTES + 1)
        with pytest.raises(ValueError, match="no text"):
            await aside.done(work, b"\xff" * (LONG_BYTES + 1))
    finally:
        aside.close()
    assert threads[0] == here
    assert here not in threads[1:]


def spans_of_a_resource(resource_bytes: int, spans: int) -> bytes:
    """A request of many small spans, each of a trace of its own, and attributes that are short enough each."""
    message = ResourceSpans()
    while message.resource.ByteSize() < resource_bytes - 2000:
        message.resource.attributes.add(key="key").value.string_value = "x" * 1900
    while message.resource.ByteSize() < resource_bytes - 80:
        message.resource.attributes.add(key="key").value.string_value = "x" * 50
    scope = message.scope_spans.add()
    for i in range(1, spans + 1):
        scope.spans.add(trace_id=i.to_bytes(16, "big"), span_id=i.to_bytes(8, "big"))
    return TracesData(resource_spans=[message]).SerializeToString()


def discarded(distributor: Distributor, reason: str) -> float | None:
    return distributor.value("tempo_discarded_spans_total", reason=reason, tenant="single-tenant")


async def test_a_large_resource_is_not_repeated_without_end() -> None:
    """A resource of almost a record's limit, and 60,000 spans: 2.8 MB would become 12 GB of records."""
    body = spans_of_a_resource(999_900, 60_000)
    assert len(body) < 3_000_000
    async with started() as distributor:
        assert await distributor.over_grpc(body) == "INVALID_ARGUMENT"
        assert discarded(distributor, "resource_too_large") == 60_000
        assert await distributor.over_http(body) == 400
        assert distributor.producer.pieces == []
        assert await distributor.over_grpc(spans_of_a_resource(999_900, 30)) == "OK"
        assert sum(piece.spans for piece in distributor.producer.pieces) == 30


async def test_a_span_above_the_record_limit_is_counted() -> None:
    """DIST-14."""
    async with started() as distributor:
        assert await distributor.over_grpc(spans_of_a_resource(1_000_100, 3)) == "INVALID_ARGUMENT"
        assert discarded(distributor, "span_too_large") == 3


async def test_what_is_repeated_is_limited_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    body = spans_of_a_resource(10_000, 40)
    async with started() as distributor:
        assert await distributor.over_grpc(body) == "OK"
        repeated = sum(len(piece.value) for piece in distributor.producer.pieces) - len(body)
        assert repeated > 20_000
        monkeypatch.setattr(splice, "MOST_REPEATED_BYTES", repeated)
        assert await distributor.over_grpc(body) == "OK"
        monkeypatch.setattr(splice, "MOST_REPEATED_BYTES", repeated - 1)
        assert await distributor.over_grpc(body) == "INVALID_ARGUMENT"
