"""An audit of the ledger: what the stages say they counted, held against what the log holds.

Everything is taken up to what the stages have saved, a generator's checkpoints and a sink's snapshots, so that it is
exact while they run: what came later is in flight, and is shown as that. Nothing here grows with the log.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from schemas.checkpoint import Checkpoint
from schemas.control import AcceptGap
from schemas.deltas import Batch, DeltaRows, Ledger, LedgerKey, join
from schemas.ledger_balance import (
    GENERATOR_EQUATIONS,
    REGISTRY_ROWS,
    SPAN_METRICS_SPANS,
    Balance,
    Equation,
    Fate,
    balances,
    tenant_of,
)
from schemas.ledger_counters import CHAIN_GAPS, GAP_WINDOWS, RECORDS_LOST, RECORDS_UNREADABLE, REGISTRY
from schemas.metrics import WEIGHT_ONE, MetricId
from schemas.snapshot import Cut
from streams.chains import Chains
from streams.shard import Item
from streams.spill import Delivery, Spill

SERIES_REMOVED = f"{REGISTRY}series_removed_total"
NAMED_AT_MOST = 5


@dataclass(frozen=True, slots=True)
class Saved:
    """What the stages have saved, by partition of `[spans]` and by shard; those that are missing saved nothing yet."""

    checkpoints: Mapping[int, Checkpoint]
    cuts: Mapping[int, Cut]
    shards: int

    @property
    def waiting(self) -> Counter[str]:
        """The half-edges that wait in the checkpoints, by tenant."""
        found: Counter[str] = Counter()
        for checkpoint in self.checkpoints.values():
            found.update(checkpoint.half_edges.column("tenant").to_pylist())
        return found


class ShardTally:
    """What the batches of one shard's records amount to, each counted once, as the sink counts them.

    `begins`: whether the records are given from the shard's first one on; else each chain is taken as it goes on.
    """

    def __init__(self, shard: int, saved: Saved, interval_ms: int, *, begins: bool) -> None:
        self.begins = begins
        self.in_cut: Counter[LedgerKey] = Counter()
        """Of the batches that the snapshot contains."""
        self.in_checkpoints: Counter[LedgerKey] = Counter()
        """Of those that were sent before the checkpoints."""
        self.since_cut: Counter[LedgerKey] = Counter()
        """What the checkpoints have more than the snapshot; negative where they have less."""
        self.calls: Counter[str] = Counter()
        """By tenant, the calls of batches that the snapshot contains, in 2^-32."""
        self.in_flight = 0
        """Batches that the snapshot doesn't contain."""
        self.lost_windows = 0
        cut = saved.cuts.get(shard)
        self._applied = {} if cut is None else dict(cut.applied)
        self._sent = {p: each.previous_end_ms for p, each in saved.checkpoints.items() if each.previous_end_ms}
        self._chains = Chains(interval_ms, Spill(None, interval_ms, lambda: None))
        if not begins:
            self._chains.adopt()

    def take(self, offset: int, item: Item) -> None:
        """Take the shard's next record."""
        if isinstance(item, Batch):
            delivery = self._chains.deliver(offset, item)[1]
            if delivery is not None:
                self._count(delivery)
        elif isinstance(item, AcceptGap):
            for accepted in self._chains.accept_gap(item):
                self._count(accepted)

    def _count(self, delivery: Delivery) -> None:
        batch = delivery.batch
        in_cut = batch.end_ms <= self._applied.get(batch.partition, -1)
        in_checkpoint = batch.end_ms <= self._sent.get(batch.partition, -1)
        self.lost_windows += delivery.lost_windows
        if in_cut:
            self.in_cut.update(batch.ledger)
            self.calls.update(calls_of(batch.rows))
        else:
            self.in_flight += 1
        if in_checkpoint:
            self.in_checkpoints.update(batch.ledger)
        if in_cut and not in_checkpoint:
            self.since_cut.subtract(batch.ledger)
        elif in_checkpoint and not in_cut:
            self.since_cut.update(batch.ledger)


def calls_of(rows: DeltaRows) -> Counter[str]:
    """The calls of rows by tenant, in 2^-32."""
    cells = rows.cells[rows.cells["metric"] == MetricId.CALLS]
    found: Counter[str] = Counter()
    for number in np.unique(cells["tenant"]).tolist():
        own = cells[cells["tenant"] == number]
        limbs = zip(own["value_lo"].tolist(), own["value_hi"].tolist(), strict=True)
        found[rows.tenants[number]] += sum(join(lo, hi) for lo, hi in limbs)
    return found


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: what came to a place, and where it is; `unit` says of what.

    `notes` say what became of it, and which reasons hold the difference if there is one.
    """

    stage: str
    tenant: str
    unit: str
    came: int
    found: int
    notes: tuple[str, ...] = ()
    fates: Mapping[Fate, int] = field(default_factory=dict)

    @property
    def balances(self) -> bool:
        """Whether nothing is missing, and nothing too much."""
        return self.came == self.found

    @property
    def difference(self) -> int:
        """What is missing; negative if there is too much."""
        return self.came - self.found


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was read. `spans` and `dead_letters` are None where retention has taken what they would begin with.

    Both are about the records before the checkpoints: spans by tenant, and records that were put aside.
    """

    saved: Saved
    spans: Mapping[str, int] | None
    dead_letters: int | None
    tallies: Mapping[int, ShardTally]


def checks(evidence: Evidence) -> Iterator[Check]:
    """All comparisons that the evidence allows, stage by stage, tenants sorted."""
    ledger = generator_ledger(evidence)
    if ledger is not None:
        yield from _received(evidence, ledger)
        yield from _dead_letters(evidence, ledger)
        for balance in balances(ledger, evidence.saved.waiting, GENERATOR_EQUATIONS):
            yield _equation(f"generator, {balance.equation.name}", balance)
    for shard, cut in sorted(evidence.saved.cuts.items()):
        tally = evidence.tallies[shard]
        totals = {entry.key: entry.total for entry in cut.ledger}
        if tally.begins:
            yield from _taken_over(shard, tally.in_cut, totals)
            yield from _calls(cut, tally, totals)
        for balance in balances(totals, {}, (REGISTRY_ROWS,)):
            yield _equation(f"sink {shard}, rows", balance)


def generator_ledger(evidence: Evidence) -> Ledger | None:
    """What the generators had counted at their checkpoints.

    From the batches, if these are all there; else from what the sinks had, and the batches that they had more or fewer
    of. None if that can't be known: a shard has saved nothing yet, and its first batches are gone.
    """
    total: Counter[LedgerKey] = Counter()
    for shard, tally in evidence.tallies.items():
        cut = evidence.saved.cuts.get(shard)
        if tally.begins:
            total.update(tally.in_checkpoints)
        elif cut is None:
            return None
        else:
            total.update({entry.key: entry.total for entry in cut.ledger})
            total.update(tally.since_cut)
    return dict(total)


def _received(evidence: Evidence, ledger: Ledger) -> Iterator[Check]:
    """Spans of the log against those received."""
    if evidence.spans is None:
        return
    received = _by_tenant(ledger, SPAN_METRICS_SPANS)
    lost = sum(count for key, count in ledger.items() if key.counter == RECORDS_LOST)
    windows = sum(tally.lost_windows for tally in evidence.tallies.values())
    for tenant in sorted(received.keys() | evidence.spans.keys()):
        came, found = evidence.spans.get(tenant, 0), received.get(tenant, 0)
        notes = _reasons({RECORDS_LOST: lost, GAP_WINDOWS: windows}) if came != found else ()
        yield Check("log to generator", tenant, "spans", came, found, notes)


def _dead_letters(evidence: Evidence, ledger: Ledger) -> Iterator[Check]:
    """Records that couldn't be read against those that were put aside, of all tenants."""
    unreadable = sum(count for key, count in ledger.items() if key.counter == RECORDS_UNREADABLE)
    if evidence.dead_letters is not None and (unreadable or evidence.dead_letters):
        yield Check("generator to dead letters", "", "records", unreadable, evidence.dead_letters)


def _equation(stage: str, balance: Balance) -> Check:
    notes = tuple(f"{term}: {count}" for term, count in balance.parts if count) if balance.difference else ()
    return Check(
        stage=stage,
        tenant=balance.tenant,
        unit=balance.equation.unit,
        came=balance.whole,
        found=balance.whole - balance.difference,
        notes=notes,
        fates=balance.fates,
    )


def _taken_over(shard: int, batches: Ledger, totals: Ledger) -> Iterator[Check]:
    """The ledgers of batches against what the shard made of them, by tenant; the counters that differ are named."""
    gaps = sum(count for key, count in totals.items() if key.counter in {CHAIN_GAPS, GAP_WINDOWS})
    tenants = sorted({tenant_of(key) for key in batches})
    for tenant in tenants:
        own = {key: count for key, count in batches.items() if tenant_of(key) == tenant}
        wrong = [(key, count, totals.get(key, 0)) for key, count in sorted(own.items()) if totals.get(key, 0) != count]
        notes = [f"{_named(key)}: {count} in batches, {total} in the shard" for key, count, total in wrong]
        if wrong and gaps:
            notes.append(f"batches of this shard were lost: {CHAIN_GAPS}, {GAP_WINDOWS}")
        found = sum(own.values()) - sum(count - total for _, count, total in wrong)
        yield Check(f"batches to sink {shard}", tenant, "counts", sum(own.values()), found, tuple(_few(notes)))


def _calls(cut: Cut, tally: ShardTally, totals: Ledger) -> Iterator[Check]:
    """Calls of batches against those of series, unless series have gone with theirs."""
    series: Counter[str] = Counter()
    for key, state in cut.series:
        if key.metric == MetricId.CALLS:
            series[key.tenant] += state.counts[0]
    removed = {tenant_of(key) for key, count in totals.items() if key.counter == SERIES_REMOVED and count}
    for tenant in sorted((series.keys() | tally.calls.keys()) - removed):
        came, found = tally.calls[tenant], series[tenant]
        if came % WEIGHT_ONE or found % WEIGHT_ONE:
            yield Check(f"calls in sink {cut.shard}", tenant, "calls/2^32", came, found)
        else:
            yield Check(f"calls in sink {cut.shard}", tenant, "calls", came // WEIGHT_ONE, found // WEIGHT_ONE)


def _by_tenant(ledger: Ledger, equation: Equation) -> Counter[str]:
    found: Counter[str] = Counter()
    for key, count in ledger.items():
        if key.counter == equation.whole:
            found[tenant_of(key)] += count
    return found


def _reasons(counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(f"{name}: {count}" for name, count in counts.items() if count)


def _named(key: LedgerKey) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in key.labels)
    return f"{key.counter}{{{labels}}}"


def _few(notes: Sequence[str]) -> Sequence[str]:
    """The first notes, and how many more there are."""
    if len(notes) <= NAMED_AT_MOST:
        return notes
    return [*notes[:NAMED_AT_MOST], f"and {len(notes) - NAMED_AT_MOST} more"]
