"""Watches the chains of batches of one shard: says what is out of the ordinary, appends waivers, stops the shard.

It looks only at a shard that is read to its end: one that is behind, or isn't fed on purpose, can't say that something
doesn't come.
"""

import contextlib
from collections.abc import Callable, Sequence

import structlog
from confluent_kafka import KafkaException

from agents.broker import Broker
from agents.hold_back import HoldBack
from agents.own_metrics import OwnMetrics
from schemas.control import SkipRecord, Waiver
from schemas.deltas import Batch
from streams.shard import Gap, Item, Outcome, Shard, Unreadable

log = structlog.get_logger(__name__)


class UndecodableBatchError(Exception):
    """A record of `[deltas]` that can't be read: what it says may be missing, so the shard must not go on for ever."""


class MissingBatchError(Exception):
    """A batch is out of its chain and the missing one wasn't delivered again in time."""


class ChainWatch:
    """The watch over one shard, whose records are those of a partition of `topic`."""

    def __init__(
        self,
        shard: Shard,
        topic: str,
        broker: Broker,
        metrics: OwnMetrics,
        hold_back_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._shard, self._topic, self._broker, self._metrics = shard, topic, broker, metrics
        self._hold_back_s = hold_back_s
        self._hold_back = HoldBack(hold_back_s, clock)
        self._gaps: list[Gap] = []

    def note(self, offset: int, item: Item, outcome: Outcome) -> None:
        """Count what became of a record."""
        self._metrics.batches_received.labels(outcome).inc()
        where = {"topic": self._topic, "partition": self._shard.index, "offset": offset}
        if isinstance(item, Batch) and outcome is not Outcome.DUPLICATE:
            self._hold_back.delivered(item.partition)
        if outcome is Outcome.GAP:
            self._metrics.chain_gaps.inc()
        elif outcome is Outcome.UNREADABLE:
            reason = item.reason if isinstance(item, Unreadable) else "parts that aren't what their digest says"
            log.error("record that can't be read, going on without it for now", **where, reason=reason)
        elif outcome is Outcome.ADOPTED:
            log.error("a chain of batches goes on behind a gap: what was in it is lost", **where, record=_about(item))
        elif isinstance(item, Waiver | SkipRecord) and outcome is Outcome.APPLIED:
            log.warning("control record obeyed", **where, record=_about(item))
        self._say_gaps()

    async def look(self, is_idle: Callable[[], bool]) -> None:
        """Append the waivers that are due. `is_idle`: whether the shard is read to its end, as far as its owner knows.

        Raises MissingBatchError or UndecodableBatchError if a chain has been broken for too long.
        """
        self._show()
        if not (self._waivers() or self._overdue()) or not await self._is_all(is_idle):
            return
        for overdue in self._overdue():
            raise self._failure(overdue)
        await self._append(self._waivers())

    def hide(self) -> None:
        """The shard is let go: what is shown of it is somebody else's to show."""
        for gauge in (self._metrics.waived_partitions, self._metrics.oldest_wait):
            with contextlib.suppress(KeyError):
                gauge.remove(str(self._shard.index))

    def _show(self) -> None:
        shard = self._shard.index
        self._metrics.waived_partitions.labels(shard).set(len(self._shard.waived))
        self._metrics.oldest_wait.labels(shard).set(self._hold_back.waited_s(self._shard))

    def _waivers(self) -> list[Waiver]:
        return self._hold_back.waivers(self._shard)

    def _overdue(self) -> list[Gap | int]:
        return self._hold_back.overdue(self._shard)

    async def _is_all(self, is_idle: Callable[[], bool]) -> bool:
        """Whether the log itself has no more: a process that was stopped for a while has an old idea of its end."""
        position = self._shard.next_offset
        try:
            ends = await self._broker.probe.ends(self._topic, self._shard.index)
        except (KafkaException, OSError, TimeoutError) as error:
            log.warning("the end of the log couldn't be asked, waiting on", shard=self._shard.index, error=str(error))
            return False
        return is_idle() and ends.high <= position == self._shard.next_offset

    async def _append(self, waivers: Sequence[Waiver]) -> None:
        """Append waivers; they take effect when they are read back."""
        for waiver in waivers:
            headers = self._broker.control_keys.at(self._topic, self._shard.index).headers(waiver)
            sent = await self._broker.producer.send(self._topic, self._shard.index, b"", headers=headers)
            offset = await sent
            self._hold_back.appended(offset)
            self._metrics.waivers.labels(self._shard.index).inc()
            log.error(
                "windows no longer wait for a source partition: they are incomplete until it delivers",
                shard=self._shard.index,
                source_partition=waiver.partition,
                up_to_window=waiver.end_ms,
                hold_back_s=self._hold_back_s,
                offset=offset,
            )

    def _say_gaps(self) -> None:
        """Name each gap once."""
        gaps = self._shard.gaps
        for gap in gaps:
            if gap not in self._gaps:
                log.error("batch out of its chain, waiting for the missing one", what=self._about_gap(gap))
        self._gaps = gaps

    def _about_gap(self, gap: Gap) -> str:
        return (
            f"{self._topic}/{self._shard.index} offset {gap.offset}: window {gap.end_ms} of partition {gap.partition} "
            f"follows {_window(gap.previous_end_ms)}, the last one delivered is {_window(gap.delivered_ms)}"
        )

    def _failure(self, overdue: Gap | int) -> Exception:
        within = f"within {self._hold_back_s:.0f} s: the shard stops"
        command = f"spanmill sink accept-gap --shard {self._shard.index}"
        if isinstance(overdue, Gap):
            return MissingBatchError(
                f"{self._about_gap(overdue)}; what is missing wasn't delivered {within}. If it is lost for good: "
                f"{command} --partition {overdue.partition} --after {_window(overdue.delivered_ms)}"
            )
        return UndecodableBatchError(
            f"{self._topic}/{self._shard.index} offset {overdue}: {self._shard.unreadable[overdue]}: who wrote it? "
            f"It wasn't skipped {within}. If a newer spanmill wrote it, update this one; to go on without it: "
            f"{command} --offset {overdue}"
        )


def _window(end_ms: int | None) -> str:
    return "none" if end_ms is None else str(end_ms)


def _about(item: Item) -> str:
    """A record in a line of the log."""
    if isinstance(item, Batch):
        return f"window {item.end_ms} of partition {item.partition} after {_window(item.previous_end_ms)}"
    return str(item)
