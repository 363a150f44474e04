"""A shard: one partition of `[deltas]`, from batches to the samples of completed windows.

Every source partition delivers its windows as a chain (each batch names the one before); a window is complete when all
source partitions have delivered it, or a later one, or are waived. What comes out is a pure function of the partition's
records. Who computes a part of it again, after a crash, gets the same samples again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from schemas.control import AcceptGap, ConfigChange, SkipRecord, Waiver
from schemas.deltas import Batch, Ledger
from schemas.ledger_counters import CHAIN_GAPS, GAP_WINDOWS, LATE_BATCHES, WINDOWS_INCOMPLETE
from schemas.rules_in_force import RulesInForce
from schemas.snapshot import Cut
from streams.chains import Chains, Gap, Outcome
from streams.merged_window import merge_batches
from streams.registry import Registry, SettingsOf, TenantSamples
from streams.rules_in_force import at_window, decided, heard
from streams.series import Sample, Series
from streams.spill import BatchStore, Delivery, Spill
from streams.tenant_registry import SeriesSettings

__all__ = [
    "BatchStore",
    "Cut",
    "Fed",
    "Gap",
    "Outcome",
    "Sample",
    "Series",
    "Shard",
    "TenantSamples",
    "Unreadable",
    "WindowSamples",
]


class Unreadable(NamedTuple):
    """What stands for a record that can't be read."""

    reason: str


Item = Batch | Waiver | ConfigChange | AcceptGap | SkipRecord | Unreadable
"""What a record of `[deltas]` says."""


@dataclass(frozen=True, slots=True)
class WindowSamples:
    """The samples of a completed window, by tenant, sorted; of tenants that aren't written there are none."""

    shard: int
    start_ms: int
    end_ms: int
    tenants: tuple[TenantSamples, ...]
    late_batches: int
    """Batches of earlier windows, delivered after those were completed by a waiver: those were incomplete."""
    incomplete: bool = False
    """Whether it was completed by a waiver, before all source partitions had delivered it."""

    @property
    def stale_ms(self) -> int:
        """The time of stale markers: at the end they would stand where a series that comes back at once has a zero."""
        return self.end_ms - 1


@dataclass(frozen=True, slots=True)
class Fed:
    """What a record did, and the windows that it completed, in order."""

    outcome: Outcome
    windows: tuple[WindowSamples, ...] = ()


class Shard:
    """The state of one partition of `[deltas]` after some record.

    `rules` are those that hold until a configuration record says otherwise; a window is completed by the rules in force
    at its end. They may be `provisional`, of a process that doesn't know the log's: then windows wait for the first
    record, which holds for all of them. Without any `settings_of` decides, and such records are passed over.
    `interval_ms` (of windows) must be the same for whoever computes the same samples. `stale_markers`: give a last
    sample of each series that ends. Batches of windows far ahead of the open one are put away in the `store`, if there
    is one.
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
        store: BatchStore | None = None,
    ) -> None:
        self.index = index
        self.next_offset = 0
        """The offset after the last record that was fed."""
        self._interval_ms = interval_ms
        self._given, self._rules, self._provisional = settings_of, rules, provisional
        self._registry = Registry(index, self._settings_of, interval_ms, stale_markers=stale_markers)
        self._partitions = 0
        self._applied: dict[int, int] = {}
        self._revisions: dict[int, tuple[int, int]] = {}
        self._waived: dict[int, int] = {}
        self._waiting: dict[int, list[Delivery]] = {}
        self._spill = Spill(store, interval_ms, self._open_ms)
        self._chains = Chains(interval_ms, self._spill)

    @classmethod
    def restore(
        cls,
        cut: Cut,
        settings_of: SettingsOf,
        interval_ms: int,
        rules: RulesInForce | None = None,
        *,
        stale_markers: bool = False,
        store: BatchStore | None = None,
    ) -> Self:
        """The shard as of a cut. Fed from `cut.next_offset` on it completes the windows after the cut identically.

        `rules` are for a cut without any.
        """
        known = cut.rules or rules
        shard = cls(cut.shard, settings_of, interval_ms, known, stale_markers=stale_markers, store=store)
        shard.next_offset = cut.next_offset
        shard._partitions = cut.partitions
        shard._applied, shard._waived = dict(cut.applied), dict(cut.waived)
        shard._chains = Chains(interval_ms, shard._spill, cut.applied, cut.adopted_after)
        shard._registry.restore(cut.end_ms, cut.series, cut.ledger, cut.limiters, cut.written)
        return shard

    @property
    def end_ms(self) -> int | None:
        """The last completed window."""
        return self._registry.end_ms

    @property
    def waiting(self) -> list[int]:
        """The windows that have begun and wait for source partitions, the oldest first."""
        return sorted(self._waiting)

    @property
    def others_lag(self) -> bool:
        """Whether a source partition has made its last window by older rules than this shard knows for it."""
        rules = self._rules
        return rules is not None and any(
            revision < at_window(rules, end_ms).current.revision for end_ms, revision in self._revisions.values()
        )

    @property
    def waived(self) -> list[int]:
        """The source partitions that windows don't wait for, as they haven't delivered what they were waived for."""
        return [p for p, end_ms in sorted(self._waived.items()) if self._lacks(p, end_ms)]

    @property
    def delivered(self) -> Mapping[int, int]:
        """The last window that each source partition has delivered, by partition."""
        return self._chains.delivered

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

    @property
    def gaps(self) -> list[Gap]:
        """Where chains don't go on: what follows there is held until the missing batch comes, or a gap is accepted."""
        return self._chains.gaps()

    @property
    def unreadable(self) -> dict[int, str]:
        """The records that can't be read and weren't skipped, by their offsets, with the reason."""
        return dict(self._chains.unreadable)

    @property
    def store_full(self) -> bool:
        """Whether the store didn't take what was to be put away: nothing should be fed until `spill_again`."""
        return self._spill.full

    def feed(self, offset: int, item: Item) -> Fed:
        """Take the record at `offset`, and complete all windows that it allows; see `take`."""
        return Fed(self.take(offset, item), tuple(self.completed()))

    def take(self, offset: int, item: Item) -> Outcome:
        """Take the record at `offset`; offsets ascend. The windows that it allows must be `completed` before the next.

        Raises Malformed for rules that can't be read: those change nothing.
        """
        self.next_offset = offset + 1
        match item:
            case Batch():
                self._partitions = max(self._partitions, item.partitions)
                outcome, delivery = self._chains.deliver(offset, item)
                if delivery is not None:
                    self._revisions[item.partition] = item.end_ms, item.revision
                    self._wait(delivery)
                return outcome
            case Waiver():
                return self._waive(item)
            case ConfigChange():
                return self._hear(item)
            case AcceptGap():
                return self._accept_gap(item)
            case SkipRecord():
                return Outcome.APPLIED if self._chains.skip(item) else Outcome.DUPLICATE
            case Unreadable(reason):
                return self._chains.refuse(offset, reason)

    def completed(self) -> Iterator[WindowSamples]:
        """Complete the windows that are due, each when it is asked for: many may be, and each is large."""
        if self._provisional:
            return
        frontier_ms = self._frontier_ms()
        while (end_ms := self.waiting_ms) is not None and end_ms <= frontier_ms:
            yield self._complete(end_ms)

    def finish(self) -> list[WindowSamples]:
        """The input is bounded and at its end: complete everything that waits."""
        return [self._complete(end_ms) for end_ms in sorted(self._waiting)]

    def missing(self, end_ms: int | None = None) -> list[int]:
        """The source partitions for which a window waits, by default the oldest one that does."""
        end_ms = self.waiting_ms if end_ms is None else end_ms
        return [] if end_ms is None else [p for p in range(self._partitions) if self._reached_ms(p) < end_ms]

    def low(self, position: int) -> int:
        """Where one who stands at `position` must start to see all that completed windows don't contain."""
        waiting = [delivery.offset for deliveries in self._waiting.values() for delivery in deliveries]
        return min([*waiting, *self._chains.offsets(), position])

    def adopt(self) -> None:
        """The log begins above `next_offset`, so what is in between is lost: take each chain as it goes on.

        Of every source partition the first batch that doesn't follow is adopted, if nothing was delivered meanwhile.
        """
        self.keep_rules()
        self._chains.adopt()

    def keep_rules(self) -> None:
        """Take provisional rules for the log's: the record that says which hold won't come, or can't be followed."""
        self._provisional = False

    def spill_again(self) -> bool:
        """Put away what the store didn't take; False if it still doesn't."""
        self._spill.full = False
        for deliveries in self._waiting.values():
            for i, delivery in enumerate(deliveries):
                deliveries[i] = self._spill.out(delivery)
                if self._spill.full:
                    return False
        return self._chains.spill_held()

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
            adopted_after=None if self._chains.adopted_after is None else dict(self._chains.adopted_after),
            series=self._registry.totals(),
            ledger=self._registry.ledger_totals(),
            rules=self._rules,
            limiters=self._registry.limiter_states(),
            written=self._registry.written(),
        )

    def _settings_of(self, tenant: str) -> SeriesSettings:
        return self._given(tenant) if self._rules is None else self._rules.current.rules.settings_of(tenant)

    def _hear(self, change: ConfigChange) -> Outcome:
        """Take over what a configuration record decides."""
        if self._rules is None:
            return Outcome.DUPLICATE
        before = self._rules
        earliest_ms = 0 if self.end_ms is None else self.end_ms + self._interval_ms
        is_first = self._provisional
        self.keep_rules()
        self._rules = heard(before, decided(change, self._interval_ms), earliest_ms)
        if is_first and self._rules.coming:
            self._rules = at_window(self._rules, self._rules.coming[0].from_end_ms)
        return Outcome.DUPLICATE if self._rules == before else Outcome.APPLIED

    def _waive(self, waiver: Waiver) -> Outcome:
        if waiver.end_ms <= self._waived.get(waiver.partition, -1):
            return Outcome.DUPLICATE
        self._waived[waiver.partition] = waiver.end_ms
        return Outcome.APPLIED

    def _accept_gap(self, accepted: AcceptGap) -> Outcome:
        deliveries = self._chains.accept_gap(accepted)
        for delivery in deliveries:
            self._wait(delivery)
        return Outcome.ADOPTED if deliveries else Outcome.DUPLICATE

    def _wait(self, delivery: Delivery) -> None:
        """Put a batch, the next of its chain, into its window, or into the open one if its own is complete."""
        end_ms = delivery.batch.end_ms
        if self.end_ms is not None:
            end_ms = max(end_ms, self.end_ms + self._interval_ms)
        self._waiting.setdefault(end_ms, []).append(self._spill.out(delivery))

    def _open_ms(self) -> int | None:
        return min([*self._waiting, *self._chains.held_ends()], default=self.end_ms)

    def _reached_ms(self, partition: int) -> int:
        return max(self._chains.delivered.get(partition, -1), self._waived.get(partition, -1))

    def _lacks(self, partition: int, end_ms: int) -> bool:
        """Whether a window doesn't wait for a partition that hasn't delivered it."""
        return self._chains.delivered.get(partition, -1) < end_ms <= self._waived.get(partition, -1)

    def _frontier_ms(self) -> int:
        """Windows up to here are complete."""
        return min(map(self._reached_ms, range(self._partitions)), default=-1)

    def _complete(self, end_ms: int) -> WindowSamples:
        deliveries = self._waiting.pop(end_ms)
        batches = [self._spill.back(delivery) for delivery in deliveries]
        for batch in batches:
            self._applied[batch.partition] = batch.end_ms
        if self._rules is not None:
            self._rules = at_window(self._rules, end_ms)
        late = sum(batch.end_ms < end_ms for batch in batches)
        incomplete = any(self._lacks(p, end_ms) for p in range(self._partitions))
        incidents = {
            LATE_BATCHES: late,
            WINDOWS_INCOMPLETE: int(incomplete),
            CHAIN_GAPS: sum(delivery.adopted for delivery in deliveries),
            GAP_WINDOWS: sum(delivery.lost_windows for delivery in deliveries),
        }
        tenants = self._registry.complete(merge_batches(end_ms, batches), incidents)
        return WindowSamples(self.index, end_ms - self._interval_ms, end_ms, tenants, late, incomplete)
