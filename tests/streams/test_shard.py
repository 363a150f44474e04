import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import LimitSettings
from schemas.control import AcceptGap, SkipRecord, Waiver
from schemas.deltas import LedgerKey, decode_batch, encode_batch, join_parts
from streams.shard import Gap, Outcome, Shard, Unreadable
from streams.spill import WINDOWS_IN_MEMORY
from tests.streams.delta_rows import INTERVAL, Settings, batch, batches, calls, info, latency, text, window

T1, T2, T3, T4, T5 = (INTERVAL * n for n in range(1, 6))


class Log:
    """A shard and the records that it has read."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.shard = Shard(3, lambda tenant: self.settings, INTERVAL)
        self.records: list = []
        self.windows: list = []

    def feed(self, *items) -> list[str]:
        outcomes = []
        for item in items:
            fed = self.shard.feed(len(self.records), item)
            self.records.append(item)
            self.windows += fed.windows
            outcomes.append(str(fed.outcome))
        return outcomes

    def ends(self) -> list[int]:
        return [window.end_ms for window in self.windows]

    def values(self, metric="spanmetrics_calls_total{service=a}") -> list[str]:
        return [line.split()[-1] for line in text(self.windows) if line.startswith(metric) and " 0@" not in line]


def of(partition, end_ms, previous_ms, *rows, partitions=2, **more):
    return batch(window(end_ms, previous_ms, rows, **more), partition, partitions)


def large(end_ms, previous_ms, partition=0, partitions=1, n=700):
    """A batch of several parts: label sets that are too many for one record."""
    rows = [calls("a", labels=(("service", f"{i:04}" + "x" * 2000),)) for i in range(n)]
    parts = batches(window(end_ms, previous_ms, rows), partition, partitions)
    assert len(parts) > 2
    return parts


def own(log, tenant="acme") -> dict:
    """What the shard has counted of itself."""
    totals = {key.counter: n for key, n in log.shard.ledger.items() if dict(key.labels)["tenant"] == tenant}
    own = {name[9:-6]: n for name, n in sorted(totals.items()) if name.startswith("spanmill_")}
    return {name: n for name, n in own.items() if not name.startswith("registry_")}


def test_a_window_is_complete_when_all_source_partitions_have_reached_it():
    log = Log()
    log.feed(of(0, T1, None, calls("a", 1)))
    assert log.ends() == []
    assert (log.shard.missing(), log.shard.waiting_ms) == ([1], T1)
    log.feed(of(1, T1, None, calls("a", 2)))
    assert log.values() == ["3@15"]
    assert (log.shard.missing(), log.shard.waiting_ms, log.shard.end_ms) == ([], None, T1)


def test_a_partition_that_jumped_over_a_window_doesn_t_hold_it_back():
    log = Log()
    log.feed(of(0, T1, None, calls("a", 1)), of(0, T2, T1, calls("a", 1)))
    log.feed(of(1, T2, None, calls("a", 5)))
    assert log.values() == ["1@15", "7@30"]


def test_windows_that_no_partition_sent_are_not_written():
    log = Log()
    log.feed(of(0, T1, None, calls("a"), partitions=1), of(0, T5, T1, partitions=1))
    assert log.ends() == [T1, T5]


def test_a_batch_that_was_delivered_is_dropped():
    log = Log()
    first, second = of(0, T1, None, calls("a"), partitions=1), of(0, T2, T1, calls("a"), partitions=1)
    assert log.feed(first, first, second, first, second) == [
        "applied",
        "duplicate",
        "applied",
        "duplicate",
        "duplicate",
    ]
    assert log.values() == ["1@15", "2@30"]


def test_a_batch_out_of_its_chain_is_not_applied_until_the_missing_one_comes():
    log = Log()
    one, two, three = (of(0, end, end - T1 or None, calls("a"), partitions=1) for end in (T1, T2, T3))
    assert log.feed(one, three, two, three) == ["applied", "gap", "applied", "applied"]
    assert log.values() == ["1@15", "2@30", "3@45"]


def test_a_first_batch_must_say_that_it_is_the_first():
    log = Log()
    assert log.feed(of(0, T2, T1, calls("a"), partitions=1)) == ["gap"]
    assert log.ends() == []


def test_where_the_log_begins_above_each_chain_is_adopted_once():
    log = Log()
    log.shard.adopt()
    assert log.feed(of(0, T3, T2, calls("a")), of(1, T3, T1, calls("a"))) == ["adopted", "adopted"]
    assert log.values() == ["2@45"]
    assert log.feed(of(0, T5, T4, calls("a")), of(0, T4, T3, calls("a"))) == ["gap", "applied"]


def test_adopting_survives_a_crash_between_the_partitions():
    log = Log()
    log.feed(of(0, T1, None, partitions=1))
    log.shard.adopt()
    log.feed(of(0, T3, T2, calls("a"), partitions=1))
    shard = Shard.restore(log.shard.snapshot(), lambda tenant: log.settings, INTERVAL)
    assert shard.feed(9, of(0, T5, T4)).outcome is Outcome.GAP
    assert shard.feed(9, of(1, T4, T3)).outcome is Outcome.ADOPTED


def test_a_new_source_partition_is_waited_for_as_soon_as_a_batch_names_it():
    log = Log()
    log.feed(of(0, T1, None, partitions=1), of(0, T2, T1, calls("a"), partitions=2))
    assert (log.ends(), log.shard.missing()) == ([T1], [1])
    log.feed(of(1, T2, None, calls("a"), partitions=2))
    assert log.values() == ["2@30"]


def test_parts_make_a_batch_in_any_order_and_from_any_sender():
    parts = large(T1, None)
    log = Log()
    shuffled = [parts[-1], parts[0], parts[-1], *parts[1:-1]]
    assert log.feed(*shuffled) == ["part"] * 2 + ["duplicate"] + ["part"] * (len(parts) - 3) + ["applied"]
    (tenant,) = log.windows[0].tenants
    assert tenant.active_series == 700


def test_low_is_the_first_part_of_an_incomplete_batch():
    parts = large(T2, T1)
    log = Log()
    log.feed(of(0, T1, None, partitions=1), *parts[:-1])
    assert log.shard.low(len(log.records)) == 1
    log.feed(parts[-1])
    assert log.shard.low(len(log.records)) == len(log.records)


def test_parts_of_different_contents_don_t_mix():
    ours, theirs = large(T1, None), large(T1, None, n=701)
    log = Log()
    assert set(log.feed(*ours[:-1], *theirs[:-1])) == {"part"}
    assert log.feed(theirs[-1], ours[-1]) == ["applied", "duplicate"]
    assert log.shard.low(99) == 99


def test_parts_that_are_not_what_their_digest_says_are_no_batch_and_are_missing_from_the_chain():
    parts = large(T1, None)
    changed = replace(parts[0], rows=parts[0].rows.slice(0, 1))
    log = Log()
    assert log.feed(*parts[1:], changed, of(0, T2, T1, partitions=1))[-3:] == ["part", "unreadable", "gap"]
    assert log.feed(*parts)[-1] == "applied", "it may still come"


def test_a_chain_goes_on_with_what_is_held_when_an_operator_accepts_the_gap():
    log = Log()
    log.feed(of(0, T1, None, calls("a"), partitions=1))
    assert log.feed(*(of(0, end, end - T1, calls("a"), partitions=1) for end in (T4, T5))) == ["gap", "gap"]
    assert log.shard.gaps == [Gap(0, T1, 1, T4, T3)]
    assert log.shard.low(9) == 1
    assert log.feed(AcceptGap(0, T2), AcceptGap(0, None), AcceptGap(1, T1)) == ["duplicate"] * 3, "other gaps"
    assert log.feed(AcceptGap(0, T1), AcceptGap(0, T1)) == ["adopted", "duplicate"]
    assert log.values() == ["1@15", "2@60", "3@75"]
    assert (log.shard.gaps, log.shard.low(9)) == ([], 9)
    assert own(log) == {"chain_gaps": 1, "gap_windows": 2}


def test_a_chain_whose_beginning_is_lost_is_accepted_as_well():
    log = Log()
    log.feed(of(0, T2, T1, calls("a"), partitions=1))
    assert log.feed(AcceptGap(0, T1), AcceptGap(0, None)) == ["duplicate", "adopted"]
    assert log.values() == ["1@30"]
    assert own(log) == {"chain_gaps": 1}


def test_accepting_one_gap_accepts_no_other():
    log = Log()
    log.feed(*(of(0, end, before, calls("a"), partitions=1) for end, before in ((T1, None), (T3, T2), (T5, T4))))
    log.feed(AcceptGap(0, T1))
    assert log.shard.gaps == [Gap(0, T3, 2, T5, T4)]
    log.feed(of(0, T4, T3, calls("a"), partitions=1), of(0, T5, T4, calls("a"), partitions=1))
    assert log.values() == ["1@15", "2@45", "3@60", "4@75"]
    assert own(log) == {"chain_gaps": 1, "gap_windows": 1}


def test_what_is_held_is_dropped_when_the_missing_batch_comes_for_all_after_it_come_again():
    log = Log()
    one, two, three = (of(0, end, end - T1 or None, calls("a"), partitions=1) for end in (T1, T2, T3))
    assert log.feed(one, three, three, two, AcceptGap(0, T1)) == ["applied", "gap", "duplicate", "applied", "duplicate"]
    assert log.shard.low(9) == 1, "until it has come again"
    assert log.feed(three) == ["applied"]
    assert (log.shard.low(9), own(log)) == (9, {})


def test_a_record_that_can_t_be_read_is_kept_in_mind_until_an_operator_lets_it_be_skipped():
    log = Log()
    assert log.feed(of(0, T1, None, calls("a"), partitions=1), Unreadable("no batch")) == ["applied", "unreadable"]
    log.feed(of(0, T2, T1, calls("a"), partitions=1))
    assert log.values() == ["1@15", "2@30"], "nobody's chain is broken"
    assert (log.shard.unreadable, log.shard.snapshot().next_offset) == ({1: "no batch"}, 1)
    assert log.feed(SkipRecord(0), SkipRecord(1), SkipRecord(1)) == ["duplicate", "applied", "duplicate"]
    assert (log.shard.unreadable, log.shard.snapshot().next_offset) == ({}, 6)


def test_incomplete_windows_and_late_batches_are_counted_in_every_tenant_s_ledger():
    log = Log()
    log.feed(of(0, T1, None, calls("a"), calls("a", tenant="beta")), of(1, T1, None))
    log.feed(of(0, T2, T1), Waiver(1, T2), of(1, T2, T1, calls("a")), of(0, T3, T2), of(1, T3, T2))
    assert [window.incomplete for window in log.windows] == [False, True, False]
    assert own(log) == own(log, "beta") == {"late_batches": 1, "windows_incomplete": 1}


class Store:
    """Batches in their encoded form, by offset. Takes no more than `room`."""

    def __init__(self, room=1000):
        self.room, self.kept, self.most = room, {}, 0

    def save(self, offset, batch):
        if len(self.kept) >= self.room:
            return False
        self.kept[offset] = list(encode_batch(batch))
        self.most = max(self.most, len(self.kept))
        return True

    def load(self, offset):
        return join_parts([decode_batch(part) for part in self.kept[offset]])

    def remove(self, offset):
        del self.kept[offset]


def hours(store):
    """A log in which partition 1 comes after all that partition 0 has to say."""
    log = Log()
    log.shard = Shard(3, lambda tenant: log.settings, INTERVAL, store=store)
    ends = [INTERVAL * n for n in range(1, 41)]
    log.feed(*(of(0, end, end - T1 or None, calls("a")) for end in ends))
    return log, [of(1, end, end - T1 or None, calls("a")) for end in ends]


def test_batches_of_windows_far_ahead_are_put_away_until_their_windows_are_complete():
    store = Store()
    log, late = hours(store)
    assert len(store.kept) == 40 - 1 - WINDOWS_IN_MEMORY
    in_memory = [each for waiting in log.shard._waiting.values() for each in waiting if len(each.batch.rows)]
    assert len(in_memory) == 1 + WINDOWS_IN_MEMORY
    log.feed(*late)
    assert log.values() == [f"{2 * n}@{15 * n}" for n in range(1, 41)]
    assert store.kept == {}


def test_windows_are_completed_one_by_one_as_they_are_asked_for():
    store = Store()
    log, _ = hours(store)
    assert log.shard.take(99, Waiver(1, INTERVAL * 40)) is Outcome.APPLIED
    completed = log.shard.completed()
    assert next(completed).end_ms == T1
    assert (log.shard.end_ms, log.shard.waiting_ms) == (T1, T2)
    assert len(store.kept) == 40 - 1 - WINDOWS_IN_MEMORY
    assert len(list(completed)) == 39


def test_what_a_full_store_doesn_t_take_stays_in_memory_and_is_put_away_later():
    store = Store(room=3)
    log, late = hours(store)
    assert log.shard.store_full
    assert not log.shard.spill_again()
    store.room = 1000
    assert log.shard.spill_again()
    assert (log.shard.store_full, len(store.kept)) == (False, 40 - 1 - WINDOWS_IN_MEMORY)
    log.feed(*late)
    assert log.values() == [f"{2 * n}@{15 * n}" for n in range(1, 41)]


def test_what_is_held_far_ahead_is_put_away_too():
    store = Store()
    log = Log()
    log.shard = Shard(3, lambda tenant: log.settings, INTERVAL, store=store)
    ends = [INTERVAL * n for n in range(1, 41)]
    log.feed(*(of(0, end, end - T1 or None, calls("a"), partitions=1) for end in ends if end != T2))
    assert len(store.kept) == 40 - 3 - WINDOWS_IN_MEMORY
    log.feed(AcceptGap(0, T1))
    assert log.values() == ["1@15", *(f"{n - 1}@{15 * n}" for n in range(3, 41))]
    assert store.kept == {}


def test_a_waiver_completes_windows_without_the_waived_partition():
    log = Log()
    log.feed(of(0, T1, None, calls("a", 1)), of(0, T2, T1, calls("a", 1)))
    assert log.feed(Waiver(1, T1), Waiver(1, T1)) == ["applied", "duplicate"]
    assert log.values() == ["1@15"]
    assert log.shard.missing() == [1]


def test_what_a_waived_partition_delivers_later_is_added_to_the_open_window():
    log = Log()
    log.feed(of(0, T1, None, calls("a", 1)), of(0, T2, T1, calls("a", 1)), Waiver(1, T2))
    log.feed(of(1, T1, None, calls("a", 10)), of(1, T2, T1, calls("a", 100)))
    assert log.ends() == [T1, T2]
    log.feed(of(0, T3, T2, calls("a", 1)), of(1, T3, T2))
    assert log.values() == ["1@15", "2@30", "113@45"]
    assert [window.late_batches for window in log.windows] == [0, 0, 2]


def test_the_end_of_a_bounded_input_completes_what_waits():
    log = Log()
    log.feed(of(0, T1, None, calls("a")), of(0, T2, T1, calls("a")), of(1, T1, None, calls("a")))
    assert log.ends() == [T1]
    log.windows += log.shard.finish()
    assert log.values() == ["2@15", "3@30"]
    assert log.shard.finish() == []


def test_the_ledger_is_counted_with_its_windows():
    key = LedgerKey("tempo_metrics_generator_spans_received_total", (("tenant", "acme"),))
    log = Log()
    log.feed(of(0, T1, None, ledger={key: 2}), of(1, T1, None, ledger={key: 3}), of(0, T2, T1, ledger={key: 7}))
    assert log.shard.ledger[key] == 5


def test_there_is_no_snapshot_before_the_first_window():
    log = Log()
    log.feed(of(0, T1, None))
    assert log.shard.snapshot() is None


def test_a_snapshot_doesn_t_change_when_the_shard_goes_on():
    log = Log()
    log.feed(of(0, T1, None, latency("a", 0, trace=b"1"), partitions=1))
    cut, again = log.shard.snapshot(), log.shard.snapshot()
    log.feed(of(0, T2, T1, latency("a", 1), calls("b"), partitions=1))
    assert cut == again
    assert log.shard.snapshot() != cut


def test_a_snapshot_knows_the_waivers_and_partitions_of_records_that_are_not_read_again():
    log = Log()
    log.feed(of(0, T1, None, partitions=3), Waiver(1, T3), Waiver(2, T1), of(0, T2, T1, partitions=1))
    cut = log.shard.snapshot()
    assert cut.next_offset == 3
    restored = Shard.restore(cut, lambda tenant: log.settings, INTERVAL)
    assert restored.feed(3, log.records[3]).windows == ()
    assert restored.missing() == [2]
    assert restored.feed(4, of(2, T2, None, partitions=3)).windows[0].end_ms == T2


SERVICES = "abcdef"


def named_calls(service, n):
    return calls(service, labels=(("service", service), ("span_name", f"GET /{n}/{service}")))


rows = st.lists(
    st.one_of(
        st.builds(calls, st.sampled_from(SERVICES), st.integers(0, 9).map(lambda n: n / 4)),
        st.builds(info, st.sampled_from(SERVICES)),
        st.builds(
            latency,
            st.sampled_from(SERVICES),
            st.integers(0, 2),
            st.integers(0, 9),
            st.integers(0, 9),
            st.sampled_from([None, b"", b"a", b"f" * 32]),
        ),
        st.builds(named_calls, st.sampled_from(SERVICES), st.integers(0, 3)),
    ),
    max_size=6,
    unique_by=lambda row: (row["labels"], row["metric"], row["bucket"]),
)
ledgers = st.dictionaries(
    st.sampled_from([LedgerKey(f"tempo_metrics_generator_{n}_total", (("tenant", "acme"),)) for n in "xy"]),
    st.integers(1, 9),
    max_size=1,
)
steps = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 20, 90]), rows, ledgers, st.integers(0, 1)), min_size=1, max_size=6
)
chains = st.lists(steps, min_size=1, max_size=3)
any_settings = st.builds(
    Settings,
    collection_interval_ms=st.sampled_from([INTERVAL, 2 * INTERVAL]),
    stale_duration_ms=st.sampled_from([INTERVAL, 3 * INTERVAL]),
    limits=st.builds(
        LimitSettings,
        by_entity=st.booleans(),
        max_active_series=st.sampled_from([0, 8, 20]),
        max_active_entities=st.sampled_from([0, 2, 5]),
        max_cardinality_per_label=st.sampled_from([0, 2, 4]),
        span_name_sanitization=st.sampled_from(["", "dry_run", "enabled"]),
    ),
)


def chain(partition, partitions, steps):
    """A source partition's batches; its revisions rise, and with them the bucket layout."""
    out, end_ms, previous_ms, revision = [], 0, None, 0
    for jump, rows, ledger, rise in steps:
        end_ms += jump * INTERVAL
        revision += rise
        made = window(end_ms, previous_ms, rows, ledger, layouts=((0.1, 1.0 + revision),), revision=revision)
        out += batches(made, partition, partitions)
        previous_ms = end_ms
    return out


def interleaved(chains, choose: random.Random, waivers: bool) -> list:
    """The batches as a log may hold them: each chain in order, or begun again from any earlier batch, with waivers."""
    log, at = [], [0] * len(chains)
    while any(at[p] < len(chain) for p, chain in enumerate(chains)):
        p = choose.randrange(len(chains))
        if choose.random() < 0.2:
            at[p] = choose.randrange(at[p] + 1)
        elif at[p] < len(chains[p]):
            log.append(chains[p][at[p]])
            at[p] += 1
        if waivers and log and choose.random() < 0.15:
            log.append(Waiver(choose.randrange(len(chains)), choose.choice(log[-1:]).end_ms))
    return log


def with_losses(log, tenant, choose) -> list:
    """The log without one batch, and with records that can't be read; an operator accepts what is then to be seen."""
    lost = choose.choice(log)
    out: list = []
    shard = Shard(0, lambda name: tenant, INTERVAL)
    for item in log:
        if item is lost:
            continue
        out.append(Unreadable("damaged") if choose.random() < 0.1 else item)
        if choose.random() < 0.2:
            run(shard, out)
            out += [AcceptGap(gap.partition, gap.delivered_ms) for gap in shard.gaps]
            out += [SkipRecord(offset) for offset in shard.unreadable]
    return out


def run(shard, log) -> list:
    windows = []
    for offset in range(shard.next_offset, len(log)):
        windows += shard.feed(offset, log[offset]).windows
    return windows


@settings(deadline=None, max_examples=30)
@given(any_settings, chains, st.builds(random.Random, st.integers(0, 999)))
def test_any_interleaving_and_repetition_of_the_chains_gives_the_same_samples(tenant, sources, choose):
    sources = [chain(p, len(sources), steps) for p, steps in enumerate(sources)]
    in_order = sorted((batch for source in sources for batch in source), key=lambda b: (b.end_ms, b.partition))
    shard = Shard(0, lambda name: tenant, INTERVAL)
    expected = run(shard, in_order) + shard.finish()
    shard = Shard(0, lambda name: tenant, INTERVAL)
    assert run(shard, interleaved(sources, choose, waivers=False)) + shard.finish() == expected


@settings(deadline=None, max_examples=60)
@given(any_settings, chains, st.builds(random.Random, st.integers(0, 999)), st.booleans(), st.booleans())
def test_a_shard_restored_at_any_crash_point_gives_the_same_samples(tenant, sources, choose, waivers, losses):
    log = interleaved([chain(p, len(sources), steps) for p, steps in enumerate(sources)], choose, waivers)
    if losses:
        log = with_losses(log, tenant, choose)
    expected = run(Shard(0, lambda name: tenant, INTERVAL), log)
    crash = choose.randrange(len(log) + 1)
    first = Shard(0, lambda name: tenant, INTERVAL, store=Store(choose.randrange(4)))
    before = run(first, log[:crash])
    cut = first.snapshot()
    assert before == expected[: len(before)]
    if cut is not None:
        restored = Shard.restore(cut, lambda name: tenant, INTERVAL, store=Store(choose.randrange(4)))
        assert run(restored, log) == expected[len(before) :]
        assert restored.snapshot() == run_to_end(tenant, log).snapshot()


def run_to_end(tenant, log) -> Shard:
    shard = Shard(0, lambda name: tenant, INTERVAL)
    run(shard, log)
    return shard
