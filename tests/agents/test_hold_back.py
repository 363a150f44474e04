"""How long windows and gaps are waited for, by a clock of the test's."""

from agents.hold_back import HoldBack
from schemas.control import Waiver
from streams.shard import Gap, Shard, Unreadable
from tests.streams.delta_rows import INTERVAL, Settings, batch, window

HOLD_BACK_S = 120
T1, T2, T3 = (INTERVAL * n for n in range(1, 4))


class Waiting:
    """A shard, what it has read, and the patience with it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.shard = Shard(0, lambda _: Settings(), INTERVAL)
        self.hold_back = HoldBack(HOLD_BACK_S, lambda: self.now)

    def read(self, partition: int, end_ms: int, previous_ms: int | None, partitions: int = 3) -> None:
        self.shard.feed(self.shard.next_offset, batch(window(end_ms, previous_ms), partition, partitions))
        self.hold_back.delivered(partition)

    def waivers(self, at_s: float) -> list[Waiver]:
        self.now = at_s
        return self.hold_back.waivers(self.shard)


def test_nothing_is_due_while_nothing_waits():
    it = Waiting()
    assert it.waivers(10 * HOLD_BACK_S) == []
    it.read(0, T1, None, partitions=1)
    assert it.waivers(20 * HOLD_BACK_S) == []


def test_every_partition_that_is_missing_gets_a_waiver_in_its_own_time():
    it = Waiting()
    it.read(0, T1, None)
    it.waivers(0)
    it.now = 50
    it.read(2, T1, None)
    it.now = 60
    it.read(2, T2, T1)
    it.read(0, T2, T1)
    it.read(0, T3, T2)
    it.waivers(60)
    assert it.waivers(HOLD_BACK_S) == [Waiver(1, T1)], "windows 2 and 3 began at 60 s"
    assert it.waivers(60 + HOLD_BACK_S) == [Waiver(1, T3)]
    it.shard.feed(9, Waiver(1, T3))
    assert it.waivers(60 + HOLD_BACK_S) == [Waiver(2, T3)]


def test_a_newer_window_doesn_t_take_an_older_one_along_that_began_later():
    it = Waiting()
    it.read(0, T2, None)
    it.waivers(0)
    it.now = 100
    it.read(1, T1, None)
    it.waivers(100)
    assert it.waivers(HOLD_BACK_S) == []
    assert it.waivers(100 + HOLD_BACK_S) == [Waiver(2, T2)]


def test_what_was_appended_is_not_appended_again_until_it_is_read():
    it = Waiting()
    it.read(0, T1, None, partitions=2)
    it.waivers(0)
    assert it.waivers(HOLD_BACK_S) == [Waiver(1, T1)]
    it.hold_back.appended(7)
    assert it.waivers(2 * HOLD_BACK_S) == []
    it.shard.next_offset = 7
    assert it.waivers(3 * HOLD_BACK_S) == []
    it.shard.next_offset = 8
    assert it.waivers(3 * HOLD_BACK_S) == [Waiver(1, T1)], "what was read there was something else"


def test_gaps_and_records_that_can_t_be_read_are_overdue_from_when_they_were_seen():
    it = Waiting()
    it.read(0, T2, T1)
    assert it.hold_back.overdue(it.shard) == []
    it.now = 60
    it.shard.feed(1, Unreadable("garbage"))
    assert it.hold_back.overdue(it.shard) == []
    it.now = HOLD_BACK_S
    gap = Gap(0, None, 0, T2, T1)
    assert it.hold_back.overdue(it.shard) == [gap]
    it.now = 60 + HOLD_BACK_S
    assert it.hold_back.overdue(it.shard) == [gap, 1]
    it.read(0, T1, None)
    it.read(0, T2, T1)
    assert it.hold_back.overdue(it.shard) == [1]
