"""A replay by the script of `[deltas]` gives live's samples, whatever course the live stages took."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from schemas.control import AcceptGap, ConfigChange, SkipRecord, Waiver
from schemas.deltas import Batch, decode_batch, encode_window
from schemas.otlp import Codec
from schemas.record import Record
from schemas.rules_in_force import RulesInForce
from schemas.snapshot import Cut
from streams.partition import PartitionFold
from streams.pipeline import NEVER_MS, NOTHING, Beginning, Pipeline
from streams.rules_in_force import at_window
from streams.scripted_shard import Script, Scripted, Unlike
from streams.shard import Item, Shard, Unreadable, WindowSamples
from tests.streams.delta_rows import text
from tests.streams.log import CLIENT, INTERVAL_MS, SERVER, T0_MS, Told, tick
from tests.streams.test_rules_in_log import (
    ALL_RULES,
    WITH_D,
    change,
    chunks,
    config,
    course,
    no_settings,
    rules,
    spans,
    through_a_table,
)

PARTITIONS, SHARDS = 2, 2


def fold_from(checkpoint: Checkpoint) -> PartitionFold:
    return PartitionFold(no_settings, INTERVAL_MS, Codec.OTLP, checkpoint)


def beginning() -> Checkpoint:
    """As a generator's first one, which knows how many partitions there are."""
    return Checkpoint.initial(0, RulesInForce.initial(rules(), spans_partitions=PARTITIONS))


@dataclass
class Live:
    """What the live stages leave behind: `[deltas]` by shard, the samples, and what they saved."""

    logs: Sequence[Sequence[Record]]
    checkpoints: list[list[Checkpoint]] = field(default_factory=list)
    """By partition, in order."""
    batches: list[list[list[list[bytes]]]] = field(default_factory=list)
    """By partition, in order, by shard: the parts."""
    deltas: list[list[Item]] = field(default_factory=list)
    windows: list[list[WindowSamples]] = field(default_factory=list)
    cuts: list[list[Cut]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for p, log in enumerate(self.logs):
            closings = fold_from(beginning()).feed(log).closings
            self.checkpoints.append([beginning(), *(closing.checkpoint for closing in closings)])
            self.batches.append(
                [
                    encode_window(window, p, window.spans_partitions, SHARDS)
                    for each in closings
                    for window in each.windows
                ]
            )

    def parts(self, partition: int, shard: int) -> list[Batch]:
        """All that a partition sends to a shard, in order."""
        return [decode_batch(part) for shards in self.batches[partition] for part in shards[shard]]

    def write(self, deltas: Sequence[Sequence[Item]]) -> None:
        """Feed the shards what the topic holds, behind the rules, and keep the samples and all cuts."""
        for index, behind in enumerate(deltas):
            items = [change(1, rules()), *behind]
            shard = Shard(index, no_settings, INTERVAL_MS, RulesInForce.initial(rules()), provisional=True)
            windows: list[WindowSamples] = []
            cuts: list[Cut] = []
            for offset, item in enumerate(items):
                completed = shard.feed(offset, item).windows
                windows += completed
                if completed:
                    cut = shard.snapshot()
                    assert cut is not None
                    cuts.append(through_a_table(cut))
            self.deltas.append(items)
            self.windows.append(windows)
            self.cuts.append(cuts)

    def script(self, shard: int, start: int = 0) -> Script:
        return (Scripted(offset, item) for offset, item in enumerate(self.deltas[shard]) if offset >= start)


def interleaved(live: Live, shard: int, choose: random.Random, changes: Sequence[ConfigChange]) -> list[Item]:
    """One course that a partition of the topic may take: batches of any pace, some again, waivers, changes anywhere."""
    sent = [live.parts(p, shard) for p in range(len(live.logs))]
    at = [0] * len(sent)
    items: list[Item] = []
    while any(at[p] < len(sent[p]) for p in range(len(sent))):
        what = choose.random()
        if what < 0.15:
            ends = [each.end_ms for each in sent[0] + sent[1]]
            items.append(Waiver(choose.randrange(len(sent)), choose.choice(ends)))
        elif what < 0.25:
            p = choose.randrange(len(sent))
            at[p] = choose.randint(0, at[p])  # its owner has begun again at a checkpoint, or is a zombie
        else:
            p = choose.choice([p for p in range(len(sent)) if at[p] < len(sent[p])])
            items.append(sent[p][at[p]])
            at[p] += 1
    for each in changes:
        for _ in range(choose.choice((0, 1, 2))):
            items.insert(choose.randrange(len(items) + 1), each)
    return items


def pipeline_of(
    live: Live, out: list[WindowSamples], scripts: dict[int, Script], begin: Beginning = NOTHING
) -> Pipeline:
    return Pipeline(
        no_settings,
        INTERVAL_MS,
        Codec.OTLP,
        out.append,
        partitions=len(live.logs),
        shards=SHARDS,
        rules=rules(),
        beginning=begin,
        scripts=scripts,
    )


def by_shard(windows: Sequence[WindowSamples]) -> list[list[WindowSamples]]:
    return [[window for window in windows if window.shard == shard] for shard in range(SHARDS)]


def fed(live: Live, pipeline: Pipeline, begin: Beginning, data: st.DataObject | None = None) -> None:
    """Feed all records, in any chunks and any order of partitions."""
    logs = [log[begin.checkpoints[p].next_offset if p in begin.checkpoints else 0 :] for p, log in enumerate(live.logs)]
    waiting = [[log] if data is None else chunks(log, data) for log in logs]
    while any(waiting):
        left = [p for p in range(len(logs)) if waiting[p]]
        partition = left[0] if data is None else data.draw(st.sampled_from(left), "partition")
        records = waiting[partition].pop(0)
        if records:
            pipeline.feed(partition, records)


def any_live(data: st.DataObject) -> Live:
    live = Live([course(data, 8), course(data, 8)])
    choose = random.Random(data.draw(st.integers(0, 9999), "course"))
    changes = [r.control for log in live.logs for r in log if isinstance(r.control, ConfigChange)]
    changes += [change(9, choose.choice(ALL_RULES), choose.randrange(60))] * choose.choice((0, 0, 1))
    live.write([interleaved(live, shard, choose, changes) for shard in range(SHARDS)])
    return live


@hypothesis.settings(max_examples=40)
@given(st.data())
def test_a_replay_from_the_beginning_is_live_whatever_was_waived_late_or_sent_again(data: st.DataObject) -> None:
    live = any_live(data)
    out: list[WindowSamples] = []
    pipeline = pipeline_of(live, out, {shard: live.script(shard) for shard in range(SHARDS)})

    fed(live, pipeline, NOTHING, data)

    assert pipeline.differences == []
    assert pipeline.waiting == 0
    for windows, wanted in zip(by_shard(out), live.windows, strict=True):
        assert windows[: len(wanted)] == wanted


@hypothesis.settings(max_examples=40)
@given(st.data())
def test_a_replay_from_any_checkpoints_and_cuts_is_live_after_the_cuts(data: st.DataObject) -> None:
    """Checkpoints may be behind the cuts, or before them: then batches count as the topic has them."""
    live = any_live(data)
    checkpoints = {
        p: decode_checkpoint(encode_checkpoint(data.draw(st.sampled_from(saved), "checkpoint")))
        for p, saved in enumerate(live.checkpoints)
    }
    cuts = {shard: data.draw(st.sampled_from(saved), "cut") for shard, saved in enumerate(live.cuts) if saved}
    begin = Beginning(checkpoints, cuts)
    starts = [cuts[shard].next_offset if shard in cuts else 0 for shard in range(SHARDS)]
    out: list[WindowSamples] = []
    pipeline = pipeline_of(live, out, {shard: live.script(shard, start) for shard, start in enumerate(starts)}, begin)

    fed(live, pipeline, begin, data)

    assert (pipeline.differences, pipeline.waiting) == ([], 0)
    for shard, (windows, wanted) in enumerate(zip(by_shard(out), live.windows, strict=True)):
        after = [window for window in wanted if shard not in cuts or window.end_ms > cuts[shard].end_ms]
        assert windows[: len(after)] == after


# Courses of their own


def two_logs(*, until: int = 4) -> Live:
    """Two partitions, one call in each window."""
    return Live(
        [
            [each._replace(offset=n) for n, each in enumerate(log)]
            for log in (
                [spans(0, 15 * n + 1 + p, Told(f"s{p}", CLIENT, attributes={"d": "x"})) for n in range(until)]
                + [tick(0, 15_000 * until)]
                for p in range(2)
            )
        ]
    )


def replayed(live: Live) -> tuple[list[WindowSamples], Pipeline]:
    out: list[WindowSamples] = []
    pipeline = pipeline_of(live, out, {shard: live.script(shard) for shard in range(SHARDS)})
    fed(live, pipeline, NOTHING)
    return out, pipeline


def test_what_was_waived_counts_in_the_window_in_which_it_counted_live() -> None:
    """And not in its own, in which it is without the script."""
    live = two_logs()
    late: list[list[Item]] = []
    for shard in range(SHARDS):
        first, second = live.parts(0, shard), live.parts(1, shard)
        late.append([*first[:2], Waiver(1, T0_MS + 30_000), *first[2:], *second])
    live.write(late)
    assert [window.late_batches for window in live.windows[0]] == [0, 0, 2, 0]

    out, pipeline = replayed(live)

    assert (by_shard(out), pipeline.differences) == (live.windows, [])
    ideal: list[WindowSamples] = []
    without = pipeline_of(live, ideal, {})
    fed(live, without, NOTHING)
    assert [window.late_batches for window in by_shard(ideal)[0]] == [0, 0, 0, 0]
    assert text(by_shard(ideal)[0]) + text(by_shard(ideal)[1]) != text(by_shard(out)[0]) + text(by_shard(out)[1])


def test_a_gap_that_an_operator_accepted_is_a_gap_again_and_what_was_lost_is_lost() -> None:
    live = two_logs()
    deltas: list[list[Item]] = []
    for shard in range(SHARDS):
        first, second = live.parts(0, shard), live.parts(1, shard)
        lost: list[Item] = [
            Unreadable("bits fell over"),
            second[2],
            AcceptGap(1, T0_MS + 15_000),
            SkipRecord(3),
            *second[3:],
        ]
        deltas.append([first[0], second[0], *lost, *first[1:]])
    live.write(deltas)
    last = [line for windows in live.windows for line in text(windows[-1:]) if "calls_total" in line]
    assert sum(float(line.split()[-1].split("@")[0]) for line in last) == 7

    out, pipeline = replayed(live)

    assert (by_shard(out), pipeline.differences, pipeline.waiting) == (live.windows, [], 0)


def test_parts_of_a_large_batch_count_where_their_set_was_whole() -> None:
    """A zombie's parts are between its successor's, and a waiver between the last two."""
    long = "x" * 400
    many = [Told("s0", SERVER, n, name=f"{long}{n}") for n in range(1, 2_500)]
    logs = [
        [spans(0, 1, *many), tick(1, 15_000), tick(2, 30_000)],
        [spans(0, 1), spans(1, 16), tick(2, 30_000)],
    ]
    live = Live(logs)
    deltas: list[list[Item]] = []
    for shard in range(SHARDS):
        first, second = live.parts(0, shard), live.parts(1, shard)
        *window, empty = first
        deltas.append([*window[:-1], *window[:1], *second, Waiver(0, T0_MS + 15_000), *window, empty])
    assert max(len(items) for items in deltas) > 8
    live.write(deltas)

    out, pipeline = replayed(live)

    assert (by_shard(out), pipeline.differences) == (live.windows, [])
    assert {window.late_batches for windows in live.windows for window in windows} == {0, 1}


def test_a_change_of_rules_that_came_late_holds_from_the_window_from_which_it_held_live() -> None:
    labelled = rules(registry="external_labels: {cluster: a}")
    logs = [
        [each._replace(offset=n) for n, each in enumerate([config(0, 0, change(2, labelled, 30)), *log])]
        for log in two_logs().logs
    ]
    live = Live(logs)
    deltas: list[list[Item]] = []
    for shard in range(SHARDS):
        first, second = live.parts(0, shard), live.parts(1, shard)
        deltas.append([*first[:3], *second[:3], change(2, labelled, 30), *first[3:], *second[3:]])
    live.write(deltas)

    out, pipeline = replayed(live)

    assert (by_shard(out), pipeline.differences) == (live.windows, [])
    lines = [line for window in out for line in text([window]) if "calls_total" in line and "@" in line]
    assert {("cluster=a" in line) for line in lines} == {False, True}


def test_other_rules_than_live_had_are_noticed_and_the_computed_batches_count() -> None:
    live = two_logs()
    live.write([[*live.parts(0, s), *live.parts(1, s)] for s in range(SHARDS)])
    out: list[WindowSamples] = []
    pipeline = Pipeline(
        no_settings,
        INTERVAL_MS,
        Codec.OTLP,
        out.append,
        partitions=2,
        shards=SHARDS,
        rules=WITH_D,
        scripts={shard: live.script(shard) for shard in range(SHARDS)},
    )
    fed(live, pipeline, NOTHING)

    windows = [(p, T0_MS + 15_000 * n) for p in range(2) for n in range(1, 5)]
    assert sorted((each.partition, each.end_ms) for each in pipeline.differences) == windows, "each once"
    assert {each.unlike for each in pipeline.differences} == {Unlike.CONTENT}
    assert pipeline.waiting == 0
    assert any("d=x" in line for line in text(out))
    assert [len(windows) for windows in by_shard(out)] == [4, 4]


def test_windows_that_only_the_topic_has_or_only_the_records_give_keep_nothing_waiting() -> None:
    """Other programs closed other windows: what can be computed counts, the rest is named."""
    live = two_logs()
    more = [
        replace(each, end_ms=each.end_ms + 1, previous_end_ms=each.end_ms, digest=bytes(16))
        for each in live.parts(1, 0)[:1]
    ]
    second = live.parts(1, 0)
    live.write([[*live.parts(0, 0), second[0], *more, *second[2:]], [*live.parts(0, 1), *live.parts(1, 1)]])

    out, pipeline = replayed(live)

    assert [(each.offset, each.unlike) for each in pipeline.differences] == [(6, Unlike.ABSENT)]
    assert pipeline.waiting == 0
    assert by_shard(out)[1] == live.windows[1]


def test_a_range_that_ends_early_completes_what_live_had_completed_by_then() -> None:
    """What the script needs next isn't in the range: what follows would be a guess."""
    live = two_logs()
    deltas: list[list[Item]] = []
    for shard in range(SHARDS):
        first, second = live.parts(0, shard), live.parts(1, shard)
        deltas.append([first[0], second[0], first[1], first[2], Waiver(1, T0_MS + 30_000), *second[1:], *first[3:]])
    live.write(deltas)
    out: list[WindowSamples] = []
    pipeline = pipeline_of(live, out, {shard: live.script(shard) for shard in range(SHARDS)})
    pipeline.feed(0, live.logs[0][:2])
    pipeline.feed(1, live.logs[1])

    assert pipeline.waiting == SHARDS
    assert by_shard(out) == [windows[:1] for windows in live.windows]
    pipeline.close()
    assert [window.late_batches for window in out] == [0] * len(out)


def test_what_is_computed_waits_for_the_script_only_until_it_is_delivered() -> None:
    live = two_logs(until=6)
    live.write([[*live.parts(0, s), *live.parts(1, s), *live.parts(1, s)] for s in range(SHARDS)])
    asked: list[int] = []

    def counted(shard: int) -> Iterator[Scripted]:
        for each in live.script(shard):
            asked.append(shard)
            yield each

    out: list[WindowSamples] = []
    pipeline = pipeline_of(live, out, {shard: counted(shard) for shard in range(SHARDS)})
    assert len(asked) == SHARDS, "a script is read as far as it is needed"
    fed(live, pipeline, NOTHING)

    assert by_shard(out) == live.windows
    assert len(asked) == sum(map(len, live.deltas))


@pytest.mark.parametrize("late", [False, True], ids=["from the beginning", "from a bookmark"])
def test_a_partition_that_joined_begins_with_the_window_from_which_it_is_counted(late: bool) -> None:
    """What lay in it before counts in that window too; until the count is read it isn't there (agents/growth.py)."""
    grown = replace(change(2, WITH_D, 45), spans_partitions=2)
    first = [config(0, 1, grown), spans(1, 2), spans(2, 16), spans(3, 31), spans(4, 46), tick(5, 75_000)]
    second = [spans(0, 17), config(1, 18, replace(grown, revision=2)), spans(2, 46), tick(3, 75_000)]
    known = RulesInForce.initial(rules(), spans_partitions=1)
    begin = [Checkpoint.initial(0, known)]
    heard = fold_from(begin[0])
    heard.feed(first[:1])
    assert heard.rules is not None
    begin.append(Checkpoint(0, stream_time_ms=T0_MS + 30_000, rules=at_window(heard.rules, T0_MS + 45_000)))
    closings = [fold_from(each).feed(log).closings for each, log in zip(begin, (first, second), strict=True)]
    closed = [[window for closing in each for window in closing.windows] for each in closings]
    assert [[(w.end_ms - T0_MS) // 1000 for w in each] for each in closed] == [[15, 30, 45, 60], [45, 60]]
    live = Live([])
    parts = [
        [decode_batch(part) for w in each for part in encode_window(w, p, w.spans_partitions, SHARDS)[0]]
        for p, each in enumerate(closed)
    ]
    other = [
        [decode_batch(part) for w in each for part in encode_window(w, p, w.spans_partitions, SHARDS)[1]]
        for p, each in enumerate(closed)
    ]
    live.write([[grown, *each[1], *each[0]] for each in (parts, other)])
    live.logs = [first, second]
    assert [window.end_ms - T0_MS for window in live.windows[0]] == [15_000, 30_000, 45_000, 60_000]

    start = Beginning({0: closings[0][0].checkpoint}, partitions=0) if late else Beginning(partitions=1)
    out: list[WindowSamples] = []
    pipeline = pipeline_of(live, out, {shard: live.script(shard) for shard in range(SHARDS)}, start)
    assert (pipeline.stream_time_ms(1) == NEVER_MS) != late
    pipeline.feed(0, first[start.checkpoints[0].next_offset if late else 0 :])
    pipeline.feed(1, second)

    assert (pipeline.differences, pipeline.waiting) == ([], 0)
    assert by_shard(out) == live.windows


@pytest.mark.parametrize("warm_up_s", [0, 15, 30, 45])
def test_windows_of_a_warm_up_leave_edges_that_wait_and_nothing_else(warm_up_s: int) -> None:
    """From elsewhere the deltas are live's, and totals begin at 0."""
    log = [
        each._replace(offset=n)
        for n, each in enumerate(
            [
                spans(0, 14, Told("web", CLIENT, 1, trace=1)),
                spans(0, 16, Told("shop", SERVER, 2, 1, trace=1)),
                spans(0, 31, Told("web", CLIENT, 1, trace=2)),
                tick(0, 45_000),
            ]
        )
    ]
    out: list[WindowSamples] = []
    pipeline = Pipeline(
        no_settings, INTERVAL_MS, Codec.OTLP, out.append, rules=rules(), warm_up_ms=T0_MS + 1000 * warm_up_s
    )
    pipeline.feed(0, log)

    assert [window.end_ms - T0_MS for window in out] == [
        end for end in (15_000, 30_000, 45_000) if end > 1000 * warm_up_s
    ]
    edges = [line for line in text(out) if "service_graph_request_total" in line and "server=shop" in line]
    assert any(line.split()[-1].startswith("1@") for line in edges) == (warm_up_s < 30)
    assert not any("chain_gaps" in line for line in text(out))
