"""A shard that is fed batches computed again, in the order in which `[deltas]` holds those of the live stages.

A shard's samples depend on that order, since a batch that comes after a waiver counts in a later window, and a late
configuration from a later one on. So what `[deltas]` holds is a script: its control records are obeyed where they
stand, and each part of a batch is replaced by the same part of the batch that was computed again. Where the script ends
the shard goes on with what is computed, whatever its order: nothing is late there.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from schemas.control import AcceptGap, ConfigChange
from schemas.deltas import Batch, decode_batch
from schemas.errors import Malformed
from streams.shard import Item, Shard, WindowSamples


class Scripted(NamedTuple):
    """A record of `[deltas]`, at its offset."""

    offset: int
    item: Item


Script = Iterator[Scripted]
"""The records of a partition of `[deltas]`, by offset; read on as far as they are asked for."""


class Unlike(StrEnum):
    """How a batch of `[deltas]` isn't what is computed again."""

    CONTENT = "has another content"
    ABSENT = "is of a window that the records don't give"


@dataclass(frozen=True, slots=True)
class Difference:
    """A batch of `[deltas]` that isn't what is computed again: by another program or other rules, or wrongly."""

    shard: int
    offset: int
    partition: int
    end_ms: int
    unlike: Unlike


class _PartsKey(NamedTuple):
    partition: int
    end_ms: int
    digest: bytes


class ScriptedShard:
    """A shard, its script, and the batches that are computed and that the script hasn't come to.

    `taken_over` are windows by source partition: batches up to there aren't computed again, and count as the script has
    them. `differs` is told of each batch that is another one than the script's; the computed one counts then.
    """

    def __init__(
        self,
        shard: Shard,
        script: Script,
        taken_over: Mapping[int, int],
        differs: Callable[[Difference], None],
    ) -> None:
        self.shard = shard
        self._script, self._taken_over, self._differs = script, dict(taken_over), differs
        self._computed: dict[int, dict[int, list[bytes]]] = {}
        """By partition and end, in order: the parts of batches that weren't delivered yet."""
        self._newest: dict[int, int] = dict(taken_over)
        self._others: dict[_PartsKey, set[int]] = {}
        self._heard: list[ConfigChange] = []
        self._next = next(script, None)

    @property
    def next(self) -> Scripted | None:
        """The record with which the script goes on as soon as what it names is computed; None at its end."""
        return self._next

    def add(self, partition: int, end_ms: int, parts: list[bytes]) -> None:
        """Take the next batch of a partition, which is computed."""
        self._newest[partition] = end_ms
        if end_ms > self.shard.delivered.get(partition, -1):
            self._computed.setdefault(partition, {})[end_ms] = parts

    def hear(self, change: ConfigChange) -> None:
        """Take note of a configuration record of `[spans]`: the script has it too, but for its end."""
        self._heard.append(change)

    def stop(self) -> None:
        """Leave what is left of the script."""
        self._next, self._script = None, iter(())

    def advance(self) -> Iterator[WindowSamples]:
        """Follow the script as far as batches are computed, and go on behind its end; gives completed windows."""
        while self._next is not None:
            batches = self._due(self._next)
            if batches is None:
                return
            offset = self._next.offset
            self._next = next(self._script, None)
            for item in batches:
                yield from self._feed(offset, item)
        for change in self._heard:
            yield from self._feed(self.shard.next_offset, change)
        self._heard.clear()
        self.shard.keep_rules()
        yield from self.shard.completed()
        ends = sorted((end_ms, partition) for partition, found in self._computed.items() for end_ms in found)
        for end_ms, partition in ends:
            for part in self._computed[partition].pop(end_ms, ()):
                yield from self._feed(self.shard.next_offset, decode_batch(part))

    def _due(self, scripted: Scripted) -> list[Item] | None:
        """What stands for a record of the script; None if it isn't computed yet."""
        item = scripted.item
        if not isinstance(item, Batch) or self._is_known(item):
            return [item]
        parts = self._computed.get(item.partition, {}).get(item.end_ms)
        if parts is not None:
            computed = decode_batch(parts[min(item.part, len(parts) - 1)])
            return [computed] if computed.digest == item.digest else self._instead(scripted.offset, item)
        if self._newest.get(item.partition, -1) < item.end_ms:
            return None
        self._say(scripted.offset, item, Unlike.ABSENT)
        return []

    def _is_known(self, batch: Batch) -> bool:
        """Whether it was delivered, and changes nothing, or counts as it is."""
        known_ms = self.shard.delivered.get(batch.partition, -1), self._taken_over.get(batch.partition, -1)
        return batch.end_ms <= max(known_ms)

    def _instead(self, offset: int, part: Batch) -> list[Item]:
        """All that is computed of a partition up to a window, when all parts of another batch of that have come."""
        came = self._others.setdefault(_PartsKey(part.partition, part.end_ms, part.digest), set())
        if not came:
            self._say(offset, part, Unlike.CONTENT)
        came.add(part.part)
        if len(came) < part.parts:
            return []
        ends = sorted(self._computed[part.partition])
        chosen = [self._computed[part.partition][end_ms] for end_ms in ends if end_ms <= part.end_ms]
        return [decode_batch(each) for parts in chosen for each in parts]

    def _say(self, offset: int, batch: Batch, unlike: Unlike) -> None:
        self._differs(Difference(self.shard.index, offset, batch.partition, batch.end_ms, unlike))

    def _feed(self, offset: int, item: Item) -> Iterator[WindowSamples]:
        with suppress(Malformed):  # rules that can't be followed change nothing
            self.shard.take(offset, item)
        yield from self.shard.completed()
        if isinstance(item, Batch | AcceptGap):
            self._forget(item.partition)

    def _forget(self, partition: int) -> None:
        """Let go of what is delivered."""
        delivered_ms = self.shard.delivered.get(partition, -1)
        found = self._computed.get(partition, {})
        for end_ms in [end_ms for end_ms in found if end_ms <= delivered_ms]:
            del found[end_ms]
        if self._others:
            self._others = {
                key: came
                for key, came in self._others.items()
                if key.partition != partition or key.end_ms > delivered_ms
            }
