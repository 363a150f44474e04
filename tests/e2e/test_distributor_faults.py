"""The distributor under faults of Kafka and under clients that behave badly, as a process of its own.

What it has acknowledged is in the topic; what it hasn't, its client was told to send again.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from agents.otlp_protocol import EXPORT_METHOD
from tests.e2e.cluster import PATIENCE
from tests.servers.kafka import Kafka, KafkaBroker
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.ports import free_port
from tests.servers.slow_disk import SlowDisk
from tests.servers.tcp_proxy import TcpProxy

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).resolve().parents[2]
READY_S = 900.0 * PATIENCE  # kernels may have to be compiled
CALM_S = 60.0 * PATIENCE
WRITE_TIMEOUT_S = 3
CLIENTS = 8
SPANS = 3
PARTITIONS = 4
PROTOBUF = "application/x-protobuf"
BUFFERED = "spanmill_distributor_buffered_bytes "
BUFFER_FULL = 'tempo_distributor_produce_failures_total{reason="buffer-full"}'
TIMED_OUT = 'tempo_distributor_produce_failures_total{reason="timeout"}'


class Distributor:
    """A running `spanmill distributor`."""

    def __init__(self, directory: Path, address: str, topic: str, **kafka: Any) -> None:
        self.grpc, self.http, self.own = free_port(), free_port(), free_port()
        self._log = directory / "distributor.log"
        self._file = directory / "distributor.yaml"
        protocols = {name: {"endpoint": f"127.0.0.1:{getattr(self, name)}"} for name in ("grpc", "http")}
        settings = {"address": address, "write_timeout": f"{WRITE_TIMEOUT_S}s", **kafka}
        self._file.write_text(
            yaml.safe_dump(
                {
                    "server": {"http_listen_port": self.own},
                    "ingest": {"kafka": settings},
                    "spanmill": {"topics": {"spans": topic}},
                    "distributor": {"receivers": {"otlp": {"protocols": protocols}}},
                }
            )
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("wb") as out:
            # With as few open files as many systems allow at first: it has to ask for more itself.
            command = ["sh", "-c", 'ulimit -Sn 1024; exec "$@"', "sh"]
            command += [sys.executable, "spanmill.py", "distributor", "--config.file", str(self._file)]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
        deadline = time.monotonic() + READY_S
        while not self.get("/readyz"):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def get(self, path: str) -> str:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.own}{path}", timeout=5) as found,
        ):
            return str(found.read().decode())
        return ""

    def counter(self, name: str) -> float:
        lines = (line for line in self.get("/metrics").splitlines() if line.startswith(name))
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    @property
    def memory_bytes(self) -> int:
        """What it holds now."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def open_files(self) -> int:
        assert self.process is not None
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()


@contextmanager
def distributor(directory: Path, address: str, topic: str, **kafka: Any) -> Iterator[Distributor]:
    found = Distributor(directory, address, topic, **kafka)
    try:
        found.start()
        yield found
        assert found.stop() == 0, found.log()
    finally:
        if found.process is not None and found.process.poll() is None:
            found.process.kill()
            found.process.wait()


numbers = itertools.count(1)


def request(names: list[str]) -> bytes:
    resource = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value="shop"))])
    spans = [
        Span(trace_id=number.to_bytes(16), span_id=number.to_bytes(8), name=name)
        for name, number in zip(names, numbers, strict=False)
    ]
    scope = ScopeSpans(spans=spans)
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[scope])]
    ).SerializeToString()


RETRYABLE = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "429", "503"}
"""What OTLP's clients send again after (OTLP §failures); RESOURCE_EXHAUSTED isn't among them without a RetryInfo."""


@dataclass
class Load:
    """Clients that send all the time, over both protocols, and note what they were told."""

    at: Distributor
    acknowledged: set[str] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)
    without_a_time: set[str] = field(default_factory=set)
    """Refusals that didn't say when to come again."""
    sent: list[bytes] = field(default_factory=list)

    @property
    def requests_acknowledged(self) -> int:
        return len(self.acknowledged) // SPANS

    async def over_grpc(self, number: int) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.at.grpc}") as channel:
            export = channel.unary_unary(EXPORT_METHOD, None, None)

            async def send(body: bytes) -> str:
                try:
                    await export(body, timeout=30)
                except grpc.aio.AioRpcError as error:
                    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
                    return self._refused(error.code().name, says_when=b"RetryInfo" in details)
                return ""

            await self._send(f"g{number}", send)

    async def over_http(self, number: int) -> None:
        url = f"http://127.0.0.1:{self.at.http}/v1/traces"
        async with aiohttp.ClientSession(headers={"Content-Type": PROTOBUF}) as session:

            async def send(body: bytes) -> str:
                async with session.post(url, data=body) as answer:
                    if answer.status == 200:
                        return ""
                    return self._refused(str(answer.status), says_when="Retry-After" in answer.headers)

            await self._send(f"h{number}", send)

    def _refused(self, status: str, *, says_when: bool) -> str:
        if not says_when:
            self.without_a_time.add(status)
        return status

    async def _send(self, client: str, send: Callable[[bytes], Any]) -> None:
        for i in itertools.count():
            names = [f"{client}-{i}-{k}" for k in range(SPANS)]
            self.sent.append(request(names))
            refusal = await send(self.sent[-1])
            if refusal:
                self.refusals.append(refusal)
                await asyncio.sleep(0.05)
            else:
                self.acknowledged |= set(names)
                await asyncio.sleep(0.002)

    async def until(self, true: Callable[[], bool], what: str) -> None:
        async with asyncio.timeout(CALM_S):
            while not true():
                await asyncio.sleep(0.05)
        assert true(), what

    async def goes_on(self, requests: int = 50) -> None:
        """Wait for so many more acknowledgements."""
        enough = self.requests_acknowledged + requests
        await self.until(lambda: self.requests_acknowledged >= enough, "spans are acknowledged again")

    async def is_refused(self, requests: int = 5) -> None:
        enough = len(self.refusals) + requests
        await self.until(lambda: len(self.refusals) >= enough, "requests are refused")

    async def most_buffered(self, until: Callable[[], bool]) -> float:
        """The most bytes that were seen to wait for Kafka until something is true."""
        most = 0.0
        async with asyncio.timeout(CALM_S):
            while not await asyncio.to_thread(until):
                most = max(most, await asyncio.to_thread(self.at.counter, BUFFERED))
        return most


@asynccontextmanager
async def load(at: Distributor) -> AsyncIterator[Load]:
    found = Load(at)
    clients = [found.over_grpc(i) if i % 2 else found.over_http(i) for i in range(CLIENTS)]
    tasks = [asyncio.create_task(each) for each in clients]
    try:
        yield found
        assert not [task for task in tasks if task.done()], "a client has given up"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def spans_in(data: Iterable[bytes]) -> dict[str, list[bytes]]:
    """By name, each span as often as it is there, with its resource and scope."""
    found = defaultdict(list)
    for each in data:
        for resource in TracesData.FromString(each).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    alone = ResourceSpans()
                    alone.CopyFrom(resource)
                    del alone.scope_spans[:]
                    alone.scope_spans.add(scope=scope.scope, spans=[span], schema_url=scope.schema_url)
                    found[span.name].append(alone.SerializeToString())
    return found


def kept_in(kafka: Kafka, topic: str) -> dict[str, list[bytes]]:
    return spans_in(record.value() or b"" for record in kafka.every(topic))


def names_in(kafka: Kafka, topic: str) -> set[str]:
    return set(kept_in(kafka, topic))


def assert_kept(found: Load, kafka: Kafka, topic: str) -> None:
    """The promise, both halves."""
    assert found.acknowledged
    sent, kept = spans_in(found.sent), kept_in(kafka, topic)
    assert found.acknowledged <= kept.keys()
    assert not {name for name in found.acknowledged if set(kept[name]) != set(sent[name])}, "kept as they were sent"
    assert set(found.refusals) <= RETRYABLE, set(found.refusals)
    assert found.without_a_time <= {"DEADLINE_EXCEEDED"}, found.without_a_time  # that may be the client's own


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KafkaCluster]:
    brokers = KafkaCluster(tmp_path / "cluster")
    brokers.format()
    try:
        brokers.start()
        yield brokers
    finally:
        brokers.stop()


async def test_brokers_die_under_load(cluster: KafkaCluster, tmp_path: Path) -> None:
    """One costs nothing but time. With two `min.insync.replicas` isn't met: nothing is acknowledged until it is."""
    topic = three_replicas(cluster, min_insync=2)
    with distributor(tmp_path, cluster.address, topic) as at:
        async with load(at) as found:
            await found.goes_on()
            first = cluster.leaders(topic)[0] - 1
            cluster.nodes[first].kill()
            await found.goes_on(200)
            second = (first + 1) % 3
            cluster.nodes[
                second
            ].stop()  # in order: the third leads all, and the controllers' quorum is gone soon after
            await found.is_refused()
            held = found.requests_acknowledged
            await found.is_refused(20)
            assert found.requests_acknowledged <= held + CLIENTS, "acknowledged by less than two replicas"
            for node in (first, second):
                cluster.nodes[node].launch()
            for node in (first, second):
                await asyncio.to_thread(cluster.nodes[node].wait)
            await found.goes_on(200)
        assert_kept(found, cluster, topic)


def three_replicas(cluster: KafkaCluster, min_insync: int) -> str:
    from confluent_kafka.cimpl import NewTopic  # noqa: PLC0415

    name, admin = cluster.unique("spans"), cluster.admin()
    settings = {"message.timestamp.type": "LogAppendTime", "min.insync.replicas": str(min_insync)}
    for created in admin.create_topics([NewTopic(name, PARTITIONS, 3, config=settings)]).values():
        created.result(30)
    cluster._wait_for_leaders(name)
    return name


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[tuple[KafkaBroker, TcpProxy]]:
    proxy = TcpProxy()
    broker = KafkaBroker(tmp_path / "proxied", proxy.port)
    (tmp_path / "proxied").mkdir()
    broker.format()
    try:
        broker.start()
        proxy.start(broker.behind_proxy)
        yield broker, proxy
    finally:
        proxy.stop()
        broker.stop()


async def test_a_slow_broker_costs_memory_only_up_to_the_limit(
    proxied: tuple[KafkaBroker, TcpProxy], tmp_path: Path
) -> None:
    """It stalls for longer than the time-out, stutters, and breaks connections off."""
    broker, proxy = proxied
    topic = broker.spans_topic(PARTITIONS)
    limit = 1_000  # less than all clients' requests together
    with distributor(tmp_path, proxy.address, topic, producer_max_buffered_bytes=limit) as at:
        async with load(at) as found:
            await found.goes_on()
            proxy.stall()
            enough = len(found.refusals) + CLIENTS
            assert 0 < await found.most_buffered(lambda: len(found.refusals) >= enough) <= limit
            assert at.counter(BUFFER_FULL) > 0
            proxy.resume()
            await found.goes_on()
            for _ in range(10):
                proxy.stall()
                await asyncio.sleep(0.3)
                proxy.resume()
                await asyncio.sleep(0.1)
            proxy.reset()
            await found.goes_on()
        assert_kept(found, broker, topic)
        assert proxy.connections > 1


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker that nothing else waits for while its disk is slow."""
    broker = KafkaBroker(tmp_path_factory.mktemp("on_disk"))
    broker.format()
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def flushed_topic(kafka: Kafka) -> str:
    """A topic whose records are on the disk before they are acknowledged."""
    return kafka.new_topic("spans", PARTITIONS, {"message.timestamp.type": "LogAppendTime", "flush.messages": "1"})


async def test_a_slow_disk_makes_clients_wait_and_nothing_else(on_disk: KafkaBroker, tmp_path: Path) -> None:
    topic = flushed_topic(on_disk)
    limit = 5_000  # more than all clients' requests together, less than what is sent in the meantime
    settings = {"write_timeout": "20s", "producer_max_buffered_bytes": limit}  # far above what the disk takes
    with distributor(tmp_path, on_disk.address, topic, **settings) as at:
        async with load(at) as found:
            await found.goes_on()
            with SlowDisk(on_disk.pid, tmp_path, delay_s=0.1) as disk:
                enough = found.requests_acknowledged + 50
                assert 0 < await found.most_buffered(lambda: found.requests_acknowledged >= enough) <= limit
            assert disk.flushes > 0
            await found.goes_on()
        assert found.refusals == []
        await wait_for(lambda: at.counter(BUFFERED) == 0)
    sent, kept = spans_in(found.sent), kept_in(on_disk, topic)
    assert {name: kept[name] for name in found.acknowledged} == {name: sent[name] for name in found.acknowledged}


async def test_a_disk_slower_than_the_time_out_is_a_retryable_failure(on_disk: KafkaBroker, tmp_path: Path) -> None:
    topic = flushed_topic(on_disk)
    limit = 1_000  # less than all clients' requests together
    settings = {"write_timeout": "1s", "producer_max_buffered_bytes": limit}
    with distributor(tmp_path, on_disk.address, topic, **settings) as at:
        async with load(at) as found:
            await found.goes_on()
            with SlowDisk(on_disk.pid, tmp_path, delay_s=6) as disk:  # the producer looks once a second what is overdue
                held = found.requests_acknowledged
                # More records than can wait at one time: some were sent after others had been given up.
                assert 0 < await found.most_buffered(lambda: at.counter(TIMED_OUT) > CLIENTS * SPANS) <= limit
                assert at.counter(BUFFER_FULL) > 0
                assert found.requests_acknowledged <= held + CLIENTS, "acknowledged before it was on the disk"
            assert disk.flushes > 0
            await found.goes_on(200)
        assert {"UNAVAILABLE", "503"} <= set(found.refusals)
        assert_kept(found, on_disk, topic)
        await wait_for(lambda: at.counter(BUFFERED) == 0)


async def test_a_topic_that_is_deleted_is_a_retryable_failure(kafka: KafkaBroker, tmp_path: Path) -> None:
    topic = kafka.spans_topic(PARTITIONS)
    with distributor(tmp_path, kafka.address, topic) as at:
        async with load(at) as found:
            await found.goes_on()
            before = set(found.acknowledged)
            admin = kafka.admin()
            kept = names_in(kafka, topic)
            assert before <= kept | found.acknowledged
            for deleted in admin.delete_topics([topic]).values():
                deleted.result(30)
            # The controller has deleted it; until the broker learns of it, it takes spans, which go with the topic.
            await found.until(lambda: topic not in admin.list_topics(timeout=30).topics, "the broker has no such topic")
            await found.is_refused(CLIENTS)
            found.acknowledged.clear()  # what was in the topic went with it
            await asyncio.sleep(2 * WRITE_TIMEOUT_S)
            found.acknowledged.clear()
            kafka.create_topic(topic, PARTITIONS, {"message.timestamp.type": "LogAppendTime"})
            await found.goes_on()
        assert_kept(found, kafka, topic)


@pytest.fixture(scope="module")
def calm(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Distributor, str]]:
    """A distributor on a Kafka that does nothing wrong, and its topic."""
    topic = kafka.spans_topic(PARTITIONS)
    with distributor(tmp_path_factory.mktemp("calm"), kafka.address, topic) as at:
        yield at, topic


async def serves(at: Distributor) -> None:
    """Both receivers take spans."""
    async with load(at) as found:
        await found.goes_on(20)
    assert found.refusals == []


async def test_ten_thousand_idle_connections(calm: tuple[Distributor, str]) -> None:
    at, _ = calm
    await serves(at)
    before, files = at.memory_bytes, at.open_files
    idle: list[socket.socket] = []
    try:
        for i in range(10_000):
            connection = socket.create_connection(("127.0.0.1", at.http if i % 2 else at.grpc))
            if i % 2 == 0:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            idle.append(connection)
            if i % 500 == 0:
                await asyncio.sleep(0)
        await wait_for(lambda: at.open_files >= files + 9_900)
        await serves(at)
        each = (at.memory_bytes - before) / len(idle)
        assert each < 100_000, f"{each:.0f} bytes for an idle connection"
    finally:
        for connection in idle:
            connection.close()
    await wait_for(lambda: at.open_files < files + 100)
    await serves(at)


async def wait_for(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(CALM_S):
        while not true():
            await asyncio.sleep(0.1)


HEAD = "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"


async def test_slow_senders_hold_nobody_up(calm: tuple[Distributor, str], kafka: KafkaBroker) -> None:
    at, topic = calm
    body = request(["slow-http"])
    senders = [await asyncio.open_connection("127.0.0.1", at.http) for _ in range(200)]
    for _, writer in senders:
        writer.write(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode())
    for i in range(len(body)):
        for _, writer in senders:
            writer.write(body[i : i + 1])
        if i % 20 == 0:
            await serves(at)
    answers = [await reader.readuntil(b"\r\n") for reader, _ in senders]
    assert set(answers) == {b"HTTP/1.1 200 OK\r\n"}
    for _, writer in senders:
        writer.close()
    assert "slow-http" in names_in(kafka, topic)


async def test_half_closed_and_broken_streams_leave_nothing_behind(calm: tuple[Distributor, str]) -> None:
    at, _ = calm
    await serves(at)
    files = at.open_files
    whole = request(["half"])
    http = f"{HEAD}Content-Length: {len(whole)}\r\n\r\n".encode() + whole
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    headers = bytes([0, 0, 3, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84])  # POST / http, and no more
    for port, parts in (
        (at.http, [http, http[:-5], http[:20], b""]),
        (at.grpc, [preface + headers, preface + headers[:-2], preface[:10], b""]),
    ):
        for part in parts * 25:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(part)
            writer.write_eof()
            await asyncio.sleep(0)
            if len(part) % 2:
                with contextlib.suppress(OSError, TimeoutError):
                    await asyncio.wait_for(reader.read(100), 0.05)
            writer.close()
    await wait_for(lambda: at.open_files < files + 20)
    await serves(at)


async def test_oversized_headers_are_refused(calm: tuple[Distributor, str]) -> None:
    at, _ = calm
    for size in (20_000, 1_000_000):
        reader, writer = await asyncio.open_connection("127.0.0.1", at.http)
        with contextlib.suppress(OSError):
            writer.write(f"{HEAD}X-Large: {'x' * size}\r\nContent-Length: 0\r\n\r\n".encode())
            answer = await reader.read(12)
            assert answer[9:] in {b"400", b"431", b""}
        writer.close()
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{at.grpc}", options=[("grpc.max_metadata_size", 10_000_000)]
        ) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(EXPORT_METHOD, None, None)(b"", metadata=(("x-large", "x" * size),))
            assert refused.value.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
    await serves(at)
