from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from schemas.config import HostInfoSettings, TenantSettings
from schemas.deltas import Window, encode_window
from schemas.otlp import Codec
from schemas.record import DEFAULT_TENANT, Record
from streams.partition import Closing, PartitionFold
from tests.otlp_samples import length_delimited
from tests.streams.log import (
    CLIENT,
    INTERVAL_MS,
    SECOND_NS,
    SERVER,
    T0_MS,
    Told,
    ledger,
    new_fold,
    record,
    records,
    samples,
    settings,
    tick,
    windows,
)

BOTH = settings(
    span_metrics={"dimensions": ("d",)},
    service_graphs={"dimensions": ("d", "e"), "enable_virtual_node_label": True, "max_items": 3},
)
CALLS = "traces_spanmetrics_calls_total"
LABELS = "{service=test-service,span_kind=SPAN_KIND_CLIENT,span_name=test,status_code=STATUS_CODE_OK}"
RECEIVED, OUTSIDE = (
    "spans_received_total",
    "spans_discarded_total{processor=all,reason=outside_metrics_ingestion_slack}",
)
SKIPPED = "metrics_generation_skipped_processor_pushes_total"


def ends(closed: Sequence[Window]) -> list[int]:
    """The windows' ends after T0_MS, in s."""
    return [(window.end_ms - T0_MS) // 1000 for window in closed]


def chain(closed: Sequence[Window]) -> list[int | None]:
    """The previous ends, likewise."""
    return [None if w.previous_end_ms is None else (w.previous_end_ms - T0_MS) // 1000 for w in closed]


def closed_by(fold: PartitionFold, *log: Record) -> list[Window]:
    return [window for closing in fold.feed(log).closings for window in closing.windows]


def encoded(closings: Sequence[Closing]) -> list[tuple[bytes, ...]]:
    """All bytes that leave a generator."""
    return [
        (
            *(part for w in closing.windows for parts in encode_window(w, 0, 2, 2) for part in parts),
            encode_checkpoint(closing.checkpoint),
        )
        for closing in closings
    ]


def test_a_window_closes_when_stream_time_reaches_its_end() -> None:
    fold = new_fold(BOTH)

    assert closed_by(fold, record(0, 0, Told()), record(1, 14_999, Told())) == []
    (window,) = closed_by(fold, record(2, 15_000, Told()))

    assert (ends([window]), chain([window])) == ([15], [None])
    assert samples([window])[CALLS + LABELS] == 2
    assert (fold.next_offset, fold.open_end_ms, fold.stream_time_ms) == (3, T0_MS + 30_000, T0_MS + 15_000)


def test_before_the_first_record_nothing_is_known() -> None:
    fold = new_fold(BOTH, checkpoint=Checkpoint.initial(42))

    assert (fold.next_offset, fold.open_end_ms, fold.stream_time_ms) == (42, None, None)
    assert fold.close_all() == []


def test_stream_time_never_goes_back() -> None:
    fold = new_fold(BOTH)
    assert closed_by(fold, record(0, 16_000, Told()), record(1, 0, Told())) == []

    (window,) = closed_by(fold, tick(2, 30_000))

    assert ends([window]) == [30]
    assert samples([window])[CALLS + LABELS] == 2


def test_ticks_close_windows_and_are_no_spans() -> None:
    closed = closed_by(
        new_fold(BOTH), tick(0, 0), record(1, 1, Told()), tick(2, 15_000), tick(3, 30_000), tick(4, 45_000)
    )

    assert (ends(closed), chain(closed)) == ([15, 30, 45], [None, 15, 30])
    assert [ledger([window]).get(RECEIVED, 0) for window in closed] == [1, 0, 0]


def test_windows_that_time_jumps_over_are_never_sent_but_for_the_one_before_the_records() -> None:
    waiting, paired = Told(), Told(kind=SERVER, service="b", parent=1, id=2)

    fold = new_fold(BOTH)
    (first,) = fold.feed([record(0, 14_000, waiting), tick(1, 3_600_000)]).closings
    assert (ends(first.windows), chain(first.windows)) == ([15, 3600], [None, 15])
    assert ledger(first.windows[1:]) == {
        "processor_service_graphs_expired_edges{unmatched_span_kind=SPAN_KIND_CLIENT}": 1
    }

    (only,) = new_fold(BOTH).feed([record(0, 14_000, waiting, paired), tick(1, 3_600_000)]).closings
    assert ends(only.windows) == [15]


def test_half_edges_that_expire_in_the_open_window_need_no_second_one() -> None:
    (closing,) = new_fold(BOTH).feed([record(0, 0, Told()), tick(1, 3_600_000)]).closings
    (early,) = new_fold(BOTH).feed([record(0, 5_000, Told()), tick(1, 3_600_000)]).closings

    assert (ends(closing.windows), ends(early.windows)) == ([15], [15])


def test_a_window_that_follows_is_not_closed_twice() -> None:
    (closing,) = new_fold(BOTH).feed([record(0, 14_000, Told()), tick(1, 15_000)]).closings

    assert ends(closing.windows) == [15]
    assert closing.checkpoint.half_edges.num_rows == 1


def test_a_checkpoint_names_the_closing_record_which_is_not_applied() -> None:
    log = [record(0, 14_000, Told()), record(7, 15_003, Told(service="b"))]
    (closing,) = new_fold(BOTH).feed(log).closings

    assert (closing.checkpoint.next_offset, closing.checkpoint.next_timestamp_ms) == (7, T0_MS + 15_003)
    assert (closing.checkpoint.previous_end_ms, closing.checkpoint.stream_time_ms) == (T0_MS + 15_000, T0_MS + 15_003)
    restored = new_fold(BOTH, checkpoint=closing.checkpoint)
    assert (restored.next_offset, restored.open_end_ms) == (7, T0_MS + 30_000)
    assert chain(closed_by(restored, log[1], tick(8, 30_000))) == [15]


def test_after_the_topic_was_replaced_windows_go_on_where_they_were() -> None:
    (closing,) = new_fold(BOTH).feed([record(0, 0, Told()), tick(1, 60_000)]).closings
    fold = new_fold(BOTH, checkpoint=closing.checkpoint.restarted(3))

    closed = closed_by(fold, record(3, 0, Told()), tick(4, 75_000))

    assert (ends(closed), chain(closed)) == ([75], [15])
    assert samples(closed)[CALLS + LABELS] == 1


def test_the_end_of_an_input_closes_until_nothing_waits() -> None:
    slow = settings(service_graphs={"wait_ms": 40_000})

    closed = windows(slow, records((0, [Told()])))

    assert (ends(closed), chain(closed)) == ([15, 30, 45], [None, 15, 30])


@pytest.mark.parametrize("offsets", [(5, 5), (5, 4)])
def test_records_that_come_again_are_refused(offsets: tuple[int, int]) -> None:
    fold = new_fold(BOTH)
    fold.feed([record(offsets[0], 0, Told())])

    with pytest.raises(ValueError, match="where 6 or later is next"):
        fold.feed([record(offsets[1], 0, Told())])


@pytest.mark.parametrize(
    ("end_ns", "kept"), [(30 * SECOND_NS, 1), (30 * SECOND_NS + 1, 0), (-30 * SECOND_NS, 1), (-30 * SECOND_NS - 1, 0)]
)
def test_int3_the_slack_includes_both_ends(end_ns: int, kept: int) -> None:
    closed = windows(BOTH, records((0, [Told(end_ns=end_ns)])))

    assert samples(closed).get(CALLS + LABELS, 0) == kept
    assert ledger(closed).get(OUTSIDE, 0) == 1 - kept
    assert ledger(closed)[RECEIVED] == 1


def test_the_slack_is_about_the_records_own_time_not_stream_time() -> None:
    """INT-5: unlike in Tempo a record's delay costs no span."""
    closed = windows(BOTH, [tick(0, 100_000), record(1, 0, Told())])

    assert samples(closed)[CALLS + LABELS] == 1


def test_int4_an_end_of_0_is_always_outside() -> None:
    told = Told(end_ns=-T0_MS * 10**6, latency_ns=0)
    everything = replace(BOTH, slack_ns=1 << 62)

    assert ledger(windows(everything, records((0, [told])))) == {
        RECEIVED: 1,
        OUTSIDE: 1,
        "bytes_received_total": len(record(0, 0, told).value) - 2,
    }


def test_int2_spans_and_bytes_are_counted_before_anything_is_discarded() -> None:
    """INT-2, INT-3, INT-6: bytes are those of each ResourceSpans; the reason exists where nothing is lost, too."""
    one, two = Told(name="n" * 100), Told(end_ns=60 * SECOND_NS)
    log = [record(0, 0, one, two, tenant="a"), record(1, 0, one, tenant="b"), record(2, 0, tenant="c")]
    (window,) = windows(replace(BOTH, service_graphs=None), log)
    sizes = [[each.ByteSize() for each in TracesData.FromString(record.value).resource_spans] for record in log]
    shown = {
        key.counter.rpartition("generator_")[2] + dict(key.labels)["tenant"]: n for key, n in window.ledger.items()
    }
    assert shown == {
        "spans_received_totala": 2,
        "bytes_received_totala": sum(sizes[0]),
        "spans_discarded_totala": 1,
        "spanmill_spans_measured_totala": 1,
        "spanmill_spans_passed_over_totala": 1,
        "spans_received_totalb": 1,
        "bytes_received_totalb": sum(sizes[1]),
        "spans_discarded_totalb": 0,
        "spanmill_spans_measured_totalb": 1,
        "spanmill_spans_passed_over_totalb": 1,
        "spans_received_totalc": 0,
        "bytes_received_totalc": 0,
        "spans_discarded_totalc": 0,
    }


@pytest.mark.parametrize(
    ("tenants", "processors"),
    [
        (settings(), 0),
        (settings(span_metrics={}), 1),
        (settings(service_graphs={}, host_info=HostInfoSettings(("host.id",), "traces_host_info")), 2),
        (settings(span_metrics={}, service_graphs={}, host_info=HostInfoSettings(("host.id",), "hosts")), 3),
    ],
)
def test_int7_each_processor_that_runs_counts_a_skipped_request(tenants: TenantSettings, processors: int) -> None:
    """INT-7, INT-1: a request is a record, or each trace of a push-bytes record."""
    value = record(0, 0, Told()).value
    log = [Record(0, T0_MS, value, no_metrics=True), Record(1, T0_MS, value)]
    assert ledger(windows(tenants, log)).get(SKIPPED, 0) == processors
    trace = length_delimited(2, value)
    fold = PartitionFold(lambda _: tenants, INTERVAL_MS, Codec.PUSH_BYTES)
    fold.feed([Record(0, T0_MS, trace + trace + b"\x28\x01"), Record(1, T0_MS, trace)])
    assert ledger(fold.close_all()).get(SKIPPED, 0) == 2 * processors


def test_int7_a_record_that_must_not_be_measured_is_counted_only() -> None:
    closed = windows(
        BOTH, [record(0, 0, Told(), Told(end_ns=60 * SECOND_NS), no_metrics=True), record(1, 0, no_metrics=True)]
    )

    assert samples(closed) == {}
    assert {name: n for name, n in ledger(closed).items() if "bytes" not in name} == {
        RECEIVED: 2,
        OUTSIDE: 1,
        SKIPPED: 4,
        "spanmill_spans_passed_over_total{processor=all,reason=no_metrics}": 1,
    }


def test_a_record_that_cannot_be_read_is_handed_back_whole_and_time_goes_on() -> None:
    bad = Record(1, T0_MS + 15_000, b"\x0a\x7f")
    fed = new_fold(BOTH).feed([record(0, 0, Told()), bad, record(2, 15_000, Told())])

    (rejected,) = fed.rejected
    assert (rejected.offset, rejected.timestamp_ms, rejected.value) == (1, bad.timestamp_ms, bad.value)
    assert rejected.reason
    assert fed.closings[0].checkpoint.next_offset == 1
    assert samples(fed.closings[0].windows)[CALLS + LABELS] == 1


def test_settings_are_asked_for_once_per_tenant_and_window() -> None:
    asked: list[str] = []

    def settings_of(tenant: str) -> TenantSettings:
        asked.append(tenant)
        return BOTH

    fold = PartitionFold(settings_of, INTERVAL_MS, Codec.OTLP)
    fold.feed([record(i, 14_000 + i, Told(), tenant=tenant) for i, tenant in enumerate("abab")])
    fold.feed([record(9, 15_000, Told(), tenant="a")])

    # The tenants of half-edges that wait are known from the new window's start.
    assert asked == ["a", "b", "a", "b"]


def test_long_inputs_are_decoded_in_pieces() -> None:
    log = records(*((i * 400, [Told(id=i + 1), Told(service="b", kind=SERVER, parent=i, id=99)]) for i in range(60)))

    whole, pieces = (encoded(new_fold(BOTH, max_frame_bytes=size).feed(log).closings) for size in (1 << 20, 500))

    assert pieces == whole


VALUES = st.sampled_from(["", "x", 5])
SPANS = st.builds(
    Told,
    service=st.sampled_from(["a", "b", "", None]),
    kind=st.integers(2, 5),
    id=st.integers(1, 6),
    parent=st.sampled_from([b"", 1, 2, 3, 4]),
    trace=st.integers(1, 3),
    latency_ns=st.sampled_from([0, 7, SECOND_NS]),
    attributes=st.dictionaries(st.sampled_from(["d", "e", "peer.service", "network.peer.port"]), VALUES, max_size=3),
)
RECORDS = st.tuples(
    st.sampled_from([0, 1, 3000, 9000, 15_000, 50_000, -2000]),
    st.sampled_from([None, "t", DEFAULT_TENANT, DEFAULT_TENANT]),
    st.lists(SPANS, max_size=4),
)


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Records and ticks, their offsets with gaps."""
    log: list[Record] = []
    time = offset = 0
    for step, tenant, spans in draw(st.lists(RECORDS, max_size=14)):
        time, offset = time + step, offset + draw(st.integers(1, 2))
        bad = draw(st.sampled_from([False] * 9 + [True]))
        made = tick(offset, time) if tenant is None else record(offset, time, *spans, tenant=tenant)
        log.append(made._replace(value=b"\xff") if bad and made.control is None else made)
    return log


@hypothesis.settings(deadline=None, max_examples=60)
@given(logs(), st.data())
def test_any_chunks_give_the_same_bytes(log: list[Record], data: st.DataObject) -> None:
    whole = new_fold(BOTH)
    expected = whole.feed(log)

    chunked = new_fold(BOTH)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=5)))
    fed = [chunked.feed(log[a:b]) for a, b in zip([0, *cuts], [*cuts, len(log)], strict=True)]

    assert encoded([c for one in fed for c in one.closings]) == encoded(expected.closings)
    assert [r for one in fed for r in one.rejected] == list(expected.rejected)
    assert ends(chunked.close_all()) == ends(whole.close_all())


@hypothesis.settings(deadline=None, max_examples=60)
@given(logs())
def test_from_any_checkpoint_the_same_bytes_follow(log: list[Record]) -> None:
    whole = new_fold(BOTH)
    closings = whole.feed(log).closings
    rest = last_windows(whole)

    for n, closing in enumerate(closings):
        restored = new_fold(BOTH, checkpoint=decode_checkpoint(encode_checkpoint(closing.checkpoint)))
        again = restored.feed([each for each in log if each.offset >= closing.checkpoint.next_offset]).closings

        assert encoded(again) == encoded(closings[n + 1 :])
        assert last_windows(restored) == rest


def last_windows(fold: PartitionFold) -> list[Any]:
    return [encode_window(window, 0, 2, 2) for window in fold.close_all()]


def test_the_bytes_of_a_window_depend_on_its_number_of_kind_client_spans() -> None:
    """The comparisons above see a difference of one span."""
    one, two = ([record(0, 0, *[Told(kind=CLIENT)] * n), tick(1, 15_000)] for n in (1, 2))

    assert encoded(new_fold(BOTH).feed(one).closings) != encoded(new_fold(BOTH).feed(two).closings)
