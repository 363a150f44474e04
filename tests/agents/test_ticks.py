"""Ticks: when an idle partition gets one."""

from agents.ticks import TickTimer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def timer(clock: Clock) -> TickTimer:
    return TickTimer(2.0, clock)


def test_a_partition_without_any_record_gets_one_at_once():
    assert timer(Clock()).due(None, 0)


def test_one_whose_records_were_all_taken_by_retention_gets_one_at_once():
    assert timer(Clock()).due(15_000, 7)


def test_an_idle_one_gets_it_two_seconds_after_the_windows_end():
    clock = Clock()
    ticks = timer(clock)
    ticks.read(14_000)
    clock.now += 2.9
    assert not ticks.due(15_000, 1)
    clock.now += 0.1
    assert ticks.due(15_000, 1)


def test_reading_an_older_timestamp_does_not_move_its_time_back():
    clock = Clock()
    ticks = timer(clock)
    ticks.read(14_000)
    ticks.read(3_000)
    clock.now += 3.0
    assert ticks.due(15_000, 2)


def test_the_next_one_waits_until_the_last_was_read_back():
    clock = Clock()
    ticks = timer(clock)
    ticks.read(14_000)
    clock.now += 3.0
    ticks.appended(7)
    clock.now += 60.0
    assert not ticks.due(15_000, 7)
    assert ticks.due(15_000, 8)


def test_at_most_one_a_second():
    clock = Clock()
    ticks = timer(clock)
    ticks.appended(7)
    clock.now += 0.9
    assert not ticks.due(None, 8)
    clock.now += 0.1
    assert ticks.due(None, 8)
