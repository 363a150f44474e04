"""What looks at single spans, where an operator asks for it: lines of the log, and a counter by name (Tempo DIST-18).

As in Tempo, nothing bounds how many lines or series that makes: these are for finding out what somebody sends.
"""

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import structlog
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agents.distributor.metrics import DistributorMetrics
from schemas.config.distributor import DistributorConfig, LogSpans, MetricSpans
from schemas.labels import sanitize_name
from schemas.otlp.anyvalue import value_text
from schemas.otlp.byte_messages import traces_data

log = structlog.get_logger(__name__)

SERVICE_NAME = b"service.name"
RECEIVED, DISCARDED = "received", "discarded"


class Inspection(NamedTuple):
    """Which requests are looked into, and what becomes of that."""

    log_received: LogSpans
    log_discarded: LogSpans
    counting: MetricSpans
    metrics: DistributorMetrics

    @classmethod
    def of(cls, config: DistributorConfig, metrics: DistributorMetrics) -> Self | None:
        """None if nothing is asked for."""
        every = config.log_received_spans, config.log_discarded_spans, config.metric_received_spans
        return cls(*every, metrics) if any(each.enabled for each in every) else None

    async def look(self, tenant: str, body: bytes, *, discarded: bool) -> None:
        """Look into a request that was within its limits, in a thread; `discarded`: it was refused for its spans."""
        if self.log_received.enabled or self.counting.enabled or (discarded and self.log_discarded.enabled):
            await asyncio.to_thread(self._look, tenant, body, discarded=discarded)

    async def close(self) -> None:
        """Nothing is left to be done."""

    def _look(self, tenant: str, body: bytes, *, discarded: bool) -> None:
        message = traces_data(body)
        if self.log_received.enabled:
            write_lines(RECEIVED, tenant, message, self.log_received)
        if self.counting.enabled:
            self._count(tenant, message)
        if discarded and self.log_discarded.enabled:
            write_lines(DISCARDED, tenant, message, self.log_discarded)

    def _count(self, tenant: str, message: Any) -> None:
        for resource in message.resource_spans:
            service = service_of(resource)
            for span in spans_of(resource):
                if not self.counting.root_only or not span.parent_span_id.strip(b"\0"):
                    self.metrics.debug_spans.labels(tenant, text(span.name), service).inc()


def write_lines(event: str, tenant: str, message: Any, settings: LogSpans) -> None:
    """A line for each span, with Tempo's names of fields."""
    for resource in message.resource_spans:
        shared = attributes_of(resource.resource) if settings.include_all_attributes else {}
        for span in spans_of(resource):
            if settings.filter_by_status_error and span.status.code != Status.STATUS_CODE_ERROR:
                continue
            fields = {**shared, **fields_of(span)} if settings.include_all_attributes else shared
            log.info(event, tenant=tenant, **fields, spanid=span.span_id.hex(), traceid=span.trace_id.hex())


def fields_of(span: Any) -> dict[str, object]:
    """All that is logged of a span beside its IDs; of equal names the span's own field counts."""
    return {
        **attributes_of(span),
        "span_name": text(span.name),
        "span_duration_seconds": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        "span_kind": enum_text(Span.SpanKind, span.kind),
        "span_status": enum_text(Status.StatusCode, span.status.code),
    }


def attributes_of(holder: Any) -> dict[str, object]:
    """The attributes of a span or a resource, under the names that they have in a line."""
    return {f"span_{sanitize_name(pair.key).decode()}": text(value_text(pair.value)) for pair in holder.attributes}


def service_of(resource: Any) -> str:
    """The resource's `service.name`, empty if it isn't a string."""
    values = (pair.value.string_value for pair in resource.resource.attributes if pair.key == SERVICE_NAME)
    return text(next(values, b""))


def spans_of(resource: Any) -> Iterator[Any]:
    """The spans of a ResourceSpans."""
    return (span for scope in resource.scope_spans for span in scope.spans)


def enum_text(enum: Any, number: int) -> str:
    """The name of an enum's value, or the number if it has none."""
    return str(enum.Name(number)) if number in enum.values() else str(number)


def text(raw: bytes) -> str:
    """Bytes as a text that can be written."""
    return raw.decode(errors="replace")
