"""The whole path without Kafka: records of each partition through their fold, batches into the shards. Pure."""

from collections import Counter
from collections.abc import Callable, Sequence

from schemas.config import TenantSettings
from schemas.deltas import LedgerKey, Window, decode_batch, encode_window
from schemas.otlp import Codec
from schemas.record import Record
from streams.partition import PartitionFold, Rejected
from streams.shard import Shard, WindowSamples

SettingsOf = Callable[[str], TenantSettings]


class Pipeline:
    """A generator's folds and a sink's shards, joined by the encoded batches that would be on `[deltas]`.

    `windows` takes each completed window of a shard, in the shard's order.
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
    ) -> None:
        self._folds = [PartitionFold(settings_of, interval_ms, codec, None) for _ in range(partitions)]
        self._shards = [Shard(shard, settings_of, interval_ms) for shard in range(shards)]
        self._offsets = [0] * shards
        self._windows = windows

    def feed(self, partition: int, records: Sequence[Record]) -> tuple[Rejected, ...]:
        """Feed records of a partition, contiguous in its order; gives those that can't be read."""
        fed = self._folds[partition].feed(records)
        for closing in fed.closings:
            for window in closing.windows:
                self._deliver(partition, window)
        return fed.rejected

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

    def _deliver(self, partition: int, window: Window) -> None:
        encoded = encode_window(window, partition, len(self._folds), len(self._shards))
        for index, parts in enumerate(encoded):
            for part in parts:
                fed = self._shards[index].feed(self._offsets[index], decode_batch(part))
                self._offsets[index] += 1
                for completed in fed.windows:
                    self._windows(completed)
