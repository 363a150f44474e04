"""What a watchdog calls stalled."""

import pytest

from agents.watchdog import Patience, Reading, StalledError, Watchdog


@pytest.fixture
def watchdog() -> Watchdog:
    return Watchdog("spanmill_generator", Patience(joining=4, recovering=3, reading=2))


def test_a_partition_with_records_none_of_which_comes_is_stalled(watchdog: Watchdog) -> None:
    stuck = {0: Reading(9, 9, paused=False), 3: Reading(5, 8, paused=False)}
    watchdog.reads(stuck)
    watchdog.reads(stuck)
    with pytest.raises(StalledError, match="generator: partition 3 is 3 records behind at offset 5, and none"):
        watchdog.reads(stuck)


def test_one_record_between_looks_is_enough(watchdog: Watchdog) -> None:
    for offset in range(100):
        watchdog.reads({0: Reading(offset, 1_000_000, paused=False)})


def test_nothing_stalls_at_the_end_of_a_log(watchdog: Watchdog) -> None:
    for _ in range(100):
        watchdog.reads({0: Reading(5, 5, paused=False)})


def test_an_owner_that_pauses_on_purpose_is_not_stalled_and_has_its_time_afterwards(watchdog: Watchdog) -> None:
    for _ in range(100):
        watchdog.reads({0: Reading(5, 8, paused=True)})
    watchdog.reads({0: Reading(5, 8, paused=False)})
    with pytest.raises(StalledError):
        watchdog.reads({0: Reading(5, 8, paused=False)})


def test_a_partition_that_was_away_begins_anew(watchdog: Watchdog) -> None:
    for _ in range(100):
        watchdog.reads({0: Reading(5, 8, paused=False)})
        watchdog.reads({})
    watchdog.reads({0: Reading(5, 8, paused=False)})
    watchdog.recovers(1)
    watchdog.reads({0: Reading(5, 8, paused=False)})
    watchdog.reads({0: Reading(5, 8, paused=False)})


def test_while_nobody_can_tell_nothing_is_stalled(watchdog: Watchdog) -> None:
    for _ in range(100):
        watchdog.reads({0: Reading(5, 8, paused=False)})
        watchdog.excused()
        watchdog.joins(1)
        watchdog.recovers(1)


def test_a_recovery_stalls_only_when_nothing_is_read(watchdog: Watchdog) -> None:
    for read in range(100):
        watchdog.recovers((1, read))
    for rebalances in range(2, 100):
        watchdog.recovers((rebalances, 99))
    watchdog.recovers((99, 99))
    watchdog.recovers((99, 99))
    with pytest.raises(StalledError, match="its table isn't read on"):
        watchdog.recovers((99, 99))


def test_a_group_that_gives_no_assignment_stalls(watchdog: Watchdog) -> None:
    for _ in range(4):
        watchdog.joins(1)
    with pytest.raises(StalledError, match="no assignment from its group within 40 s"):
        watchdog.joins(1)
