"""Realistic traces for tests and benchmarks, the same for the same seed; and their bytes in other writers' orders.

A trace has eight spans of five services, of 7 to 9 attributes and 350 to 500 bytes each: a client, a gateway, an
application, a database call, a message. Errors are rare, and have an event.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

START_NS = 1_700_000_000_000_000_000
SPANS_PER_TRACE = 8

Value = str | int | bool | float
Placed = tuple[str, Span]
"""A span and its service."""

CLIENT, SERVER, INTERNAL = Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER, Span.SPAN_KIND_INTERNAL
PRODUCER, CONSUMER = Span.SPAN_KIND_PRODUCER, Span.SPAN_KIND_CONSUMER

_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1",
)
_ROUTES = ("/api/cart/{user}", "/api/checkout", "/api/products/{id}", "/api/products/{id}/reviews", "/api/orders")
_QUERIES = (
    "SELECT id, name, price, stock FROM products WHERE id = $1",
    "INSERT INTO orders (id, customer, total, currency) VALUES ($1, $2, $3, $4)",
    "UPDATE stock SET reserved = reserved + $2 WHERE product = $1 AND free >= $2",
)


def any_value(value: Value) -> AnyValue:
    """An attribute's value."""
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
    return AnyValue(string_value=value)


def attributes(**values: Value) -> list[KeyValue]:
    """Attributes by name, a double underscore for each dot."""
    return [KeyValue(key=name.replace("__", "."), value=any_value(value)) for name, value in values.items()]


def trace(rng: random.Random, start_ns: int = START_NS) -> list[Placed]:
    """One trace, as spans with their services, parents first."""
    return list(_TraceBuilder(rng, start_ns).spans())


def traces_data(spans: Sequence[Placed]) -> TracesData:
    """A message of spans, grouped by service in the order of first appearance."""
    groups: dict[str, list[Span]] = {}
    for service, span in spans:
        groups.setdefault(service, []).append(span)
    return TracesData(resource_spans=[_resource_spans(service, group) for service, group in groups.items()])


def trace_records(seed: int, count: int) -> list[bytes]:
    """Records of one trace each."""
    rng = random.Random(seed)
    return [traces_data(trace(rng, START_NS + i * 10_000_000)).SerializeToString() for i in range(count)]


def span_records(seed: int, count: int, spans: int = 200) -> list[bytes]:
    """Records of many whole traces, so many spans each."""
    rng = random.Random(seed)
    return [
        traces_data(
            [span for i in range(spans // SPANS_PER_TRACE) for span in trace(rng, START_NS + (r * 100 + i) * 1_000_000)]
        ).SerializeToString()
        for r in range(count)
    ]


class _TraceBuilder:
    """The spans of one trace."""

    def __init__(self, rng: random.Random, start_ns: int) -> None:
        self._rng = rng
        self._trace_id = rng.randbytes(16)
        self._start_ns = start_ns
        self._user = rng.randrange(10_000)

    def spans(self) -> Iterator[Placed]:
        rng = self._rng
        route, method = rng.choice(_ROUTES), rng.choice(("GET", "POST"))
        failed = rng.random() < 0.02
        status = 500 if failed else 200
        gateway = self._span(
            "gateway", f"{method} {route}", SERVER, None, failed, self._http_server(method, route, status)
        )
        yield gateway
        call = self._span("gateway", method, CLIENT, gateway, failed, self._http_client(method, route, "shop", status))
        yield call
        shop = self._span("shop", f"{method} {route}", SERVER, call, failed, self._http_server(method, route, status))
        yield shop
        yield self._span("shop", "price the basket", INTERNAL, shop, failed=False, values=self._internal())
        for _ in range(2):
            yield self._span("shop", "postgres shop", CLIENT, shop, failed=False, values=self._database())
        sent = self._span("shop", "orders publish", PRODUCER, shop, failed=False, values=self._message("publish"))
        yield sent
        yield self._span("billing", "orders process", CONSUMER, sent, failed=False, values=self._message("process"))

    def _span(
        self, service: str, name: str, kind: Any, parent: Placed | None, failed: bool, values: list[KeyValue]
    ) -> Placed:
        rng = self._rng
        start = self._start_ns + rng.randrange(2_000_000)
        end = start + int(rng.lognormvariate(16, 1))
        span = Span(
            trace_id=self._trace_id,
            span_id=rng.randbytes(8),
            parent_span_id=parent[1].span_id if parent else b"",
            flags=0x101,
            name=name,
            kind=kind,
            start_time_unix_nano=start,
            end_time_unix_nano=end,
            attributes=values,
            status=Status(code=Status.STATUS_CODE_ERROR, message="the basket is empty") if failed else Status(),
        )
        if failed:
            values = attributes(exception__type="shop.EmptyBasket", exception__message="the basket is empty")
            span.events.append(Span.Event(time_unix_nano=end, name="exception", attributes=values))
        return service, span

    def _http_server(self, method: str, route: str, status: int) -> list[KeyValue]:
        rng = self._rng
        return attributes(
            http__request__method=method,
            http__route=route,
            http__response__status_code=status,
            url__scheme="https",
            url__path=route.replace("{user}", str(self._user)).replace("{id}", str(rng.randrange(500))),
            server__address="shop.example.com",
            client__address=f"203.0.113.{rng.randrange(256)}",
            user_agent__original=rng.choice(_AGENTS),
            network__protocol__version="1.1",
        )

    def _http_client(self, method: str, route: str, peer: str, status: int) -> list[KeyValue]:
        rng = self._rng
        return attributes(
            http__request__method=method,
            http__response__status_code=status,
            url__full=f"http://{peer}.default.svc.cluster.local:8080{route}?page={rng.randrange(50)}",
            server__address=f"{peer}.default.svc.cluster.local",
            server__port=8080,
            network__peer__address=f"10.0.{rng.randrange(8)}.{rng.randrange(256)}",
            network__peer__port=8080,
            peer__service=peer,
        )

    def _internal(self) -> list[KeyValue]:
        rng = self._rng
        return attributes(
            code__function__name="shop.pricing.basket.price",
            code__file__path="/app/src/shop/pricing/basket.py",
            code__line__number=rng.randrange(400),
            thread__name=f"worker-{rng.randrange(16)}",
            app__basket__items=rng.randrange(1, 20),
            app__basket__total=round(rng.random() * 500, 2),
            app__customer__premium=rng.random() < 0.1,
            app__pricing__rules="list-price,volume-discount,loyalty,coupon",
            app__currency="EUR",
        )

    def _database(self) -> list[KeyValue]:
        rng = self._rng
        query = rng.choice(_QUERIES)
        return attributes(
            db__system="postgresql",
            db__name="shop",
            db__operation=query.split(" ", 1)[0],
            db__statement=query,
            server__address="postgres.default.svc.cluster.local",
            server__port=5432,
            network__peer__address=f"10.0.0.{rng.randrange(4)}",
            thread__name=f"worker-{rng.randrange(16)}",
        )

    def _message(self, operation: str) -> list[KeyValue]:
        rng = self._rng
        return attributes(
            messaging__system="kafka",
            messaging__operation=operation,
            messaging__destination__name="orders",
            messaging__destination__partition__id=str(rng.randrange(12)),
            messaging__kafka__message__offset=rng.randrange(10_000_000),
            messaging__message__body__size=rng.randrange(200, 4000),
            messaging__client_id=f"shop-{rng.randrange(4)}-rdkafka",
            server__address="kafka-0.kafka.default.svc.cluster.local",
        )


def _resource_spans(service: str, spans: Sequence[Span]) -> ResourceSpans:
    resource = Resource(
        attributes=attributes(
            service__name=service,
            service__namespace="shop",
            service__instance__id=f"{service}-6f7d8b9c4-x2x9z",
            deployment__environment="production",
            telemetry__sdk__name="opentelemetry",
            telemetry__sdk__language="python",
            telemetry__sdk__version="1.36.0",
            host__name="node-3.example.com",
        )
    )
    scope = ScopeSpans(
        scope=InstrumentationScope(name="opentelemetry.instrumentation.auto", version="0.57b0"), spans=spans
    )
    return ResourceSpans(resource=resource, scope_spans=[scope])


Order = Callable[[list[list[bytes]]], list[bytes]]
"""Puts a message's fields into an order: a list per field, in ascending order, of its encoded values."""


def descending(fields: list[list[bytes]]) -> list[bytes]:
    """As a Collector writes: the highest field number first, repeated values in their order."""
    return [piece for pieces in reversed(fields) for piece in pieces]


def shuffled(rng: random.Random) -> Order:
    """Any order, fields mixed with each other, repeated values in their order."""

    def order(fields: list[list[bytes]]) -> list[bytes]:
        turns = [i for i, pieces in enumerate(fields) for _ in pieces]
        rng.shuffle(turns)
        values = [iter(pieces) for pieces in fields]
        return [next(values[i]) for i in turns]

    return order


def reencode(message: Message, order: Order) -> bytes:
    """The message's bytes with the fields of each message in it in the given order."""
    fields = [
        [_encode(message, field, one, order) for one in (value if field.is_repeated else [value])]
        for field, value in sorted(message.ListFields(), key=lambda pair: pair[0].number)
    ]
    return b"".join(order(fields))


def _encode(message: Message, field: FieldDescriptor, value: Any, order: Order) -> bytes:
    """One value of a field, with its tag."""
    if field.message_type is not None:
        return length_delimited(field.number, reencode(value, order))
    alone = type(message)()
    if field.is_repeated:
        getattr(alone, field.name).append(value)
    else:
        setattr(alone, field.name, value)
    return alone.SerializeToString()


def uvarint(number: int) -> bytes:
    """A varint in its shortest form."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def length_delimited(number: int, payload: bytes) -> bytes:
    """A field of wire type 2."""
    return uvarint(number << 3 | 2) + uvarint(len(payload)) + payload
