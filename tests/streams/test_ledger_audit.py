"""The audit finds nothing where the stages work, wherever they have saved, and names what is missing elsewhere."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.checkpoint import Checkpoint
from schemas.config import TenantSettings
from schemas.deltas import Batch, Ledger, decode_batch, encode_batch, encode_window, join_parts
from schemas.ledger_counters import EDGES_MEASURED, RECORDS_UNREADABLE, SPANS_MEASURED, SPANS_RECEIVED
from schemas.metrics import MetricId
from schemas.otlp import Codec
from schemas.record import Record
from schemas.snapshot import Cut
from streams.ledger_audit import Check, Evidence, Saved, ShardTally, checks
from streams.partition import PartitionFold
from streams.shard import Shard
from tests.reference.generated import TENANTS
from tests.streams.log import INTERVAL_MS, T0_MS, record
from tests.streams.test_ledger_balance import dense_settings, dense_span, spans_of

PARTITIONS = SHARDS = 2


@dataclass
class World:
    """Partitions and shards without Kafka; each stage has saved something at some time, or nothing yet."""

    logs: list[list[Record]]
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict)
    batches: list[list[Batch]] = field(default_factory=lambda: [[] for _ in range(SHARDS)])
    cuts: dict[int, Cut] = field(default_factory=dict)

    def evidence(self, first: int = 0) -> Evidence:
        """What an audit reads, if the records of `[deltas]` before the first one are gone."""
        saved = Saved(self.checkpoints, self.cuts, SHARDS)
        tallies = {shard: ShardTally(shard, saved, INTERVAL_MS, begins=not first) for shard in range(SHARDS)}
        for shard, batches in enumerate(self.batches):
            for offset in range(first, len(batches)):
                tallies[shard].take(offset, batches[offset])
        spans: Counter[str] = Counter()
        for partition, checkpoint in self.checkpoints.items():
            spans.update(spans_of(self.logs[partition][: checkpoint.next_offset]))
        return Evidence(saved, spans, 0, tallies)


def random_world(rng: random.Random, records: int = 12) -> World:
    """Batches come twice, as after a crash; checkpoints and snapshots are of different windows."""
    tenants = {tenant: dense_settings(rng) for tenant in TENANTS}
    world = World([random_records(rng, records) for _ in range(PARTITIONS)])
    sent = [list(windows_of(world, partition, tenants, rng)) for partition in range(PARTITIONS)]
    while left := [each for each in sent if each]:
        for shard, parts in enumerate(rng.choice(left).pop(0)):
            world.batches[shard] += [join_parts([decode_batch(part) for part in parts])] * rng.choice([1, 1, 2])
    for shard, batches in enumerate(world.batches):
        sink = Shard(shard, tenants.__getitem__, INTERVAL_MS)
        for offset, batch in enumerate(batches[: rng.randint(0, len(batches))]):
            sink.feed(offset, batch)
        cut = sink.snapshot()
        if cut is not None:
            world.cuts[shard] = cut
    return world


def windows_of(
    world: World, partition: int, tenants: dict[str, TenantSettings], rng: random.Random
) -> Iterator[list[list[bytes]]]:
    """A partition's windows, encoded; some of the checkpoints between them are saved."""
    fold = PartitionFold(tenants.__getitem__, INTERVAL_MS, Codec.OTLP)
    saves = True
    for closing in fold.feed(world.logs[partition]).closings:
        yield from (encode_window(window, partition, PARTITIONS, SHARDS) for window in closing.windows)
        saves = saves and rng.random() < 0.8
        if saves:
            world.checkpoints[partition] = closing.checkpoint


def random_records(rng: random.Random, records: int) -> list[Record]:
    """A log, with a record here and there that can't be read."""
    at_ms, log = 0, list[Record]()
    for offset in range(records):
        at_ms += rng.choice([0, 1, 4_000, INTERVAL_MS])
        tenant, spans = rng.choice(TENANTS), [dense_span(rng) for _ in range(rng.randint(0, 6))]
        log.append(record(offset, at_ms, *spans, tenant=tenant))
        if rng.random() < 0.05:
            log[-1] = Record(offset, T0_MS + at_ms, b"\x0a\x7f", tenant)
    return log


def wrong(evidence: Evidence) -> list[Check]:
    """Checks that don't balance."""
    return [each for each in checks(evidence) if not each.balances]


def with_letters(evidence: Evidence) -> Evidence:
    """With as many dead letters as there were unreadable records in the logs."""
    total = sum(
        count
        for tally in evidence.tallies.values()
        for key, count in tally.in_checkpoints.items()
        if key.counter == RECORDS_UNREADABLE
    )
    return replace(evidence, dead_letters=total)


@settings(max_examples=50)
@given(st.randoms(use_true_random=False))
def test_what_works_balances_wherever_the_stages_have_saved(rng: random.Random) -> None:
    evidence = with_letters(random_world(rng).evidence())
    assert wrong(evidence) == []
    stages = {each.stage for each in checks(evidence)}
    if evidence.saved.checkpoints and any(evidence.spans or {}):
        assert "log to generator" in stages


@settings(max_examples=50)
@given(st.randoms(use_true_random=False))
def test_what_works_balances_also_when_retention_has_taken_the_first_batches(rng: random.Random) -> None:
    """Of what no snapshot has nothing may be gone; then the snapshots stand for what is."""
    world = random_world(rng)
    oldest = min((cut.next_offset for cut in world.cuts.values()), default=0)
    behind = [
        offset
        for batches in world.batches
        for offset, batch in enumerate(batches)
        if batch.end_ms > sent_ms(world, batch.partition)
    ]
    first = min([oldest, *behind])
    if len(world.cuts) == SHARDS and first:
        evidence = replace(world.evidence(first), dead_letters=None)
        assert wrong(evidence) == []
        assert not any(each.stage.startswith("batches") for each in checks(evidence))


def sent_ms(world: World, partition: int) -> int:
    """The last window before a partition's checkpoint."""
    checkpoint = world.checkpoints.get(partition)
    return -1 if checkpoint is None else checkpoint.previous_end_ms or -1


def some_world() -> World:
    """One in which all has happened."""
    rng = random.Random(1)
    while True:
        world = random_world(rng, records=40)
        ledger = [key.counter for cut in world.cuts.values() for key in ledger_of(cut)]
        if len(world.cuts) == SHARDS and len(world.checkpoints) == PARTITIONS and EDGES_MEASURED in ledger:
            return world


def ledger_of(cut: Cut) -> Ledger:
    return {entry.key: entry.total for entry in cut.ledger}


def test_spans_that_the_generator_never_counted_are_missing_between_log_and_generator() -> None:
    evidence = with_letters(some_world().evidence())
    assert evidence.spans is not None
    more = replace(evidence, spans={**evidence.spans, "one": evidence.spans["one"] + 3})
    (found,) = wrong(more)
    assert (found.stage, found.tenant, found.difference) == ("log to generator", "one", 3)


def test_a_ledger_that_a_batch_lost_is_named_by_the_stages_that_miss_it() -> None:
    """Its counters are missing between the log and the generator, and the sink has more than the batches."""
    world = some_world()
    place = next(
        offset
        for offset, batch in enumerate(world.batches[0])
        if any(key.counter == SPANS_RECEIVED and count for key, count in batch.ledger.items())
    )
    lost = world.batches[0][place]
    bare = join_parts([decode_batch(part) for part in encode_batch(replace(lost, ledger={}))])
    world.batches[0] = [bare if place_of(batch) == place_of(lost) else batch for batch in world.batches[0]]
    found = wrong(with_letters(world.evidence()))
    stages = {each.stage for each in found}
    assert {"log to generator", "batches to sink 0"} <= stages
    spans = sum(count for key, count in lost.ledger.items() if key.counter == SPANS_RECEIVED)
    assert sum(each.difference for each in found if each.stage == "log to generator") == spans
    notes = [note for each in found for note in each.notes if each.stage == "batches to sink 0"]
    assert any(note.startswith(SPANS_RECEIVED) for note in notes)


def place_of(batch: Batch) -> tuple[int, int]:
    """Its place in the chains."""
    return batch.partition, batch.end_ms


def test_a_counter_that_a_shard_lost_is_named_with_both_counts() -> None:
    world = some_world()
    shard, cut = next((s, c) for s, c in world.cuts.items() if any(k.counter == SPANS_MEASURED for k in ledger_of(c)))
    entry = next(entry for entry in cut.ledger if entry.key.counter == SPANS_MEASURED)
    rest = [each._replace(total=each.total - 1) if each == entry else each for each in cut.ledger]
    world.cuts[shard] = replace(cut, ledger=rest)
    (found,) = wrong(with_letters(world.evidence()))
    assert (found.stage, found.difference) == (f"batches to sink {shard}", 1)
    assert found.notes == (
        f'{SPANS_MEASURED}{{processor="span-metrics",tenant="{entry.tenant}"}}: '
        f"{entry.total} in batches, {entry.total - 1} in the shard",
    )


def test_calls_that_a_series_lost_are_missing_in_its_sink() -> None:
    world = some_world()
    shard, cut = next((s, c) for s, c in world.cuts.items() if any(k.metric == MetricId.CALLS for k, _ in c.series))
    at = next(i for i, (key, _) in enumerate(cut.series) if key.metric == MetricId.CALLS)
    key, totals = cut.series[at]
    changed = [*cut.series[:at], (key, totals._replace(counts=(totals.counts[0] - (1 << 32),))), *cut.series[at + 1 :]]
    world.cuts[shard] = replace(cut, series=changed)
    (found,) = wrong(with_letters(world.evidence()))
    assert (found.stage, found.tenant, found.unit, found.difference) == (
        f"calls in sink {shard}",
        key.tenant,
        "calls",
        1,
    )


def test_half_edges_that_a_checkpoint_lost_are_missing_among_the_edges() -> None:
    rng = random.Random(2)
    while True:
        world = random_world(rng)
        waiting = [p for p, each in world.checkpoints.items() if each.half_edges.num_rows]
        if waiting:
            break
    saved = world.checkpoints[waiting[0]]
    world.checkpoints[waiting[0]] = replace(saved, half_edges=saved.half_edges.slice(1))
    (found,) = wrong(with_letters(world.evidence()))
    assert (found.stage, found.difference) == ("generator, service-graphs: edges", 1)
    assert found.notes, "what became of the others"


def test_dead_letters_that_are_missing_are() -> None:
    evidence = with_letters(some_world().evidence())
    (found,) = wrong(replace(evidence, dead_letters=(evidence.dead_letters or 0) + 1))
    assert (found.stage, found.unit, found.difference) == ("generator to dead letters", "records", -1)
