from hypothesis import given
from hypothesis import strategies as st

from streams.windows import window_end

TIMES = st.integers(0, 1 << 45)
INTERVALS = st.integers(1, 3_600_000)


def test_a_window_ends_at_the_first_multiple_of_the_interval_after_its_times() -> None:
    assert [window_end(time, 15_000) for time in (0, 14_999, 15_000, 29_999)] == [15_000, 15_000, 30_000, 30_000]


@given(TIMES, INTERVALS)
def test_a_time_is_in_the_window_that_ends_next(time: int, interval: int) -> None:
    end = window_end(time, interval)
    assert end % interval == 0
    assert end - interval <= time < end
