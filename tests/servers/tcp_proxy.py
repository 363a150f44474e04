"""A proxy before a TCP server: connections may stall, as behind a network that loses everything, or be reset."""

import asyncio
import contextlib
import socket
import struct
import threading

from tests.servers.ports import free_port

START_S = 10.0
CHUNK_BYTES = 1 << 16


class TcpProxy:
    """Listens on a port of its own and passes bytes on to a port of 127.0.0.1, in both directions."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.connections = 0
        """Accepted so far: a test without any shows nothing."""
        self._target = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="TCP proxy", daemon=True)
        self._flowing = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def start(self, target: int) -> None:
        """Listen, and pass on to a port."""
        self._target = target
        self._flowing.set()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(START_S)

    def stop(self) -> None:
        """Close everything."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def stall(self) -> None:
        """Pass nothing on; connections stay, and are accepted."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def resume(self) -> None:
        """Pass on again, what came meanwhile too."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def reset(self) -> None:
        """Break every connection off."""
        self._loop.call_soon_threadsafe(self._abort)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self._flowing.set()
        self._abort()
        await asyncio.sleep(0.1)  # the pumps see it

    def _abort(self) -> None:
        """With what makes the kernel send a reset instead of an end."""
        for writer in self._open:
            with contextlib.suppress(OSError):  # closed already
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            from_target, to_target = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, to_target}
        self._open |= both
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._pump(reader, to_target)),
                    asyncio.ensure_future(self._pump(from_target, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._open -= both
            for each in both:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()
