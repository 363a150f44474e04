"""An HTTP connection that doesn't wait for its client for ever: aiohttp has no time limits but one for idle ones."""

import asyncio
import functools
import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any, cast

from aiohttp import StreamReader, web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler

from schemas.config.distributor import HttpSettings

FOR_EVER_S = 100 * 365 * 86_400.0

OPTIONS: dict[str, Any] = {
    "access_log": None,
    "auto_decompress": False,  # we do, with a limit on what bodies become, and an answer in the client's form if not
    "keepalive_timeout": FOR_EVER_S,  # aiohttp's own goes on while headers come, and takes 0 for at once
}

AGAIN_S = 0.1
"""Nobody is late whose bytes came while the loop was busy: they are read before it is looked again."""

CLOSE_S = 10.0
"""For what was sent to be taken, and for TLS to say farewell; then the connection is cut."""


class TimeLimit(StrEnum):
    """What a client may be late for, by the names of its settings."""

    HEADERS = "read_header_timeout"
    REQUEST = "read_timeout"
    ANSWER = "write_timeout"
    IDLE = "idle_timeout"


class Connection(RequestHandler):
    """aiohttp's, with one timer: a client that hasn't done by `_due_s` what it is to do next is hung up on.

    While a request waits for its answer nothing is due. `late` is told of each limit that ends something.
    """

    __slots__ = ("_began_s", "_body", "_due_s", "_late", "_limit", "_settings", "_timer", "_wire")

    def __init__(self, server: web.Server, settings: HttpSettings, late: Callable[[TimeLimit], None]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **OPTIONS)
        self._settings, self._late = settings, late
        self._wire: asyncio.Transport
        self._began_s: float | None = None  # when the request's first byte came
        self._body: StreamReader | None = None  # that is being read
        self._due_s, self._limit = math.inf, TimeLimit.HEADERS
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client that says nothing is one whose headers are late."""
        self._wire = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        super().connection_made(transport)
        self._expect(self._settings.read_header_timeout_s, TimeLimit.HEADERS)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing is due any more."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """The first byte of a request starts its time; the others don't prolong it."""
        if data and self._began_s is None:
            self._began_s = self._loop.time()
            headers_s, all_s = self._settings.read_header_timeout_s, self._settings.read_timeout_s
            if headers_s and not 0 < all_s < headers_s:
                self._expect(headers_s, TimeLimit.HEADERS)
            else:
                self._expect(all_s, TimeLimit.REQUEST)
        super().data_received(data)

    def headers_came(self) -> None:
        """A request is going to be answered."""
        if self._began_s is None:
            self._began_s = self._loop.time()  # it was sent before the one before it was answered
        self._expect_nothing()

    async def body(self, request: web.Request) -> bytes:
        """A request's. Raises TimeoutError if it's late."""
        limit_s = self._settings.read_timeout_s
        if not limit_s or self._began_s is None or request.content.is_eof():  # small ones come with their headers
            return await request.read()
        self._body = request.content
        self._expect(max(self._began_s + limit_s - self._loop.time(), 0.001), TimeLimit.REQUEST)
        try:
            return await request.read()
        finally:
            self._body = None
            self._expect_nothing()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write the answer; then the next request may come."""
        self._expect(self._settings.write_timeout_s, TimeLimit.ANSWER)
        written = await super().finish_response(request, resp, start_time)
        if resp.status == web.HTTPGatewayTimeout.status_code:
            self._hang_up()  # aiohttp would read on for a while, for the sake of clients that send all before they read
            return written
        self._began_s = None
        self._expect(self._settings.idle_timeout_s, TimeLimit.IDLE)
        return written

    def _expect_nothing(self) -> None:
        self._due_s = math.inf

    def _expect(self, within_s: float, limit: TimeLimit) -> None:
        """What the client is to do next is due then. 0: it may take any time."""
        if self.transport is None:
            return
        self._due_s, self._limit = self._loop.time() + within_s if within_s else math.inf, limit
        if not within_s or (self._timer is not None and self._timer.when() <= self._due_s):
            return  # a timer that goes off too early is set again: requests mostly need none of their own
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due_s, self._look)

    def _look(self, *, again: bool = False) -> None:
        self._timer = None
        if self._loop.time() < self._due_s:
            if self._due_s < math.inf:
                self._timer = self._loop.call_at(self._due_s, self._look)
        elif not again:
            self._timer = self._loop.call_later(AGAIN_S, functools.partial(self._look, again=True))
        else:
            self._late(self._limit)
            self._end()

    def _end(self) -> None:
        if self._body is not None:
            self._body.set_exception(TimeoutError())
        elif self._wire.get_write_buffer_size():
            self._wire.abort()  # it takes no answers: what is to be sent would never go
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        """Close in order, unless the client keeps us from that."""
        self.force_close()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(CLOSE_S, self._wire.abort)


@web.middleware
async def headers_in_time(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every request comes by here as soon as its headers are read, whatever its path is."""
    connection_of(request).headers_came()
    return await handler(request)


def connection_of(request: web.Request) -> Connection:
    """The one that it came by."""
    assert isinstance(request.protocol, Connection)
    return request.protocol
