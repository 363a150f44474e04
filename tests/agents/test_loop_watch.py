"""A process whose event loop stands still ends."""

import asyncio
import threading
from collections.abc import Callable, Iterator

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


class Looks(threading.Event):
    """Ends a watch after so many looks; at each, `at` is done."""

    def __init__(self, count: int, at: Callable[[int], None] = lambda _: None) -> None:
        super().__init__()
        self._count, self._at, self._look = count, at, 0

    def wait(self, timeout: float | None = None) -> bool:
        self._look += 1
        self._at(self._look)
        return self._look > self._count


def test_one_that_is_only_slow_does_not() -> None:
    """It runs at the last moment, again and again."""

    def run_at_times(look: int) -> None:
        if look % LOOKS == 0:
            watch._ran.set()

    never_runs, codes = asyncio.new_event_loop(), []
    watch = LoopWatch(never_runs, end=codes.append)
    watch._over = Looks(10 * LOOKS, run_at_times)
    watch.run()
    never_runs.close()
    assert codes == []


def test_a_loop_that_is_closed_meanwhile_is_no_error() -> None:
    closed, codes = asyncio.new_event_loop(), []
    closed.close()
    watch = LoopWatch(closed, end=codes.append)
    watch._over = Looks(LOOKS - 1)
    watch.run()
    assert codes == []
