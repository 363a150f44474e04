"""What the distributor writes for any valid requests, against the same requests as protobuf's objects."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from prometheus_client import CollectorRegistry

from agents.distributor.in_flight import InFlight
from agents.distributor.intake import Intake
from agents.distributor.limits import TenantLimits
from agents.distributor.metrics import DistributorMetrics
from agents.distributor.producer import RecordProducer
from agents.distributor.reception import Arrival
from agents.producer import Headers, Producer
from schemas.config import load_config
from tests.intake_fuzz import PARTITIONS, Place, placed, places
from tests.otlp_samples import descending, reencode, shuffled
from tests.schemas.test_truncate import cut_by_objects

TENANTS = ("a", "b")
DEEPEST = 7
"""Resource, scope, span, attribute, its value, a list, and a value in that."""
LEADING_TO_SPANS = {"resource_spans", "scope_spans", "spans"}

texts = st.one_of(st.text(max_size=3), st.sampled_from(["service.name", "x" * 30, "äöü€𝄞" * 4]))
IDS = [number.to_bytes(16, "big") for number in (1, 2, 3, 1 << 100)]
trace_ids = st.one_of(st.sampled_from(IDS), st.binary(min_size=16, max_size=16).filter(any))
span_ids = st.binary(min_size=8, max_size=8).filter(any)
parent_ids = st.one_of(st.sampled_from([b"", bytes(8)]), span_ids)
SCALARS = {
    FieldDescriptor.TYPE_STRING: texts,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=20),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
}


def fill(draw: st.DrawFn, message: Message, depth: int = 0) -> None:
    """Give a message any of its fields, whatever these are; the IDs of spans are right."""
    for field in chosen(draw, message, depth):
        numbers = st.sampled_from((1, 2, 3, 0)) if field.name in LEADING_TO_SPANS else st.integers(0, 2)
        for _ in range(draw(numbers) if field.is_repeated else 1):
            put(draw, message, field, depth)
    if isinstance(message, Span):
        message.trace_id, message.span_id = draw(trace_ids), draw(span_ids)
        message.parent_span_id = draw(parent_ids)


def chosen(draw: st.DrawFn, message: Message, depth: int) -> list[FieldDescriptor]:
    """Some of a message's fields, and at most one of those that exclude each other."""
    fields = [each for each in message.DESCRIPTOR.fields if each.message_type is None or depth < DEEPEST]
    if message.DESCRIPTOR.oneofs:
        return [draw(st.sampled_from(fields))] if draw(st.integers(0, 9)) else []
    return [each for each in fields if each.name in LEADING_TO_SPANS or draw(st.booleans())]


def put(draw: st.DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None:
        child = getattr(message, field.name)
        if field.is_repeated:
            child = child.add()
        else:
            child.SetInParent()
        fill(draw, child, depth + 1)
        return
    values = st.sampled_from([v.number for v in field.enum_type.values]) if field.enum_type else SCALARS[field.type]
    if field.is_repeated:
        getattr(message, field.name).append(draw(values))
    else:
        setattr(message, field.name, draw(values))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A valid request; its bytes in the order of SDKs, of Collectors, or in any."""
    message = TracesData()
    fill(draw, message)
    order = draw(st.sampled_from([None, descending, shuffled(draw(st.randoms(use_true_random=False)))]))
    return message.SerializeToString() if order is None else reencode(message, order)


class Log:
    """Keeps records and acknowledges each at once."""

    def __init__(self) -> None:
        self.records: list[tuple[str, int, bytes]] = []

    async def send(
        self, topic: str, partition: int, value: bytes, *, key: bytes | None = None, headers: Headers = ()
    ) -> asyncio.Future[int]:
        self.records.append((dict(headers)["tenant"].decode(), partition, value))
        done = asyncio.get_running_loop().create_future()
        done.set_result(0)
        return done


async def written(sent: Sequence[tuple[str, bytes]], longest: int, max_record: int) -> list[tuple[str, int, bytes]]:
    """The records of tenants' requests that come at the same time; attributes are cut at `longest` bytes."""
    config = load_config(None, f"{{multitenancy_enabled: true, distributor: {{max_attribute_bytes: {longest}}}}}")
    log, metrics = Log(), DistributorMetrics(CollectorRegistry())
    producer = RecordProducer(cast("Producer", log), "spans", metrics, max_record=max_record, max_buffered=0)
    limits = TenantLimits(lambda: config)
    to = producer, metrics, limits, InFlight(metrics)
    intake = Intake(*to, partitions=PARTITIONS, max_record=max_record, multitenancy=True)
    await asyncio.gather(*(intake.push(Arrival(), body, [tenant], no_metrics=False) for tenant, body in sent))
    return log.records


def expected(bodies: Sequence[bytes], longest: int) -> list[Place]:
    """By objects: every span with its resource and scope, attributes cut, where its trace belongs."""
    found: list[Place] = []
    for body in bodies:
        message = TracesData.FromString(body)
        if longest:
            cut_by_objects(message, longest)
        found += placed(message)
    return sorted(found)


def found_in(records: Sequence[tuple[int, bytes]]) -> Iterator[Place]:
    for partition, value in records:
        message = TracesData.FromString(value)
        assert all(scope.spans for resource in message.resource_spans for scope in resource.scope_spans)
        assert all(resource.scope_spans for resource in message.resource_spans)
        yield from places(message, partition)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(TENANTS), requests()), min_size=1, max_size=3), st.sampled_from([0, 6, 2048]))
def test_records_hold_what_requests_hold(sent: list[tuple[str, bytes]], longest: int) -> None:
    """DIST-10, DIST-12: spans, resources and scopes; each once, its tenant's, and no trace on two partitions."""
    max_record = max(len(body) for _, body in sent)
    records = asyncio.run(written(sent, longest, max_record))
    for tenant in TENANTS:
        of_tenant = [(partition, value) for name, partition, value in records if name == tenant]
        assert sorted(found_in(of_tenant)) == expected([body for name, body in sent if name == tenant], longest)
        homes: dict[bytes, set[int]] = {}
        for partition, value in of_tenant:
            assert len(value) <= max_record
            for resource in TracesData.FromString(value).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        homes.setdefault(span.trace_id, set()).add(partition)
        assert all(len(partitions) == 1 for partitions in homes.values())
