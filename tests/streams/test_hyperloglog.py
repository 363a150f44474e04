import numpy as np
import pytest

from schemas.limiters import DENSE, MAX_EXACT, REGISTERS
from streams.hyperloglog import PERIOD_MS, SlidingSketches, hash_all, period_of, periods_of


def hashes(*texts: str):
    data = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, data)]).astype(np.int32)
    return hash_all(np.frombuffer(b"".join(data), np.uint8), offsets)


def insert(sketches: SlidingSketches, key: str, *texts: str) -> None:
    row = sketches.row(key)
    sketches.insert(np.full(len(texts), row), hashes(*texts))


def numbered(n: int, prefix: str = "GET /api/users/") -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


@pytest.mark.parametrize("n", [0, 1, 10, 100, 1_000, 10_000, 100_000])
def test_estimates_are_within_three_standard_errors(n):
    """LIM-8: 3.25 % with 2^10 registers."""
    sketches = SlidingSketches()
    sketches.advance(0, 4)
    for prefix in ("GET /api/users/", "shop-", "", "用户"):
        insert(sketches, prefix, *numbered(n, prefix))
    for estimate in sketches.estimates().values():
        assert abs(estimate - n) <= 3 * 0.0325 * n


def test_what_was_inserted_before_changes_nothing():
    """LIM-8: neither does its order."""
    once, often = SlidingSketches(), SlidingSketches()
    for sketches, texts in ((once, numbered(500)), (often, [*reversed(numbered(500)), *numbered(500)])):
        sketches.advance(7, 4)
        insert(sketches, "a", *texts)
        insert(sketches, "few", *texts[-20:])
    assert once.state().periods[0].words[:REGISTERS] == often.state().periods[0].words[:REGISTERS]
    assert once.estimates()["a"] == often.estimates()["a"]
    assert once.estimates()["few"] == often.estimates()["few"] == 20


def test_hashes_and_estimates_are_locked():
    """They decide samples (LIM-10) and are part of snapshots: a change would make two programs differ."""
    assert [int(each) for each in hashes("", "a", "service-1", "x" * 100)] == LOCKED_HASHES
    sketches = SlidingSketches()
    sketches.advance(0, 1)
    insert(sketches, "a", *numbered(12_345))
    assert sketches.estimates() == {"a": LOCKED_ESTIMATE}


LOCKED_HASHES = [11490301092599039505, 9238033770247468232, 10167616061139003055, 8245669346068786326]
LOCKED_ESTIMATE = 12_525


@pytest.mark.parametrize("n", [95, 96, 97, 150])
def test_few_things_are_counted_exactly(n):
    """LIM-8: up to 96 in a period, and 512 in all of them."""
    sketches = SlidingSketches()
    for period in range(4):
        sketches.advance(period, 4)
        insert(sketches, "same", *numbered(n, "x"))
        insert(sketches, "others", *numbered(n, str(period)))
    assert (sketches.current().counts.tolist() == [n, n]) is (n <= MAX_EXACT)
    estimates = sketches.estimates()
    if n <= MAX_EXACT:
        assert estimates == {"same": n, "others": 4 * n}
    assert estimates["same"] == pytest.approx(n, rel=0.1)
    assert estimates["others"] == pytest.approx(4 * n, rel=0.1)


def test_many_periods_of_few_things_are_estimated():
    sketches = SlidingSketches()
    for period in range(20):
        sketches.advance(period, 20)
        insert(sketches, "a", *numbered(90, f"{period}."))
    assert sketches.estimates()["a"] == pytest.approx(1_800, rel=0.1)


def dense(n: int = 97) -> SlidingSketches:
    sketches = SlidingSketches()
    sketches.advance(0, 1)
    insert(sketches, "a", *numbered(n))
    assert sketches.current().counts[0] == DENSE
    return sketches


def registers(sketches: SlidingSketches) -> list[int]:
    return list(sketches.state().periods[0].words)


def test_sketches_of_all_registers_and_ranks_have_an_estimate():
    sketches = dense()
    sketches.current().words[:] = 0x3737373737373737
    assert sketches.estimates()["a"] > 1 << 53
    fewest = dense()
    zeros_after_the_register = np.arange(REGISTERS, dtype=np.uint64) << np.uint64(54)
    fewest.insert(np.zeros(REGISTERS, np.int64), zeros_after_the_register)
    assert registers(fewest)[1:] == [55] * (REGISTERS - 1)
    assert fewest.estimates()["a"] > 1 << 53


def test_a_hash_of_zero_is_one_too():
    sketches = SlidingSketches()
    sketches.advance(0, 1)
    sketches.row("a")
    sketches.insert(np.zeros(3, np.int64), np.array([0, 1, 2], np.uint64))
    assert sketches.estimates() == {"a": 2}


def test_an_estimate_spans_the_latest_periods_and_forgets_older_ones():
    """LIM-8: (stale + 5 min) / 5 min of them, 4 by default."""
    assert (periods_of(900_000), periods_of(0), periods_of(1_000_000)) == (4, 1, 4)
    sketches = SlidingSketches()
    for period in range(1, 7):
        sketches.advance(period, 4)
        insert(sketches, "a", f"first of {period}", f"second of {period}")
    assert sketches.estimates() == {"a": 8}
    sketches.advance(8, 4)
    assert sketches.estimates() == {"a": 4}
    sketches.advance(1_000, 4)
    assert sketches.estimates() == {"a": 0}


def test_a_shorter_stale_duration_forgets_at_once_and_a_longer_one_from_then_on():
    sketches = SlidingSketches()
    for period in range(4):
        sketches.advance(period, 4)
        insert(sketches, "a", f"of {period}")
    sketches.advance(3, 2)
    assert sketches.estimates() == {"a": 2}
    for period in range(4, 10):
        sketches.advance(period, 5)
        insert(sketches, "a", f"of {period}")
    assert sketches.estimates() == {"a": 5}


def test_keys_that_come_later_have_sketches_of_their_own():
    sketches = SlidingSketches()
    sketches.advance(0, 2)
    insert(sketches, "a", "x", "y")
    insert(sketches, "b", "x")
    sketches.advance(1, 2)
    insert(sketches, "c", *numbered(3))
    assert sketches.estimates() == {"a": 2, "b": 1, "c": 3}
    assert sketches.keys == ("a", "b", "c")


def test_a_window_that_ends_where_a_period_does_belongs_to_it():
    """LIM-8: sketches advance every five minutes of stream time."""
    assert [period_of(PERIOD_MS + ms) for ms in (-15_000, 0, 15_000)] == [0, 0, 1]


def test_a_restored_state_goes_on_identically_and_states_don_t_change():
    sketches = SlidingSketches()
    for period in range(3):
        sketches.advance(period, 4)
        insert(sketches, f"key {period}", *numbered(50, str(period)))
    state = sketches.state()
    restored = SlidingSketches()
    restored.restore(state)
    for each in (sketches, restored):
        each.advance(3, 4)
        insert(each, "another", "x")
        insert(each, "key 0", "y")
    assert restored.state() == sketches.state() != state
    assert restored.estimates() == sketches.estimates()
