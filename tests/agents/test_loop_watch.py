"""A process whose event loop stands still ends."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from agents.loop_watch import EXIT_CODE, LOOKS, LoopWatch


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread."""
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


def test_a_loop_that_stands_still_ends_the_process(loop: asyncio.AbstractEventLoop) -> None:
    release, codes = threading.Event(), []
    loop.call_soon_threadsafe(release.wait)
    watch = LoopWatch(loop, look_every_s=0.01, end=codes.append)
    watch.start()
    watch.join(60)
    release.set()
    assert codes == [EXIT_CODE]


def test_one_that_is_only_slow_does_not(loop: asyncio.AbstractEventLoop) -> None:
    """It runs at the last moment, again and again."""
    codes: list[int] = []
    watch = LoopWatch(loop, look_every_s=0.0, end=codes.append)
    looks = 0

    class Look(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal looks
            looks += 1
            if looks % LOOKS == 0:
                watch._ran.set()
            return looks > 10 * LOOKS

    watch._over = Look()
    watch._loop = asyncio.new_event_loop()  # never runs by itself
    watch.run()
    watch._loop.close()
    assert codes == []


def test_a_closed_loop_is_no_error() -> None:
    closed = asyncio.new_event_loop()
    closed.close()
    codes: list[int] = []
    watch = LoopWatch(closed, look_every_s=0.01, looks=3, end=codes.append)
    watch.start()
    watch.stop()
    watch.join(60)
    assert not watch.is_alive()
