"""Ends a process whose event loop stands still.

aiokafka's thread goes on to say that all is well, so the group leaves the partitions where they are; the watchdog of a
worker (agents/watchdog.py) stands still with the loop. Under Kubernetes a liveness probe would do; elsewhere there is
none.
"""

import asyncio
import contextlib
import faulthandler
import os
import threading
from collections.abc import Callable, Iterator

import structlog

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 10.0
LOOKS = 6
EXIT_CODE = 70  # sysexits.h: internal error


class LoopWatch(threading.Thread):
    """Counts looks at which the loop hasn't run since the one before: a process that was stopped isn't to blame."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        look_every_s: float = LOOK_EVERY_S,
        looks: int = LOOKS,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        super().__init__(name="loop-watch", daemon=True)
        self._loop, self._look_every_s, self._looks, self._end = loop, look_every_s, looks, end
        self._ran, self._over = threading.Event(), threading.Event()

    def run(self) -> None:
        """Look until it is over."""
        missed = 0
        self._ran.set()
        while not self._over.wait(self._look_every_s):
            missed = 0 if self._ran.is_set() else missed + 1
            if missed >= self._looks:
                log.critical("the event loop stands still: ending the process", looks=missed)
                faulthandler.dump_traceback()
                self._end(EXIT_CODE)
                return
            self._ran.clear()
            with contextlib.suppress(RuntimeError):  # closed: it is over any moment
                self._loop.call_soon_threadsafe(self._ran.set)

    def stop(self) -> None:
        """Look no more."""
        self._over.set()


@contextlib.contextmanager
def watched_loop(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Watch a loop for the time of the context."""
    watch = LoopWatch(loop)
    watch.start()
    try:
        yield
    finally:
        watch.stop()
