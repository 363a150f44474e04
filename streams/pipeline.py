"""The whole path without Kafka: records of each partition through their fold, batches into the shards. Pure."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from schemas.checkpoint import Checkpoint
from schemas.config import TenantSettings
from schemas.config.rules import Rules
from schemas.control import ConfigChange
from schemas.deltas import LedgerKey, Window, encode_window
from schemas.otlp import Codec
from schemas.record import Record
from schemas.rules_in_force import RulesInForce
from schemas.snapshot import Cut
from streams.partition import PartitionFold, Rejected
from streams.rules_in_force import at_window
from streams.scripted_shard import Difference, Script, ScriptedShard
from streams.shard import Shard, WindowSamples

SettingsOf = Callable[[str], TenantSettings]


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a pipeline begins: at the checkpoints of partitions and the cuts of shards, else with nothing.

    `partitions` were there when the log was begun, all of them if that isn't known; the others join later.
    """

    checkpoints: Mapping[int, Checkpoint] = field(default_factory=dict)
    cuts: Mapping[int, Cut] = field(default_factory=dict)
    partitions: int | None = None


NOTHING = Beginning()
FIRST_PARTITION = 0
"""The one that is as old as the log."""
NEVER_MS = 1 << 62


class Pipeline:
    """A generator's folds and a sink's shards, joined by the encoded batches that would be on `[deltas]`.

    `windows` takes each completed window of a shard, in the shard's order. With `rules` configuration records in the
    input are obeyed: `rules` hold until the first one. Without them `settings_of` decides all.

    `scripts` are what `[deltas]` holds, by shard, from where the beginning's cuts need it: then the shards follow them
    (`ScriptedShard`), and `differences` are the batches that aren't as they are there. Windows that end at `warm_up_ms`
    or before are folded, and their deltas dropped.
    """

    def __init__(
        self,
        settings_of: SettingsOf,
        interval_ms: int,
        codec: Codec,
        windows: Callable[[WindowSamples], None],
        *,
        partitions: int = 1,
        shards: int = 1,
        rules: Rules | None = None,
        beginning: Beginning = NOTHING,
        scripts: Mapping[int, Script] | None = None,
        warm_up_ms: int | None = None,
        stale_markers: bool = False,
    ) -> None:
        count = partitions if beginning.partitions is None else beginning.partitions
        known = None if rules is None else RulesInForce.initial(rules, spans_partitions=count)
        self._partitions, self._interval_ms = partitions, interval_ms
        self._new_fold = partial(PartitionFold, settings_of, interval_ms, codec)
        self._folds = {
            p: self._new_fold(beginning.checkpoints.get(p, Checkpoint.initial(0, known)))
            for p in range(partitions)
            if p < count or p in beginning.checkpoints
        }
        self._join()
        self.differences: list[Difference] = []
        scripts = {} if scripts is None else scripts
        ends = ((p, each.previous_end_ms) for p, each in beginning.checkpoints.items())
        taken_over = {p: end_ms for p, end_ms in ends if end_ms is not None}

        def new_shard(index: int) -> Shard:
            cut = beginning.cuts.get(index)
            if cut is not None:
                return Shard.restore(cut, settings_of, interval_ms, known, stale_markers=stale_markers)
            # As in a sink that begins: the first record that it reads holds for all windows.
            provisional = index in scripts
            return Shard(index, settings_of, interval_ms, known, provisional=provisional, stale_markers=stale_markers)

        self._shards = [
            ScriptedShard(new_shard(index), scripts.get(index, iter(())), taken_over, self.differences.append)
            for index in range(shards)
        ]
        self._windows, self._warm_up_ms = windows, warm_up_ms

    def feed(self, partition: int, records: Sequence[Record]) -> tuple[Rejected, ...]:
        """Feed records of a partition, contiguous in its order; gives those that can't be read.

        Those of a partition that hasn't joined count for nothing: the log that says so is to be fed first.
        """
        rejected: list[Rejected] = []
        fold = self._folds.get(partition)
        if fold is None:
            return ()
        for run in _runs(records):
            fed = fold.feed(run)
            for closing in fed.closings:
                for window in closing.windows:
                    self._deliver(partition, window)
            if isinstance(run[-1].control, ConfigChange):
                self._announce(partition, run[-1].control)
            rejected += fed.rejected
        self._advance()
        return tuple(rejected)

    def stream_time_ms(self, partition: int) -> int | None:
        """The partition's stream time; None before its first record, and the end of time before it joins."""
        fold = self._folds.get(partition)
        return NEVER_MS if fold is None else fold.stream_time_ms

    @property
    def waiting(self) -> int:
        """Shards that wait for a batch of their script, which the records that were fed don't give."""
        return sum(shard.next is not None for shard in self._shards)

    @property
    def ledger(self) -> dict[LedgerKey, int]:
        """What was counted in the windows that are complete."""
        total: Counter[LedgerKey] = Counter()
        for shard in self._shards:
            total.update(shard.shard.ledger)
        return dict(total)

    def close(self) -> None:
        """The end of the input closes everything: open windows, pending half-edges, windows that wait."""
        for partition, fold in sorted(self._folds.items()):
            for window in fold.close_all():
                self._deliver(partition, window)
        self._advance()
        for shard in self._shards:
            shard.stop()
        self._advance()
        for shard in self._shards:
            for completed in shard.shard.finish():
                self._windows(completed)

    def _announce(self, partition: int, change: ConfigChange) -> None:
        """Let the shards hear what a partition has heard, in force from the same window: they know no other offsets."""
        open_end_ms = self._folds[partition].open_end_ms or 0
        change = replace(change, from_end_ms=max(change.from_end_ms, open_end_ms + self._interval_ms))
        for shard in self._shards:
            shard.hear(change)
        self._join()
        self._advance()

    def _join(self) -> None:
        """Begin partitions from the window on from which the log counts them; see agents/growth.py."""
        known = self._folds[FIRST_PARTITION].rules
        if known is None:
            return
        for partition in [p for p in range(self._partitions) if p not in self._folds]:
            first_ms = known.joined_ms(partition) if known.counts else 0
            if first_ms is not None:
                stream_time_ms = first_ms - self._interval_ms if first_ms else None
                start = Checkpoint(0, stream_time_ms=stream_time_ms, rules=at_window(known, first_ms))
                self._folds[partition] = self._new_fold(start)

    def _deliver(self, partition: int, window: Window) -> None:
        if self._warm_up_ms is not None:
            if window.end_ms <= self._warm_up_ms:
                return
            if window.previous_end_ms is not None and window.previous_end_ms <= self._warm_up_ms:
                window = replace(window, previous_end_ms=None)  # the chain begins here
        partitions = window.spans_partitions or self._partitions
        encoded = encode_window(window, partition, partitions, len(self._shards))
        for shard, parts in zip(self._shards, encoded, strict=True):
            shard.add(partition, window.end_ms, parts)
        self._advance()

    def _advance(self) -> None:
        """Complete what can be completed."""
        for shard in self._shards:
            for completed in shard.advance():
                self._windows(completed)


def _runs(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records, cut after each configuration record, so that it counts no earlier and no later in any chunk."""
    start = 0
    for end in [i + 1 for i, record in enumerate(records) if isinstance(record.control, ConfigChange)]:
        yield records[start:end]
        start = end
    if records[start:]:
        yield records[start:]
