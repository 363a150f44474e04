"""The product with one rule of its protocol switched off, each of which the simulation must notice.

A variant changes as little as it can, at the place where the rule is. `flavour` are the schedules in which it is looked
for, `budget` is how many of them there may be until it is noticed. Most rules are missed in one schedule of a few, some
in one of a hundred: `python -m tests.simulation --broken` says which seeds are the first.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

from agents.chain_watch import ChainWatch
from agents.generator import Delivery, Generator, PartitionOwner
from agents.inbox import Inbox
from agents.shard_writer import ShardWriter
from agents.sink import ShardOwner
from agents.ticks import TickTimer
from schemas.checkpoint import Checkpoint
from schemas.control import Waiver
from schemas.labels import encode_labels
from schemas.rules_in_force import RulesInForce
from schemas.snapshot import obsolete_keys, snapshot_records
from streams.chains import Chains, Outcome
from streams.merged_window import MergedWindow
from streams.partition import PartitionFold
from streams.registry import Registry, TenantSamples
from streams.shard import Shard
from streams.tenant_registry import TenantRegistry
from tests.simulation.settings import Work

Change = Callable[[], AbstractContextManager[Any]]
NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class Variant:
    """A rule that is switched off."""

    rule: str
    changes: tuple[Change, ...]
    flavour: str | None = None
    """Which schedules; None: of all kinds."""
    budget: int = 100
    fixed: Mapping[str, object] = field(default_factory=lambda: NOTHING)
    """What those schedules have in common."""
    known: tuple[int, ...] = ()
    """Seeds that noticed it when somebody last looked: those are tried first."""
    reorders: bool = False
    """Whether producers may let records of a partition overtake each other."""

    @contextlib.contextmanager
    def switched_off(self) -> Iterator[None]:
        """The product without the rule, for the time of the context."""
        with contextlib.ExitStack() as changed:
            for change in self.changes:
                changed.enter_context(change())
            yield


def _method(owner: object, name: str, other: object) -> Change:
    """A method of the product in another form. Fails if there is none of that name."""
    return lambda: patch.object(owner, name, other)


def _named(name: str, other: object) -> Change:
    """The same of a name in a module."""
    return lambda: patch(name, other)


# ------------------------------------------------------------------------------------------------------- generator
async def _deliver_checkpoint_first(self: PartitionOwner) -> None:
    while True:
        waiting = [await self._deliveries.get()]
        newest = waiting[0].checkpoint
        if newest is not None:
            await self._save(newest)
            await self._worker.commit(self.partition, newest.next_offset)
        await self._send(waiting)


_fold_chunk = PartitionOwner._fold_chunk


def _fold_chunk_to_mid_window(self: PartitionOwner, *args: Any) -> Delivery:
    """The checkpoint is of the chunk's end: what the open window holds by then isn't in it."""
    delivery = _fold_chunk(self, *args)
    if delivery.checkpoint is None:
        return delivery
    position = replace(delivery.checkpoint, next_offset=self._fold.next_offset, next_timestamp_ms=None)
    return replace(delivery, checkpoint=position)


def _committed_offset(self: PartitionOwner) -> int:
    own = 0 if self._checkpoint is None else self._checkpoint.next_offset
    committed: int = self._worker._committed.get(self.partition, own)  # type: ignore[attr-defined]
    return committed


async def _begin_without_saving(self: PartitionOwner) -> Checkpoint:
    if self._checkpoint is not None:
        return self._checkpoint
    generator = self._generator
    ends = await generator.broker.probe.ends(generator.names.spans, self.partition)
    rules = RulesInForce.initial(generator.live.rules, spans_partitions=generator.partitions)
    return Checkpoint(ends.low, rules=rules, shards=generator.shards)


async def _never_replaced(self: PartitionOwner, *args: object) -> bool:
    return False


async def _explain_nothing(self: Inbox, found: int) -> None:
    """Whatever is missing is taken for lost by itself."""


_send = PartitionOwner._send


async def _send_on(self: PartitionOwner, deliveries: Sequence[Delivery]) -> None:
    """A delivery that failed is passed over."""
    with contextlib.suppress(Exception), patch.object(self._generator.broker.producer, "purge", lambda: None):
        await _send(self, deliveries)


_fold_from = Generator.fold_from


def _fold_by_own_rules(self: Generator, checkpoint: Checkpoint) -> PartitionFold:
    assert checkpoint.rules is not None
    own = RulesInForce.initial(self.live.rules)
    return _fold_from(self, replace(checkpoint, rules=replace(own, counts=checkpoint.rules.counts)))


def _begin_by_own_rules(self: Shard) -> Iterator[Any]:
    self.keep_rules()
    return _completed(self)


_completed = Shard.completed


def _hear_nothing(self: PartitionFold, record: object) -> Iterator[Any]:
    yield from ()


_due = TickTimer.due


def _due_unless_empty(self: TickTimer, open_end_ms: int | None, next_offset: int) -> bool:
    return self._newest_ms is not None and open_end_ms is not None and _due(self, open_end_ms, next_offset)


# ------------------------------------------------------------------------------------------------------------ sink
async def _waive_at_once(self: ChainWatch, waivers: Sequence[Waiver]) -> None:
    """Nobody else learns of it."""
    for waiver in waivers:
        self._shard._waive(waiver)


def _highest_wins(self: Chains, offset: int, part: Any) -> tuple[Outcome, Any]:
    """Whatever is later than the last one follows it."""
    last_ms = self.delivered.get(part.partition)
    if last_ms is not None and part.end_ms <= last_ms:
        return Outcome.DUPLICATE, None
    whole = self._whole(offset, part)
    if isinstance(whole, Outcome):
        return whole, None
    return Outcome.APPLIED, self._accept(whole)


def _position(self: Shard, position: int) -> int:
    return position


def _only_held(self: Chains) -> Iterator[int]:
    """Without parts of batches that aren't whole yet."""
    for deliveries in self._held.values():
        yield from (delivery.offset for delivery in deliveries.values())


_restore = Shard.restore.__func__  # type: ignore[attr-defined]


def _restore_by_stamp(cls: type[Shard], cut: Any, *args: Any, **kwargs: Any) -> Shard:
    """All batches of the snapshot's window and before are passed over."""
    stamped = replace(cut, applied={p: max(end_ms, cut.end_ms) for p, end_ms in cut.applied.items()})
    restored: Shard = _restore(cls, stamped, *args, **kwargs)
    return restored


def _everyone_has(self: ShardWriter, number: int) -> bool:
    return True


_apply = Registry._apply


def _apply_in_order_of_arrival(self: Registry, window: MergedWindow) -> None:
    for frame in window.frames:
        _apply(self, replace(window, frames=[frame]))


_close = Registry._close


def _collect_then_drop(self: Registry, name: str, tenant: TenantRegistry, previous_ms: int | None) -> TenantSamples:
    """What is stale is written once more."""
    assert self.end_ms is not None
    with patch.object(tenant, "drop_stale", lambda end_ms: None):
        samples = _close(self, name, tenant, previous_ms)
    tenant.drop_stale(self.end_ms)
    return samples


async def _save_all_at_once(self: ShardOwner, cut: Any) -> None:
    """Whatever of a snapshot arrives; what was there before goes at the same time."""
    sink = self._sink
    records = snapshot_records(cut, sink.writer, sink.record_limit)
    old = dict.fromkeys(obsolete_keys(list(self._worker.table.data), cut))
    await asyncio.gather(self._worker.save(cut.shard, old), self._worker.save(cut.shard, dict(reversed(records))))


def _overflow_of_all(shard: int) -> bytes:
    return encode_labels((("metric_overflow", "true"),))


LONG = {"active_s": 30.0, "spans_every_s": 2.0}
"""Several windows, and what happened to one of them seen in a later one."""
OVERFLOWING = MappingProxyType({"first": "limited", "shards": 2})

VARIANTS = (
    Variant(
        "a checkpoint is written when its batches are acknowledged",
        (_method(PartitionOwner, "_deliver", _deliver_checkpoint_first),),
    ),
    Variant(
        "a checkpoint stands at the boundary of a window",
        (_method(PartitionOwner, "_fold_chunk", _fold_chunk_to_mid_window),),
    ),
    Variant(
        "reading begins at the checkpoint, whatever is committed",
        (_method(PartitionOwner, "start_offset", property(_committed_offset)),),
        budget=400,
    ),
    Variant(
        "the first checkpoint is written before the first record is read",
        (_method(PartitionOwner, "_first_checkpoint", _begin_without_saving),),
        flavour="rules",
    ),
    Variant(
        "a topic that was replaced is known by the timestamp of the checkpoint's record",
        (_method(PartitionOwner, "_replaced", _never_replaced),),
        flavour="replaced",
    ),
    Variant("what is delivered is contiguous", (_method(Inbox, "_explain", _explain_nothing),)),
    Variant("nothing follows a delivery that failed", (_method(PartitionOwner, "_send", _send_on),)),
    Variant(
        "rules come from the log",
        (_method(Generator, "fold_from", _fold_by_own_rules), _method(PartitionFold, "_hear", _hear_nothing)),
        flavour="rules",
    ),
    Variant(
        "the first windows wait for the log's rules",
        (_method(Shard, "completed", _begin_by_own_rules),),
        flavour="rules",
        # Deliveries fail, so that sinks have batches before there are rules, and sinks follow each other.
        fixed={
            "faults": ("failed delivery", "freeze", "rules", "down", "restart"),
            "fault_every_s": 0.8,
            "active_s": 10.0,
            "spans_every_s": 0.8,
        },
    ),
    Variant(
        "a partition from which nothing is left to read gets a tick",
        (_method(TickTimer, "due", _due_unless_empty),),
        flavour="retention",
        # Few spans: else there is something to read.
        fixed={"faults": ("crash", "retention"), "fault_every_s": 4.0, "spans_every_s": 6.0, "active_s": 20.0},
    ),
    Variant(
        "a waiver is a record, and holds when it is read back",
        (_method(ChainWatch, "_append", _waive_at_once),),
        flavour="waivers",
    ),
    Variant(
        "batches are a chain: producers that reorder lose nothing silently",
        (_method(Chains, "deliver", _highest_wins),),
        reorders=True,
    ),
    Variant("a snapshot knows the batches that wait", (_method(Shard, "low", _position),), fixed=LONG),
    Variant(
        "a snapshot knows the parts of batches that aren't whole",
        (_method(Chains, "offsets", _only_held),),
        # One partition's parts arrive around the last batch of a window that another one is late with.
        fixed={
            "faults": ("zombie", "clock step"),
            "fault_every_s": 1.0,
            "active_s": 30.0,
            "spans_every_s": 1.0,
            "slow": 0.1,
            "part_limit": 300,
            "processes": 2,
            "first": "plain",
            "work": Work(snapshot_every=1),
        },
        known=(42, 86),
    ),
    Variant(
        "a shard that is restored passes over what was applied, not what is old",
        (_method(Shard, "restore", classmethod(_restore_by_stamp)),),
        flavour="waivers",
        # Seconds without a sink's restart until a waiver comes, and one before what was waived does.
        fixed={"faults": ("crash", "restart", "silence"), "fault_every_s": 5.0, "active_s": 60.0},
    ),
    Variant(
        "a snapshot is written when every endpoint has its window",
        (_method(ShardWriter, "_everyone_has", _everyone_has),),
    ),
    Variant(
        "a snapshot's manifest is written when its parts are, and old ones go then",
        (_method(ShardOwner, "_save", _save_all_at_once),),
        fixed={
            "fault_every_s": 0.8,
            "active_s": 24.0,
            "spans_every_s": 1.0,
            "slow": 0.1,
            "snapshot_limit": 600,
            "work": Work(snapshot_every=1),
        },
    ),
    Variant(
        "limits admit series in canonical order",
        (_method(Registry, "_apply", _apply_in_order_of_arrival),),
        fixed={"first": "limited"},
    ),
    Variant(
        "overflow series carry their shard",
        (
            _named("streams.tenant_registry.overflow_labels", _overflow_of_all),
            _named("streams.series.overflow_labels", _overflow_of_all),
        ),
        fixed=OVERFLOWING,
    ),
    Variant(
        "a stale series isn't written in the window that drops it", (_method(Registry, "_close", _collect_then_drop),)
    ),
    Variant(
        "a request without an answer is sent again",
        (_named("agents.remote_write.endpoint.RETRIED", frozenset()),),
    ),
)
"""All of them, by the part of the protocol."""
