"""An HTTP server's socket, with a limit on its connections: a client that is one too many is hung up on at once."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import cast

from aiohttp import web

HANDSHAKE_S = 10.0
"""TLS takes no longer, neither to begin nor to end."""

BACKLOG = 1024


class Refused(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hang up: whoever is behind it has sent nothing yet that counts, and comes again."""
        cast("asyncio.Transport", transport).abort()  # uvloop's is none by its class


class Accepted(asyncio.Protocol):
    """A connection that begins with TLS. Nothing of it is read: it is handed on."""

    def __init__(self, greet: Callable[[socket.socket], None]) -> None:
        self._greet = greet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket, and drop what else there is of it."""
        own: socket.socket = transport.get_extra_info("socket").dup()
        cast("asyncio.Transport", transport).abort()
        self._greet(own)


class Listener:
    """Listens for a server of aiohttp: `most` connections at once, 0: any number; `refused` is told of one more.

    `connect` makes the server's protocols.
    """

    def __init__(
        self, server: web.Server, connect: Callable[[], asyncio.Protocol], most: int, refused: Callable[[], None]
    ) -> None:
        self._server, self._connect, self._most, self._refused = server, connect, most, refused
        self._listening: asyncio.Server | None = None
        self._context: ssl.SSLContext | None = None
        self._handshake_s = HANDSHAKE_S
        self._opening = 0
        self._greetings: set[asyncio.Task[None]] = set()

    async def start(
        self, host: str | None, port: int, context: ssl.SSLContext | None, handshake_s: float = HANDSHAKE_S
    ) -> int:
        """Listen; gives the port. Raises OSError if the address is taken."""
        self._context, self._handshake_s = context, handshake_s
        self._listening = await asyncio.get_running_loop().create_server(self._protocol, host, port, backlog=BACKLOG)
        bound: int = self._listening.sockets[0].getsockname()[1]
        return bound

    def stop(self) -> None:
        """Take no more connections; those that there are go on, once TLS has begun."""
        if self._listening is not None:
            self._listening.close()
        for greeting in self._greetings:
            greeting.cancel()

    @property
    def connections(self) -> int:
        """How many are open, with those on which TLS begins."""
        return len(self._server.connections) + self._opening + len(self._greetings)

    def _protocol(self) -> asyncio.BaseProtocol:
        if self._most and self.connections >= self._most:
            self._refused()
            return Refused()
        # It is counted in the loop's next round, and many may be accepted in one.
        self._opening += 1
        asyncio.get_running_loop().call_soon(self._opened)
        return self._connect() if self._context is None else Accepted(self._begin)

    def _opened(self) -> None:
        self._opening -= 1

    def _begin(self, own: socket.socket) -> None:
        greeting = asyncio.get_running_loop().create_task(self._greet(own))
        self._greetings.add(greeting)
        greeting.add_done_callback(self._greetings.discard)

    async def _greet(self, own: socket.socket) -> None:
        """Begin TLS. A server that does so itself tells nobody when it fails, so that it couldn't be counted."""
        with contextlib.suppress(OSError):  # among them ssl.SSLError and TimeoutError; it is closed then
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connect,
                own,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=HANDSHAKE_S,
            )
