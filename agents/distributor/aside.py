"""Work on long bodies, beside the event loop: it may take seconds, and everybody else waits for the loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

LONG_BYTES = 1 << 16
"""Going to the thread and back takes longer than what there is to do for a shorter body."""


class Aside:
    """A thread of a receiver's own. More would only wait for each other, and keep the loop waiting."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)

    async def done(self, work: Callable[[bytes], bytes], body: bytes) -> bytes:
        """What the work makes of a body; raises what it raises."""
        if len(body) <= LONG_BYTES:
            return work(body)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, body)

    def close(self) -> None:
        """Take no more; what has begun ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)
