"""Whether a worker still gets on: counts looks at which something that should have moved hasn't.

Looks are counted, not seconds: a process that was stopped for an hour hasn't looked meanwhile, and isn't to blame. And
only looks at which the brokers answered count: while they are away a restart helps nobody, and costs the time until the
supervisor tries again.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

LOOK_EVERY_S = 10.0


class Patience(NamedTuple):
    """How many looks, of `LOOK_EVERY_S` each, nothing may move."""

    joining: int = 12
    """The group gives no assignment, not even an empty one."""
    recovering: int = 3
    """The table isn't read on: counted from the assignment, and again from each record."""
    reading: int = 6
    """Records wait, the owner would take them, and none is delivered (Faust issues 594, 602, 629)."""


DEFAULT_PATIENCE = Patience()


@dataclass(slots=True)
class Movement:
    """Something that should move, and for how many looks it hasn't."""

    position: Hashable = None
    looks: int = 0

    def look(self, position: Hashable, *, due: bool) -> int:
        """Look again; gives how many looks in a row found it in the same place although it was `due` to move."""
        self.looks = self.looks + 1 if due and position == self.position else 0
        self.position = position
        return self.looks


class Reading(NamedTuple):
    """A partition at the time of a look."""

    next_offset: int
    end: int
    """The log's end, as the brokers tell it: that of the last fetch says nothing when it is fetches that don't come."""
    paused: bool
    """Its owner doesn't read on purpose."""


class StalledError(Exception):
    """Something doesn't move, and a restart helps."""


@dataclass(slots=True)
class Watchdog:
    """Looks at a worker that is in one of three states: joining its group, recovering its table, reading."""

    what: str
    """Names the worker in errors."""
    patience: Patience = DEFAULT_PATIENCE
    _joining: Movement = field(default_factory=Movement)
    _recovering: Movement = field(default_factory=Movement)
    _reading: dict[int, Movement] = field(default_factory=dict)

    def joins(self, rebalances: int) -> None:
        """Look while there is no assignment, after so many. Raises `StalledError`."""
        self._forget_but(self._joining)
        if self._joining.look(rebalances, due=True) >= self.patience.joining:
            raise StalledError(f"{self.what}: no assignment from its group within {self._time(self._joining)}")

    def recovers(self, position: Hashable) -> None:
        """Look while the table is read; `position` changes with each assignment and record. Raises `StalledError`."""
        self._forget_but(self._recovering)
        if self._recovering.look(position, due=True) >= self.patience.recovering:
            raise StalledError(f"{self.what}: its table isn't read on since {self._time(self._recovering)}")

    def reads(self, partitions: Mapping[int, Reading]) -> None:
        """Look at the partitions that are read. Raises `StalledError`."""
        self._forget_but(None)
        self._reading = {p: self._reading.get(p, Movement()) for p in partitions}
        for partition, at in partitions.items():
            movement, behind = self._reading[partition], at.end - at.next_offset
            if movement.look(at.next_offset, due=behind > 0 and not at.paused) >= self.patience.reading:
                raise StalledError(
                    f"{self.what}: partition {partition} is {behind} records behind at offset {at.next_offset}, "
                    f"and none was delivered for {self._time(movement)}"
                )

    def excused(self) -> None:
        """Start counting anew: nobody can tell whether anything should move."""
        self._forget_but(None)
        self._reading = {}

    def _forget_but(self, current: Movement | None) -> None:
        for movement in (self._joining, self._recovering):
            if movement is not current:
                movement.position, movement.looks = None, 0
        if current is not None:
            self._reading = {}

    def _time(self, movement: Movement) -> str:
        return f"{movement.looks * LOOK_EVERY_S:.0f} s"
