"""The remote-write endpoint: what its answers mean, and that no answer costs a sample that could be stored."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from agents.own_metrics import OwnMetrics
from agents.remote_write.answers import LONGEST_WAIT_S, Answer, classify, retry_after_s
from agents.remote_write.requests import chunks
from agents.remote_write.series import FORGET_EVERY_WINDOWS, UNUSED_WINDOWS, SeriesOfTenants
from schemas.config.relabel import RelabelConfig
from schemas.metric_families import WINDOW_MARKER as MARKER
from schemas.remote_write import Row, encode_series_labels
from streams.relabel import Relabelling
from streams.series import Labels, Sample, Series
from streams.shard import TenantSamples, WindowSamples
from tests.agents.windows import END_MS, endpoint, value_of, window
from tests.servers.prometheus import Prometheus
from tests.servers.remote_write_receiver import Received, Receiver, Reply

FAST = {"min_backoff": "1ms", "max_backoff": "5ms"}
STORAGE = "prometheus_remote_storage_"


@pytest.mark.parametrize(
    ("status", "text", "meaning"),
    [
        (204, "", Answer.STORED),
        (200, "", Answer.STORED),
        (307, "", Answer.DENIED),
        (400, "out of order sample", Answer.OUT_OF_ORDER),
        (400, "out of bounds", Answer.TOO_OLD),
        (500, "too old sample", Answer.TOO_OLD),
        (400, "duplicate sample for timestamp", Answer.DUPLICATE),
        (400, 'label name "" is invalid', Answer.BAD),
        (422, "", Answer.BAD),
        (413, "", Answer.TOO_LARGE),
        (415, "", Answer.WRONG_PROTOCOL),
        (401, "", Answer.DENIED),
        (403, "", Answer.DENIED),
        (404, "", Answer.DENIED),
        (408, "", Answer.BUSY),
        (429, "", Answer.BUSY),
        (500, "", Answer.BUSY),
        (503, "out of order", Answer.BUSY),
    ],
)
def test_st_9_answers_and_their_meaning(status: int, text: str, meaning: Answer) -> None:
    """ST-9."""
    assert classify(status, text) is meaning


NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 12 ", 12.0),
        ("0", None),
        ("-3", None),
        ("soon", None),
        ("99999999999999", LONGEST_WAIT_S),
        (format_datetime(NOW + timedelta(seconds=20), usegmt=True), 20.0),
        (format_datetime(NOW - timedelta(seconds=20), usegmt=True), None),
        ("Sat, 31 Jan 2026 12:00:05 -0000", 5.0),
    ],
)
def test_retry_after_has_seconds_or_a_date(header: str | None, wait_s: float | None) -> None:
    assert retry_after_s(header, NOW) == wait_s


async def written(
    rule: Callable[[Received], Reply], *windows: WindowSamples, **keys: Any
) -> tuple[Receiver, OwnMetrics]:
    """What a receiver with that rule got, and was made of it."""
    metrics = OwnMetrics()
    keys = {"queue_config": FAST, "metadata_config": {"send": False}, **keys}
    async with Receiver(rule).serve() as receiver, endpoint(metrics, url=receiver.url, **keys) as writer:
        for each in windows:
            await writer.write(each)
    return receiver, metrics


def stored(_: Received) -> Reply:
    return Reply()


def answering(*replies: Reply) -> Callable[[Received], Reply]:
    """These replies one after the other, then "stored"."""
    left = iter(replies)
    return lambda _: next(left, Reply())


def refused(metrics: OwnMetrics, reason: str) -> float:
    return value_of(metrics, "spanmill_sink_refused_samples_total", endpoint="here", reason=reason)


def storage(metrics: OwnMetrics, receiver: Receiver, name: str, **labels: str) -> float:
    """One of Prometheus' own metrics of the queue."""
    return value_of(metrics, f"{STORAGE}{name}", tenant="single-tenant", remote_name="here", url=receiver.url, **labels)


async def test_a_marker_then_zeros_then_values() -> None:
    receiver, _ = await written(stored, window())
    assert receiver.requests == [[MARKER], ["m0"], ["m0", "m1", "m2"]]
    assert receiver.stored == [
        (MARKER, float(END_MS), END_MS),
        ("m0", 0.0, END_MS - 5000),
        ("m0", 1.0, END_MS),
        ("m1", 2.0, END_MS),
        ("m2", 3.0, END_MS),
    ]
    assert receiver.received[0].series[0].labels == {"__name__": MARKER, "app": "app", "shard": "3"}


async def test_st_4_exemplars_are_sent() -> None:
    """ST-4."""
    receiver, _ = await written(stored, window())
    assert [series.exemplars for series in receiver.received[-1].series] == [
        [{"traceID": "0af7651916cd43dd8448eb211c80319c"}],
        [],
        [],
    ]


async def test_a_window_that_is_sent_again_is_the_same_to_the_byte() -> None:
    receiver, _ = await written(stored, window(), window())
    first, second = receiver.received[:3], receiver.received[3:]
    assert [each.series for each in first] == [each.series for each in second]


async def test_a_window_that_the_endpoint_has_is_skipped() -> None:
    receiver, metrics = await written(lambda _: Reply(400, "out of order sample"), window())
    assert receiver.requests == [[MARKER]]
    assert value_of(metrics, "spanmill_sink_windows_skipped_total", endpoint="here", reason="stored") == 1


@pytest.mark.parametrize(("status", "text"), [(400, "out of bounds"), (500, "too old sample")])
async def test_a_window_that_is_too_old_is_counted_as_possibly_stored(status: int, text: str) -> None:
    receiver, metrics = await written(lambda _: Reply(status, text), window())
    assert receiver.requests == [[MARKER]]
    assert value_of(metrics, "spanmill_sink_windows_skipped_total", endpoint="here", reason="possibly stored") == 1


async def test_st_9_one_bad_series_costs_no_other() -> None:
    """ST-9, REG-4, REG-5: Prometheus drops the whole request; here a refused sample is counted and costs no other."""
    receiver, metrics = await written(
        lambda request: Reply(400, "bad label") if "m5" in request.names else Reply(), window(count=9, zeros=0)
    )
    assert {name for name, _, _ in receiver.stored} == {MARKER, *(f"m{i}" for i in range(9) if i != 5)}
    assert refused(metrics, "bad") == 1
    assert storage(metrics, receiver, "samples_failed_total") == 1
    assert storage(metrics, receiver, "samples_total") == 9, (
        "each once, however often it was sent; markers aren't counted"
    )


async def test_a_refused_zero_costs_no_value() -> None:
    def rule(request: Received) -> Reply:
        zero = any(value == 0.0 for series in request.series for value, _ in series.samples)
        return Reply(400, "out of order sample") if zero else Reply()

    receiver, metrics = await written(rule, window(zeros=2))
    assert [(name, value) for name, value, _ in receiver.stored[1:]] == [("m0", 1.0), ("m1", 2.0), ("m2", 3.0)]
    assert refused(metrics, "out of order") == 2


async def test_a_request_that_is_too_large_is_split() -> None:
    receiver, metrics = await written(
        lambda request: Reply(413) if len(request.series) > 2 else Reply(), window(count=7)
    )
    assert len(receiver.stored) == 1 + 1 + 7
    assert refused(metrics, "too large") == 0


async def test_st_9_what_may_pass_is_tried_again_in_order() -> None:
    """ST-9: 429 too, whatever `retry_on_http_429` says."""
    replies = [Reply(503), Reply(429), Reply(401), Reply(500), Reply(404)]
    receiver, metrics = await written(answering(*replies), window())
    assert receiver.requests[:6] == [[MARKER]] * 6
    assert len(receiver.stored) == 5
    assert storage(metrics, receiver, "samples_retried_total") == 5


@pytest.mark.parametrize("status", [429, 503])
async def test_an_endpoint_says_when_to_come_back(status: int) -> None:
    began = time.monotonic()
    await written(answering(Reply(status, headers={"Retry-After": "1"})), window())
    assert 1 <= time.monotonic() - began < 20


async def test_back_off_is_as_configured() -> None:
    began = time.monotonic()
    slow = {"queue_config": {"min_backoff": "400ms", "max_backoff": "400ms"}}
    await written(answering(Reply(500), Reply(500), Reply(500)), window(), **slow)
    assert time.monotonic() - began >= 3 * 0.2, "at least half of each"


async def test_st_3_a_request_has_so_many_samples_at_most() -> None:
    """ST-3: max_samples_per_send."""
    receiver, _ = await written(stored, window(count=7, zeros=0), queue_config={"max_samples_per_send": 3})
    assert [len(names) for names in receiver.requests] == [1, 3, 3, 1]


def test_a_request_has_so_many_bytes_at_most() -> None:
    rows = [Row(encode_series_labels((("__name__", "x" * size),)), 1.0, 1) for size in (100, 100, 900, 100, 100)]
    assert [len(chunk) for chunk in chunks(rows, 1000, 400)] == [2, 1, 2]
    assert [row for chunk in chunks(rows, 2, 400) for row in chunk] == rows
    assert [len(chunk) for chunk in chunks(rows, 1000, 1)] == [1] * 5


async def test_st_3_samples_over_the_age_limit_are_not_sent() -> None:
    """ST-3: sample_age_limit."""
    receiver, metrics = await written(stored, window(), queue_config={"sample_age_limit": "1h"})
    assert receiver.received == []
    assert storage(metrics, receiver, "samples_dropped_total", reason="too_old") == 4


async def test_st_3_series_are_relabelled_but_the_marker_is_not() -> None:
    """ST-3: write_relabel_configs."""
    rules = [
        {"source_labels": ["__name__"], "regex": "m1|spanmill.*", "action": "drop"},
        {"regex": "pod", "action": "labeldrop"},
        {"target_label": "cluster", "replacement": "east"},
        {"source_labels": ["__name__"], "regex": "m(.*)", "target_label": "__name__", "replacement": "n$1"},
    ]
    receiver, metrics = await written(stored, window(), window(end_ms=END_MS + 5000), write_relabel_configs=rules)
    assert receiver.requests == [[MARKER], ["n0"], ["n0", "n2"]] * 2
    assert receiver.received[2].series[1].labels == {"__name__": "n2", "cluster": "east"}
    assert storage(metrics, receiver, "samples_dropped_total", reason="dropped_series") == 2


async def test_st_11_the_queue_is_shown_under_prometheus_names() -> None:
    """ST-11."""
    receiver, metrics = await written(stored, window())
    assert storage(metrics, receiver, "samples_total") == 4
    assert storage(metrics, receiver, "exemplars_total") == 1
    assert storage(metrics, receiver, "samples_failed_total") == 0
    assert storage(metrics, receiver, "samples_pending") == 0
    assert storage(metrics, receiver, "bytes_total") > 100
    assert storage(metrics, receiver, "queue_highest_sent_timestamp_seconds") == END_MS / 1000
    assert storage(metrics, receiver, "max_samples_per_send") == 2000
    assert storage(metrics, receiver, "sent_batch_duration_seconds_count") == 3
    metrics.remote_storage.completed("single-tenant", END_MS)
    assert value_of(metrics, f"{STORAGE}highest_timestamp_in_seconds", tenant="single-tenant") == END_MS / 1000


@pytest.mark.prometheus
async def test_prometheus_takes_a_window_twice_and_skips_an_earlier_one(prometheus: Prometheus) -> None:
    metrics = OwnMetrics()
    now_ms = int(time.time()) // 5 * 5000

    def at(end_ms: int, value: float) -> WindowSamples:
        series = Series((("__name__", "remote_write_test"), ("job", "repeat")))
        samples = TenantSamples("single-tenant", end_ms - 5000, [], [Sample(series, value)], 1, 0)
        return WindowSamples(0, end_ms - 5000, end_ms, (samples,), 0)

    async with endpoint(metrics, url=prometheus.write_url) as writer:
        for end_ms, value in ((now_ms - 5000, 1.0), (now_ms, 2.0), (now_ms, 2.0), (now_ms - 5000, 1.0)):
            await writer.write(at(end_ms, value))
    samples = prometheus.samples('remote_write_test{job="repeat"}', 60, at=now_ms / 1000 + 1)
    assert list(samples.values()) == [[((now_ms - 5000) / 1000, 1.0), (now_ms / 1000, 2.0)]]
    assert value_of(metrics, "spanmill_sink_windows_skipped_total", endpoint="here", reason="stored") == 1


class Counting(Relabelling):
    """Counts how often it is asked."""

    asked = 0

    def apply(self, labels: Labels) -> Labels | None:
        self.asked += 1
        return super().apply(labels)


def test_a_series_is_relabelled_once_in_its_life() -> None:
    rules = Counting([RelabelConfig(target_label="cluster", replacement="east")])
    tenants = SeriesOfTenants(rules)
    (samples,) = window(count=3, zeros=2).tenants
    for _ in range(4):
        series = tenants.of(3, "team-a")
        rows = [*series.rows(samples.zeros, 1), *series.rows(samples.values, 2)]
        assert all(b"cluster" in row.labels_block for row in rows)
    assert rules.asked == 3
    for _ in range(2 * FORGET_EVERY_WINDOWS):
        tenants.of(3, "team-a")
    list(tenants.of(3, "team-a").rows(samples.values, 3))
    assert rules.asked == 6


def test_series_of_a_shard_that_is_gone_are_forgotten() -> None:
    tenants = SeriesOfTenants(Relabelling([]))
    tenants.of(1, "team-a")
    for _ in range(2 * UNUSED_WINDOWS + 2):
        tenants.of(2, "team-a")
    assert list(tenants._kept) == [(2, "team-a")]
