"""How the spans topic grows, and how a partition joins a living app.

Sinks wait for all source partitions of a window. How many those are is said by the batches of the window, by the rules
in force in it, so it is a matter of the log like all rules; partitions are only ever added, which Kafka has in common.

1. `spanmill topics grow` gives partitions to the generator's changelog, then to the spans topic: an owner needs its
   place in the changelog. The other stages go on, distributors too: they fill the partitions that they know.
2. Generators see the new partitions within `METADATA_MAX_AGE_S` (worker.py) and share them out. The owner of one has no
   checkpoint and must tell whether the app is new as well. The newest checkpoint of partition 0 says so: there is none
   in a new app, and later it knows from which window on there are how many partitions.
3. If that knows of fewer, the owner appends the count to all partitions of both topics, in force from a window on which
   is two ahead, and waits until it finds it in partition 0's checkpoint. It doesn't matter how many owners append: from
   any window on, the largest count that is named for it or before holds.
4. The first checkpoint of the new partition begins with that very window, W. What lies in the partition already counts
   in W. So the batches of W, and no earlier ones, name the new partitions, all of which have a batch of W: no window
   waits for a partition that isn't there, and none is completed without one that is.
5. Distributors read the number of partitions when they start: restart them when the command says so. Halves of edges
   that are written on both sides of the change, to different partitions, don't meet.
"""

import asyncio
from collections.abc import Callable

import structlog

from agents.broker import Probe
from agents.rules_log import RulesLog
from schemas.checkpoint import decode_checkpoint
from schemas.rules_in_force import RulesInForce
from streams.rules_in_force import at_window

log = structlog.get_logger(__name__)

POLL_S = 1.0
FIRST_PARTITION = 0
"""The one that is as old as the app."""


class Growth:
    """What a process knows of the app's growth; `checkpoints` is the generator's changelog."""

    def __init__(self, probe: Probe, checkpoints: str, rules_log: RulesLog) -> None:
        self._probe, self._checkpoints, self._rules_log = probe, checkpoints, rules_log

    async def joining(self, partition: int, waits: Callable[[], None]) -> tuple[int, RulesInForce] | None:
        """The first window (its end) of a partition without a checkpoint, and the rules in force in it.

        None if it is as old as the app, and may begin with its first record. Waits until the others know of it, which
        may take minutes, and calls `waits` before.
        """
        if partition == FIRST_PARTITION:
            return None
        while True:
            known = await self._known()
            if known is None or not known.counts:
                return None
            first_ms = known.joined_ms(partition)
            if first_ms == 0:
                return None
            if first_ms is not None:
                log.info("a new partition of the spans topic begins", partition=partition, window=first_ms)
                return first_ms, at_window(known, first_ms)
            waits()
            await self._rules_log.announce_growth(known)
            await asyncio.sleep(POLL_S)

    async def _known(self) -> RulesInForce | None:
        """What the app's first partition knew at its last checkpoint."""
        newest = await self._probe.newest(self._checkpoints, FIRST_PARTITION)
        return None if newest is None else decode_checkpoint(newest).rules
