"""The records of one partition on their way from the consumer to the partition's owner, checked for gaps."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import structlog

from agents.broker import Probe

log = structlog.get_logger(__name__)


class GapError(Exception):
    """Records between two offsets of a log weren't delivered: the owner must start again from its own state."""


class LogRecord(Protocol):
    """A record as aiokafka delivers it; the timestamp is in ms."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Inbox:
    """A bounded queue of deliveries; what comes out is contiguous from `next_offset` on.

    Deliveries may begin below the position (a fetch holds whole record batches) and may repeat: both are skipped. A
    delivery that begins above it is a gap, unless the log itself holds nothing in between (compaction, a transaction's
    marker, or retention: then what was lost is counted).
    """

    def __init__(self, probe: Probe, topic: str, partition: int, next_offset: int, *, deliveries: int = 4) -> None:
        self.next_offset = next_offset
        self.lost = 0
        """Records that retention took before they were read."""
        self.lost_before: dict[int, int] = {}
        """The same by the offset of the record that was read next; who is interested empties it."""
        self._probe, self._topic, self._partition = probe, topic, partition
        self._waiting: deque[Sequence[LogRecord]] = deque()
        self._limit = deliveries
        self._changed = asyncio.Condition()
        self._closed = False
        self.drops = False
        """Whether a full inbox passes deliveries over instead of waiting: they become a gap, which is for an owner that
        can't take anything yet and would hold up all others of its process."""

    async def put(self, records: Sequence[LogRecord]) -> None:
        """Hand over a delivery; waits while the inbox is full, which stops the fetching."""
        async with self._changed:
            if self.drops and len(self._waiting) >= self._limit:
                return
            await self._changed.wait_for(lambda: len(self._waiting) < self._limit or self._closed)
            self._waiting.append(records)
            self._changed.notify_all()

    async def close(self) -> None:
        """Take anything from now on without waiting: the partition has gone, whoever waits in `put` must go on."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def take(self, max_bytes: int) -> list[LogRecord]:
        """The next records, at least one, in order and without a gap; whole deliveries up to about `max_bytes`."""
        taken: list[LogRecord] = []
        size = 0
        while not taken or (self._waiting and size < max_bytes):
            for record in await self._pop():
                if await self._accept(record):
                    taken.append(record)
                    size += len(record.value or b"")
        return taken

    @property
    def empty(self) -> bool:
        """True if every delivery has been taken."""
        return not self._waiting

    async def _pop(self) -> Sequence[LogRecord]:
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._waiting))
            records = self._waiting.popleft()
            self._changed.notify_all()
            return records

    async def _accept(self, record: LogRecord) -> bool:
        if record.offset < self.next_offset:
            return False
        if record.offset > self.next_offset:
            await self._explain(record.offset)
        self.next_offset = record.offset + 1
        return True

    async def _explain(self, found: int) -> None:
        """Accept a gap that is in the log itself; raise `GapError` for one that isn't."""
        there = await self._probe.first_from(self._topic, self._partition, self.next_offset)
        if there is None or there[0] < found:
            raise GapError(
                f"{self._topic}/{self._partition}: offset {self.next_offset} was expected, {found} was delivered, "
                f"and the log holds {'nothing' if there is None else there[0]}: starting again from the own state"
            )
        ends = await self._probe.ends(self._topic, self._partition)
        lost = min(ends.low, found) - self.next_offset  # meanwhile it may have taken what was delivered, too
        if lost > 0:
            self.lost += lost
            self.lost_before[found] = lost
            log.error(
                "records lost to retention",
                topic=self._topic,
                partition=self._partition,
                wanted=self.next_offset,
                first_kept=ends.low,
            )
