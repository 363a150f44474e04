"""What happens to a request, whatever it came by: tenant, scan, IDs, regrouping by partition, records."""

from collections.abc import Sequence

from agents.distributor.metrics import DistributorMetrics
from agents.distributor.producer import RecordProducer
from agents.distributor.status import Code, RefusedError
from agents.distributor.tenants import tenant_of
from schemas.errors import Malformed
from schemas.otlp.regroup import Regrouping
from schemas.otlp.routing import IdReason, InvalidIdError
from schemas.otlp.splice import Piece, SpanTooLargeError

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
        self._regrouping = Regrouping(partitions, max_record)
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
        self._regrouping.read(REHEARSAL)
        self._regrouping.pieces()

    def cut(self, body: bytes, tenant: str) -> list[Piece]:
        """Scan, count, check and cut a request (Tempo DIST-5); no pieces if it has no spans. Raises `RefusedError`."""
        try:
            spans = self._regrouping.read(body).spans
        except Malformed as error:
            raise RefusedError(Code.INVALID_ARGUMENT, f"not an OTLP trace request: {error}") from error
        counted = self._metrics.of(tenant)
        counted.ingress_bytes.inc(len(body))
        if spans == 0:
            return []
        counted.bytes_received.inc(len(body))
        counted.spans_received.inc(spans)
        try:
            return self._regrouping.pieces()
        except InvalidIdError as error:
            if error.reason != IdReason.PARENT_SPAN_ID:  # Tempo's receiver refuses that before it counts
                self._metrics.discarded_spans.labels(error.reason, tenant).inc(spans)
            raise RefusedError(Code.INVALID_ARGUMENT, error.detail) from error
        except SpanTooLargeError as error:
            self._metrics.discarded_spans.labels("span_too_large", tenant).inc(spans)
            raise RefusedError(Code.INVALID_ARGUMENT, str(error)) from error
