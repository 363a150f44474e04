"""Where a replay of a topic begins, by what it goes, and how far what it computes is what the live stages wrote.

It is exactly that from the beginning of the log and from a bookmark, if it follows the deltas topic too. From elsewhere
the deltas of windows are live's after a warm-up, but totals begin at 0; then series get a label of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from agents.replay.files import InputError
from agents.replay.script import DeltaScripts
from agents.replay.topic import Bound, Topic, to_ms
from schemas.bookmark import Bookmark
from schemas.checkpoint import Checkpoint
from schemas.config import Config, tenant_settings
from schemas.config.rules import Rules
from schemas.errors import Malformed
from schemas.record import DEFAULT_TENANT
from schemas.snapshot import Cut
from streams.pipeline import FIRST_PARTITION, NOTHING, Beginning
from streams.scripted_shard import Script

WARM_UP_WAITS = 3
"""A half-edge lives as long as it waits, and a dropped side too: what came before so many has no effect any more."""

INSIDE = (
    "the range begins inside the log: totals begin at 0 there, limits and staleness know nothing of before, a late "
    "batch counts in its own window, and this configuration holds until the range's first configuration record"
)
BEGINNING_GONE = "records of the beginning are gone (retention); begin at a bookmark (spanmill bookmark) to have live's"
WAIVERS_IGNORED = "waivers are ignored: what came late counts in its own window (--ignore-waivers)"
OWN_CONFIG = "the log's configuration records aren't obeyed (--own-config)"


class Wish(Protocol):
    """What a replay of a topic was asked for; see `Request`."""

    @property
    def shards(self) -> int | None:
        """Partitions of the deltas topic, if they aren't what there is."""

    @property
    def own_config(self) -> bool:
        """Whether the configuration counts, and not what the log says of it."""

    @property
    def ignore_waivers(self) -> bool:
        """Whether each batch counts in its own window."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to begin, and what to go by; `differs` says why the samples won't be live's, if so."""

    shards: int
    rules: Rules | None
    starts: Mapping[int, int]
    """Offsets of the spans topic, by partition."""
    beginning: Beginning = NOTHING
    scripts: Mapping[int, Script] | None = None
    warm_up_ms: int | None = None
    """Windows up to there are folded, and their deltas dropped."""
    differs: tuple[str, ...] = ()

    @property
    def inside(self) -> bool:
        """Whether it begins inside the log, without what was before."""
        return self.warm_up_ms is not None


def from_bookmark(config: Config, wish: Wish, bookmark: Bookmark, spans: Topic, deltas: DeltaScripts | None) -> Plan:
    """From what the stages had saved. Raises InputError if the topics aren't those, or don't hold what it needs."""
    if deltas is None or (bookmark.spans, bookmark.shards) != (spans.name, deltas.shards):
        found = "is not there" if deltas is None else f"{spans.name} and {deltas.shards} partitions are"
        raise InputError(
            f"the bookmark is of {bookmark.app_id}: of {bookmark.spans} and of {bookmark.shards} partitions of "
            f"{bookmark.deltas}, which {found}"
        )
    if wish.own_config or wish.ignore_waivers or wish.shards not in {None, deltas.shards}:
        raise InputError("a replay from a bookmark is live's: --own-config, --ignore-waivers and --shards can't be had")
    try:
        checkpoints = bookmark.decoded_checkpoints()
        # Whether a partition without a checkpoint had joined by then is a matter of the first one's rules.
        begin = Beginning(checkpoints, bookmark.cuts(), 0 if FIRST_PARTITION in checkpoints else bookmark.partitions)
    except Malformed as error:
        raise InputError(f"the bookmark can't be read: {error}") from error
    starts = {partition: each.next_offset for partition, each in begin.checkpoints.items()}
    for partition in spans.ends:
        _check_kept(spans, partition, starts.get(partition, 0))
    for partition, each in begin.checkpoints.items():
        _check_same(spans, partition, each)
    cuts = {shard: each.next_offset for shard, each in begin.cuts.items()}
    for shard in range(deltas.shards):
        _check_kept(deltas.topic, shard, cuts.get(shard, 0))
    rules = _first_rules(Rules.of(config), begin.checkpoints, begin.cuts)
    return Plan(deltas.shards, rules, starts, begin, deltas.scripts(cuts))


def from_range(
    config: Config, wish: Wish, start: Bound | None, spans: Topic, deltas: DeltaScripts | None, *, is_live: bool
) -> Plan:
    """From the beginning, or from elsewhere. `is_live`: the topics are those of the configuration's app."""
    shards = wish.shards or (deltas.shards if deltas is not None else 1)
    rules = None if wish.own_config else Rules.of(config)
    reasons = [] if is_live else [f"{spans.name} isn't the spans topic of {config.spanmill.app_id}"]
    reasons += [OWN_CONFIG] if wish.own_config else []
    reasons += [WAIVERS_IGNORED] if wish.ignore_waivers else []
    since_ms = _inside(spans, start)
    if since_ms is not None:
        reasons.append(BEGINNING_GONE if start is None else INSIDE)
        warm_up_ms = since_ms - WARM_UP_WAITS * longest_wait_ms(config)
        starts = {partition: spans.offset_at(partition, warm_up_ms) for partition in spans.ends}
        return Plan(shards, rules, starts, warm_up_ms=since_ms, differs=tuple(reasons))
    if deltas is None or wish.own_config:
        return Plan(shards, rules, {}, differs=tuple(reasons))
    if deltas.shards != shards:
        reasons.append(f"the deltas topic has {deltas.shards} partitions, and not {shards} (--shards)")
    if deltas.starts_late:
        reasons.append(f"{BEGINNING_GONE}: of the deltas topic, so that nobody knows what was waived or late")
    begin, first = NOTHING, deltas.first_change()
    if first is not None:
        rules = _unpacked(first.rules, rules)
        begin = Beginning(partitions=first.spans_partitions or None)
    return Plan(shards, rules, {}, begin, None if reasons else deltas.scripts({}), differs=tuple(reasons))


def longest_wait_ms(config: Config) -> int:
    """How long any tenant's half-edges wait."""
    tenants = (tenant_settings(config, name) for name in (DEFAULT_TENANT, *config.runtime.blocks))
    return max(each.service_graphs.wait_ms if each.service_graphs is not None else 0 for each in tenants)


def _inside(spans: Topic, start: Bound | None) -> int | None:
    """The time since which windows are wanted, if anything of the log is before the start; None if nothing is."""
    if start is None or isinstance(start, int):
        first = {p: max(start or 0, ends.low) for p, ends in spans.ends.items()}
    else:
        first = {p: spans.offset_at(p, to_ms(start)) for p in spans.ends}
    if not any(first.values()):
        return None
    if start is not None and not isinstance(start, int):
        return to_ms(start)
    records = (spans.first_from(partition, offset) for partition, offset in first.items())
    times = [record.timestamp_ms for record in records if record is not None]
    if not times:
        raise InputError(f"topic {spans.name}: no partition has a record at offset {start} or later")
    return min(times)


def _check_kept(topic: Topic, partition: int, offset: int) -> None:
    ends = topic.ends[partition]
    if not ends.low <= offset <= ends.high:
        raise InputError(
            f"topic {topic.name}: partition {partition} holds offsets {ends.low} to {ends.high}, and the bookmark "
            f"needs it from {offset} on"
        )


def _check_same(spans: Topic, partition: int, checkpoint: Checkpoint) -> None:
    """The record at a checkpoint's offset is the one that closed its window, if it is the same topic still."""
    at = spans.first_from(partition, checkpoint.next_offset) if checkpoint.next_timestamp_ms is not None else None
    if at is not None and at[:2] != (checkpoint.next_offset, checkpoint.next_timestamp_ms):
        raise InputError(f"topic {spans.name}: partition {partition} was replaced since the bookmark was taken")


def _first_rules(own: Rules, checkpoints: Mapping[int, Checkpoint], cuts: Mapping[int, Cut]) -> Rules:
    """For partitions and shards that had saved nothing: what holds in those that had, rather than our own."""
    known = [each.rules for each in checkpoints.values()] + [each.rules for each in cuts.values()]
    saved = [rules for rules in known if rules is not None]
    return min(saved, key=lambda each: each.current.rank).current.rules if saved else own


def _unpacked(packed: bytes, otherwise: Rules | None) -> Rules | None:
    try:
        return Rules.unpack(packed)
    except Malformed:
        return otherwise
