"""Durations: Go's notation, exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config.durations import MAX_NS, duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("0s", 0),
        ("15s", 15_000_000_000),
        ("1m30s", 90_000_000_000),
        ("1h2m3s4ms5us6ns", 3_723_004_005_006),
        ("1.5h", 5_400_000_000_000),
        (".5s", 500_000_000),
        ("2.s", 2_000_000_000),
        ("0.1ns", 0),
        ("0.3s", 300_000_000),
        ("7µs", 7_000),
        ("7μs", 7_000),
        ("1d", 86_400_000_000_000),
        ("3153600000000000000ns", MAX_NS),
    ],
)
def test_a_duration_is_nanoseconds(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text", ["", "15", "s", "15 s", "15S", "-1s", "+1s", "1s ", "1,5s", "1e3s", "1s-", "٣s", "1:30"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a number with its unit"):
        parse_duration(text)


def test_a_duration_fits_gos() -> None:
    with pytest.raises(ValueError, match="the longest duration is 100y"):
        parse_duration("3153600000000000001ns")


@given(st.integers(0, MAX_NS))
def test_a_duration_comes_back_from_its_text(ns: int) -> None:
    assert parse_duration(duration_text(ns)) == ns


def test_texts_are_the_usual_ones() -> None:
    assert [duration_text(ns) for ns in (0, 15 * 10**9, 90 * 10**9, 1_500_000)] == ["0s", "15s", "1m30s", "1ms500us"]
