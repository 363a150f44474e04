"""Records of spans with a known truth, made once and written many times, each time with new traces.

A template is a pair of records: the calling sides of 40 traces, and the called ones, which are written seconds later,
so that half-edges wait through whatever happens meanwhile. Every tenth trace has sides that nobody answers.
"""

import random
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from tests.otlp_samples import attributes

MS = 1_000_000
TRACES = 40
"""Of a template; five spans of each are in either record."""
SPANS = 5 * TRACES
SHOPS = 4
BOUNDS_S = tuple(0.002 * 2**i for i in range(14))
"""Tempo's default buckets of span metrics (CFG-2)."""

Series = tuple[str, tuple[str, ...]]
"""A metric and the values of its labels, in the order of `LABELS`."""

CALLS, LATENCY = "traces_spanmetrics_calls_total", "traces_spanmetrics_latency"
REQUESTS, FAILED = "traces_service_graph_request_total", "traces_service_graph_request_failed_total"
SPAN_LABELS = ("service", "span_name", "span_kind", "status_code")
EDGE_LABELS = ("client", "server", "connection_type")
LABELS = {
    CALLS: SPAN_LABELS,
    f"{LATENCY}_count": SPAN_LABELS,
    f"{LATENCY}_bucket": (*SPAN_LABELS, "le"),
    REQUESTS: EDGE_LABELS,
    FAILED: EDGE_LABELS,
}
"""The metrics that the truth is about."""


@dataclass
class Truth:
    """What metrics must say, by the rules of the spec and not by our code."""

    counts: Counter[Series] = field(default_factory=Counter)
    latency_ns: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Sum of durations, by the values of `SPAN_LABELS`."""

    def span(self, labels: tuple[str, ...], ms: int) -> None:
        self.counts[CALLS, labels] += 1
        self.counts[f"{LATENCY}_count", labels] += 1
        for bound in BOUNDS_S:
            self.counts[f"{LATENCY}_bucket", (*labels, f"{bound:g}")] += ms <= bound * 1000
        self.counts[f"{LATENCY}_bucket", (*labels, "+Inf")] += 1
        self.latency_ns[labels] += ms * MS

    def edge(self, client: str, server: str, kind: str = "", *, failed: bool = False) -> None:
        self.counts[REQUESTS, (client, server, kind)] += 1
        if failed:
            self.counts[FAILED, (client, server, kind)] += 1

    def add(self, other: "Truth", times: int) -> None:
        for total, more in ((self.counts, other.counts), (self.latency_ns, other.latency_ns)):
            for key, count in more.items():
                total[key] += count * times


class Record:
    """A record whose traces and times are set anew for each writing."""

    def __init__(self, placed: list[tuple[str, Span]]) -> None:
        groups: dict[str, list[Span]] = {}
        for service, span in placed:
            groups.setdefault(service, []).append(span)
        message = TracesData()
        for service, spans in groups.items():
            of_service = ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])
            of_service.resource.attributes.extend(attributes(service__name=service))
            message.resource_spans.append(of_service)
        value = message.SerializeToString()
        self._bytes = np.frombuffer(value, np.uint8)
        spans = [span for group in groups.values() for span in group]
        ids = [span.trace_id for span in spans]
        order = {each: number for number, each in enumerate(sorted(set(ids)))}
        self._trace = np.array([order[each] for each in ids])
        self._ids_at = _places(value, ids)
        self._starts_at = _places(value, [struct.pack("<Q", span.start_time_unix_nano) for span in spans])
        self._ends_at = _places(value, [struct.pack("<Q", span.end_time_unix_nano) for span in spans])
        self._lasted = np.array([span.end_time_unix_nano - span.start_time_unix_nano for span in spans], np.uint64)

    def written(self, trace_ids: npt.NDArray[np.uint8], end_ns: int) -> bytes:
        """The record with these traces, one row of 16 bytes each, all spans ending at a time."""
        value = self._bytes.copy()
        value[self._ids_at[:, None] + np.arange(16)] = trace_ids[self._trace]
        ends = np.full(len(self._lasted), end_ns, np.uint64)
        value[self._ends_at[:, None] + np.arange(8)] = _as_bytes(ends)
        value[self._starts_at[:, None] + np.arange(8)] = _as_bytes(ends - self._lasted)
        return value.tobytes()


def _as_bytes(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    return numbers.astype("<u8").view(np.uint8).reshape(-1, 8)


def _places(value: bytes, parts: list[bytes]) -> npt.NDArray[np.int64]:
    """Where each part stands; one that stands several times is found in order."""
    found, after = [], Counter[bytes]()
    for part in parts:
        at = value.index(part, after[part])
        after[part] = at + 1
        found.append(at)
    assert all(value.find(part, at) < 0 for part, at in after.items()), "bytes that look like a field"
    return np.array(found)


@dataclass(frozen=True)
class Template:
    """Two records of the same traces: the calling sides, and the called ones."""

    first: Record
    second: Record
    truth: Truth


def templates(seed: int = 1) -> Iterator[Template]:
    """One template per shop."""
    rng = random.Random(seed)
    for shop in range(SHOPS):
        maker = _Orders(rng, f"shop{shop}")
        for number in range(TRACES):
            maker.order(number)
        yield Template(Record(maker.first), Record(maker.second), maker.truth)


class _Orders:
    """frontend -> checkout -> (postgres, payment, queue -> shipping)."""

    def __init__(self, rng: random.Random, shop: str) -> None:
        self._rng, self._shop = rng, shop
        self._starts = accumulate(iter(lambda: 1_000_000_007, None), initial=10**18)
        self.first: list[tuple[str, Span]] = []
        self.second: list[tuple[str, Span]] = []
        self.truth = Truth()

    def order(self, number: int) -> None:
        """One trace of ten spans. Every fifth payment fails; in every tenth trace two sides stay alone."""
        failed, lonely = number % 5 == 0, number % 10 == 3
        trace_id, ms = self._rng.randbytes(16), 1 + number * 7 % 90
        first, second = (self.first, trace_id), (self.second, trace_id)
        kind = Span.SPAN_KIND_SERVER if lonely else Span.SPAN_KIND_INTERNAL
        root = self._span(first, "frontend", "GET /order", kind, 100 + ms, b"")
        call = self._span(first, "frontend", "POST checkout", Span.SPAN_KIND_CLIENT, 90 + ms, root)
        checkout = self._span(second, "checkout", "POST /checkout", Span.SPAN_KIND_SERVER, 80 + ms, call)
        database = self._span(first, "checkout", "SELECT stock", Span.SPAN_KIND_CLIENT, 1 + ms % 5, checkout)
        self.first[-1][1].attributes.extend(attributes(db__system="postgresql"))
        pay = self._span(first, "checkout", "pay", Span.SPAN_KIND_CLIENT, 40 + ms, checkout, failed=failed)
        payment = self._span(second, "payment", "POST /pay", Span.SPAN_KIND_SERVER, 30 + ms, pay, failed=failed)
        kind = Span.SPAN_KIND_CLIENT if lonely else Span.SPAN_KIND_INTERNAL
        self._span(second, "payment", "bank", kind, 20 + ms, payment)
        if lonely:
            self.second[-1][1].attributes.extend(attributes(peer__service=f"{self._shop}-bank"))
        publish = self._span(first, "checkout", "publish", Span.SPAN_KIND_PRODUCER, 1 + ms % 3, checkout)
        self._span(second, "shipping", "consume", Span.SPAN_KIND_CONSUMER, 5 + ms, publish)
        self._span(second, "shipping", "pack", Span.SPAN_KIND_INTERNAL, 3 + ms, database)
        self._expect(failed=failed, lonely=lonely)

    def _expect(self, *, failed: bool, lonely: bool) -> None:
        frontend, checkout, payment, shipping, bank = (
            f"{self._shop}-{name}" for name in ("frontend", "checkout", "payment", "shipping", "bank")
        )
        edge = self.truth.edge
        edge(frontend, checkout)
        edge(checkout, "postgresql", "database")
        edge(checkout, payment, failed=failed)
        edge(checkout, shipping, "messaging_system")
        if lonely:
            edge("user", frontend, "virtual_node")
            edge(payment, bank, "virtual_node")

    def _span(
        self,
        to: tuple[list[tuple[str, Span]], bytes],
        service: str,
        name: str,
        kind: Span.SpanKind.ValueType,
        ms: int,
        parent: bytes,
        *,
        failed: bool = False,
    ) -> bytes:
        record, trace_id = to
        start = next(self._starts)
        span = Span(trace_id=trace_id, span_id=self._rng.randbytes(8), parent_span_id=parent, name=name, kind=kind)
        span.start_time_unix_nano, span.end_time_unix_nano = start, start + ms * MS
        if failed:
            span.status.code = Status.STATUS_CODE_ERROR
        status = "STATUS_CODE_ERROR" if failed else "STATUS_CODE_UNSET"
        record.append((f"{self._shop}-{service}", span))
        self.truth.span((f"{self._shop}-{service}", name, f"SPAN_KIND_{Span.SpanKind.Name(kind)[10:]}", status), ms)
        return span.span_id
