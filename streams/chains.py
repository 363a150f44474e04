"""What source partitions have delivered to a shard: chains of batches, each of which names the one before.

So a repeated batch is told from a new one, and a missing one is noticed. What doesn't follow is held and not applied:
its sender's checkpoint can't have passed the missing one, which therefore comes again, and all after it too. If it is
lost all the same, an operator accepts the gap (`AcceptGap`), and the chain goes on with what is held.

All of it is a function of the shard's records. Whoever begins again at a cut passes over what the cut's windows
contain, and reads all that they don't once more: `offsets` are where that is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from schemas.control import AcceptGap, SkipRecord
from schemas.deltas import Batch, join_parts
from schemas.errors import Malformed
from streams.spill import Delivery, Spill


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
    """It was applied though it doesn't follow: what it follows is lost."""
    UNREADABLE = "unreadable"
    """It can't be read, or completes parts that aren't what their digest says: not applied."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A place where a chain doesn't go on: the batch at `offset` follows another window than the last delivered one."""

    partition: int
    delivered_ms: int | None
    offset: int
    end_ms: int
    previous_end_ms: int | None


class _PartsKey(NamedTuple):
    partition: int
    end_ms: int
    digest: bytes


class Chains:
    """The chains of all source partitions of a shard. `delivered` is the last window of each.

    `adopted_after`: the log began above what was wanted when this had been delivered (`adopt`), None if it didn't.
    """

    def __init__(
        self,
        interval_ms: int,
        spill: Spill,
        delivered: Mapping[int, int] | None = None,
        adopted_after: Mapping[int, int] | None = None,
    ) -> None:
        self.delivered = dict(delivered or {})
        self.adopted_after = None if adopted_after is None else dict(adopted_after)
        self.unreadable: dict[int, str] = {}
        """Records that can't be read, by their offsets, with the reason."""
        self._interval_ms, self._spill = interval_ms, spill
        self._parts: dict[_PartsKey, dict[int, Delivery]] = {}
        self._held: dict[int, dict[int, Delivery]] = {}
        """By partition and end: whole batches out of their chain; of two with one end the first counts."""

    def deliver(self, offset: int, part: Batch) -> tuple[Outcome, Delivery | None]:
        """Take the next part; gives the whole batch if it is the next one of its chain."""
        last_ms = self.delivered.get(part.partition)
        if last_ms is not None and part.end_ms <= last_ms:
            return Outcome.DUPLICATE, None
        whole = self._whole(offset, part)
        if isinstance(whole, Outcome):
            return whole, None
        if part.previous_end_ms == last_ms:
            return Outcome.APPLIED, self._accept(whole)
        if self._adopts(part.partition):
            return Outcome.ADOPTED, self._accept(self._adopted(whole))
        held = self._held.setdefault(part.partition, {})
        if part.end_ms in held:
            return Outcome.DUPLICATE, None
        held[part.end_ms] = self._spill.out(whole)
        return Outcome.GAP, None

    def refuse(self, offset: int, reason: str) -> Outcome:
        """Note that the record at an offset can't be read. Whose chain it breaks, if any, shows later."""
        self.unreadable[offset] = reason
        return Outcome.UNREADABLE

    def accept_gap(self, accepted: AcceptGap) -> list[Delivery]:
        """Let a chain go on with what is held of it; gives that. Nothing if it is at another place, or nothing is held.

        So a record that is repeated, or is about a gap that was closed meanwhile, changes nothing.
        """
        partition = accepted.partition
        if self.delivered.get(partition) != accepted.after_end_ms:
            return []
        deliveries: list[Delivery] = []
        for _, held in sorted(self._held.get(partition, {}).items()):
            if not deliveries:
                deliveries.append(self._accept(self._adopted(held)))
            elif held.batch.previous_end_ms == deliveries[-1].batch.end_ms:
                deliveries.append(self._accept(held))
            else:
                break  # at another gap
        return deliveries

    def skip(self, skipped: SkipRecord) -> bool:
        """Pass over a record that can't be read; False if there is none at that offset."""
        return self.unreadable.pop(skipped.offset, None) is not None

    def adopt(self) -> None:
        """What the log should have next is lost: take each chain as it goes on.

        Of every source partition the first batch that doesn't follow is adopted, if nothing was delivered meanwhile.
        """
        self.adopted_after = dict(self.delivered)

    def spill_held(self) -> bool:
        """Put held batches away that couldn't be; False if they still can't."""
        for held in self._held.values():
            for end_ms, delivery in held.items():
                held[end_ms] = self._spill.out(delivery)
                if self._spill.full:
                    return False
        return True

    def gaps(self) -> list[Gap]:
        """Where chains don't go on, by partition."""
        return [self._gap(partition, held) for partition, held in sorted(self._held.items()) if held]

    def held_ends(self) -> Iterator[int]:
        """The windows of held batches."""
        for held in self._held.values():
            yield from held

    def offsets(self) -> Iterator[int]:
        """Of all that was read and not given as a whole batch yet, and may be."""
        yield from self.unreadable
        for deliveries in (*self._parts.values(), *self._held.values()):
            yield from (delivery.offset for delivery in deliveries.values())

    def _gap(self, partition: int, held: Mapping[int, Delivery]) -> Gap:
        first = held[min(held)]
        delivered_ms = self.delivered.get(partition)
        return Gap(partition, delivered_ms, first.offset, first.batch.end_ms, first.batch.previous_end_ms)

    def _adopts(self, partition: int) -> bool:
        after = self.adopted_after
        return after is not None and self.delivered.get(partition) == after.get(partition)

    def _adopted(self, delivery: Delivery) -> Delivery:
        """A batch as the first one after a gap. How many windows that had is known only where both its sides are."""
        last_ms, previous_ms = self.delivered.get(delivery.batch.partition), delivery.batch.previous_end_ms
        lost_ms = 0 if last_ms is None or previous_ms is None else max(previous_ms - last_ms, 0)
        return delivery._replace(adopted=True, lost_windows=lost_ms // self._interval_ms)

    def _whole(self, offset: int, part: Batch) -> Delivery | Outcome:
        """The whole batch if this part completes it. Parts of one digest are one set, whoever sent them.

        They are forgotten if they aren't what that says: the next batch of the chain shows what is missing.
        """
        key = _PartsKey(part.partition, part.end_ms, part.digest)
        parts = self._parts.setdefault(key, {})
        if part.part in parts:
            return Outcome.DUPLICATE
        parts[part.part] = Delivery(offset, part)
        if len(parts) < part.parts:
            return Outcome.PART
        del self._parts[key]
        first = min(delivery.offset for delivery in parts.values())
        try:
            return Delivery(first, join_parts([delivery.batch for delivery in parts.values()]))
        except Malformed:
            return Outcome.UNREADABLE

    def _accept(self, delivery: Delivery) -> Delivery:
        """Note the next batch of a chain, and forget what came in its place or before."""
        partition, end_ms = delivery.batch.partition, delivery.batch.end_ms
        self.delivered[partition] = end_ms
        self._parts = {
            key: parts for key, parts in self._parts.items() if key.partition != partition or key.end_ms > end_ms
        }
        held = self._held.get(partition, {})
        for held_ms in [held_ms for held_ms in held if held_ms <= end_ms]:
            out = held.pop(held_ms)
            if out.offset != delivery.offset:
                self._spill.drop(out)
        return delivery
