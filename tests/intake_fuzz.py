"""Mutated and random requests through all that the distributor does to bytes, against protobuf's own parser.

`python -m tests.intake_fuzz SEED REQUESTS` (`make fuzz`) says how many were taken and refused, and how much memory was
kept; it ends with an error at the first request that is judged otherwise than by the parser, or cut otherwise than
objects would be.
"""

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from schemas.errors import Malformed
from schemas.murmur2 import partition_of
from schemas.otlp.regroup import Regrouping
from schemas.otlp.routing import InvalidIdError
from schemas.otlp.splice import Piece, SpanTooLargeError
from tests import otlp_oracle
from tests.otlp_fuzz import message, mutate
from tests.otlp_samples import descending, reencode, shuffled, trace, traces_data
from tests.schemas.test_truncate import cut_by_objects

PARTITIONS = 5
LIMITS = (700, 4_000, 1_000_000)
"""Of records: most requests are cut at the first two."""
ATTRIBUTE_LIMITS = (0, 5, 12, 64, 2048)
BATCH = 50
MEMORY_GROWS_BYTES = 24 << 20
"""Between the tenth part of a long run and its end: pages of the allocator, and nothing for each request."""

Regroupings = dict[int, Regrouping]


def regroupings() -> Regroupings:
    """One for each limit, used for all requests, as in a distributor."""
    return {limit: Regrouping(PARTITIONS, limit) for limit in LIMITS}


def requests(rng: random.Random) -> Iterator[bytes]:
    """A batch: grammatical ones in odd encodings, realistic ones, mutations of both, and random bytes."""
    sample = traces_data(trace(rng)[: rng.randint(1, 8)])
    realistic = [sample.SerializeToString(), reencode(sample, descending), reencode(sample, shuffled(rng))]
    odd = [message(rng) for _ in range(5)]
    yield from (*realistic, *odd)
    for _ in range(BATCH - 10):
        corpus = realistic if rng.random() < 0.7 else odd
        yield mutate(rng, rng.choice(corpus), [*realistic, *odd])
    yield rng.randbytes(rng.randint(0, 60))
    yield rng.choice(realistic) + rng.choice(realistic)


def judged(cutters: Regroupings, rng: random.Random, body: bytes) -> str:
    """Cut a request and compare; gives what became of it. Raises AssertionError, which shows the request."""
    limit, longest = rng.choice(LIMITS), rng.choice(ATTRIBUTE_LIMITS)
    try:
        return _judged(cutters[limit], limit, longest, body)
    except AssertionError as error:
        raise AssertionError(f"limit {limit}, attributes of {longest}: {error}: {body.hex()}") from error


def _judged(regrouping: Regrouping, limit: int, longest: int, body: bytes) -> str:
    parsed = otlp_oracle.parse(body)
    try:
        spans = regrouping.read(body, longest).spans
    except Malformed:
        assert parsed is None, "refused, and the parser accepts it"
        return "malformed"
    assert parsed is not None, "accepted, and the parser refuses it"
    every = [span for r in parsed.resource_spans for s in r.scope_spans for span in s.spans]
    assert spans == len(every), f"{spans} spans, and the parser finds {len(every)}"
    wrong = any(not has_ids(span) for span in every)
    try:
        pieces = regrouping.pieces()
    except InvalidIdError:
        assert wrong, "an ID is refused, and all are right"
        return "invalid ID"
    except SpanTooLargeError:
        assert len(body) > limit // 2, "no span is so large"
        return "too large"
    assert not wrong, "a wrong ID is accepted"
    assert all(len(piece.value) <= limit for piece in pieces), "a piece is above the limit"
    assert sum(piece.spans for piece in pieces) == spans, "spans are lost"
    try:
        expected = TracesData.FromString(body)
    except DecodeError:  # bytes that are no UTF-8 in a text, which is the one thing in which the two differ
        return "no UTF-8"
    if 0 < longest < len(body):
        cut_by_objects(expected, longest)
    assert contents_of(pieces) == placed(expected), "spans, resources or scopes differ"
    return "taken" if spans else "empty"


def has_ids(span: Any) -> bool:
    """Tempo DIST-11; an all-zero ID is none, and a parent may be none (DIST-2)."""
    return (
        len(span.trace_id) == 16
        and any(span.trace_id)
        and len(span.span_id) == 8
        and any(span.span_id)
        and (len(span.parent_span_id) in {0, 8} or not any(span.parent_span_id))
    )


Place = tuple[int, bytes, str, bytes, str, bytes]
"""A span's partition, and with it its resource and scope, and their schemas' addresses."""


def placed(expected: TracesData) -> list[Place]:
    """The spans as they should arrive, in an order of their own."""
    expected.DiscardUnknownFields()
    return sorted(place for place in places(expected, None))


def contents_of(pieces: list[Piece]) -> list[Place]:
    """The spans of pieces, each with what its piece says of it."""
    found: list[Place] = []
    for piece in pieces:
        parsed = TracesData.FromString(piece.value)
        parsed.DiscardUnknownFields()
        found += places(parsed, piece.partition)
    return sorted(found)


def places(parsed: TracesData, partition: int | None) -> Iterator[Place]:
    """Without a partition, that of the trace's ID."""
    for r in parsed.resource_spans:
        resource = r.resource.SerializeToString(deterministic=True)
        for s in r.scope_spans:
            scope = s.scope.SerializeToString(deterministic=True)
            for span in s.spans:
                at = home_of(span) if partition is None else partition
                yield at, resource, r.schema_url, scope, s.schema_url, without_zeros(span)


def home_of(span: Span) -> int:
    return partition_of(span.trace_id.hex().encode(), PARTITIONS)


def without_zeros(span: Span) -> bytes:
    """A parent of zeros is none (DIST-2)."""
    if not any(span.parent_span_id):
        span.parent_span_id = b""
    return span.SerializeToString(deterministic=True)


def memory_bytes() -> int:
    """What this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(seed: int, count: int) -> None:
    """Judge so many requests."""
    rng, cutters, outcomes = random.Random(seed), regroupings(), Counter[str]()
    began, settled, slowest = time.monotonic(), 0, 0.0
    while outcomes.total() < count:
        for body in requests(rng):
            before = time.monotonic()
            outcomes[judged(cutters, rng, body)] += 1
            slowest = max(slowest, time.monotonic() - before) if settled else 0.0
        if not settled and outcomes.total() >= count // 10:
            settled = memory_bytes()
        if sys.stderr.isatty():
            print(f"\r{outcomes.total():,} of {count:,}", end="", file=sys.stderr)
    grown = memory_bytes() - settled
    print(*(f"{outcome}: {number:,}" for outcome, number in sorted(outcomes.items())), sep="\n")
    print(f"seed {seed}: {outcomes.total():,} in {time.monotonic() - began:.0f} s")
    print(f"memory grew by {grown / 1e6:.1f} MB, the slowest took {slowest:.3f} s")
    if grown > MEMORY_GROWS_BYTES:
        sys.exit(f"memory isn't flat: {grown} bytes more")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
