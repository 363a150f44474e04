"""An event loop whose time is made up: when nothing is ready it jumps to the next timer. Nothing ever waits.

Threads don't exist in it: what is given to an executor runs in the loop, at some time, and its result arrives at a
later one. So a schedule is a function of its seed, and costs what the code in it computes.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

Latency = Callable[[], float]
"""Seconds until something arrives; asked once for each thing."""


class NothingLeftError(Exception):
    """Every task waits for something that will never happen."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Time begins at 0. `thread_latency` is asked twice a call: until a thread begins, and until its result arrives."""

    def __init__(self, thread_latency: Latency) -> None:
        super().__init__()
        self._now = 0.0
        self._clock_resolution = 1e-9
        self._selector = _Jump(self)
        self._thread_latency = thread_latency
        self.steps = 0
        """Rounds of the loop so far."""

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        self.steps += 1

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":  # type: ignore[override]
        """Run a function at a later time; its result comes later still."""
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if future.done():
                return
            try:
                result = func(*args)
            except Exception as error:
                self.call_later(self._thread_latency(), _fail, future, error)
            else:
                self.call_later(self._thread_latency(), _give, future, result)

        self.call_later(self._thread_latency(), work)
        return future

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody else is there to be woken."""


class _Jump:
    """Stands where a loop waits for sockets."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> tuple[()]:
        if timeout is None:
            raise NothingLeftError("every task waits for something that will never happen")
        self._loop.jump(max(timeout, 0.0))
        return ()

    def close(self) -> None:
        pass


def _give(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
