"""The columns of spans: what they hold that no processor's test shows by itself."""

from dataclasses import replace

import numpy as np
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from schemas.config import TenantSettings
from schemas.otlp import Codec, scan_records
from schemas.record import Record
from streams.interner import ABSENT, Interner
from streams.plan import Plan
from streams.span_columns import SpanColumns, span_columns
from tests.otlp_samples import any_value, attributes
from tests.streams.log import settings

PLAIN = settings(span_metrics={})
assert PLAIN.span_metrics is not None
INFORMED = replace(PLAIN, span_metrics=replace(PLAIN.span_metrics, enable_target_info=True))


def columns_of(records: list[Record], tenants: dict[str, TenantSettings], interner: Interner) -> SpanColumns:
    """The columns of records, all of whose spans are measured."""
    plan = Plan(tenants.__getitem__)
    plan.include(tenants)
    frame = scan_records(records, plan.keys, Codec.OTLP)
    numbers = np.array([plan.numbers[tenant] for tenant in frame.tenants], np.int32)
    measured = np.ones(len(frame.spans.kind), np.bool_)
    tenant_of_record = numbers[frame.records.tenant]
    return span_columns(frame, plan, interner, tenant_of_record, frame.records.timestamp_ms, measured)


def resource_spans(**values: str | int) -> ResourceSpans:
    return ResourceSpans(resource=Resource(attributes=attributes(**values)), scope_spans=[ScopeSpans(spans=[Span()])])


def test_resources_with_the_same_attributes_have_one_identity_where_target_info_is_made() -> None:
    """SM-30 is about all attributes of a resource; INT-9: a missing resource has none."""
    same, other = resource_spans(service__name="a", zone=1), resource_spans(service__name="a", zone="1")
    dropped = resource_spans(service__name="a", zone=1)
    dropped.resource.dropped_attributes_count = 7
    message = TracesData(resource_spans=[same, other, dropped, resource_spans(), ResourceSpans()])
    value = message.SerializeToString()
    interner = Interner()

    columns = columns_of([Record(0, 0, value, "i"), Record(1, 0, value, "p")], {"i": INFORMED, "p": PLAIN}, interner)

    first, second, third, empty, missing, *plain = columns.identity.tolist()
    assert first == third != second
    assert empty == missing not in {first, second, ABSENT}
    assert plain == [ABSENT] * 5
    assert Resource.FromString(interner.raw(first)) == same.resource
    assert Resource.FromString(interner.raw(second)).attributes[1].value == any_value("1")
    assert interner.raw(empty) == b""


def test_an_identity_is_that_of_the_bytes_and_no_text_of_the_same_bytes() -> None:
    message = TracesData(resource_spans=[resource_spans(service__name="a")])
    message.resource_spans[0].scope_spans[0].spans[0].name = (
        message.resource_spans[0].resource.SerializeToString().decode()
    )
    interner = Interner()
    columns = columns_of([Record(0, 0, message.SerializeToString(), "i")], {"i": INFORMED}, interner)
    assert interner.raw(int(columns.name[0])) == interner.raw(int(columns.identity[0]))
    assert columns.name[0] != columns.identity[0]
