"""The spans of a frame as the columns that processors read: numbers only, texts interned."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.otlp import SpanFrame, Strings, resource_attributes
from streams.attribute_keys import CLIENT_SIDE, OTHER_SIDE, PEER_HOST, PEER_PORT, SERVER_SIDE, SERVICE_NAME
from streams.interner import ABSENT, RESOURCE, STRING, Interner
from streams.multiplier import weigh
from streams.plan import Plan

KIND_SERVER, KIND_CLIENT, KIND_PRODUCER, KIND_CONSUMER = 2, 3, 4, 5
STATUS_ERROR = 2

_SIDE_OF_KIND = np.array(
    [OTHER_SIDE, OTHER_SIDE, SERVER_SIDE, CLIENT_SIDE, CLIENT_SIDE, SERVER_SIDE, OTHER_SIDE], np.uint8
)


class Chosen(NamedTuple):
    """What one processor sees of the spans; one row per span."""

    accepted: npt.NDArray[np.bool_]
    """Whether its tenant's filter policies accept the span; of no meaning where it isn't measured (Tempo FLT-3)."""
    weight: npt.NDArray[np.uint64]
    """How many spans it stands for, in 2^-32 (Tempo PRIM-11)."""


class SpanColumns(NamedTuple):
    """One row per span in log order, unless said otherwise. Texts are numbers of the window's interner."""

    measured: npt.NDArray[np.bool_]
    """Whether processors see the span at all: it's within the slack, and its record may be measured."""
    tenant: npt.NDArray[np.int32]
    """The number in the window's plan."""
    record: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]
    """Among the record's spans."""
    resource: npt.NDArray[np.int32]
    kind: npt.NDArray[np.int32]
    status: npt.NDArray[np.int32]
    name: npt.NDArray[np.int32]
    message: npt.NDArray[np.int32]
    """`ABSENT` where no tenant wants it."""
    start_ns: npt.NDArray[np.uint64]
    end_ns: npt.NDArray[np.uint64]
    latency_ns: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    for_span_metrics: Chosen
    for_service_graphs: Chosen
    clamped: npt.NDArray[np.bool_]
    """Whether one of the two weights had to be brought within its bounds."""
    values: npt.NDArray[np.int32]
    """Per key and span."""
    resource_values: npt.NDArray[np.int32]
    """Per key and resource."""
    service: npt.NDArray[np.int32]
    """Per resource."""
    identity: npt.NDArray[np.int32]
    """Per resource: a number for its attributes, equal if they are equal byte by byte; `ABSENT` unless its tenant has
    target_info."""
    callee_host: npt.NDArray[np.int32]
    """`network.peer.address` with its port, of client-side spans (Tempo SG-14)."""
    stream_ms: npt.NDArray[np.int64]
    """Per record: the stream time."""
    offset: npt.NDArray[np.int64]
    """Per record."""
    data: npt.NDArray[np.uint8]
    """The frame's bytes, for IDs."""
    trace_start: npt.NDArray[np.int32]
    trace_bytes: npt.NDArray[np.int32]
    span_start: npt.NDArray[np.int32]
    span_bytes: npt.NDArray[np.int32]
    parent_start: npt.NDArray[np.int32]
    parent_bytes: npt.NDArray[np.int32]


def span_columns(
    frame: SpanFrame,
    plan: Plan,
    interner: Interner,
    tenant_of_record: npt.NDArray[np.int32],
    stream_ms: npt.NDArray[np.int64],
    measured: npt.NDArray[np.bool_],
) -> SpanColumns:
    """The columns of a frame that was scanned for the plan's keys; every span is accepted (see `streams.filters`)."""
    spans = frame.spans
    sides = _SIDE_OF_KIND[np.clip(spans.kind, 0, len(_SIDE_OF_KIND) - 1)]
    values = _span_values(frame, plan, interner, sides, measured)
    resource_values = _resource_values(frame, plan, interner)
    wants_message = any(s.span_metrics and s.span_metrics.intrinsic_dimensions.status_message for s in plan.settings)
    hosts = _found(plan.row(PEER_HOST), values, resource_values, spans.resource)
    ports = _found(plan.row(PEER_PORT), values, resource_values, spans.resource)
    tenant = tenant_of_record[spans.record]
    accepted, clamped = np.ones(len(tenant), np.bool_), np.zeros(len(tenant), np.bool_)
    span_weights, graph_weights = _weights(frame, plan, tenant, measured, clamped)
    on_client = measured & (sides == CLIENT_SIDE)
    return SpanColumns(
        measured=measured,
        tenant=tenant,
        record=spans.record,
        position=spans.index,
        resource=spans.resource,
        kind=spans.kind,
        status=spans.status,
        name=_texts(frame, interner, spans.name, measured),
        message=_texts(frame, interner, spans.status_message, measured & wants_message),
        start_ns=spans.start_ns,
        end_ns=spans.end_ns,
        latency_ns=spans.latency_ns,
        size=spans.size,
        for_span_metrics=Chosen(accepted, span_weights),
        for_service_graphs=Chosen(accepted, graph_weights),
        clamped=clamped,
        values=values,
        resource_values=resource_values,
        service=resource_values[plan.row(SERVICE_NAME)],
        identity=_identities(frame, plan, interner, tenant_of_record),
        callee_host=interner.addresses(np.where(on_client, hosts, ABSENT), ports),
        stream_ms=stream_ms,
        offset=frame.records.offset,
        data=frame.data,
        trace_start=spans.trace_id.offset,
        trace_bytes=spans.trace_id.length,
        span_start=spans.span_id.offset,
        span_bytes=spans.span_id.length,
        parent_start=spans.parent_id.offset,
        parent_bytes=spans.parent_id.length,
    )


def _weights(
    frame: SpanFrame,
    plan: Plan,
    tenant: npt.NDArray[np.int32],
    measured: npt.NDArray[np.bool_],
    clamped: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The weights for span metrics and for service graphs: one array where both weigh alike."""
    spans, graphs = plan.span_weights, plan.graph_weights
    weights = weigh(frame, spans, tenant, measured, clamped)
    if spans.settings == graphs.settings and np.array_equal(spans.of_tenant, graphs.of_tenant):
        return weights, weights
    return weights, weigh(frame, graphs, tenant, measured, clamped)


def _span_values(
    frame: SpanFrame,
    plan: Plan,
    interner: Interner,
    sides: npt.NDArray[np.uint8],
    measured: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int32]:
    attributes = frame.spans.attributes
    values = np.full((len(plan.keys), len(sides)), ABSENT, np.int32)
    for row in np.flatnonzero((attributes.kind != 0).any(axis=1)).tolist():
        read_on = plan.sides[row]
        if read_on:
            wanted = measured & ((sides & read_on) != 0)
            values[row] = interner.column(
                frame.data, attributes.kind[row], attributes.offset[row], attributes.length[row], wanted
            )
    return values


def _resource_values(frame: SpanFrame, plan: Plan, interner: Interner) -> npt.NDArray[np.int32]:
    attributes = frame.resources.attributes
    every = np.ones(attributes.kind.shape[1], np.bool_)
    values = np.full((len(plan.keys), len(every)), ABSENT, np.int32)
    for row in np.flatnonzero((attributes.kind != 0).any(axis=1)).tolist():
        values[row] = interner.column(
            frame.data, attributes.kind[row], attributes.offset[row], attributes.length[row], every
        )
    return values


def _identities(
    frame: SpanFrame, plan: Plan, interner: Interner, tenant_of_record: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """What names each resource, where its tenant has target_info; a resource without attributes has a number too."""
    informs = np.array([s.span_metrics is not None and s.span_metrics.enable_target_info for s in plan.settings])
    if not informs.any():
        return np.full(len(frame.resources.size), ABSENT, np.int32)
    wanted = informs[tenant_of_record[frame.resources.record]]
    data, ranges = resource_attributes(frame.data, frame.resources, wanted)
    return interner.column(data, np.full(len(wanted), RESOURCE, np.uint8), ranges.offset, ranges.length, wanted)


def _texts(
    frame: SpanFrame, interner: Interner, strings: Strings, wanted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int32]:
    kinds = np.full(len(wanted), STRING, np.uint8)
    return interner.column(frame.data, kinds, strings.offset, strings.length, wanted)


def _found(
    row: int,
    values: npt.NDArray[np.int32],
    resource_values: npt.NDArray[np.int32],
    resource: npt.NDArray[np.int32],
) -> npt.NDArray[np.int32]:
    """An attribute of each span, resource first (Tempo PRIM-2); `ABSENT` also if no tenant reads it."""
    if row < 0:
        return np.full(len(resource), ABSENT, np.int32)
    of_resource = resource_values[row][resource]
    found: npt.NDArray[np.int32] = np.where(of_resource != ABSENT, of_resource, values[row])
    return found
