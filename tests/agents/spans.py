"""Traces for the tests of agents, small enough to compute their metrics by hand."""

from collections.abc import Sequence
from typing import NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

T0_MS = 1_700_000_010_000
"""Tuesday; a multiple of 15 s."""
NS_PER_MS = 1_000_000

CLIENT, SERVER = Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER


class Told(NamedTuple):
    """A span: its service, name and kind, its end after `T0_MS` and how long it took, in ms."""

    service: str
    name: str
    kind: int
    end_ms: int
    took_ms: int
    trace: int
    id: int
    parent: int = 0
    error: bool = False
    attributes: tuple[tuple[str, str], ...] = ()


def traces_data(*told: Told) -> TracesData:
    """One TracesData, a ResourceSpans for each span."""
    return TracesData(resource_spans=[_resource_spans(each) for each in told])


def _resource_spans(told: Told) -> ResourceSpans:
    end_ns = (T0_MS + told.end_ms) * NS_PER_MS
    span = Span(
        trace_id=told.trace.to_bytes(16),
        span_id=told.id.to_bytes(8),
        parent_span_id=told.parent.to_bytes(8) if told.parent else b"",
        name=told.name,
        kind=told.kind,  # type: ignore[arg-type]
        start_time_unix_nano=end_ns - told.took_ms * NS_PER_MS,
        end_time_unix_nano=end_ns,
        attributes=_attributes(told.attributes),
        status=Status(code=Status.STATUS_CODE_ERROR) if told.error else None,
    )
    resource = Resource(attributes=_attributes((("service.name", told.service),)))
    return ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=[span])])


def _attributes(pairs: Sequence[tuple[str, str]]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in pairs]
