"""The batches that a window of a shard is made of, brought together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.deltas import Batch, DeltaRows, Layout, Ledger, LedgerKey
from streams.totals import UsedLayout


@dataclass(frozen=True, slots=True)
class MergedWindow:
    """What all source partitions have for one window: their rows, by partition, and one ledger.

    Rows aren't merged before their labels are final. Their layouts are numbers of `layouts`.
    """

    end_ms: int
    frames: Sequence[tuple[int, DeltaRows]]
    layouts: tuple[UsedLayout, ...]
    ledger: Ledger


def merge_batches(end_ms: int, batches: Sequence[Batch]) -> MergedWindow:
    """One window of whole batches, in any order; a partition may have several, of late windows."""
    layouts = _used_layouts(batches)
    numbers = {layout.bounds: number for number, layout in enumerate(layouts)}
    frames = [(batch.partition, _renumbered(batch, numbers)) for batch in batches if len(batch.rows)]
    ledger: Counter[LedgerKey] = Counter()
    for batch in batches:
        ledger.update(batch.ledger)
    return MergedWindow(end_ms, frames, layouts, dict(ledger))


def _used_layouts(batches: Sequence[Batch]) -> tuple[UsedLayout, ...]:
    """All layouts, sorted by their bounds: the numbers mustn't depend on the order in which batches arrive."""
    revisions: dict[Layout, int] = {}
    for batch in batches:
        for layout in batch.layouts:
            revisions[layout] = max(batch.revision, revisions.get(layout, 0))
    return tuple(UsedLayout(revisions[layout], layout) for layout in sorted(revisions))


def _renumbered(batch: Batch, numbers: dict[Layout, int]) -> DeltaRows:
    """The rows with the window's numbers of layouts in place of the batch's."""
    # What is no number of a layout, of counters or native histograms, stays.
    return batch.rows.with_layouts(np.array([numbers[layout] for layout in batch.layouts], np.uint16))
