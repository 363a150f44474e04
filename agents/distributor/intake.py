"""What happens to a request, whatever it came by: tenant, scan, limits, IDs, regrouping by partition, records."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import structlog
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from agents.distributor.in_flight import InFlight
from agents.distributor.limits import TenantLimits
from agents.distributor.metrics import DistributorMetrics
from agents.distributor.producer import RecordProducer
from agents.distributor.reception import Arrival
from agents.distributor.status import Code, RefusedError
from agents.distributor.tenants import tenant_of
from schemas.errors import Malformed
from schemas.otlp.regroup import Read, Regrouping
from schemas.otlp.routing import IdReason, InvalidIdError
from schemas.otlp.splice import Piece, RepetitionError, SpanTooLargeError
from schemas.otlp.truncate import Scope

log = structlog.get_logger(__name__)

EXAMPLE_EVERY_S = 1.0
EXAMPLE_CHARACTERS = 100


class Watcher(Protocol):
    """Looks into requests."""

    async def look(self, tenant: str, body: bytes, *, discarded: bool) -> None:
        """At one that was within its limits, before its spans are written; `discarded`: they won't be."""

    async def close(self) -> None:
        """Finish what has begun."""


class Intake:
    """Takes requests of OTLP bytes, cuts them by partition and has them written."""

    def __init__(
        self,
        producer: RecordProducer,
        metrics: DistributorMetrics,
        limits: TenantLimits,
        in_flight: InFlight,
        *,
        partitions: int,
        max_record: int,
        multitenancy: bool,
        watchers: Sequence[Watcher] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives seconds since 1970, which spans' ends are compared with."""
        self._producer, self._metrics, self._limits, self._in_flight = producer, metrics, limits, in_flight
        self._regrouping = Regrouping(partitions, max_record)
        self._multitenancy, self._clock = multitenancy, clock
        self._watchers = tuple(watchers)
        self._shown_at_s = -EXAMPLE_EVERY_S

    async def push(self, arrival: Arrival, body: bytes, org_ids: Sequence[str], *, no_metrics: bool) -> None:
        """Take an ExportTraceServiceRequest; returns when all its spans are acknowledged. Raises `RefusedError`.

        `arrival` is told what becomes known of it.
        """
        began_s = time.monotonic()
        try:
            tenant = tenant_of(org_ids, multitenancy=self._multitenancy)
            arrival.tenant, arrival.size, arrival.received = tenant, len(body), False  # it may have been here before
            try:
                with self._in_flight.request_of(tenant):
                    pieces = await self._looked_into(arrival, body, tenant)
                    if pieces:
                        await self._producer.produce(tenant, pieces, no_metrics=no_metrics)
            finally:
                await self._hold_back(tenant, began_s)
        finally:
            self._metrics.push_duration.observe(time.monotonic() - began_s)

    async def _looked_into(self, arrival: Arrival, body: bytes, tenant: str) -> list[Piece]:
        """The request cut, and seen by what asks for it."""
        if not self._watchers:
            return self.cut(arrival, body, tenant)
        try:
            pieces = self.cut(arrival, body, tenant)
        except RefusedError:
            await self._show(arrival, body, discarded=True)
            raise
        await self._show(arrival, body, discarded=False)
        return pieces

    async def _show(self, arrival: Arrival, body: bytes, *, discarded: bool) -> None:
        """Show a request that was within its limits to the watchers; if one fails, its spans are taken all the same."""
        if not arrival.received:
            return
        for watcher in self._watchers:
            try:
                await watcher.look(arrival.tenant, body, discarded=discarded)
            except Exception:
                log.exception("a request couldn't be looked into", tenant=arrival.tenant)

    async def _hold_back(self, tenant: str, began_s: float) -> None:
        """Let an answer take as long as the tenant's requests shall, a tenth more or less (DIST-17)."""
        target_s = self._limits.settings(tenant).artificial_delay_s
        if not target_s:
            return
        wanted_s = target_s * random.uniform(0.9, 1.1) - (time.monotonic() - began_s)  # noqa: S311  no secret
        if wanted_s > 0:
            self._metrics.added_latency.labels(tenant).observe(wanted_s)
            await asyncio.sleep(wanted_s)

    def cut(self, arrival: Arrival, body: bytes, tenant: str) -> list[Piece]:
        """Scan, count, check and cut a request, in the order of Tempo DIST-5; no pieces if it has no spans.

        Raises `RefusedError`.
        """
        try:
            read = self._regrouping.read(body, self._limits.settings(tenant).max_attribute_bytes)
        except Malformed as error:
            raise RefusedError(Code.INVALID_ARGUMENT, f"not an OTLP trace request: {error}") from error
        arrival.spans = read.spans
        counted = self._metrics.of(tenant)
        counted.ingress_bytes.inc(len(body))
        if read.spans == 0:
            return []
        with self._discarding(tenant, read.spans):
            self._limits.check(tenant, len(body))
            counted.bytes_received.inc(len(body))
            counted.spans_received.inc(read.spans)
            arrival.received = True
            if read.example:
                self._count_truncated(tenant, read)
            pieces = self._regrouping.pieces()
        found = self._regrouping.survey(int(self._clock()))
        self._metrics.traces_per_batch.observe(found.traces)
        counted.in_future.add(*found.future)
        counted.in_past.add(*found.past)
        return pieces

    @contextlib.contextmanager
    def _discarding(self, tenant: str, spans: int) -> Iterator[None]:
        """Count the spans of a request that is refused for what it is, all of them, by reason (DIST-8, DIST-11)."""
        try:
            yield
        except RefusedError:
            self._metrics.discarded_spans.labels("rate_limited", tenant).inc(spans)
            raise
        except InvalidIdError as error:
            if error.reason != IdReason.PARENT_SPAN_ID:  # Tempo's receiver refuses that before it counts
                self._metrics.discarded_spans.labels(error.reason, tenant).inc(spans)
            raise RefusedError(Code.INVALID_ARGUMENT, error.detail) from error
        except (SpanTooLargeError, RepetitionError) as error:
            reason = "span_too_large" if isinstance(error, SpanTooLargeError) else "resource_too_large"
            self._metrics.discarded_spans.labels(reason, tenant).inc(spans)
            raise RefusedError(Code.INVALID_ARGUMENT, str(error)) from error

    def _count_truncated(self, tenant: str, read: Read) -> None:
        """Count what was cut, in all scopes at once, and show an example, once a second at most (DIST-10)."""
        for scope, cut in zip(Scope, read.truncated, strict=True):
            self._metrics.attributes_truncated.labels(tenant, scope.name.lower()).inc(cut)
        now_s = time.monotonic()
        if now_s - self._shown_at_s >= EXAMPLE_EVERY_S:
            self._shown_at_s = now_s
            attribute = KeyValue.FromString(read.example)
            log.warning(
                "attributes were too long and have been cut",
                tenant=tenant,
                key=attribute.key[:EXAMPLE_CHARACTERS],
                key_bytes=len(attribute.key.encode()),
                value_bytes=len(attribute.value.string_value.encode()),
                attributes=sum(read.truncated),
            )
