"""A shard: one partition of `[deltas]`, from batches to the samples of completed windows.

Every source partition delivers its windows as a chain (each batch names the one before); a window is complete when all
source partitions have delivered it, or a later one, or are waived. What comes out is a pure function of the partition's
records. Who computes a part of it again, after a crash, gets the same samples again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from schemas.control import ConfigChange, Waiver
from schemas.deltas import Batch, Ledger, join_parts
from schemas.rules_in_force import RulesInForce
from schemas.snapshot import Cut
from streams.merged_window import merge_batches
from streams.registry import Registry, SettingsOf, TenantSamples
from streams.rules_in_force import at_window, decided, heard
from streams.series import Sample, Series
from streams.tenant_registry import SeriesSettings

__all__ = ["Cut", "Fed", "Outcome", "Sample", "Series", "Shard", "TenantSamples", "WindowSamples"]


class Outcome(StrEnum):
    """What became of a record."""

    APPLIED = "applied"
    """It is part of its window, or of the one then open if its own was completed without it."""
    DUPLICATE = "duplicate"
    """It was delivered before."""
    PART = "part"
    """Other parts of its batch are missing still."""
    GAP = "gap"
    """It doesn't follow what was delivered last: not applied, the missing batch has to be delivered first."""
    ADOPTED = "adopted"
    """It was applied though it doesn't follow: the log begins above what it follows, which is lost."""


@dataclass(frozen=True, slots=True)
class WindowSamples:
    """The samples of a completed window, by tenant, sorted; of tenants that aren't written there are none."""

    shard: int
    start_ms: int
    end_ms: int
    tenants: tuple[TenantSamples, ...]
    late_batches: int
    """Batches of earlier windows, delivered after those were completed by a waiver: those were incomplete."""


@dataclass(frozen=True, slots=True)
class Fed:
    """What a record did, and the windows that it completed, in order."""

    outcome: Outcome
    windows: tuple[WindowSamples, ...] = ()


class _Delivery(NamedTuple):
    """A whole batch that waits for its window, and the offset of its first part."""

    offset: int
    batch: Batch


class _PartsKey(NamedTuple):
    partition: int
    end_ms: int
    digest: bytes


class Shard:
    """The state of one partition of `[deltas]` after some record.

    `rules` are those that hold until a configuration record says otherwise; a window is completed by the rules in force
    at its end. They may be `provisional`, of a process that doesn't know the log's: then the first record holds for all
    windows that aren't complete. Without any `settings_of` decides, and such records are passed over. `interval_ms` (of
    windows) must be the same for whoever computes the same samples. `stale_markers`: give a last sample of each series
    that ends.
    """

    def __init__(
        self,
        index: int,
        settings_of: SettingsOf,
        interval_ms: int,
        rules: RulesInForce | None = None,
        *,
        provisional: bool = False,
        stale_markers: bool = False,
    ) -> None:
        self.index = index
        self.next_offset = 0
        """The offset after the last record that was fed."""
        self._interval_ms = interval_ms
        self._given, self._rules, self._provisional = settings_of, rules, provisional
        self._registry = Registry(index, self._settings_of, interval_ms, stale_markers=stale_markers)
        self._partitions = 0
        self._delivered: dict[int, int] = {}
        self._applied: dict[int, int] = {}
        self._waived: dict[int, int] = {}
        self._adopted_after: dict[int, int] | None = None
        self._waiting: dict[int, list[_Delivery]] = {}
        self._parts: dict[_PartsKey, dict[int, _Delivery]] = {}

    @classmethod
    def restore(
        cls,
        cut: Cut,
        settings_of: SettingsOf,
        interval_ms: int,
        rules: RulesInForce | None = None,
        *,
        stale_markers: bool = False,
    ) -> Self:
        """The shard as of a cut. Fed from `cut.next_offset` on it completes the windows after the cut identically.

        `rules` are for a cut without any.
        """
        shard = cls(cut.shard, settings_of, interval_ms, cut.rules or rules, stale_markers=stale_markers)
        shard.next_offset = cut.next_offset
        shard._partitions = cut.partitions
        shard._delivered, shard._applied = dict(cut.applied), dict(cut.applied)
        shard._waived = dict(cut.waived)
        shard._adopted_after = None if cut.adopted_after is None else dict(cut.adopted_after)
        shard._registry.restore(cut.end_ms, cut.series, cut.ledger, cut.limiters)
        return shard

    @property
    def end_ms(self) -> int | None:
        """The last completed window."""
        return self._registry.end_ms

    @property
    def waiting_ms(self) -> int | None:
        """The oldest window that has begun and waits for source partitions."""
        return min(self._waiting, default=None)

    @property
    def rules(self) -> RulesInForce | None:
        """The rules in force and the next ones, as far as records were fed; None if they aren't the log's."""
        return self._rules

    @property
    def ledger(self) -> Ledger:
        """What the ledger's counters amount to in completed windows."""
        return self._registry.ledger()

    def feed(self, offset: int, item: Batch | Waiver | ConfigChange) -> Fed:
        """Take the record at `offset`; offsets ascend.

        Raises Malformed if parts aren't what their digest says, or for rules that can't be read: those change nothing.
        """
        self.next_offset = offset + 1
        if isinstance(item, ConfigChange):
            return Fed(self._hear(item))
        outcome = self._waive(item) if isinstance(item, Waiver) else self._deliver(offset, item)
        if outcome in {Outcome.APPLIED, Outcome.ADOPTED}:
            return Fed(outcome, tuple(self._complete(self._frontier_ms())))
        return Fed(outcome)

    def finish(self) -> list[WindowSamples]:
        """The input is bounded and at its end: complete everything that waits."""
        return self._complete(max(self._waiting, default=0))

    def missing(self) -> list[int]:
        """The source partitions for which the oldest waiting window waits."""
        end_ms = self.waiting_ms
        return [] if end_ms is None else [p for p in range(self._partitions) if self._reached_ms(p) < end_ms]

    def low(self, position: int) -> int:
        """Where one who stands at `position` must start to see all that completed windows don't contain."""
        waiting = [delivery.offset for deliveries in self._waiting.values() for delivery in deliveries]
        parts = [delivery.offset for parts in self._parts.values() for delivery in parts.values()]
        return min([*waiting, *parts, position])

    def adopt(self) -> None:
        """The log begins above `next_offset`, so what is in between is lost: take each chain as it goes on.

        Of every source partition the first batch that doesn't follow is adopted, if nothing was delivered meanwhile.
        """
        self._adopted_after = dict(self._delivered)

    def snapshot(self) -> Cut | None:
        """All state at the last completed window, None before the first; a copy of references, done in no time."""
        if self.end_ms is None:
            return None
        return Cut(
            shard=self.index,
            end_ms=self.end_ms,
            next_offset=self.low(self.next_offset),
            partitions=self._partitions,
            applied=dict(self._applied),
            waived=dict(self._waived),
            adopted_after=None if self._adopted_after is None else dict(self._adopted_after),
            series=self._registry.totals(),
            ledger=self._registry.ledger_totals(),
            rules=self._rules,
            limiters=self._registry.limiter_states(),
        )

    def _settings_of(self, tenant: str) -> SeriesSettings:
        return self._given(tenant) if self._rules is None else self._rules.current.rules.settings_of(tenant)

    def _hear(self, change: ConfigChange) -> Outcome:
        """Take over what a configuration record decides."""
        if self._rules is None:
            return Outcome.DUPLICATE
        before = self._rules
        earliest_ms = 0 if self.end_ms is None else self.end_ms + self._interval_ms
        self._rules = heard(before, decided(change, self._interval_ms), earliest_ms)
        if self._provisional and self.end_ms is None and self._rules.coming:
            self._rules = at_window(self._rules, self._rules.coming[0].from_end_ms)
        self._provisional = False
        return Outcome.DUPLICATE if self._rules == before else Outcome.APPLIED

    def _waive(self, waiver: Waiver) -> Outcome:
        if waiver.end_ms <= self._waived.get(waiver.partition, -1):
            return Outcome.DUPLICATE
        self._waived[waiver.partition] = waiver.end_ms
        return Outcome.APPLIED

    def _deliver(self, offset: int, batch: Batch) -> Outcome:
        self._partitions = max(self._partitions, batch.partitions)
        last_ms = self._delivered.get(batch.partition)
        if last_ms is not None and batch.end_ms <= last_ms:
            return Outcome.DUPLICATE
        follows = batch.previous_end_ms == last_ms
        if not follows and not self._adopts(batch.partition):
            return Outcome.GAP
        whole = self._collect_parts(offset, batch)
        if isinstance(whole, Outcome):
            return whole
        self._accept(whole)
        return Outcome.APPLIED if follows else Outcome.ADOPTED

    def _adopts(self, partition: int) -> bool:
        after = self._adopted_after
        return after is not None and self._delivered.get(partition) == after.get(partition)

    def _collect_parts(self, offset: int, part: Batch) -> _Delivery | Outcome:
        """The whole batch if this part completes it. Parts of one digest are one set, whoever sent them."""
        key = _PartsKey(part.partition, part.end_ms, part.digest)
        parts = self._parts.setdefault(key, {})
        if part.part in parts:
            return Outcome.DUPLICATE
        parts[part.part] = _Delivery(offset, part)
        if len(parts) < part.parts:
            return Outcome.PART
        del self._parts[key]
        first = min(delivery.offset for delivery in parts.values())
        return _Delivery(first, join_parts([delivery.batch for delivery in parts.values()]))

    def _accept(self, delivery: _Delivery) -> None:
        """Put a whole batch, the next of its chain, into its window, or into the open one if its own is complete."""
        batch = delivery.batch
        self._delivered[batch.partition] = batch.end_ms
        self._parts = {
            key: parts
            for key, parts in self._parts.items()
            if key.partition != batch.partition or key.end_ms > batch.end_ms
        }
        open_ms = batch.end_ms if self.end_ms is None else max(batch.end_ms, self.end_ms + self._interval_ms)
        self._waiting.setdefault(open_ms, []).append(delivery)

    def _reached_ms(self, partition: int) -> int:
        return max(self._delivered.get(partition, -1), self._waived.get(partition, -1))

    def _frontier_ms(self) -> int:
        """Windows up to here are complete."""
        return min(map(self._reached_ms, range(self._partitions)), default=-1)

    def _complete(self, frontier_ms: int) -> list[WindowSamples]:
        ends = sorted(end_ms for end_ms in self._waiting if end_ms <= frontier_ms)
        return [self._window(end_ms, [d.batch for d in self._waiting.pop(end_ms)]) for end_ms in ends]

    def _window(self, end_ms: int, batches: Sequence[Batch]) -> WindowSamples:
        for batch in batches:
            self._applied[batch.partition] = batch.end_ms
        if self._rules is not None:
            self._rules = at_window(self._rules, end_ms)
        tenants = self._registry.complete(merge_batches(end_ms, batches))
        late = sum(batch.end_ms < end_ms for batch in batches)
        return WindowSamples(self.index, end_ms - self._interval_ms, end_ms, tenants, late)
