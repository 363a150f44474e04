"""The verdict finds what it is there to find: each kind of wrong samples gives its own difference."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from agents.audit import Report
from schemas.openmetrics import Point, openmetrics
from streams.ledger_audit import Check
from tests.faults.orders import CALLS, LABELS, LATENCY, SPAN_LABELS, TRACES, Truth, templates
from tests.faults.verdict import (
    Labels,
    Points,
    after,
    falls,
    holes,
    last_window_ms,
    misplaced,
    replayed,
    unbalanced,
    unlike,
    unlike_truth,
    until,
)

SPAN = ("shop", "GET /", "SPAN_KIND_SERVER", "STATUS_CODE_UNSET")
MARKER = (("__name__", "spanmill_sink_window"), ("app", "app"))
BY_WINDOW = {10: 3, 30: 1}


def series(name: str, labels: tuple[str, ...], **more: str) -> Labels:
    named = dict(zip(LABELS.get(name, SPAN_LABELS), labels, strict=True))
    return tuple(sorted({"__name__": name, "app": "app", **named, **more}.items()))


def correct() -> tuple[Truth, dict[Labels, Points]]:
    """Three spans in the first window, none in the second, one in the third."""
    truth = Truth()
    for ms in (1, 3, 3, 100):
        truth.span(SPAN, ms)
    truth.edge("a", "b")
    samples: dict[Labels, Points] = {}
    for (name, labels), count in truth.counts.items():
        begin = 0.0 if name != CALLS else 3.0
        samples[series(name, labels)] = [(10, begin), (20, begin), (30, float(count))]
    samples[series(f"{LATENCY}_sum", SPAN)] = [(10, 0.007), (20, 0.007), (30, 0.107)]
    return truth, samples


def found(samples: Mapping[Labels, Points], truth: Truth) -> list[str]:
    return [
        difference.what
        for difference in (
            *unlike_truth(samples, truth),
            *falls(samples),
            *holes(samples, BY_WINDOW),
            *misplaced(samples, BY_WINDOW),
        )
    ]


def test_nothing_is_found_where_all_is_right() -> None:
    truth, samples = correct()
    assert found(samples, truth) == []
    assert list(unlike(samples, samples, "replay")) == []


@pytest.mark.parametrize(
    ("points", "wanted"),
    [
        ([(10, 3.0), (20, 3.0), (30, 5.0)], ["totals that aren't the log's", "windows that count other spans"]),
        ([(10, 2.0), (20, 3.0), (30, 4.0)], ["windows that count other spans"]),
        ([(10, 3.0), (20, 2.0), (30, 4.0)], ["samples lower than the one before", "windows that count other spans"]),
        ([(10, 3.0), (20, 4.0)], ["windows that count other spans"]),
    ],
)
def test_wrong_counts_are_found(points: Points, wanted: list[str]) -> None:
    truth, samples = correct()
    samples[series(CALLS, SPAN)] = points
    whats = found(samples, truth)
    assert len(whats) == len(wanted)
    assert all(what.startswith(begin) for what, begin in zip(whats, wanted, strict=True))


def test_a_window_that_is_missing_is_found_if_the_log_has_spans_in_it() -> None:
    _, samples = correct()
    samples[series(CALLS, SPAN)] = [(10, 3.0), (30, 4.0)]
    assert list(holes(samples, BY_WINDOW)) == []
    (hole,) = holes(samples, {10: 1, 20: 1, 30: 1})
    assert hole.count == 1


def test_series_that_tell_processes_apart_are_found() -> None:
    truth, samples = correct()
    truth.counts[CALLS, SPAN] *= 2
    samples[series(CALLS, SPAN, instance="generator-0")] = samples[series(CALLS, SPAN)]
    whats = [difference.what for difference in unlike_truth(samples, truth)]
    assert whats == ["label sets with two series", "labels that Tempo doesn't have"]
    assert list(unlike_truth(samples, truth, ["instance"])) == []


def test_sums_that_differ_are_found() -> None:
    truth, samples = correct()
    samples[series(f"{LATENCY}_sum", SPAN)][-1] = (30, 0.1070001)
    assert [difference.what for difference in unlike_truth(samples, truth)] == ["sums that aren't the log's"]


def test_samples_unlike_another_s_are_found() -> None:
    _, wanted = correct()
    samples = {labels: list(points) for labels, points in wanted.items()}
    samples[series("extra", SPAN)] = samples.pop(series(LATENCY + "_count", SPAN))
    calls = samples[series(CALLS, SPAN)]
    calls[0], calls[1] = (10, 4.0), (25, 3.0)
    assert [(difference.what, difference.count) for difference in unlike(samples, wanted, "replay")] == [
        ("series that only replay has", 1),
        ("series that replay doesn't have", 1),
        ("samples that only replay has", 1),
        ("samples that replay doesn't have", 1),
        ("samples other than those of replay", 1),
    ]


def test_openmetrics_text_gives_its_samples_again(tmp_path: Path) -> None:
    labels: Labels = (("__name__", "traces_x_total"), ("app", 'a "quoted" \\ one,\n'), ("le", "0.5"))
    path = tmp_path / "text"
    path.write_bytes(b"".join(openmetrics([(labels, [Point(1500, 0.1), Point(2000, 3.0)])])))
    assert replayed(path) == {labels: [(1500, 0.1), (2000, 3.0)]}


def test_samples_are_compared_up_to_the_window_that_every_shard_has() -> None:
    samples: dict[Labels, Points] = {
        (*MARKER, ("shard", "0")): [(10, 10.0), (20, 20.0)],
        (*MARKER, ("shard", "1")): [(10, 10.0)],
        series(CALLS, SPAN): [(10, 1.0), (20, 2.0)],
    }
    assert last_window_ms(samples) == 10
    assert until(samples, 10) == {series(CALLS, SPAN): [(10, 1.0)]}
    assert after(until(samples, 20), 10) == {series(CALLS, SPAN): [(20, 2.0)]}


def test_a_template_counts_ten_spans_of_each_trace() -> None:
    for template in templates():
        calls = {labels: count for (name, labels), count in template.truth.counts.items() if name == CALLS}
        assert sum(calls.values()) == 10 * TRACES
        assert len({service for service, *_ in calls}) == 4


def test_counts_that_do_not_balance_are_a_difference_that_names_stage_and_reason() -> None:
    right, short = Check("log to generator", "a", "spans", 5, 5), Check("calls in sink 1", "a", "calls", 5, 3, ("why",))
    assert list(unbalanced(Report((right,), ()))) == []
    (found,) = unbalanced(Report((right, short), ()))
    assert (found.count, found.examples) == (1, ("calls in sink 1, a: 2 calls of 5 why",))
    assert [each.count for each in unbalanced(Report((), ("nothing saved",)))] == [1]
