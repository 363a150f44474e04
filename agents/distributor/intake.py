"""What happens to a request, whatever it came by: tenant, scan, IDs, regrouping by partition, records."""

from collections.abc import Sequence

from agents.distributor.metrics import DistributorMetrics
from agents.distributor.producer import RecordProducer
from agents.distributor.status import Code, RefusedError
from agents.distributor.tenants import tenant_of
from schemas.otlp import Codec, SpanFrame, scan_records
from schemas.otlp.routing import IdReason, InvalidIdError, route
from schemas.otlp.splice import Piece, SpanTooLargeError, splice
from schemas.record import Record

REHEARSAL = b"\x0a\x20\x12\x1e\x12\x1c\x0a\x10" + b"t" * 16 + b"\x12\x08" + b"s" * 8
"""A request of one span, which has a trace ID and a span ID."""


class Intake:
    """Takes requests of OTLP bytes, cuts them by partition and has them written."""

    def __init__(
        self,
        producer: RecordProducer,
        metrics: DistributorMetrics,
        *,
        partitions: int,
        max_record: int,
        multitenancy: bool,
    ) -> None:
        self._producer, self._metrics = producer, metrics
        self._partitions, self._max_record = partitions, max_record
        self._multitenancy = multitenancy

    async def push(self, body: bytes, org_ids: Sequence[str], *, no_metrics: bool) -> None:
        """Take an ExportTraceServiceRequest; returns when all its spans are acknowledged. Raises `RefusedError`."""
        with self._metrics.push_duration.time():
            tenant = tenant_of(org_ids, multitenancy=self._multitenancy)
            pieces = self.cut(body, tenant)
            if pieces:
                await self._producer.produce(tenant, pieces, no_metrics=no_metrics)

    def rehearse(self) -> None:
        """Go through the kernels with a request of one span: the first call compiles or loads them, for seconds."""
        routes = route(scan(REHEARSAL), self._partitions)
        splice(REHEARSAL, routes.partitions, self._max_record, routes.rootless)

    def cut(self, body: bytes, tenant: str) -> list[Piece]:
        """Scan, count, check and cut a request (Tempo DIST-5); no pieces if it has no spans. Raises `RefusedError`."""
        frame = scan(body)
        spans = len(frame.spans.start_ns)
        self._metrics.ingress_bytes.labels(tenant).inc(len(body))
        if spans == 0:
            return []
        self._metrics.bytes_received.labels(tenant).inc(len(body))
        self._metrics.spans_received.labels(tenant).inc(spans)
        try:
            routes = route(frame, self._partitions)
            return splice(body, routes.partitions, self._max_record, routes.rootless)
        except InvalidIdError as error:
            if error.reason != IdReason.PARENT_SPAN_ID:  # Tempo's receiver refuses that before it counts
                self._metrics.discarded_spans.labels(error.reason, tenant).inc(spans)
            raise RefusedError(Code.INVALID_ARGUMENT, error.detail) from error
        except SpanTooLargeError as error:
            self._metrics.discarded_spans.labels("span_too_large", tenant).inc(spans)
            raise RefusedError(Code.INVALID_ARGUMENT, str(error)) from error


def scan(body: bytes) -> SpanFrame:
    """The columns of a request. Raises `RefusedError` for bytes that aren't one."""
    frame = scan_records([Record(0, 0, body)], (), Codec.OTLP)
    if frame.errors:
        error = frame.errors[0]
        raise RefusedError(Code.INVALID_ARGUMENT, f"not an OTLP trace request: {error.reason} at byte {error.position}")
    return frame
