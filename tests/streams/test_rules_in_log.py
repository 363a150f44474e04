"""Configuration in the log: whoever reads the same records follows the same rules, from the same window on.

Tempo applies a change of its own overrides every 10 s (INST-3), each process by its own file; here the log decides.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from schemas.config import load_config
from schemas.config.rules import Rules
from schemas.control import ConfigChange, decode_control
from schemas.deltas import NO_ROUTED_ROWS, Window, decode_batch, encode_window
from schemas.errors import Malformed
from schemas.otlp import Codec
from schemas.record import Record
from schemas.rules_in_force import Decided, RulesInForce, decode_rules, encode_rules
from schemas.snapshot import Cut, newest_snapshot, snapshot_records
from streams.partition import PartitionFold, Rejected
from streams.pipeline import Pipeline
from streams.rules_in_force import SEEN_AT_MOST, at_window, decided, heard
from streams.shard import Shard, WindowSamples
from tests.streams.delta_rows import batch, text
from tests.streams.log import CLIENT, INTERVAL_MS, SERVER, T0_MS, Told, ledger, record, samples, tick

BOTH = "processors: [span-metrics, service-graphs]"
VARIANTS = (
    BOTH,
    BOTH + ", processor: {span_metrics: {dimensions: [d]}, service_graphs: {dimensions: [d]}}",
    BOTH + ", processor: {span_metrics: {histogram_buckets: [0.5, 2]}}",
    "processors: [span-metrics-count], max_active_series: 3",
    BOTH + ", generate_native_histograms: both, collection_interval: 30s",
    "processors: [service-graphs], processor: {service_graphs: {enable_virtual_node_label: true}}",
    "processors: [host-info], disable_collection: true",
)


@cache
def rules(defaults: str = BOTH, registry: str = "", max_half_edge_bytes: int = 1 << 20) -> Rules:
    overrides = f"overrides: {{defaults: {{metrics_generator: {{{defaults}}}}}}}"
    return Rules.of(
        load_config(None, f"metrics_generator: {{registry: {{{registry}}}}}\n{overrides}"), max_half_edge_bytes
    )


ALL_RULES = (
    *(rules(variant) for variant in VARIANTS),
    rules(registry="external_labels: {cluster: a}, stale_duration: 40s"),
    rules(max_half_edge_bytes=300),
)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6), st.integers(0, 3)), max_size=6),
    st.randoms(),
    st.booleans(),
)
def test_the_count_of_a_window_is_the_largest_that_was_named_for_it_or_before(named, shuffle, begun) -> None:
    """In any order and however often, and whatever becomes of the rules that were named with it."""
    state = RulesInForce.initial(ALL_RULES[0], spans_partitions=2 if begun else 0)
    known = [(from_window * INTERVAL_MS, count, revision) for from_window, count, revision in named]
    for from_end_ms, count, revision in shuffle.sample(known * 2, 2 * len(known)):
        packed = ALL_RULES[revision].packed
        state = heard(state, decided(ConfigChange(revision, from_end_ms, packed, "test", count), INTERVAL_MS), 0)
    state = decode_rules(encode_rules(at_window(state, 4 * INTERVAL_MS)))
    first = {
        window: max([c for f, c, _ in known if f <= window * INTERVAL_MS] + [2] * begun, default=0)
        for window in range(12)
    }
    assert {window: state.spans_partitions(window * INTERVAL_MS) for window in range(12)} == first
    for partition in range(6):
        joined = next((window for window, count in first.items() if count > partition), None)
        expected = None if joined is None else joined * INTERVAL_MS
        assert state.joined_ms(partition) == expected


def test_a_shard_sees_batches_that_are_made_by_older_rules_than_it_knows_for_their_window() -> None:
    shard = Shard(0, rules().settings_of, INTERVAL_MS, RulesInForce.initial(rules()))

    def deliver(offset: int, partition: int, number: int, revision: int) -> bool:
        end_ms = T0_MS + number * INTERVAL_MS
        previous_ms = end_ms - INTERVAL_MS if number > 1 else None
        shard.feed(offset, batch(Window(end_ms, previous_ms, NO_ROUTED_ROWS, (), {}, revision), partition, 2))
        return shard.others_lag

    shard.feed(0, change(1, rules(VARIANTS[2]), 30))
    assert not deliver(1, 0, 1, 0)
    assert not deliver(2, 1, 1, 0)
    assert not deliver(3, 0, 2, 1)
    assert deliver(4, 1, 2, 0), "partition 1 didn't get the record"
    assert deliver(5, 1, 3, 0)
    assert not deliver(6, 1, 4, 1), "it was repeated"


def change(revision: int, of: Rules, from_s: int = 0) -> ConfigChange:
    return ConfigChange(revision, T0_MS + from_s * 1000, of.packed, "test", 1)


def config(offset: int, at_s: float, changed: ConfigChange) -> Record:
    return Record(offset, T0_MS + int(at_s * 1000), b"", control=changed)


def spans(offset: int, at_s: float, *told: Told, tenant: str = "a") -> Record:
    return record(offset, int(at_s * 1000), *(told or (Told(attributes={"d": "x"}),)), tenant=tenant)


def no_settings(tenant: str) -> Any:
    raise AssertionError("the log's rules decide")


def fold_from(checkpoint: Checkpoint) -> PartitionFold:
    return PartitionFold(no_settings, INTERVAL_MS, Codec.OTLP, checkpoint)


def new_fold() -> PartitionFold:
    return fold_from(Checkpoint.initial(0, RulesInForce.initial(rules())))


def closed_by(fold: PartitionFold, *log: Record) -> tuple[list[Window], tuple[Rejected, ...]]:
    fed = fold.feed(log)
    return [window for closing in fed.closings for window in closing.windows], fed.rejected


def calls(window: Window) -> dict[str, float]:
    return {name: value for name, value in samples([window]).items() if "calls_total" in name}


WITH_D = rules(VARIANTS[1])


def test_a_change_holds_from_the_window_it_names() -> None:
    """INST-3, INST-7: the next windows' series have the new dimension, and nothing that was counted is touched."""
    log = [spans(0, 1), config(1, 2, change(1, WITH_D, 45)), spans(2, 16), spans(3, 31), tick(4, 45_000)]

    closed, rejected = closed_by(new_fold(), *log)

    assert [window.revision for window in closed] == [0, 0, 1]
    assert [sum("d=x" in name for name in calls(window)) for window in closed] == [0, 0, 1]
    assert [sum(calls(window).values()) for window in closed] == [1, 1, 1]
    assert rejected == ()


def test_a_change_that_is_read_late_holds_from_the_window_after_the_open_one() -> None:
    log = [spans(0, 16), config(1, 17, change(1, WITH_D, -600)), spans(2, 18), spans(3, 31), tick(4, 45_000)]

    closed, _ = closed_by(new_fold(), *log)

    assert [(window.revision, *map(bool, calls(window))) for window in closed] == [(0, True), (1, True)]
    assert [sum("d=x" in name for name in calls(window)) for window in closed] == [0, 1]


def test_the_highest_revision_wins_and_a_lower_one_changes_nothing() -> None:
    other, third = rules(VARIANTS[2]), rules(VARIANTS[3])
    fold = new_fold()
    fold.feed(
        [config(0, 0, change(5, WITH_D, 15)), config(1, 1, change(4, other, 15)), config(2, 2, change(6, third, 30))]
    )
    state = fold.rules

    assert state is not None
    assert (state.current.revision, state.newest.revision, state.newest.rules) == (0, 6, third)
    assert state.seen == ((4, other.digest), (5, WITH_D.digest), (6, third.digest))


@hypothesis.settings(deadline=None)
@given(st.permutations([1, 1, 2, 2, 3]), st.data())
def test_the_order_of_arrival_is_no_matter(revisions: list[int], data: st.DataObject) -> None:
    decided = [
        Decided(revision, 15_000 * data.draw(st.integers(2, 5)), data.draw(st.sampled_from(ALL_RULES)))
        for revision in revisions
    ]
    states = []
    for order in (decided, sorted(decided, key=lambda each: each.rank), decided[::-1] + decided):
        state = RulesInForce.initial(rules())
        for each in order:
            state = heard(state, each, 30_000)
        states.append(state)

    assert states[0] == states[1] == states[2]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), max_size=12))
def test_in_each_window_the_highest_revision_holds_of_those_that_name_it_or_an_earlier_one(
    named: list[tuple[int, int]],
) -> None:
    state = RulesInForce.initial(rules())
    for revision, window in named:
        state = heard(state, Decided(revision, 15_000 * window, ALL_RULES[revision]), 0)
    for window in range(8):
        state = at_window(state, 15_000 * window)
        assert state.current.revision == max((revision for revision, at in named if at <= window), default=0)


def test_the_same_revision_again_may_only_bring_it_forward() -> None:
    """Somebody appends again what was half appended."""
    state = heard(RulesInForce.initial(rules()), Decided(1, 60_000, WITH_D), 15_000)
    assert heard(state, Decided(1, 90_000, WITH_D), 15_000) == state
    forward = heard(state, Decided(1, 30_000, WITH_D), 45_000)
    assert [each.from_end_ms for each in forward.coming] == [45_000]
    assert at_window(forward, 30_000) == forward
    in_force = at_window(forward, 45_000)
    assert (in_force.current.revision, in_force.coming) == (1, ())
    assert heard(in_force, Decided(1, 30_000, WITH_D), 60_000) == in_force


def test_only_so_many_rules_are_remembered() -> None:
    state = RulesInForce.initial(rules())
    for revision in range(1, 2 * SEEN_AT_MOST):
        state = heard(state, Decided(revision, 0, ALL_RULES[revision % 7]), 0)
    assert len(state.seen) == SEEN_AT_MOST
    assert state.seen[-1] == (2 * SEEN_AT_MOST - 1, state.newest.rules.digest)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (change(1, rules(registry="collection_interval: 30s"), 15), "a collection_interval of 30000 ms"),
        (ConfigChange(1, T0_MS, b"\0\0\0\1x", "newer", 1), "no zstd frame"),
        (ConfigChange(1, T0_MS, b"", "newer", 1), "rules"),
    ],
    ids=["other windows", "damaged", "empty"],
)
def test_rules_that_cannot_be_followed_are_rejected_and_change_nothing(changed: ConfigChange, reason: str) -> None:
    fold = new_fold()

    closed, (rejected,) = closed_by(fold, spans(0, 1), config(1, 2, changed), spans(2, 16), tick(3, 30_000))

    assert (rejected.offset, decode_control(rejected.value)) == (1, changed)
    assert reason in rejected.reason
    assert [window.revision for window in closed] == [0, 0]
    assert fold.rules == RulesInForce.initial(rules())


def test_half_edges_outlive_a_change() -> None:
    """INST-7: Tempo loses all that is pending when it replaces a processor; here an edge is completed."""
    server = Told("shop", SERVER, 2, 1, attributes={"d": "x"})
    log = [
        spans(0, 14, Told("web", CLIENT, 1)),
        config(1, 14, change(1, WITH_D, 30)),
        spans(2, 16, server),
        tick(3, 30_000),
    ]

    closed, _ = closed_by(new_fold(), *log)

    (edge,) = (name for name in samples(closed) if "request_total" in name)
    assert edge == "a traces_service_graph_request_total{client=web,d=x,server=shop}"


def test_a_tenant_begins_with_its_first_record_and_never_ends() -> None:
    """INST-1, INST-2: nothing has to be built that could fail, so no record is dropped while that is tried again."""
    fold = new_fold()
    closed, _ = closed_by(
        fold, spans(0, 1), spans(1, 2, tenant="b"), *(tick(2 + i, 15_000 * (i + 1)) for i in range(40))
    )

    assert {name.split()[0] for name in calls(closed[0])} == {"a", "b"}
    assert set(fold.tenants) == {"a", "b"}


# Any course of events


def course(data: st.DataObject, steps: int = 14) -> list[Record]:
    """Spans of two tenants, halves of edges that fit, idle times and changes of rules."""
    log: list[Record] = []
    at_ms = 0
    for offset in range(steps):
        at_ms += data.draw(st.sampled_from((0, 700, 6_000, 14_000, 47_000)), "time")
        kind = data.draw(st.sampled_from(("span", "span", "halves", "tick", "config")), "kind")
        tenant = data.draw(st.sampled_from("ab"), "tenant")
        if kind == "span":
            log.append(record(offset, at_ms, Told(attributes={"d": f"{offset % 3}"}), tenant=tenant))
        elif kind == "halves":
            trace = data.draw(st.integers(1, 3), "trace")
            half = data.draw(
                st.sampled_from((Told("web", CLIENT, 1, trace=trace), Told("shop", SERVER, 2, 1, trace=trace))), "half"
            )
            log.append(record(offset, at_ms, half, tenant=tenant))
        elif kind == "tick":
            log.append(tick(offset, at_ms))
        else:
            of = data.draw(st.sampled_from(ALL_RULES), "rules")
            changed = change(
                data.draw(st.integers(1, 4), "revision"), of, at_ms // 1000 + data.draw(st.integers(-20, 60))
            )
            log.append(Record(offset, T0_MS + at_ms, b"", control=changed))
    return log


def chunks(log: Sequence[Record], data: st.DataObject) -> list[Sequence[Record]]:
    ends = sorted({*data.draw(st.lists(st.integers(0, len(log)), max_size=4), "chunks"), len(log)})
    return [log[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def left(fold: PartitionFold, fed: Sequence[Sequence[Record]]) -> list[bytes]:
    """All that leaves a generator: batches and checkpoints."""
    out: list[bytes] = []
    for records in fed:
        for closing in fold.feed(records).closings:
            out += [part for w in closing.windows for parts in encode_window(w, 0, 1, 2) for part in parts]
            out.append(encode_checkpoint(closing.checkpoint))
    return out


@hypothesis.settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_chunks_and_any_restart_follow_the_same_rules(data: st.DataObject) -> None:
    """Also INST-13: a stage that stops writes nothing of its open window, whoever goes on computes it again."""
    log = course(data)
    whole = left(new_fold(), [log])
    assert left(new_fold(), chunks(log, data)) == whole

    closings = new_fold().feed(log).closings
    if closings:
        saved = encode_checkpoint(data.draw(st.sampled_from(closings)).checkpoint)
        start = decode_checkpoint(saved)
        rest = log[start.next_offset :]
        assert left(fold_from(start), chunks(rest, data)) == whole[whole.index(saved) + 1 :]


def deltas_of(log: Sequence[Record], choose: random.Random) -> list[Any]:
    """What one shard's partition of the deltas topic may hold: batches in their order, changes anywhere, repeated."""
    fold = new_fold()
    items: list[Any] = []
    for closing in fold.feed(log).closings:
        for window in closing.windows:
            items += [decode_batch(part) for part in encode_window(window, 0, 1, 1)[0]]
    for each in [r.control for r in log if isinstance(r.control, ConfigChange)]:
        for _ in range(choose.choice((1, 2))):
            items.insert(choose.randrange(len(items) + 1), each)
    return items


def completed(shard: Shard, items: Sequence[Any]) -> list[WindowSamples]:
    return [
        window
        for offset in range(shard.next_offset, len(items))
        for window in shard.feed(offset, items[offset]).windows
    ]


def new_shard(*, provisional: bool = True) -> Shard:
    return Shard(0, no_settings, INTERVAL_MS, RulesInForce.initial(rules()), provisional=provisional)


def through_a_table(cut: Cut) -> Cut:
    found = newest_snapshot(dict(snapshot_records(cut, b"\1")), cut.shard)
    assert found is not None
    return found.cut


@hypothesis.settings(deadline=None, max_examples=60)
@given(st.data(), st.builds(random.Random, st.integers(0, 999)))
def test_a_shard_restored_at_any_crash_point_follows_the_same_rules(data: st.DataObject, choose: random.Random) -> None:
    items = deltas_of(course(data), choose)
    expected = completed(new_shard(), items)
    crash = data.draw(st.integers(0, len(items)), "crash")
    first = new_shard()
    before = completed(first, items[:crash])
    assert before == expected[: len(before)]
    cut = first.snapshot()
    if cut is not None:
        restored = Shard.restore(through_a_table(cut), no_settings, INTERVAL_MS)
        assert completed(restored, items) == expected[len(before) :]


@hypothesis.settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_replay_in_any_chunks_and_any_order_of_partitions_gives_the_same_samples(data: st.DataObject) -> None:
    logs = [course(data, 8), course(data, 8)]
    results = []
    for _ in range(2):
        windows: list[WindowSamples] = []
        pipeline = Pipeline(no_settings, INTERVAL_MS, Codec.OTLP, windows.append, partitions=2, shards=2, rules=rules())
        waiting = [chunks(log, data) for log in logs]
        while any(waiting):
            partition = data.draw(st.sampled_from([p for p in range(2) if waiting[p]]), "partition")
            pipeline.feed(partition, waiting[partition].pop(0))
        pipeline.close()
        results.append(sorted(windows, key=lambda window: (window.end_ms, window.shard)))

    assert results[0] == results[1]


# Series across changes


def story(*log: Record, until_s: int, of: Rules | None = None) -> list[str]:
    """The samples of a log of one partition with ticks to the end, as text, in the order of windows."""
    windows: list[WindowSamples] = []
    pipeline = Pipeline(no_settings, INTERVAL_MS, Codec.OTLP, windows.append, rules=of or rules())
    ticks = (tick(0, 1000 * at) for at in range(15, until_s + 1, 15))
    in_time = sorted([*log, *ticks], key=lambda each: each.timestamp_ms)
    pipeline.feed(0, [each._replace(offset=offset) for offset, each in enumerate(in_time)])
    return text(windows)


def series(lines: Sequence[str], name: str) -> list[str]:
    """Values and times (s after T0) of the series whose name and labels begin so."""
    found = [line.split(" #")[0].rsplit(" ", 1)[1].split("@") for line in lines if line.startswith(name)]
    return [f"{value}@{int(at) - T0_MS // 1000}" for value, at in found]


CALLS = (
    "spanmetrics_calls_total{service=test-service,span_kind=SPAN_KIND_CLIENT,span_name=test,status_code=STATUS_CODE_OK"
)


def test_counters_whose_meaning_did_not_change_go_on() -> None:
    """INST-7: in Tempo every series of a replaced processor begins again at 0; here other label sets are other series,
    and of a histogram with other buckets only that one restarts."""
    new = rules(BOTH + ", processor: {span_metrics: {histogram_buckets: [0.5, 2]}, service_graphs: {dimensions: [d]}}")
    log = (*(spans(0, at) for at in (1, 16)), config(0, 17, change(1, new, 45)), *(spans(0, at) for at in (31, 46)))

    lines = story(*log, until_s=60)

    assert series(lines, CALLS) == ["0@0", "1@15", "2@30", "3@45", "4@60"]
    count = CALLS.replace("calls_total", "latency_count")
    assert series(lines, count) == ["0@0", "1@15", "2@30", "0@30", "1@45", "2@60"]
    assert series(lines, CALLS.replace("calls_total{", "latency_bucket{le=16.384,")) == ["0@0", "1@15", "2@30"]
    assert series(lines, CALLS.replace("calls_total{", "latency_bucket{le=2,")) == ["0@30", "1@45", "2@60"]


@pytest.mark.parametrize(
    "restarted", [VARIANTS[2], VARIANTS[4].replace(", collection_interval: 30s", "")], ids=["buckets", "native"]
)
def test_a_histogram_that_restarts_falls_in_prometheus_too(restarted: str) -> None:
    """Its zero comes after the last sample of before: at the same time it would be refused, and no fall be seen."""
    windows: list[WindowSamples] = []
    pipeline = Pipeline(no_settings, INTERVAL_MS, Codec.OTLP, windows.append, rules=rules())
    log = (spans(0, 1), config(1, 2, change(1, rules(restarted), 30)), spans(2, 16), spans(3, 17), tick(4, 30_000))
    pipeline.feed(0, log)

    written: dict[Any, list[tuple[int, float]]] = {}
    for window in windows:
        for tenant in window.tenants:
            for at_ms, zero in tenant.timed_zeros():
                written.setdefault(zero.series.labels, []).append((at_ms, zero.value))
            for sample in tenant.values:
                written.setdefault(sample.series.labels, []).append((window.end_ms, sample.value))
    times = [[at_ms for at_ms, _ in samples] for samples in written.values()]
    assert all(sorted(set(each)) == each for each in times)
    (count,) = (
        samples for labels, samples in written.items() if ("__name__", "traces_spanmetrics_latency_count") in labels
    )
    assert [(at_ms - T0_MS, value) for at_ms, value in count] == [(0, 0), (15_000, 1), (15_001, 0), (30_000, 2)]


def test_a_new_dimension_makes_new_series_beside_the_old() -> None:
    log = (spans(0, 1), config(0, 2, change(1, WITH_D, 30)), spans(0, 16), spans(0, 31))

    lines = story(*log, until_s=45)

    with_d = CALLS.replace("service=", "d=x,service=")
    assert series(lines, with_d) == ["0@15", "1@30", "2@45"]
    assert series(lines, CALLS) == ["0@0", "1@15", "1@30", "1@45"]


def test_the_same_rules_again_reset_nothing() -> None:
    """INST-8, Q1: with enable_virtual_node_label Tempo rebuilds the processor every 10 s and loses what is pending."""
    virtual = rules(VARIANTS[5])
    edges = [
        each
        for n in range(4)
        for each in (
            spans(0, 15 * n + 14, Told("web", CLIENT, n + 1, trace=n + 1)),
            spans(0, 15 * n + 16, Told("shop", SERVER, 100 + n, n + 1, trace=n + 1)),
            config(0, 15 * n + 17, change(n + 1, virtual, 0)),
        )
    ]

    lines = story(*edges, until_s=75, of=virtual)

    name = "service_graph_request_total{client=web,server=shop}"
    assert series(lines, name) == ["0@15", "1@30", "2@45", "3@60", "4@75"]


def test_series_of_a_removed_processor_live_until_they_are_stale() -> None:
    """INST-9."""
    none = rules("processors: []", registry="stale_duration: 40s")
    log = (spans(0, 1), config(0, 2, change(1, none, 30)), spans(0, 16))

    assert series(story(*log, until_s=90), CALLS) == ["0@0", "1@15", "1@30", "1@45"]


def test_a_lower_limit_resets_nothing() -> None:
    low = rules(VARIANTS[3])
    log = (spans(0, 1), config(0, 2, change(1, low, 30)), spans(0, 16), spans(0, 31))

    assert series(story(*log, until_s=45), CALLS) == ["0@0", "1@15", "2@30", "3@45"]


def test_settings_of_series_hold_from_the_same_window_as_those_of_processors() -> None:
    """A window's registry goes by the rules in force at its end, also what names its series."""
    labelled = rules(registry="external_labels: {cluster: a}")
    log = (spans(0, 1), config(0, 2, change(1, labelled, 30)), spans(0, 16))

    lines = story(*log, until_s=45)

    named = CALLS.replace("{", "{cluster=a,")
    assert series(lines, CALLS) == ["0@0", "1@15"]
    assert series(lines, named) == ["2@30", "2@45"]


def test_a_shard_without_a_snapshot_completes_all_by_the_logs_rules() -> None:
    """Its own process' rules are those of whoever began first; the log's hold for every window."""
    labelled = rules(registry="external_labels: {cluster: a}")
    fold = new_fold()
    (closing,) = fold.feed([spans(0, 1), tick(1, 15_000)]).closings
    (batch,) = (decode_batch(part) for part in encode_window(closing.windows[0], 0, 1, 1)[0])
    for provisional, expected in ((True, True), (False, False)):
        shard = new_shard(provisional=provisional)
        (window,) = completed(shard, [change(1, labelled, 3_600), batch])
        assert all("cluster=a" in line for line in text([window])) == expected


def test_windows_wait_for_the_first_rules_of_the_log() -> None:
    """Else a process that ends before them leaves samples by its own rules, and its successor goes on by others."""
    labelled = rules(registry="external_labels: {cluster: a}")
    fold = new_fold()
    closings = fold.feed([spans(0, 1), tick(1, 15_000), spans(2, 16), tick(3, 30_000)]).closings
    sent = [part for each in closings for part in encode_window(each.windows[0], 0, 1, 1)[0]]
    first, second = (decode_batch(part) for part in sent)
    shard = new_shard()
    assert (shard.feed(0, first).windows, shard.snapshot()) == ((), None)
    windows = shard.feed(1, change(1, labelled, 3_600)).windows
    assert text(windows) == text(completed(new_shard(), [change(1, labelled, 3_600), first]))
    assert [window.end_ms for window in shard.feed(2, second).windows] == [T0_MS + 30_000]


@pytest.mark.parametrize("lost", ["unreadable", "gone"])
def test_windows_do_not_wait_for_rules_that_nobody_can_follow(lost: str) -> None:
    fold = new_fold()
    (closing,) = fold.feed([spans(0, 1), tick(1, 15_000)]).closings
    (batch,) = (decode_batch(part) for part in encode_window(closing.windows[0], 0, 1, 1)[0])
    shard = new_shard()
    if lost == "gone":
        shard.adopt()
    else:
        with pytest.raises(Malformed):
            shard.take(0, replace(change(1, WITH_D), rules=b"of another program"))
    assert [window.end_ms for window in shard.feed(1, batch).windows] == [T0_MS + 15_000]


def test_a_shard_without_rules_passes_records_over() -> None:
    """A process that isn't to follow the log, as `replay --own-config`."""
    own = rules()
    shard = Shard(0, own.settings_of, INTERVAL_MS)
    fold = PartitionFold(own.settings_of, INTERVAL_MS, Codec.OTLP)
    closed, rejected = closed_by(fold, config(0, 0, change(1, WITH_D)), spans(1, 16), spans(2, 31), tick(3, 45_000))

    assert shard.feed(0, change(1, WITH_D)).windows == ()
    assert (shard.rules, fold.rules, rejected) == (None, None, ())
    assert not any("d=x" in name for window in closed for name in calls(window))
    assert ledger(closed)["spans_received_total{tenant=a}"] == 2
