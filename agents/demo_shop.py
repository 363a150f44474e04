"""A demo shop: eight services that send real OTLP over gRPC, so that `spanmill dev --demo` has something to show.

An order is planned first, then told in spans that have just ended: nothing sleeps while a payment is made. What the
shop has: synchronous calls, databases, a queue with two readers, errors, clients that aren't instrumented (whoever
calls the frontend) and a callee that isn't (the bank).
"""

import asyncio
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode

NS_PER_MS = 1_000_000
EXPORT_EVERY_MS = 500
SHUTDOWN_S = 2.0

Attributes = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Step:
    """An operation: a span of `service` that spends `own_ms` (median) by itself and then makes its calls in order.

    `fails` is the share of its executions that end in an error. An error ends the caller too, except across a queue.
    """

    service: str
    name: str
    kind: SpanKind
    own_ms: float
    attributes: Attributes = field(default_factory=dict)
    calls: tuple["Step", ...] = ()
    fails: float = 0.0


class Planned(NamedTuple):
    """One execution of a step; `parent` is an index into the plan, times are ns from the plan's start."""

    step: Step
    parent: int | None
    start_ns: int
    end_ns: int
    failed: bool


def rpc(client: str, server: Step) -> Step:
    """A call of another service: the client's span around the server's."""
    attributes = {"rpc.system": "grpc", "rpc.service": server.service, "rpc.method": server.name}
    return Step(client, server.name, SpanKind.CLIENT, 1.5, attributes, (server,))


def query(client: str, database: str, verb: str, own_ms: float, fails: float = 0.0) -> Step:
    """A database query, of which only the client tells."""
    attributes = {"db.system": "postgresql", "db.name": database, "db.operation.name": verb}
    return Step(client, f"{verb} {database}", SpanKind.CLIENT, own_ms, attributes, fails=fails)


def publish(producer: str, queue: str, consumer: Step) -> Step:
    """A message to a queue, and its reader's work."""
    attributes = {"messaging.system": "kafka", "messaging.destination.name": queue}
    return Step(producer, f"{queue} publish", SpanKind.PRODUCER, 2.0, attributes, (consumer,))


def read(service: str, queue: str, own_ms: float, *calls: Step) -> Step:
    """What a reader of a queue does with a message."""
    attributes = {"messaging.system": "kafka", "messaging.destination.name": queue}
    return Step(service, f"{queue} process", SpanKind.CONSUMER, own_ms, attributes, calls)


def server(service: str, name: str, own_ms: float, *calls: Step, fails: float = 0.0) -> Step:
    """A request that a service answers."""
    return Step(service, name, SpanKind.SERVER, own_ms, {}, calls, fails)


BANK = Step(
    "payment",
    "POST /v1/charges",
    SpanKind.CLIENT,
    90.0,
    {"peer.service": "bank", "http.request.method": "POST", "server.address": "bank.example"},
    fails=0.03,
)

CHECKOUT = server(
    "frontend",
    "POST /checkout",
    4.0,
    rpc(
        "frontend",
        server(
            "checkout",
            "PlaceOrder",
            6.0,
            rpc("checkout", server("cart", "GetCart", 2.0, query("cart", "carts", "SELECT", 3.0))),
            rpc("checkout", server("payment", "Charge", 5.0, BANK, fails=0.01)),
            query("checkout", "orders", "INSERT", 8.0, fails=0.005),
            publish(
                "checkout", "orders", read("shipping", "orders", 12.0, query("shipping", "parcels", "INSERT", 5.0))
            ),
            publish("checkout", "receipts", read("email", "receipts", 35.0)),
        ),
    ),
)

BROWSE = server(
    "frontend",
    "GET /products",
    3.0,
    rpc("frontend", server("catalog", "ListProducts", 4.0, query("catalog", "products", "SELECT", 6.0))),
    rpc("frontend", server("recommendation", "Recommend", 15.0, fails=0.02)),
)

VISITS = (CHECKOUT, BROWSE)


def services(*steps: Step) -> set[str]:
    """The services that take part in the steps."""
    return {name for step in steps for name in (step.service, *services(*step.calls))}


def plan(step: Step, chance: random.Random) -> list[Planned]:
    """One execution of a step and of all that it causes, parents before children."""
    planned: list[Planned] = []
    _plan(step, None, 0, chance, planned)
    return planned


def _plan(step: Step, parent: int | None, start_ns: int, chance: random.Random, planned: list[Planned]) -> Planned:
    index = len(planned)
    own_ns = round(step.own_ms * chance.lognormvariate(0.0, 0.4) * NS_PER_MS)
    failed = chance.random() < step.fails
    planned.append(Planned(step, parent, start_ns, start_ns + own_ns, failed))  # holds the place before its children
    at = start_ns + own_ns // 2
    end = start_ns + own_ns
    for call in step.calls:
        if failed:
            break
        if call.kind is SpanKind.CONSUMER:  # reads the message later; its sender doesn't wait
            _plan(call, index, end + round(chance.expovariate(1 / 20) * NS_PER_MS), chance, planned)
            continue
        called = _plan(call, index, at, chance, planned)
        end += called.end_ns - at
        at = called.end_ns
        failed = called.failed
    planned[index] = planned[index]._replace(end_ns=end, failed=failed)
    return planned[index]


class DemoShop:
    """The shop's services: a tracer provider and an exporter each, as if they were processes of their own."""

    def __init__(self, endpoint: str, seed: int = 1) -> None:
        self._chance = random.Random(seed)  # noqa: S311  a demo, repeatable on purpose
        self._providers = {name: _provider(name, endpoint) for name in sorted(services(*VISITS))}
        self._tracers = {name: each.get_tracer("spanmill-demo-shop") for name, each in self._providers.items()}

    def visit(self, now_ns: int) -> int:
        """Tell of one visit whose last span ends at `now_ns`; gives the number of spans."""
        step = CHECKOUT if self._chance.random() < 0.6 else BROWSE
        planned = plan(step, self._chance)
        begin_ns = now_ns - max(each.end_ns for each in planned)
        contexts: list[Context] = []
        for each in planned:
            contexts.append(self._tell(each, begin_ns, None if each.parent is None else contexts[each.parent]))
        return len(planned)

    def _tell(self, planned: Planned, begin_ns: int, parent: Context | None) -> Context:
        span = self._tracers[planned.step.service].start_span(
            planned.step.name,
            context=parent or Context(),
            kind=planned.step.kind,
            attributes=planned.step.attributes,
            start_time=begin_ns + planned.start_ns,
        )
        if planned.failed:
            span.set_status(Status(StatusCode.ERROR, "declined" if planned.step is BANK else "failed"))
        span.end(begin_ns + planned.end_ns)
        return trace.set_span_in_context(trace.NonRecordingSpan(span.get_span_context()))

    def close(self) -> None:
        """Stop the exporters, all at once; what they can't deliver within `SHUTDOWN_S` is dropped."""
        closing = [threading.Thread(target=each.shutdown, daemon=True) for each in self._providers.values()]
        for thread in closing:
            thread.start()
        deadline = time.monotonic() + SHUTDOWN_S
        for thread in closing:
            thread.join(max(deadline - time.monotonic(), 0.0))


def _provider(service: str, endpoint: str) -> TracerProvider:
    provider = TracerProvider(
        resource=Resource.create({"service.name": service, "service.instance.id": f"{service}-1"}),
        shutdown_on_exit=False,
    )
    exporter: SpanExporter = OTLPSpanExporter(endpoint=endpoint, insecure=True, timeout=SHUTDOWN_S)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_EVERY_MS))
    return provider


async def run(endpoint: str, stop: asyncio.Event, visits_per_s: float = 20.0) -> None:
    """Send visits to an OTLP gRPC endpoint (`host:port`) at an even pace until `stop` is set."""
    shop = DemoShop(endpoint)
    loop = asyncio.get_running_loop()
    due = loop.time()
    try:
        while not stop.is_set():
            shop.visit(time.time_ns())
            due = max(due + 1 / visits_per_s, loop.time() - 1.0)  # after a pause, don't make up for all of it
            try:
                await asyncio.wait_for(stop.wait(), max(due - loop.time(), 0.001))
            except TimeoutError:
                continue
    finally:
        await loop.run_in_executor(None, shop.close)
