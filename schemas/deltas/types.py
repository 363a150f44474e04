"""The records of deltas."""

from dataclasses import dataclass
from typing import NamedTuple

from schemas.deltas.rows import DeltaRows, RoutedRows


class LedgerKey(NamedTuple):
    """A counter of the generator itself, by Tempo's full name, and its labels sorted by name, `tenant` among them."""

    counter: str
    labels: tuple[tuple[str, str], ...]


Ledger = dict[LedgerKey, int]
"""What a window adds to the counters of the generator itself; nothing is negative."""

Layout = tuple[float, ...]
"""Upper bounds of a histogram's buckets in seconds, ascending, without +Inf."""


@dataclass(frozen=True, slots=True)
class Window:
    """A closed window of one partition of `[spans]`.

    Its rows may come in any order, but a key only once. `previous_end_ms` is the window that was sent before.
    """

    end_ms: int
    previous_end_ms: int | None
    rows: RoutedRows
    layouts: tuple[Layout, ...]
    ledger: Ledger
    revision: int
    spans_partitions: int = 0
    """How many partitions deliver this window, by the rules in force; 0 if these don't say."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One part of what a window of a partition has for one shard: some of its rows and some of its ledger's entries.

    `layouts` are those of all parts. The whole is the rows of parts 0 to `parts - 1` in turn, and their ledgers' union.
    """

    partition: int
    end_ms: int
    previous_end_ms: int | None
    partitions: int
    part: int
    parts: int
    digest: bytes
    revision: int
    layouts: tuple[Layout, ...]
    ledger: Ledger
    rows: DeltaRows
