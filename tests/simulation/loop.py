"""An event loop whose time is made up: when nothing is ready it jumps to the next timer. Nothing ever waits.

Threads don't exist in it: what is given to an executor runs in the loop, at some time, and its result arrives at a
later one. So a schedule is a function of its seed, and costs what the code in it computes.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import Context
from heapq import heappop, heappush
from typing import Any, TypeVar

T = TypeVar("T")

Latency = Callable[[], float]
"""Seconds until something arrives; asked once for each thing."""


class NothingLeftError(Exception):
    """Every task waits for something that will never happen."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Time begins at 0. `thread_latency` is asked twice a call: until a thread begins, and until its result arrives.

    Timers are ordered as tuples, and there is no selector: asyncio's own rounds cost a tenth of a schedule.
    """

    _ready: deque[asyncio.Handle]

    def __init__(self, thread_latency: Latency) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbered = 0
        self._thread_latency = thread_latency

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call a function at a time; of several at the same time the one first that was asked for first."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._numbered += 1
        heappush(self._timers, (when, self._numbered, timer))
        return timer

    def _run_once(self) -> None:
        """Call what is ready. If nothing is, let time pass until the next timer."""
        ready, timers = self._ready, self._timers
        while timers and (timers[0][0] <= self._now or not ready):
            when, _, timer = heappop(timers)
            if not timer.cancelled():
                self._now = max(self._now, when)
                ready.append(timer)
        if not ready:
            raise NothingLeftError("every task waits for something that will never happen")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

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

    def _write_to_self(self) -> None:
        """Nobody else is there to be woken."""


def _give(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
