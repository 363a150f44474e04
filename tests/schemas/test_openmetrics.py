"""The text that replay writes, judged by Prometheus' own tools."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.openmetrics import Labels, Point, exposition, openmetrics, seconds_text, value_text
from tests.servers.prometheus import promtool

T0 = 1_700_000_000_000


@dataclass(frozen=True)
class Seen:
    labels: Labels
    value: float
    timestamp_ms: int


def labels(name: str, **others: str) -> Labels:
    return tuple(sorted({"__name__": name, **others}.items()))


def text(*series: tuple[Labels, list[Point]]) -> str:
    return b"".join(openmetrics(series)).decode()


HISTOGRAM = [
    (labels("traces_spanmetrics_latency_bucket", service="a", le=le), [Point(T0, 0.0), Point(T0 + 15_000, count)])
    for le, count in (("0.1", 2.0), ("16.384", 3.0), ("2", 3.0), ("+Inf", 3.0))
] + [
    (labels("traces_spanmetrics_latency_count", service="a"), [Point(T0, 0.0), Point(T0 + 15_000, 3.0)]),
    (labels("traces_spanmetrics_latency_sum", service="a"), [Point(T0 + 15_000, 0.25)]),
]


def test_a_counter_is_a_family_without_its_suffix_and_its_samples_are_in_order_of_time() -> None:
    calls = labels("traces_spanmetrics_calls_total", service="a", span_name="GET /")
    assert text((calls, [Point(T0, 0.0), Point(T0 + 15_000, 2.5)])) == (
        "# TYPE traces_spanmetrics_calls counter\n"
        'traces_spanmetrics_calls_total{service="a",span_name="GET /"} 0 1700000000\n'
        'traces_spanmetrics_calls_total{service="a",span_name="GET /"} 2.5 1700000015\n'
        "# EOF\n"
    )


def test_a_histogram_is_written_point_by_point_with_ascending_bounds_then_sum_and_count() -> None:
    assert text(*HISTOGRAM) == (
        "# TYPE traces_spanmetrics_latency histogram\n"
        'traces_spanmetrics_latency_bucket{le="0.1",service="a"} 0 1700000000\n'
        'traces_spanmetrics_latency_bucket{le="2",service="a"} 0 1700000000\n'
        'traces_spanmetrics_latency_bucket{le="16.384",service="a"} 0 1700000000\n'
        'traces_spanmetrics_latency_bucket{le="+Inf",service="a"} 0 1700000000\n'
        'traces_spanmetrics_latency_count{service="a"} 0 1700000000\n'
        'traces_spanmetrics_latency_bucket{le="0.1",service="a"} 2 1700000015\n'
        'traces_spanmetrics_latency_bucket{le="2",service="a"} 3 1700000015\n'
        'traces_spanmetrics_latency_bucket{le="16.384",service="a"} 3 1700000015\n'
        'traces_spanmetrics_latency_bucket{le="+Inf",service="a"} 3 1700000015\n'
        'traces_spanmetrics_latency_sum{service="a"} 0.25 1700000015\n'
        'traces_spanmetrics_latency_count{service="a"} 3 1700000015\n'
        "# EOF\n"
    )


def test_an_exemplar_stands_behind_its_bucket() -> None:
    bucket = labels("traces_spanmetrics_latency_bucket", le="+Inf")
    exemplar = Seen((("traceID", "0af7"),), 0.067, T0 + 14_999)
    assert text((bucket, [Point(T0 + 15_000, 1.0, exemplar)])).splitlines()[1] == (
        'traces_spanmetrics_latency_bucket{le="+Inf"} 1 1700000015 # {traceID="0af7"} 0.067 1700000014.999'
    )


def test_the_order_in_which_series_come_makes_no_difference() -> None:
    series = [
        *HISTOGRAM,
        (labels("traces_target_info", job="x"), [Point(T0, 1.0)]),
        (labels("traces_spanmetrics_calls_total", service="b"), [Point(T0, 1.0)]),
        (labels("traces_spanmetrics_calls_total", service="a"), [Point(T0, 1.0)]),
    ]
    shuffled = random.Random(7).sample(series, len(series))
    assert text(*shuffled) == text(*series)


def test_label_values_are_escaped_and_names_with_a_leading_digit_quoted() -> None:
    odd = (("0key", "v"), ("__name__", "traces_target_info"), ("key", 'a"b\\c\nd'))
    assert text((odd, [Point(T0, 1.0)])).splitlines()[1] == (
        'traces_target_info{"0key"="v",key="a\\"b\\\\c\\nd"} 1 1700000000'
    )


def test_a_metric_name_with_a_leading_digit_goes_into_the_braces() -> None:
    assert text((labels("0host_info", host="a"), [Point(T0, 1.0)])) == (
        '# TYPE "0host_info" unknown\n{"0host_info",host="a"} 1 1700000000\n# EOF\n'
    )


def test_nothing_is_an_end_of_file() -> None:
    assert text() == "# EOF\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0"), (3.0, "3"), (0.1, "0.1"), (1e22, "1e+22"), (float("inf"), "+Inf"), (float("nan"), "NaN")],
)
def test_values_are_the_shortest_text_that_reads_back(value: float, expected: str) -> None:
    assert value_text(value) == expected


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_prometheus_reads_back_the_same_millisecond(timestamp_ms: int) -> None:
    read = float(seconds_text(timestamp_ms))
    assert int(read * 1000) == timestamp_ms  # as Prometheus does it
    assert round(read * 1000) == timestamp_ms


def test_exposition_has_the_newest_samples_with_their_timestamps() -> None:
    samples = [
        (labels("traces_spanmetrics_calls_total", service="a"), T0, 2.0),
        (labels("traces_spanmetrics_latency_count", service="a"), T0, 2.0),
        (labels("traces_spanmetrics_latency_bucket", service="a", le="+Inf"), T0, 2.0),
        (labels("spanmill_ledger_edges", tenant="t"), T0, 2.0),
    ]
    assert exposition(samples).decode() == (
        "# TYPE spanmill_ledger_edges untyped\n"
        'spanmill_ledger_edges{tenant="t"} 2 1700000000000\n'
        "# TYPE traces_spanmetrics_calls_total counter\n"
        'traces_spanmetrics_calls_total{service="a"} 2 1700000000000\n'
        "# TYPE traces_spanmetrics_latency histogram\n"
        'traces_spanmetrics_latency_bucket{le="+Inf",service="a"} 2 1700000000000\n'
        'traces_spanmetrics_latency_count{service="a"} 2 1700000000000\n'
    )


@pytest.mark.prometheus
def test_promtool_makes_blocks_that_hold_exactly_the_samples(tmp_path: Path) -> None:
    odd_value = 'quote " backslash \\ newline \n tab \t carriage \r nul \x00 ü 漢 # {} = ,'
    series = [
        *HISTOGRAM,
        (
            labels("traces_spanmetrics_calls_total", service=odd_value),
            [Point(T0 + n * 15_000, n * 1.5) for n in range(600)],  # more than one block of two hours
        ),
        (
            labels("traces_spanmetrics_latency_bucket", service="b", le="+Inf"),
            [Point(T0 + 1, 1e-9, Seen((("traceID", "00ff"),), 0.5, T0 + 3))],
        ),
    ]
    file, blocks = tmp_path / "out.om", tmp_path / "blocks"
    file.write_bytes(b"".join(openmetrics(series)))
    assert promtool("tsdb", "create-blocks-from", "openmetrics", file, blocks).returncode == 0
    (blocks / "wal").mkdir()  # promtool opens blocks as a database, which has one
    dumped = promtool("tsdb", "dump", blocks, text=True)
    expected = sorted(
        f"{_dump_labels(series_labels)} {value_text(point.value)} {point.timestamp_ms}"
        for series_labels, points in series
        for point in points
    )
    assert sorted(line for line in dumped.stdout.splitlines() if line) == expected


def _dump_labels(series: Labels) -> str:
    """Labels as `promtool tsdb dump` prints them: with Go's quoting."""
    go = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\x00": "\\x00"}
    return "{" + ", ".join(f'{n}="{"".join(go.get(c, c) for c in v)}"' for n, v in series) + "}"


@pytest.mark.prometheus
def test_promtool_finds_nothing_wrong_with_the_exposition() -> None:
    newest = [(series_labels, points[-1].timestamp_ms, points[-1].value) for series_labels, points in HISTOGRAM]
    checked = promtool("check", "metrics", input=exposition(newest))
    assert b"error" not in checked.stderr.lower()
