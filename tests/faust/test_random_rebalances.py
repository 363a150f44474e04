"""Random rebalances in virtual time: whatever meets what, no record is skipped and no table is incomplete."""

import asyncio
import random

import pytest
from faust.types import TP

from tests.faust.simulated_kafka import CHANGELOG, OURS, SOURCE, STOCK, Faust, Owner, assigned, broker_of
from tests.faust.virtual_time import run

PARTITIONS = 3
KEYS = 12
SEEDS = range(12)
LONG_S = 30.0


class SkippedError(Exception):
    """A record wasn't delivered, or a table was handed over that isn't complete."""


class ExactOwner(Owner):
    """Goes on, after each recovery, behind the last record that it has; as an owner with a checkpoint for each does."""

    def __init__(self, of: Faust) -> None:
        broker = broker_of(PARTITIONS)
        for partition in range(PARTITIONS):
            for i in range(KEYS):
                broker.append(TP(CHANGELOG, partition), b"value", key=b"%d-%d" % (partition, i))
        super().__init__(of, broker, PARTITIONS)
        self.app.start_offsets = lambda: {
            TP(SOURCE, partition): self.next_offset(partition) for partition in range(PARTITIONS)
        }

    def next_offset(self, partition: int) -> int:
        """The first offset that wasn't delivered in order. Raises `SkippedError`."""
        expected = 0
        for offset in self.offsets[partition]:
            if offset > expected:
                raise SkippedError(f"{offset} came, not {expected}")
            expected = max(expected, offset + 1)
        return expected

    def check_tables(self, owned: set[int]) -> None:
        """The newest table has all keys of the partitions that are owned."""
        missing = {b"%d-%d" % (p, i) for p in owned for i in range(KEYS)} - set(self.recovered[-1])
        if missing:
            raise SkippedError(f"keys are missing: {sorted(missing)}")


async def play(of: Faust, seed: int) -> None:
    chance, owner = random.Random(seed), ExactOwner(of)
    async with owner.running():
        owned: set[int] = set()
        for _ in range(25):
            match chance.choice(["append", "append", "rebalance", "pause", "busy"]):
                case "append":
                    owner.append(chance.randrange(PARTITIONS), chance.randrange(1, 30))
                case "rebalance":
                    owned = set(chance.sample(range(PARTITIONS), chance.randint(1, PARTITIONS)))
                    await owner.thread.rebalance(assigned(*owned))
                case "pause":
                    await asyncio.sleep(chance.choice([0.01, 0.03, 0.1, 0.4, 1.2, 6.0]))
                case "busy":
                    (owner.may_read.clear if owner.may_read.is_set() else owner.may_read.set)()
                    owner.thread.max_records = chance.choice([1, 5, 500])
        owner.may_read.set()
        await owner.thread.rebalance(assigned(*range(PARTITIONS)))
        await asyncio.sleep(LONG_S)
        owner.check_tables(set(range(PARTITIONS)))
        for partition in range(PARTITIONS):
            if owner.next_offset(partition) != len(owner.broker.logs[TP(SOURCE, partition)]):
                raise SkippedError("the end wasn't reached")


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_skipped(seed: int) -> None:
    run(play(OURS, seed))


def test_stock_faust_skips_records_in_some_of_them() -> None:
    def skips(seed: int) -> bool:
        try:
            run(play(STOCK, seed))
        except (SkippedError, IndexError):
            return True
        return False

    assert any(skips(seed) for seed in SEEDS)
