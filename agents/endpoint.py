"""What the sink writes to."""

from typing import Protocol

from streams.shard import WindowSamples


class Endpoint(Protocol):
    """A place that stores samples: a remote-write server, or the newest samples of `spanmill dev`."""

    name: str

    async def write(self, window: WindowSamples) -> None:
        """Store a window; returns when it is stored, or refused for good and counted. Retries by itself meanwhile.

        The sink calls it for the windows of a shard in order, one at a time, and may repeat a window after a crash: the
        repeated one is identical.
        """
