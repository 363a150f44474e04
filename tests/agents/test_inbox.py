"""The inbox: what comes out is contiguous, whatever the consumer delivers."""

import asyncio
from typing import NamedTuple

import pytest

from agents.inbox import GapError, Inbox
from agents.log_probe import Ends


class FakeRecord(NamedTuple):
    offset: int
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = b"x"
    headers: tuple[tuple[str, bytes], ...] = ()


class FakeLog:
    """A log that holds some offsets."""

    def __init__(self, held: list[int], low: int = 0) -> None:
        self.held, self.low = held, low

    async def first_from(self, topic: str, partition: int, offset: int) -> tuple[int, int] | None:
        later = [each for each in self.held if each >= offset]
        return (later[0], 0) if later else None

    async def ends(self, topic: str, partition: int) -> Ends:
        return Ends(self.low, self.held[-1] + 1 if self.held else self.low)


def records(*offsets: int) -> list[FakeRecord]:
    return [FakeRecord(offset) for offset in offsets]


async def taken(inbox: Inbox, max_bytes: int = 1 << 20) -> list[int]:
    return [record.offset for record in await inbox.take(max_bytes)]


async def test_repeated_and_earlier_records_are_skipped():
    inbox = Inbox(FakeLog([]), "spans", 0, 5)
    await inbox.put(records(3, 4, 5, 6))
    await inbox.put(records(5, 6, 7))
    assert await taken(inbox) == [5, 6, 7]
    assert inbox.next_offset == 8


async def test_a_delivery_of_old_records_alone_is_waited_over():
    inbox = Inbox(FakeLog([]), "spans", 0, 5)
    await inbox.put(records(1, 2))
    await inbox.put(records(5))
    assert await taken(inbox) == [5]


async def test_a_gap_that_is_not_in_the_log_is_an_error():
    inbox = Inbox(FakeLog([0, 1, 2, 3]), "spans", 0, 1)
    await inbox.put(records(3))
    with pytest.raises(GapError, match="spans/0: offset 1 was expected, 3 was delivered, and the log holds 1"):
        await inbox.take(100)


async def test_a_transaction_marker_or_compaction_is_no_gap():
    inbox = Inbox(FakeLog([0, 1, 3]), "spans", 0, 2)
    await inbox.put(records(3))
    assert await taken(inbox) == [3]
    assert inbox.lost == 0


async def test_what_retention_took_is_counted():
    inbox = Inbox(FakeLog([7, 8], low=7), "spans", 0, 2)
    await inbox.put(records(7, 8))
    assert await taken(inbox) == [7, 8]
    assert inbox.lost == 5


async def test_put_waits_while_full_and_goes_on_when_the_partition_is_taken_away():
    inbox = Inbox(FakeLog([]), "spans", 0, 0, deliveries=1)
    await inbox.put(records(0))
    blocked = asyncio.ensure_future(inbox.put(records(1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not blocked.done()
    await inbox.close()
    await blocked
    assert inbox.empty is False


async def test_take_stops_at_whole_deliveries_once_it_has_enough_bytes():
    inbox = Inbox(FakeLog([]), "spans", 0, 0)
    await inbox.put(records(0, 1))
    await inbox.put(records(2))
    assert await taken(inbox, max_bytes=1) == [0, 1]
    assert await taken(inbox, max_bytes=1) == [2]
