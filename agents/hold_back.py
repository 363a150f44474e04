"""How long a shard waits: for source partitions that are late, for batches that are missing, for what can't be read.

This is the one place of the sink where a clock is read. That a window no longer waits for a partition goes into the log
as a waiver and takes effect when it is read back, so a successor, a zombie and a replay all decide alike; what is
missing stops the shard.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import takewhile
from typing import TypeVar

from schemas.control import Waiver
from streams.shard import Gap, Shard

POLL_S = 0.5

T = TypeVar("T", bound=Hashable)


class HoldBack:
    """The patience of one shard, from the moment when its owner begins.

    It is asked only about a shard that is read to its end: time passes for what can be seen there.
    """

    def __init__(self, hold_back_s: float, clock: Callable[[], float]) -> None:
        self._hold_back_s, self._clock = hold_back_s, clock
        self._started = clock()
        self._delivered: dict[int, float] = {}
        self._windows: dict[int, float] = {}
        self._troubles: dict[Gap | int, float] = {}
        self._waits_for = -1

    def delivered(self, partition: int) -> None:
        """Note that a partition has just delivered something new.

        One whose owner fails again and again repeats itself for ever, and mustn't keep the windows of all from ending.
        """
        self._delivered[partition] = self._clock()

    def appended(self, offset: int) -> None:
        """Note that a waiver was appended; the next ones wait until it has been read back."""
        self._waits_for = offset

    def waivers(self, shard: Shard) -> list[Waiver]:
        """What is due, by partition: the newest window that, as all before it, has waited long enough for it.

        A window waits from the latest of these: the partition's last delivery, the window's first batch, the start. A
        partition whose chain has a gap gets none, since the shard stops for it.
        """
        now = self._clock()
        self._windows = _noticed(self._windows, shard.waiting, now)
        if shard.next_offset <= self._waits_for:
            return []
        broken = {gap.partition for gap in shard.gaps}
        due = ((p, self._newest_due(p, now)) for p in shard.missing() if p not in broken)
        return [Waiver(partition, end_ms) for partition, end_ms in due if end_ms is not None]

    def overdue(self, shard: Shard) -> list[Gap | int]:
        """Gaps that weren't closed, and offsets of records that can't be read and weren't skipped, for so long."""
        now = self._clock()
        found: list[Gap | int] = [*shard.gaps, *shard.unreadable]
        self._troubles = _noticed(self._troubles, found, now)
        return [each for each in found if now - self._troubles[each] >= self._hold_back_s]

    def waited_s(self, shard: Shard) -> float:
        """How long the oldest window that waits has done so; 0 if none does."""
        return self._clock() - self._windows[min(self._windows)] if self._windows and shard.waiting else 0.0

    def _newest_due(self, partition: int, now: float) -> int | None:
        latest = now - self._hold_back_s
        if max(self._started, self._delivered.get(partition, self._started)) > latest:
            return None
        waited = takewhile(lambda end_ms: self._windows[end_ms] <= latest, sorted(self._windows))
        return max(waited, default=None)


def _noticed(known: Mapping[T, float], there: Iterable[T], now: float) -> dict[T, float]:
    """When each thing that is there now was first seen."""
    return {each: known.get(each, now) for each in there}
