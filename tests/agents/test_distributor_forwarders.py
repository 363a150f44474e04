"""Forwarders (Tempo DIST-15): copies to other endpoints that never stand in an answer's way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from agents.distributor.forwarders import QUEUE_BYTES, QUEUE_REQUESTS, Forwarding, without
from agents.distributor.metrics import DistributorMetrics
from agents.distributor.receiver_grpc import Service
from agents.otlp_protocol import EXPORT_METHOD, ORG_ID_HEADER
from schemas import ottl
from schemas.config import ConfigError, load_config
from schemas.config.ingestion import ingestion_settings
from tests.servers.certificates import Authority

WAIT_S = 20.0


class Store:
    """An OTLP endpoint that keeps what it gets; while `open` isn't set it doesn't answer."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.calls = 0
        self.open = asyncio.Event()
        self.open.set()
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((Service(EXPORT_METHOD, self._export),))
        bound = (
            self._server.add_insecure_port("127.0.0.1:0")
            if credentials is None
            else self._server.add_secure_port("127.0.0.1:0", credentials)
        )
        self.address = f"127.0.0.1:{bound}"

    async def _export(self, body: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        self.calls += 1
        await self.open.wait()
        tenants = [value for key, value in context.invocation_metadata() or () if key == ORG_ID_HEADER]
        self.received.append((str(tenants[0]), body))
        return b""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Store"]:
        await self._server.start()
        try:
            yield self
        finally:
            self.open.set()
            await self._server.stop(None)


class World:
    """A forwarding whose tenants' forwarders a test changes."""

    def __init__(self, forwarders: str, names: Sequence[str] = ("copy",)) -> None:
        config = load_config(None, f"distributor: {{forwarders: [{forwarders}]}}")
        self.settings = replace(ingestion_settings(config, "a"), forwarders=tuple(names))
        self.registry = CollectorRegistry()
        metrics = DistributorMetrics(self.registry)
        self.forwarding = Forwarding(config.distributor.forwarders, lambda _: self.settings, metrics)

    async def push(self, body: bytes, *, tenant: str = "a", discarded: bool = False) -> None:
        await self.forwarding.look(tenant, body, discarded=discarded)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"{name}", {"name": "copy", "tenant": "a", **labels})


def forwarder(address: str, tls: str = "insecure: true", span: str = "[]", name: str = "copy") -> str:
    endpoint = f"{{endpoints: ['{address}'], tls: {{{tls}}}}}"
    return f"{{name: {name}, backend: otlpgrpc, otlpgrpc: {endpoint}, filter: {{traces: {{span: {span}}}}}}}"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def spans(*names: str, service: str = "shop") -> bytes:
    message = TracesData()
    resource = message.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    for name in names:
        resource.scope_spans.add().spans.add(name=name)
    return message.SerializeToString()


def names_in(body: bytes) -> list[str]:
    message = TracesData.FromString(body)
    return [span.name for r in message.resource_spans for s in r.scope_spans for span in s.spans]


async def test_requests_are_forwarded_as_they_came_with_their_tenant() -> None:
    """DIST-15: also those with bytes that protobuf's parser refuses in a text."""
    async with Store().running() as store:
        world = World(forwarder(store.address))
        body = spans("n1").replace(b"n1", b"n\xff")
        await world.push(body)
        await world.push(spans("bad"), discarded=True)
        await world.forwarding.close()
        assert store.received == [("a", body)]
        assert world.value("tempo_distributor_queue_pushes_total") == 1
        assert world.value("tempo_distributor_queue_length") == 0


async def test_only_what_the_tenants_overrides_name_is_forwarded() -> None:
    """DIST-15: and names that there are no forwarders of are passed over."""
    async with Store().running() as one, Store().running() as two:
        both = f"{forwarder(one.address, name='one')}, {forwarder(two.address, name='two')}"
        world = World(both, names=["two", "nowhere"])
        await world.push(spans("first"))
        world.settings = replace(world.settings, forwarders=("one",))
        await world.push(spans("second"))
        world.settings = replace(world.settings, forwarders=())
        await world.push(spans("third"))
        await world.forwarding.close()
        assert [names_in(body) for _, body in one.received] == [["second"]]
        assert [names_in(body) for _, body in two.received] == [["first"]]


async def test_an_endpoint_that_does_not_answer_costs_only_its_copies() -> None:
    """DIST-15: a full queue is counted, and nobody waits."""
    async with Store().running() as store:
        store.open.clear()
        world = World(forwarder(store.address))
        await world.push(spans("first"))
        await until(lambda: store.calls == 1)
        with capture_logs() as lines:
            for _ in range(QUEUE_REQUESTS + 5):
                await world.push(spans("more"))
        assert world.value("tempo_distributor_queue_pushes_failures_total") == 5
        assert world.value("spanmill_distributor_forward_failures_total", code="QUEUE_FULL") == 5
        assert len(lines) == 1, "once in ten seconds"
        store.open.set()
        await world.forwarding.close()
        assert len(store.received) == 1 + QUEUE_REQUESTS


async def test_a_queue_has_a_limit_in_bytes() -> None:
    async with Store().running() as store:
        store.open.clear()
        world = World(forwarder(store.address))
        half = bytes(QUEUE_BYTES // 2 + 1)
        await world.push(half)
        await world.push(half)
        assert world.value("tempo_distributor_queue_pushes_failures_total") == 1


async def test_an_endpoint_that_is_not_there_is_counted() -> None:
    """DIST-15."""
    world = World(forwarder("127.0.0.1:1"))
    with capture_logs() as lines:
        await world.push(spans("n"))
        await world.push(spans("n"))
        await world.forwarding.close()
    assert world.value("spanmill_distributor_forward_failures_total", code="UNAVAILABLE") == 2
    assert [line["event"] for line in lines] == ["failed to forward spans"]


async def test_tls_with_the_given_certificate(tmp_path: Path) -> None:
    """DIST-15: and no other one is trusted."""
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    certificate, key = authority.certify("server")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    async with Store(credentials).running() as store:
        for trusted in (authority, other):
            world = World(forwarder(store.address, f"cert_file: '{trusted.certificate}'"))
            await world.push(spans(str(trusted.certificate)))
            await world.forwarding.close()
        assert [names_in(body) for _, body in store.received] == [[str(authority.certificate)]]
        assert world.value("spanmill_distributor_forward_failures_total", code="UNAVAILABLE") == 1


async def test_filtered_spans_are_not_forwarded() -> None:
    """DIST-15: a request of which nothing is left isn't sent."""
    async with Store().running() as store:
        world = World(forwarder(store.address, span="['name == \"drop\"', 'IsMatch(name, \"^x\")']"))
        await world.push(spans("drop", "keep", "xyz", "keep too"))
        await world.push(spans("drop"))
        await world.forwarding.close()
        ((_, body),) = store.received
        assert names_in(body) == ["keep", "keep too"]
        assert len(TracesData.FromString(body).resource_spans[0].scope_spans) == 2


def test_what_is_empty_after_a_filter_goes_too() -> None:
    conditions = [ottl.condition('resource.attributes["service.name"] == "shop"')]
    bank = spans("n2", service="bank")
    assert without(spans("n1") + bank, conditions) == bank
    assert without(spans("n1"), conditions) == b""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (forwarder("tempo:4317", tls=""), "cert_file is empty"),
        (forwarder("tempo:4317", tls="cert_file: ''"), "cert_file is empty"),
        (forwarder("http://tempo:4317"), "write host:port"),
        (forwarder("tempo:4317", span="['nam == 1']"), "nam where a value is wanted"),
        (f"{forwarder('a:1')}, {forwarder('b:1')}", "two forwarders are called copy"),
        (forwarder("a:1").replace("span:", "spanevent:").replace("[]", "['name == \"x\"']"), "filters of events"),
        ("{name: copy, backend: otlphttp}", "backend"),
    ],
)
def test_what_is_no_forwarder_is_refused(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        load_config(None, f"distributor: {{forwarders: [{text}]}}")
