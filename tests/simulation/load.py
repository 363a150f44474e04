"""The spans of a schedule: halves of requests between services, some late, some malformed, some not to be measured."""

from dataclasses import dataclass
from random import Random

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from agents.producer import Headers
from schemas.record import NO_METRICS_HEADER, TENANT_HEADER
from tests.simulation.settings import SLACK_MS, TENANTS

CLIENT, SERVER = Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER
SERVICES = "abcdefghijkl"
MOST_SPANS = 2
"""Of a record."""
OUTSIDE_SLACK_MS = 2 * SLACK_MS
MALFORMED = b"\x0a\xff\xff\xff\xff\x0f"


@dataclass(frozen=True)
class Half:
    """A side of a request that is still to be told."""

    partition: int
    trace: int
    side: int
    tenant: str


@dataclass(frozen=True)
class Told:
    """A record to be appended."""

    partition: int
    value: bytes
    headers: Headers
    tenant: str
    spans: int
    """Of which may be counted."""


class Load:
    """Records, one after the other."""

    def __init__(self, random: Random, partitions: int, *, many_names: bool) -> None:
        self._random, self.partitions, self._many_names = random, partitions, many_names
        self._halves: list[Half] = []
        self._traces = 0
        self._idle = random.random() < 0.3
        """Whether some partitions get next to nothing."""

    def next(self, now_ms: int) -> Told:
        """A record that ends about now."""
        r = self._random
        if r.random() < 0.02:
            tenant = r.choice(TENANTS)
            return Told(self._partition(), MALFORMED, ((TENANT_HEADER, tenant.encode()),), tenant, 0)
        first = self._half()
        halves = [first]
        if r.random() < 0.2:
            halves.append(Half(first.partition, self._new_trace(), r.choice((CLIENT, SERVER)), first.tenant))
        late = r.random() < 0.04
        spans = [self._span(half, now_ms - (OUTSIDE_SLACK_MS if late else r.randrange(200))) for half in halves]
        headers: list[tuple[str, bytes]] = [(TENANT_HEADER, first.tenant.encode())]
        if r.random() < 0.03:
            headers.append((NO_METRICS_HEADER, b"1"))
        value = TracesData(resource_spans=spans).SerializeToString()
        return Told(first.partition, value, headers, first.tenant, len(spans))

    def _partition(self) -> int:
        return 0 if self._idle else self._random.randrange(self.partitions)

    def _new_trace(self) -> int:
        self._traces += 1
        return self._traces

    def _half(self) -> Half:
        """Mostly the missing side of an earlier request, sometimes of a new one."""
        r = self._random
        if self._halves and r.random() < 0.5:
            return self._halves.pop(r.randrange(len(self._halves)))
        trace, side, tenant = self._new_trace(), r.choice((CLIENT, SERVER)), r.choice((*TENANTS[:1], *TENANTS))
        partition = self._partition()
        self._halves.append(Half(partition, trace, SERVER if side == CLIENT else CLIENT, tenant))
        return Half(partition, trace, side, tenant)

    def _span(self, half: Half, end_ms: int) -> ResourceSpans:
        r = self._random
        known = SERVICES[: 2 + self._traces // 8]  # new services keep coming, so that limits bite late
        is_client = half.side == CLIENT
        span = Span(
            trace_id=half.trace.to_bytes(16, "big"),
            span_id=(half.trace * 2 + is_client).to_bytes(8, "big"),
            parent_span_id=b"" if is_client else (half.trace * 2 + 1).to_bytes(8, "big"),
            name=f"get user {half.trace} of many" if self._many_names and r.random() < 0.5 else f"op {half.trace % 2}",
            kind=half.side,
            start_time_unix_nano=(end_ms - r.choice((10, 150, 700, 2_000))) * 1_000_000,
            end_time_unix_nano=end_ms * 1_000_000,
        )
        if is_client:
            span.attributes.append(KeyValue(key="peer.service", value=AnyValue(string_value="outside")))
        name = KeyValue(key="service.name", value=AnyValue(string_value=r.choice(known)))
        return ResourceSpans(resource=Resource(attributes=[name]), scope_spans=[ScopeSpans(spans=[span])])
