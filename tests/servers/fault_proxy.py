"""A proxy before an HTTP server that lets requests meet faults: refused, failed, slow, cut off, forgotten."""

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto

import aiohttp
from aiohttp import web

from tests.servers.ports import free_port

START_S = 10.0
TARGET_TIMEOUT = aiohttp.ClientTimeout(total=60)
PASSED_ON = ("Content-Type", "Content-Encoding", "User-Agent", "X-Prometheus-Remote-Write-Version", "X-Scope-OrgID")


class Kind(Enum):
    """What becomes of a request."""

    ANSWER = auto()
    """An answer of the proxy's own; the server never hears of the request."""
    CLOSE = auto()
    """The connection is closed instead of an answer, and the server never hears of the request."""
    FORGET = auto()
    """The server takes the request, and its answer is lost."""
    CUT = auto()
    """The server takes the request, and the connection is closed in the middle of the answer."""
    SLOW = auto()
    """The request waits, then the server has it."""
    REFUSE = auto()
    """Nobody listens."""


@dataclass(frozen=True)
class Fault:
    """What requests meet until something else is set."""

    kind: Kind
    status: int = 0
    retry_after: str = ""
    delay_s: float = 0.0

    def __str__(self) -> str:
        details = [str(self.status)] if self.status else []
        if self.delay_s:
            details.append(f"after {self.delay_s} s")
        return " ".join([self.kind.name.lower(), *details])


class FaultProxy:
    """Listens on a port of its own and passes requests on to `target`, as far as the present fault lets it."""

    def __init__(self, target: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.met: Counter[str] = Counter()
        """Requests by the fault that they met, those that met none under "": a test that met none shows nothing."""
        self._target = target
        self._fault: Fault | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._site: web.TCPSite | None = None
        self._runner: web.AppRunner
        self._session: aiohttp.ClientSession
        self._open: set[asyncio.Transport] = set()

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(START_S)

    def stop(self) -> None:
        """Close all connections and the port."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def set(self, fault: Fault | None) -> None:
        """Let requests meet a fault from now on; None: no fault."""
        asyncio.run_coroutine_threadsafe(self._set(fault), self._loop).result(START_S)

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=TARGET_TIMEOUT, auto_decompress=False)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await self._listen()

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()

    async def _set(self, fault: Fault | None) -> None:
        self._fault = fault
        refuses = fault is not None and fault.kind is Kind.REFUSE
        if refuses and self._site is not None:
            await self._site.stop()
            self._site = None
            for transport in self._open:
                transport.abort()
        if not refuses and self._site is None:
            await self._listen()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        fault = self._fault
        self.met["" if fault is None else str(fault)] += 1
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._open.add(transport)
        try:
            return await self._answer(request, transport, fault)
        finally:
            self._open.discard(transport)

    async def _answer(
        self, request: web.Request, transport: asyncio.Transport, fault: Fault | None
    ) -> web.StreamResponse:
        body = await request.read()
        if fault is None:
            return await self._passed_on(request, body)
        await asyncio.sleep(fault.delay_s)
        match fault.kind:
            case Kind.ANSWER:
                headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
                return web.Response(status=fault.status, headers=headers, text="a fault that is meant\n")
            case Kind.FORGET:
                await self._passed_on(request, body)
            case Kind.CUT:
                await self._passed_on(request, body)
                transport.write(b"HTTP/1.1 2")
                transport.close()  # which sends that first
                return web.Response()  # to nobody
            case Kind.SLOW:
                return await self._passed_on(request, body)
        transport.abort()
        return web.Response()  # to nobody

    async def _passed_on(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        try:
            async with self._session.request(
                request.method, f"{self._target}{request.rel_url}", data=body, headers=headers
            ) as answer:
                content_type = answer.headers.get("Content-Type")
                text = await answer.read()
                kept = {"Content-Type": content_type} if content_type else {}
                return web.Response(status=answer.status, body=text, headers=kept)
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=f"{error}\n")
