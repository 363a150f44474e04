"""The whole path without Kafka: records of each partition through their fold, batches into the shards. Pure."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from schemas.checkpoint import Checkpoint
from schemas.config import TenantSettings
from schemas.config.rules import Rules
from schemas.control import ConfigChange
from schemas.deltas import LedgerKey, Window, decode_batch, encode_window
from schemas.errors import Malformed
from schemas.otlp import Codec
from schemas.record import Record
from schemas.rules_in_force import RulesInForce
from streams.partition import PartitionFold, Rejected
from streams.shard import Shard, WindowSamples

SettingsOf = Callable[[str], TenantSettings]


class Pipeline:
    """A generator's folds and a sink's shards, joined by the encoded batches that would be on `[deltas]`.

    `windows` takes each completed window of a shard, in the shard's order. With `rules` configuration records in the
    input are obeyed: `rules` hold until the first one. Without them `settings_of` decides all.
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
    ) -> None:
        known = None if rules is None else RulesInForce.initial(rules)
        start = Checkpoint.initial(0, known)
        self._folds = [PartitionFold(settings_of, interval_ms, codec, start) for _ in range(partitions)]
        self._shards = [Shard(shard, settings_of, interval_ms, known) for shard in range(shards)]
        self._offsets = [0] * shards
        self._windows, self._interval_ms = windows, interval_ms

    def feed(self, partition: int, records: Sequence[Record]) -> tuple[Rejected, ...]:
        """Feed records of a partition, contiguous in its order; gives those that can't be read."""
        rejected: list[Rejected] = []
        for run in _runs(records):
            fed = self._folds[partition].feed(run)
            for closing in fed.closings:
                for window in closing.windows:
                    self._deliver(partition, window)
            if isinstance(run[-1].control, ConfigChange):
                self._announce(partition, run[-1].control)
            rejected += fed.rejected
        return tuple(rejected)

    def stream_time_ms(self, partition: int) -> int | None:
        """The partition's stream time; None before its first record."""
        return self._folds[partition].stream_time_ms

    @property
    def ledger(self) -> dict[LedgerKey, int]:
        """What was counted in the windows that are complete."""
        total: Counter[LedgerKey] = Counter()
        for shard in self._shards:
            total.update(shard.ledger)
        return dict(total)

    def close(self) -> None:
        """The end of the input closes everything: open windows, pending half-edges, windows that wait."""
        for partition, fold in enumerate(self._folds):
            for window in fold.close_all():
                self._deliver(partition, window)
        for shard in self._shards:
            for completed in shard.finish():
                self._windows(completed)

    def _announce(self, partition: int, change: ConfigChange) -> None:
        """Let the shards hear what a partition has heard, in force from the same window: they know no other offsets."""
        open_end_ms = self._folds[partition].open_end_ms or 0
        change = replace(change, from_end_ms=max(change.from_end_ms, open_end_ms + self._interval_ms))
        for index, shard in enumerate(self._shards):
            with suppress(Malformed):  # the fold has rejected it
                shard.feed(self._offsets[index], change)
            self._offsets[index] += 1

    def _deliver(self, partition: int, window: Window) -> None:
        encoded = encode_window(window, partition, len(self._folds), len(self._shards))
        for index, parts in enumerate(encoded):
            for part in parts:
                fed = self._shards[index].feed(self._offsets[index], decode_batch(part))
                self._offsets[index] += 1
                for completed in fed.windows:
                    self._windows(completed)


def _runs(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records, cut after each configuration record, so that it counts no earlier and no later in any chunk."""
    start = 0
    for end in [i + 1 for i, record in enumerate(records) if isinstance(record.control, ConfigChange)]:
        yield records[start:end]
        start = end
    if records[start:]:
        yield records[start:]
