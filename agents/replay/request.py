"""What a replay is asked for, and the messages that it has for whoever asked."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from schemas.record import Record
from streams.partition import Rejected
from streams.pipeline import Pipeline

TOLD_AT_MOST = 10
"""Malformed records, or differing batches, that are named one by one; then only how many more there are."""

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be replayed, and where to. `source` None: the topic. `output` None: no text.

    `own_config`: go by the configuration, not by the one that the topic's records name. `replay_id`: the value of a
    label that all series get (empty: none); None: as is due. `remote_write`: a URL, or empty for the configuration's
    endpoints; None: none. `compare`: another configuration, with which samples are to be compared.
    """

    source: str | None
    output: str | None
    last: bool = False
    report: Path | None = None
    topic: str | None = None
    start: str | None = None
    end: str | None = None
    bookmark: Path | None = None
    close: bool | None = None
    form: str | None = None
    tenant: str | None = None
    shards: int | None = None
    own_config: bool = False
    ignore_waivers: bool = False
    replay_id: str | None = None
    remote_write: str | None = None
    compare: Path | None = None

    @property
    def range_id(self) -> str:
        """The range's name, for a label."""
        return f"{self.start or 'start'}..{self.end or 'end'}"


class Rejects:
    """Records that are malformed: named on standard error, counted, passed over."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, where: str, reason: str) -> None:
        """Count one, and name the first few."""
        self.count += 1
        if self.count <= TOLD_AT_MOST:
            say(f"{where}: {reason}: passed over")

    def summary(self) -> None:
        """Say how many weren't named."""
        if self.count > TOLD_AT_MOST:
            say(f"{self.count - TOLD_AT_MOST} more malformed records passed over")


class Pipelines:
    """The pipelines that are fed the same records: one, or two that are compared."""

    def __init__(self, first: Pipeline, *others: Pipeline) -> None:
        self.first = first
        self._all = (first, *others)

    def feed(self, partition: int, records: Sequence[Record]) -> tuple[Rejected, ...]:
        """Feed records; gives those that can't be read."""
        rejected = self.first.feed(partition, records)
        for other in self._all[1:]:
            other.feed(partition, records)
        return rejected

    def close(self) -> None:
        """The end of the input closes everything."""
        for each in self._all:
            each.close()


def say(line: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"spanmill: {line}\n")


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """A bar on standard error if that is a terminal, nothing otherwise; takes what was done since the last call."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, advance=done)
