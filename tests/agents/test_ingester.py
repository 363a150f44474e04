"""The ingester on real Kafka, in front of a trace store of our own that answers as it is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from agents import ingester
from agents.otlp_protocol import EXPORT_METHOD, ORG_ID_HEADER
from agents.own_metrics import OwnMetrics
from schemas.config import Config, load_config
from schemas.control import CONTROL_HEADER, Tick, encode_control
from tests.servers.kafka import KafkaBroker

pytestmark = pytest.mark.kafka

WAIT_S = 60.0
Names = list[str]


def value(*names: str) -> bytes:
    message = TracesData()
    message.resource_spans.add().scope_spans.add().spans.extend(Span(name=name) for name in names)
    return message.SerializeToString()


def names_of(body: bytes) -> Names:
    message = TracesData.FromString(body)
    return [span.name for r in message.resource_spans for s in r.scope_spans for span in s.spans]


@dataclass
class Store(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """A trace store; `answer` may abort the call, or return the response."""

    answer: Callable[[Names, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]
    taken: list[tuple[str, Names]] = field(default_factory=list)
    tried: list[Names] = field(default_factory=list)
    address: str = ""
    metadata: list[dict[str, str]] = field(default_factory=list)

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        return grpc.unary_unary_rpc_method_handler(self._export) if details.method == EXPORT_METHOD else None

    async def _export(self, body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        metadata = {str(key): str(text) for key, text in context.invocation_metadata() or ()}
        names = names_of(body)
        self.tried.append(names)
        self.metadata.append(metadata)
        answer = await self.answer(names, context)
        self.taken.append((metadata[ORG_ID_HEADER], names))
        return answer

    @property
    def names(self) -> Names:
        return [name for _, names in self.taken for name in names]


async def take(_: Names, __: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return b""


@asynccontextmanager
async def store(
    answer: Callable[[Names, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]] = take, port: int = 0
) -> AsyncIterator[Store]:
    running = Store(answer)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((running,))
    running.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield running
    finally:
        await server.stop(0)


def config_for(kafka: KafkaBroker, topic: str, address: str, app: str, extra: str = "") -> Config:
    return load_config(
        None,
        f"""
ingest: {{kafka: {{address: "{kafka.address}"}}}}
spanmill:
  app_id: {app}
  topics: {{spans: {topic}}}
  ingester: {{endpoint: "http://{address}", headers: {{X-Token: secret}}}}
{extra}""",
    )


@asynccontextmanager
async def running(config: Config, metrics: OwnMetrics | None = None) -> AsyncIterator[OwnMetrics]:
    """An ingester that has its partitions; it is stopped as by a signal."""
    metrics, stop, ready = metrics or OwnMetrics(), asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(ingester.run(config, stop, metrics, ready=ready))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=WAIT_S)
    try:
        assert ready.is_set(), task
        yield metrics
    finally:
        stop.set()
        waiting.cancel()
        await asyncio.wait_for(task, WAIT_S)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.02)


async def test_every_record_arrives_in_order_with_its_tenant(kafka: KafkaBroker) -> None:
    topic, app = kafka.spans_topic(2), kafka.unique("app")
    for i in range(20):
        kafka.produce(topic, value(f"a{i}"), partition=0, headers=[("tenant", b"t1")])
        kafka.produce(topic, value(f"b{i}"), partition=1, headers=[("tenant", b"t2")])
    kafka.produce(topic, value("none"), partition=1)
    async with store() as peer, running(config_for(kafka, topic, peer.address, app)) as metrics:
        await until(lambda: len(peer.names) >= 41)
        by_tenant = {tenant: [n for t, names in peer.taken if t == tenant for n in names] for tenant, _ in peer.taken}
        assert metrics.registry.get_sample_value("spanmill_ingester_records_total", {"partition": "0"}) == 20
    assert by_tenant == {
        "t1": [f"a{i}" for i in range(20)],
        "t2": [f"b{i}" for i in range(20)],
        "single-tenant": ["none"],
    }
    assert {each["x-token"] for each in peer.metadata} == {"secret"}
    assert kafka.committed(f"{app}_ingester", topic) == {0: 20, 1: 21}


async def test_control_records_are_passed_over(kafka: KafkaBroker) -> None:
    topic, app = kafka.spans_topic(1), kafka.unique("app")
    tick = [(CONTROL_HEADER, encode_control(Tick(15_000)))]
    kafka.produce(topic, b"", headers=tick)
    kafka.produce(topic, value("span"))
    kafka.produce(topic, b"", headers=tick)
    kafka.produce(topic, b"")
    async with store() as peer, running(config_for(kafka, topic, peer.address, app)):
        await until(lambda: kafka.committed(f"{app}_ingester", topic) == {0: 4})
    assert peer.names == ["span"]


async def test_a_store_that_is_down_gets_everything_in_order_when_it_is_back(kafka: KafkaBroker) -> None:
    topic, app = kafka.spans_topic(1), kafka.unique("app")
    failures = iter([grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAUTHENTICATED])

    async def at_first_down(_: Names, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        failure = next(failures, None)
        if failure is not None:
            await context.abort(failure, "not now")
        return b""

    for i in range(5):
        kafka.produce(topic, value(f"n{i}"))
    async with store(at_first_down) as peer, running(config_for(kafka, topic, peer.address, app)) as metrics:
        await until(lambda: len(peer.names) >= 5)
    assert peer.names == [f"n{i}" for i in range(5)]
    assert len(peer.tried) >= 4
    requests = {
        sample.labels["code"]: sample.value
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "spanmill_ingester_requests_total"
    }
    assert requests["UNAVAILABLE"] == requests["DEADLINE_EXCEEDED"] == requests["UNAUTHENTICATED"] == 1
    assert kafka.committed(f"{app}_ingester", topic) == {0: 5}


async def test_nothing_is_committed_before_the_store_has_it(kafka: KafkaBroker) -> None:
    topic, app = kafka.spans_topic(1), kafka.unique("app")
    kafka.produce(topic, value("span"))

    async def down(_: Names, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "never")
        return b""

    async with store(down) as peer, running(config_for(kafka, topic, peer.address, app)):
        await until(lambda: len(peer.tried) >= 2)
    assert kafka.committed(f"{app}_ingester", topic) == {}
    async with store() as peer, running(config_for(kafka, topic, peer.address, app)):
        await until(lambda: peer.names == ["span"])


async def test_a_record_that_the_store_refuses_costs_no_others(kafka: KafkaBroker) -> None:
    topic, app = kafka.spans_topic(1), kafka.unique("app")
    for name in ("a", "bad", "c"):
        kafka.produce(topic, value(name))
    kafka.produce(topic, b"\x0a\x05")

    async def picky(names: Names, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if "bad" in names:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad span")
        return ExportTraceServiceResponse(
            partial_success=ExportTracePartialSuccess(rejected_spans=1)
        ).SerializeToString()

    async with store(picky) as peer, running(config_for(kafka, topic, peer.address, app)) as metrics:
        await until(lambda: kafka.committed(f"{app}_ingester", topic).get(0) == 4)
    assert peer.names == ["a", "c"]
    sample = metrics.registry.get_sample_value
    assert sample("spanmill_ingester_refused_records_total", {"reason": "invalid_argument"}) == 1
    assert (sample("spanmill_ingester_rejected_spans_total") or 0) >= 1


async def test_two_ingesters_share_the_partitions_and_lose_nothing(kafka: KafkaBroker) -> None:
    topic, app = kafka.spans_topic(4), kafka.unique("app")
    sent = set()
    async with store() as peer:
        config = config_for(kafka, topic, peer.address, app)
        async with running(config):
            for i in range(8):
                kafka.produce(topic, value(f"x{i}"), partition=i % 4)
                sent.add(f"x{i}")
            await until(lambda: set(peer.names) >= sent)
            async with running(config):
                for i in range(8):
                    kafka.produce(topic, value(f"y{i}"), partition=i % 4)
                    sent.add(f"y{i}")
                await until(lambda: set(peer.names) >= sent)
            for i in range(8):
                kafka.produce(topic, value(f"z{i}"), partition=i % 4)
                sent.add(f"z{i}")
            await until(lambda: set(peer.names) >= sent)
    assert kafka.committed(f"{app}_ingester", topic) == dict.fromkeys(range(4), 6)


async def test_without_an_endpoint_it_says_what_is_missing(kafka: KafkaBroker) -> None:
    with pytest.raises(ValueError, match=r"spanmill\.ingester\.endpoint isn't set"):
        await ingester.run(load_config(None, ""), asyncio.Event(), OwnMetrics())
