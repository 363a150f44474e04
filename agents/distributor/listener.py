"""An HTTP server's socket, with a limit on its connections: a client that is one too many is hung up on at once."""

import asyncio
import ssl
from collections.abc import Callable

from aiohttp import web

HANDSHAKE_S = 10.0
"""TLS takes no longer; until it is done a connection isn't counted."""


class Refused(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hang up: whoever is behind it has sent nothing yet that counts, and comes again."""
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


class Listener:
    """Listens for a server of aiohttp: `most` connections at once, 0: any number; `refused` is told of one more."""

    def __init__(self, server: web.Server, most: int, refused: Callable[[], None]) -> None:
        self._server, self._most, self._refused = server, most, refused
        self._listening: asyncio.Server | None = None
        self._opening = 0

    async def start(self, host: str | None, port: int, context: ssl.SSLContext | None) -> int:
        """Listen; gives the port. Raises OSError if the address is taken."""
        handshake_s = None if context is None else HANDSHAKE_S
        self._listening = await asyncio.get_running_loop().create_server(
            self._protocol, host, port, ssl=context, ssl_handshake_timeout=handshake_s, backlog=1024
        )
        bound: int = self._listening.sockets[0].getsockname()[1]
        return bound

    def stop(self) -> None:
        """Take no more connections; those that there are go on."""
        if self._listening is not None:
            self._listening.close()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.connections) + self._opening

    def _protocol(self) -> asyncio.BaseProtocol:
        if self._most and self.connections >= self._most:
            self._refused()
            return Refused()
        # The server counts it in the loop's next round, and many may be accepted in one.
        self._opening += 1
        asyncio.get_running_loop().call_soon(self._opened)
        return self._server()

    def _opened(self) -> None:
        self._opening -= 1
