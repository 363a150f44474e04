"""When an idle partition gets a tick (architecture.md, "Tick").

This is the one place of the generator where a clock is read. What it decides goes into the log and takes effect when it
is read back, so a successor, a zombie and a replay all decide alike.
"""

from collections.abc import Callable

AT_MOST_EVERY_S = 1.0


class TickTimer:
    """Estimates the partition's time while it is idle: its newest timestamp plus the time since that was read."""

    poll_s = 0.2

    def __init__(self, after_s: float, clock: Callable[[], float]) -> None:
        self._after_s, self._clock = after_s, clock
        self._newest_ms: int | None = None
        self._read_at = 0.0
        self._waits_for = -1
        self._appended_at = -AT_MOST_EVERY_S

    def read(self, timestamp_ms: int) -> None:
        """Note that a record of this timestamp has just been read."""
        self._newest_ms = timestamp_ms if self._newest_ms is None else max(self._newest_ms, timestamp_ms)
        self._read_at = self._clock()

    def appended(self, offset: int) -> None:
        """Note that a tick was appended; the next one waits until it has been read back."""
        self._waits_for = offset
        self._appended_at = self._clock()

    def due(self, open_end_ms: int | None, next_offset: int) -> bool:
        """Whether a partition that is read to its end gets a tick now.

        One that hasn't shown a record since it was assigned gets it at once: its log is empty from the position on.
        """
        now = self._clock()
        if next_offset <= self._waits_for or now - self._appended_at < AT_MOST_EVERY_S:
            return False
        if self._newest_ms is None or open_end_ms is None:
            return True
        return self._newest_ms + (now - self._read_at) * 1000 >= open_end_ms + self._after_s * 1000
