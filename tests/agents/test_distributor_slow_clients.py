"""Clients that hold a connection without saying what they want, over real sockets, in both event loops."""

import asyncio
import contextlib
import inspect
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from schemas.otlp.regroup import rehearse
from tests.agents.test_distributor_crowds import IN_FLIGHT, until
from tests.agents.test_distributor_watching import PATH, Distributor, request, started
from tests.servers.certificates import Authority

LIMITS = ("read_timeout", "read_header_timeout", "write_timeout", "idle_timeout")
BY_HTTP = {"receiver": "otlp/otlp_receiver", "transport": "http"}
BODY = request(1)
HEADERS = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n".encode()
HEAD = HEADERS + f"Content-Length: {len(BODY)}\r\n\r\n".encode()
CHUNKED = HEADERS + b"Transfer-Encoding: chunked\r\n\r\n"
PATIENCE_S = 60


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def in_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Ours run in uvloop, tests in asyncio's, and what ends connections is different in them."""

    def run(loop: str, **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(test(**fixtures))

    loop = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([loop, *inspect.signature(test).parameters.values()])
    run.__signature__ = signature  # type: ignore[attr-defined]
    return pytest.mark.parametrize("loop", LOOPS)(run)


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    """So that no client is late because of us."""
    rehearse()


def limited(tls: str = "", connections: int = 0, **limits: str) -> str:
    """These limits, and no others."""
    settings = ", ".join(f"{limit}: {limits.get(limit, 0)}" for limit in LIMITS)
    http = f"{{{settings}, {tls}}}" if tls else f"{{{settings}}}"
    return (
        f"distributor: {{receivers: {{otlp: {{protocols: {{grpc: {{}}, http: {http}}}}}}}}}\n"
        f"spanmill: {{distributor: {{max_connections: {connections}}}}}"
    )


def connections(at: Distributor) -> float | None:
    return at.value("spanmill_distributor_connections", **BY_HTTP)


def late(at: Distributor) -> list[str]:
    """The limits that clients were late for, all different."""
    name = "spanmill_distributor_connections_late_total"
    counts = {limit: at.value(name, **BY_HTTP, limit=limit) for limit in LIMITS}
    assert all(count in (None, 1) for count in counts.values()), counts
    return [limit for limit, count in counts.items() if count]


def waits_for_body(at: Distributor) -> bool:
    """Whether a request's headers have come, and are looked at."""
    (connection,) = at.http._runner.server.connections  # type: ignore[union-attr]
    return connection._body is not None


def wrote_nothing(at: Distributor) -> bool:
    return not at.producer.pieces


@contextlib.asynccontextmanager
async def connected(
    at: Distributor, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = at.http.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def until_its_end(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side hangs up."""
    read = b""
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            while some := await reader.read(1 << 16):
                read += some
    return read


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Up to its (empty) body."""
    async with asyncio.timeout(PATIENCE_S):
        return await reader.readuntil(b"\r\n\r\n")


async def trickle(writer: asyncio.StreamWriter, text: bytes) -> None:
    """A byte at a time, without an end."""
    with contextlib.suppress(ConnectionError):
        while True:
            for byte in text:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02)


async def left_alone(at: Distributor, reader: asyncio.StreamReader) -> bytes:
    """What came until the other side hung up, after which the connection doesn't count."""
    read = await until_its_end(reader)
    await until(lambda: connections(at) == 0)
    assert wrote_nothing(at)
    return read


@in_both_loops
async def test_a_client_that_says_nothing_is_hung_up_on() -> None:
    async with started(limited(read_header_timeout="200ms")) as at, connected(at) as (reader, _):
        await until(lambda: connections(at) == 1)
        assert await left_alone(at, reader) == b""
        assert late(at) == ["read_header_timeout"]


@pytest.mark.parametrize("limit", ["read_header_timeout", "read_timeout"])
@in_both_loops
async def test_headers_that_come_byte_by_byte_are_late(limit: str) -> None:
    async with started(limited(**{limit: "300ms"})) as at, connected(at) as (reader, writer):
        writing = asyncio.create_task(trickle(writer, HEADERS + b"X-Y: " + b"z" * 5000))
        assert await left_alone(at, reader) == b""
        assert late(at) == [limit]
        writing.cancel()


@in_both_loops
async def test_later_headers_are_late_too() -> None:
    async with started(limited(read_header_timeout="300ms")) as at, connected(at) as (reader, writer):
        writer.write(HEAD + BODY)
        assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
        at.producer.pieces.clear()
        writer.write(b"POST ")
        assert await left_alone(at, reader) == b""


@pytest.mark.parametrize(
    ("head", "body"), [(HEAD, BODY[:-1]), (CHUNKED, b"1\r\nx\r\n" * 50)], ids=["with its length", "chunked"]
)
@in_both_loops
async def test_a_body_that_is_late_is_not_taken(head: bytes, body: bytes) -> None:
    """Though it comes in the end."""
    async with started(limited(read_timeout="300ms")) as at, connected(at) as (reader, writer):
        writer.write(head + body)
        said = await answer(reader)
        assert said.startswith(b"HTTP/1.1 504 ")
        assert b"\r\nConnection: close\r\n" in said
        assert b"\r\nRetry-After: 1\r\n" in said
        writer.write(BODY[-1:] if head is HEAD else b"0\r\n\r\n")
        assert b"read_timeout" in await left_alone(at, reader)


@in_both_loops
async def test_a_body_that_comes_byte_by_byte_is_late() -> None:
    async with started(limited(read_timeout="300ms")) as at, connected(at) as (reader, writer):
        writer.write(HEADERS + b"Content-Length: 1000000\r\n\r\n")
        writing = asyncio.create_task(trickle(writer, b"x" * 100))
        assert (await left_alone(at, reader)).startswith(b"HTTP/1.1 504 ")
        assert late(at) == ["read_timeout"]
        writing.cancel()


@in_both_loops
async def test_the_time_of_a_body_begins_with_the_headers() -> None:
    """Else a request would have twice its time."""
    async with started(limited(read_timeout="4s")) as at, connected(at) as (reader, writer):
        loop = asyncio.get_running_loop()
        writer.write(HEAD[:10])
        began_s = loop.time()
        await asyncio.sleep(1)
        writer.write(HEAD[10:])
        await until(lambda: waits_for_body(at))
        (connection,) = at.http._runner.server.connections  # type: ignore[union-attr]
        assert connection._due_s < began_s + 4.8
        assert (await left_alone(at, reader)).startswith(b"HTTP/1.1 504 ")


@in_both_loops
async def test_what_came_while_the_loop_was_busy_is_in_time() -> None:
    """A process that was stopped for a while hangs up on nobody for that."""
    limits = {"read_timeout": "500ms", "idle_timeout": "500ms"}
    async with started(limited(**limits)) as at, connected(at) as (reader, writer):
        for pieces in ((HEAD + BODY,), (HEAD, BODY)):  # after it was idle, and after its headers
            for piece in pieces:
                await asyncio.sleep(0.1)
                writer.write(piece)  # goes at once
                if piece is HEAD:
                    await until(lambda: waits_for_body(at))
            time.sleep(1.0)  # noqa: ASYNC251 -- as if the process was stopped
            assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")


@in_both_loops
async def test_an_idle_connection_is_hung_up_on() -> None:
    async with started(limited(idle_timeout="300ms")) as at, connected(at) as (reader, writer):
        for _ in range(2):
            writer.write(HEAD + BODY)
            assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
        assert await until_its_end(reader) == b""
        await until(lambda: connections(at) == 0)
        assert late(at) == ["idle_timeout"]


@in_both_loops
async def test_a_beginning_that_came_with_the_request_before_it_holds_nothing() -> None:
    async with started(limited(idle_timeout="300ms")) as at, connected(at) as (reader, writer):
        writer.write(HEAD + BODY + HEAD[:10])
        assert (await until_its_end(reader)).startswith(b"HTTP/1.1 200 ")
        await until(lambda: connections(at) == 0)


@in_both_loops
async def test_requests_in_time_are_answered_however_long_that_takes() -> None:
    """Kafka may be slow; that's no fault of the client."""
    every = dict.fromkeys(LIMITS, "500ms")
    async with started(limited(**every)) as at, connected(at) as (reader, writer):
        at.producer.waits = asyncio.Event()
        writer.write(HEAD + BODY + HEAD + BODY)  # the second waits for the first
        await until(lambda: at.value(IN_FLIGHT) == 1)
        await asyncio.sleep(1.5)
        at.producer.waits.set()
        for _ in range(2):
            assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
        assert late(at) == []


@in_both_loops
async def test_between_requests_only_idling_counts() -> None:
    limits = {"read_timeout": "300ms", "read_header_timeout": "300ms", "write_timeout": "300ms"}
    async with started(limited(**limits)) as at, connected(at) as (reader, writer):
        for pause_s in (1.0, 0.0):
            writer.write(HEAD + BODY)
            assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(pause_s)


@in_both_loops
async def test_without_limits_a_client_may_take_any_time() -> None:
    async with started(limited()) as at, connected(at) as (reader, writer):
        for byte in (HEAD[:1], HEAD[1:-1], HEAD[-1:] + BODY[:1], BODY[1:]):
            await asyncio.sleep(0.3)
            writer.write(byte)
        assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")


@in_both_loops
async def test_a_client_that_takes_no_answers_is_hung_up_on() -> None:
    """Answers wait in small buffers, until there is no room for one."""
    async with started(limited(write_timeout="300ms")) as at:
        listening = at.http._listener._listening.sockets[0].dup()  # type: ignore[union-attr]
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # its connections inherit it
        listening.close()
        host, _, port = at.http.address.rpartition(":")
        with socket.socket() as client:
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, (host, int(port)))
            await until(lambda: connections(at) == 1)
            nowhere = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
            writing = asyncio.create_task(loop.sock_sendall(client, nowhere * 20_000))
            await until(lambda: connections(at) == 0)
            assert late(at) == ["write_timeout"]
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await writing


@pytest.mark.parametrize("sent", [b"", HEAD[:20], HEAD + BODY[:5]], ids=["nothing", "headers", "body"])
@in_both_loops
async def test_a_client_that_will_send_no_more_is_gone(sent: bytes) -> None:
    """Without any limit: what it hasn't sent by the end of its stream never comes."""
    async with started(limited()) as at, connected(at) as (reader, writer):
        writer.write(sent)
        await until(lambda: connections(at) == 1)
        writer.write_eof()
        assert await left_alone(at, reader) == b""


@in_both_loops
async def test_one_too_many_is_hung_up_on() -> None:
    async with started(limited(connections=1)) as at, connected(at) as (_, writer):
        await until(lambda: connections(at) == 1)
        async with connected(at) as (refused, _):
            assert await until_its_end(refused) == b""
        assert connections(at) == 1
        assert not writer.is_closing()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> str:
    cert, key = authority.certify("server")
    return f"tls: {{cert_file: {cert}, key_file: {key}}}"


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=Path(authority.certificate))


@in_both_loops
async def test_connections_on_which_tls_begins_count(tls: str, trusting: ssl.SSLContext) -> None:
    """Also when it fails then, or never begins."""
    async with started(limited(tls, connections=2)) as at, contextlib.AsyncExitStack() as stack:
        _, writer = await stack.enter_async_context(connected(at))
        silent, _ = await stack.enter_async_context(connected(at))
        await until(lambda: connections(at) == 2)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            async with asyncio.timeout(PATIENCE_S), connected(at, trusting):
                pass
        assert (at.value("spanmill_distributor_connections_refused_total", **BY_HTTP) or 0) >= 1
        writer.write(HEAD)  # which is no TLS
        await until(lambda: connections(at) == 1)
        assert not silent.at_eof()
        reader, writer = await stack.enter_async_context(connected(at, trusting))
        writer.write(HEAD + BODY)
        assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
        await until(lambda: connections(at) == 2)
    assert connections(at) == 0


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00"], ids=["silent", "slow"])
@in_both_loops
async def test_tls_that_does_not_begin_in_time_is_given_up(sent: bytes, tls: str) -> None:
    async with started(limited(tls, read_header_timeout="300ms")) as at, connected(at) as (reader, writer):
        writer.write(sent)
        await until(lambda: connections(at) == 1)
        await left_alone(at, reader)


@in_both_loops
async def test_an_idle_connection_with_tls_is_hung_up_on(tls: str, trusting: ssl.SSLContext) -> None:
    async with started(limited(tls, idle_timeout="300ms")) as at, connected(at, trusting) as (reader, writer):
        writer.write(HEAD + BODY)
        assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
        assert await until_its_end(reader) == b""
        await until(lambda: connections(at) == 0)
