"""A partition's owner over logs in memory: checkpoints, failed deliveries, topics that are replaced, lost or grow."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from agents.broker import Broker
from agents.generator import Generator, PartitionOwner, checkpoint_key
from agents.inbox import GapError
from agents.live_config import LiveConfig
from agents.log_probe import Ends
from agents.own_metrics import OwnMetrics
from agents.rules_log import Clocks
from agents.topics import OtherShardsError
from schemas.checkpoint import Checkpoint, decode_checkpoint
from schemas.config import Config, load_config
from schemas.config.rules import Rules
from schemas.control import ConfigChange, Control, Tick
from schemas.control_format import NO_KEYS, ControlKeys
from schemas.deltas import Batch, decode_batch
from schemas.ledger_counters import RECORDS_LOST, SPANS_RECEIVED
from tests.streams.log import INTERVAL_MS, T0_MS, Told, record

SPANS, DELTAS, DEAD_LETTERS = "spanmill-spans", "spanmill-deltas", "spanmill-dead-letters"
CHECKPOINTS = "spanmill_generator-checkpoints-changelog"
SHARDS = 2
KEYS = ControlKeys.parse("k" * 32)


@cache
def config() -> Config:
    return load_config(None, "overrides: {defaults: {metrics_generator: {processors: [span-metrics]}}}")


@dataclass
class Record:
    offset: int
    timestamp: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    key: bytes | None = None


@dataclass
class Log:
    """A partition."""

    records: list[Record] = field(default_factory=list)
    low: int = 0

    @property
    def high(self) -> int:
        return self.low + len(self.records)

    def append(self, timestamp: int, value: bytes | None = b"", headers: Sequence[tuple[str, bytes]] = ()) -> int:
        self.records.append(Record(self.high, timestamp, value, headers))
        return self.high - 1

    def forget(self, low: int) -> None:
        """Retention."""
        self.records = [record for record in self.records if record.offset >= low]
        self.low = low


class World:
    """The topics, with their broker (producer, probe and topics in one), and the time."""

    def __init__(self, partitions: int = 1, keys: ControlKeys = NO_KEYS) -> None:
        self.topics = {
            SPANS: [Log() for _ in range(partitions)],
            CHECKPOINTS: [Log() for _ in range(partitions)],
            DELTAS: [Log() for _ in range(SHARDS)],
            DEAD_LETTERS: [Log()],
        }
        self.keys = keys
        self.now_s = 0.0
        self.acknowledges = asyncio.Event()
        self.acknowledges.set()
        self.looks = asyncio.Event()
        """Whether somebody who asks for a newest record is answered."""
        self.looks.set()
        self.fails = False
        self.purged = False
        self.threads = ThreadPoolExecutor(2)
        self._acknowledging: list[asyncio.Task[None]] = []

    def grow(self, partitions: int) -> None:
        for topic in (CHECKPOINTS, SPANS):
            self.topics[topic] += [Log() for _ in range(partitions - len(self.topics[topic]))]

    def tell(self, at_ms: int, *spans: Told, partition: int = 0) -> None:
        """Append a record of spans, at so many ms after `T0_MS`."""
        log = self.topics[SPANS][partition]
        told = record(log.high, at_ms, *spans)
        log.append(told.timestamp_ms, told.value)

    def control(self, at_ms: int, control: Control, partition: int = 0, keys: ControlKeys | None = None) -> None:
        """Append a control record, signed with the world's keys or others."""
        headers = (self.keys if keys is None else keys).at(SPANS, partition).headers(control)
        self.topics[SPANS][partition].append(T0_MS + at_ms, b"", headers)

    def batches(self, shard: int = 0) -> list[Batch]:
        return [decode_batch(each.value or b"") for each in self.topics[DELTAS][shard].records]

    async def send(self, topic: str, partition: int, value: bytes, **more: Any) -> "asyncio.Future[int]":
        sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if topic == DELTAS and self.fails:
            sent.set_exception(KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT)))
            return sent
        stamp = T0_MS + int(self.now_s * 1000)
        offset = self.topics[topic][partition].append(stamp, value, more.get("headers", ()))

        async def acknowledge() -> None:
            await self.acknowledges.wait()
            sent.set_result(offset)

        self._acknowledging.append(asyncio.create_task(acknowledge()))
        return sent

    def purge(self) -> None:
        self.purged = True

    def close(self) -> None:
        raise AssertionError

    async def partitions(self, topic: str) -> int:
        return len(self.topics[topic])

    async def ends(self, topic: str, partition: int) -> Ends:
        log = self.topics[topic][partition]
        return Ends(log.low, log.high)

    async def first_from(self, topic: str, partition: int, offset: int) -> tuple[int, int] | None:
        found = (each for each in self.topics[topic][partition].records if each.offset >= offset)
        return next(((each.offset, each.timestamp) for each in found), None)

    async def newest(self, topic: str, partition: int) -> bytes | None:
        await self.looks.wait()
        records = self.topics[topic][partition].records
        return records[-1].value if records else None

    async def spans_partitions(self) -> int:
        return len(self.topics[SPANS])

    async def append(self, change: ConfigChange) -> int:
        for partition in range(len(self.topics[SPANS])):
            self.control(int(self.now_s * 1000), change, partition)
        return len(self.topics[SPANS])

    def checkpoints(self, partition: int = 0) -> list[Checkpoint]:
        return [decode_checkpoint(each.value or b"") for each in self.topics[CHECKPOINTS][partition].records]


class Worker:
    """What an owner needs of its worker; knows the log's end as of the last delivery."""

    def __init__(self, world: World) -> None:
        self.world, self.end, self.committed = world, 0, [0]

    async def save(self, partition: int, items: Mapping[bytes, bytes | None]) -> None:
        for value in items.values():
            self.world.topics[CHECKPOINTS][partition].append(0, value)

    async def commit(self, partition: int, offset: int) -> None:
        self.committed.append(offset)

    def end_offset(self, partition: int) -> int | None:
        return self.end


class Running:
    """An owner at work: its log is delivered when the test says so."""

    def __init__(self, world: World, partition: int, table: Mapping[bytes, bytes], shards: int) -> None:
        self.world, self.partition, self.metrics = world, partition, OwnMetrics()
        self.worker = Worker(world)
        live = LiveConfig(config(), self.metrics.config)
        self.generator = Generator(
            config(),
            live,
            self.metrics,
            len(world.topics[SPANS]),
            shards,
            Broker(world, world, world, world.keys),
            world.threads,
            clocks=Clocks(now_s=lambda: T0_MS / 1000 + world.now_s, elapsed_s=lambda: world.now_s),
        )
        self.owner: PartitionOwner = self.generator.owner(self.worker, partition, table)  # type: ignore[arg-type]

    async def deliver(self) -> None:
        """Hand over what isn't yet, and wait until it is folded."""
        log = self.world.topics[SPANS][self.partition]
        new = [each for each in log.records if each.offset >= self.owner.next_offset]
        self.worker.end = log.high
        if new:
            await self.owner.put(new)
        await until(lambda: self.owner.at_end)

    async def delivered(self, checkpoints: int) -> None:
        """The same, and wait for so many checkpoints in all."""
        await self.deliver()
        await until(lambda: len(self.world.checkpoints(self.partition)) >= checkpoints)


async def until(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(
    world: World, partition: int = 0, checkpoint: int | None = -1, shards: int = SHARDS
) -> AsyncIterator[Running]:
    """An owner that starts from a checkpoint by its number, by default the newest one if there is any."""
    saved = world.topics[CHECKPOINTS][partition].records
    table = {}
    if saved and checkpoint is not None:
        table = {checkpoint_key(partition): saved[checkpoint].value or b""}
    it = Running(world, partition, table, shards)
    task = asyncio.create_task(it.owner.run())
    try:
        yield it
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def failure(world: World, partition: int = 0, checkpoint: int = -1, shards: int = SHARDS) -> Exception:
    """What ends an owner that is handed its log."""
    table = {checkpoint_key(partition): world.topics[CHECKPOINTS][partition].records[checkpoint].value or b""}
    it = Running(world, partition, table, shards)
    task = asyncio.create_task(it.owner.run())
    await it.owner.put(world.topics[SPANS][partition].records)
    with pytest.raises(ExceptionGroup) as failed:
        await asyncio.wait_for(task, 60)
    (error,) = failed.value.exceptions
    return error


def received(batches: Sequence[Batch], counter: str = SPANS_RECEIVED) -> dict[int, int]:
    """What a counter's entries of batches add up to, by the seconds after `T0_MS` at which their windows end."""
    found: dict[int, int] = {}
    for batch in batches:
        end_s = (batch.end_ms - T0_MS) // 1000
        found[end_s] = found.get(end_s, 0) + sum(n for key, n in batch.ledger.items() if key.counter == counter)
    return found


def in_all_shards(world: World, counter: str = SPANS_RECEIVED) -> dict[int, int]:
    return received([batch for shard in range(SHARDS) for batch in world.batches(shard)], counter)


def change(world: World, revision: int, from_s: int, partitions: int, text: str = "") -> ConfigChange:
    own = Rules.of(load_config(None, text) if text else config())
    return ConfigChange(revision, T0_MS + from_s * 1000, own.packed, "test", partitions)


async def test_a_checkpoint_with_rules_counts_and_place_is_written_before_any_record_is_read() -> None:
    world = World(partitions=3)
    world.topics[SPANS][0].low = 7
    world.tell(0, Told())
    async with running(world) as it:
        await until(lambda: bool(world.checkpoints()))
        assert it.owner.next_offset == 7
        (first,) = world.checkpoints()
        assert (first.next_offset, first.stream_time_ms, first.shards) == (7, None, SHARDS)
        assert first.rules is not None
        assert first.rules.current.rules == it.generator.live.rules
        assert first.rules.counts == ((0, 3),)


async def test_a_checkpoint_is_written_when_every_batch_is_acknowledged_and_names_the_record_that_closed() -> None:
    world = World()
    for at_ms in (0, 1, INTERVAL_MS, INTERVAL_MS + 1, 2 * INTERVAL_MS):
        world.tell(at_ms, Told())
    world.acknowledges.clear()
    async with running(world) as it:
        await it.deliver()
        await until(lambda: len(world.batches(1)) == 2)
        await asyncio.sleep(0.05)
        assert (len(world.checkpoints()), it.worker.committed) == (1, [0])
        world.acknowledges.set()
        await until(lambda: len(world.checkpoints()) == 2)
        await until(lambda: it.worker.committed[-1] == 4)
    newest = world.checkpoints()[-1]
    assert (newest.next_offset, newest.next_timestamp_ms) == (4, T0_MS + 2 * INTERVAL_MS)
    assert newest.previous_end_ms == T0_MS + 2 * INTERVAL_MS, "both windows are delivered"
    assert in_all_shards(world) == {15: 2, 30: 2}


async def test_after_a_failed_delivery_nothing_more_is_sent_and_the_owner_ends() -> None:
    world = World()
    world.tell(0, Told())
    async with running(world) as it:
        await it.deliver()
    world.tell(INTERVAL_MS, Told())
    world.fails = True
    assert isinstance(await failure(world), KafkaException)
    assert world.purged
    assert (len(world.checkpoints()), world.batches()) == (1, [])


async def test_whoever_starts_at_any_checkpoint_sends_the_same_batches_again() -> None:
    world = World()
    async with running(world) as it:
        for number in range(5):
            world.tell(number * INTERVAL_MS, Told(id=number + 1), Told(id=100 + number, kind=3))
            await it.delivered(checkpoints=number + 1)
    sent = [[each.value for each in log.records] for log in world.topics[DELTAS]]
    assert len(sent[0]) == 4
    for number, saved in enumerate(world.checkpoints()):
        again = World()
        again.topics[SPANS], again.topics[CHECKPOINTS] = (
            world.topics[SPANS],
            [Log(list(world.topics[CHECKPOINTS][0].records))],
        )
        async with running(again, checkpoint=number) as it:
            assert it.owner.start_offset == saved.next_offset
            await it.deliver()
            await until(lambda: len(again.batches()) >= 4 - number)  # noqa: B023 -- awaited at once
        assert [[each.value for each in log.records] for log in again.topics[DELTAS]] == [s[number:] for s in sent]


async def test_whatever_was_committed_the_owner_starts_where_its_checkpoint_is() -> None:
    world = World()
    async with running(world) as it:
        for number in range(3):
            world.tell(number * INTERVAL_MS, Told())
            await it.delivered(checkpoints=number + 1)
    table = {checkpoint_key(0): world.topics[CHECKPOINTS][0].records[1].value or b""}
    assert Running(world, 0, table, SHARDS).owner.start_offset == 1


async def test_a_delivery_behind_a_hole_that_is_not_in_the_log_ends_the_owner() -> None:
    world = World()
    world.tell(0, Told())
    async with running(world) as it:
        await it.deliver()
    for at_ms in (1, 2):
        world.tell(at_ms, Told())
    world.topics[SPANS][0].records, kept = world.topics[SPANS][0].records[2:], world.topics[SPANS][0].records
    it = Running(world, 0, {}, SHARDS)
    task = asyncio.create_task(it.owner.run())
    await it.owner.put(world.topics[SPANS][0].records)
    world.topics[SPANS][0].records = kept
    with pytest.raises(ExceptionGroup) as failed:
        await asyncio.wait_for(task, 60)
    assert isinstance(failed.value.exceptions[0], GapError)


@pytest.mark.parametrize(
    ("kept", "told"), [(0, 0), (0, 1), (0, 2), (0, 4)], ids=["empty", "shorter", "ends where it stood", "longer"]
)
async def test_a_topic_that_was_replaced_is_read_from_its_beginning_into_windows_not_before_the_checkpoints(
    kept: int, told: int
) -> None:
    world = World()
    async with running(world) as it:
        world.tell(0, Told())
        world.tell(1, Told())
        await it.deliver()
        world.tell(INTERVAL_MS, Told())
        await it.delivered(checkpoints=2)
    assert world.checkpoints()[-1].next_offset == 2
    world.topics[SPANS][0] = Log()
    for number in range(told):
        world.tell(number - 100_000, Told())
    async with running(world) as it:
        await until(lambda: len(world.checkpoints()) == 3)
        await it.deliver()
        world.tell(2 * INTERVAL_MS, Told())
        await it.delivered(checkpoints=4)
    restarted = world.checkpoints()[2]
    assert (restarted.next_offset, restarted.next_timestamp_ms) == (0, None)
    last = world.batches()[-1]
    assert (last.end_ms, last.previous_end_ms) == (T0_MS + 2 * INTERVAL_MS, T0_MS + INTERVAL_MS)
    assert in_all_shards(world) == {15: 2, 30: told}, "none is in a window that was delivered"


async def test_a_topic_that_goes_on_is_not_taken_for_a_new_one() -> None:
    world = World()
    async with running(world) as it:
        world.tell(0, Told())
        world.tell(INTERVAL_MS, Told())
        await it.delivered(checkpoints=2)
    async with running(world) as it:
        await it.deliver()
        assert (len(world.checkpoints()), it.owner.next_offset) == (2, 2)


async def test_an_idle_partition_gets_ticks_which_close_its_windows_when_they_are_read_back() -> None:
    world = World()
    async with running(world) as it:
        world.tell(0, Told())
        await it.deliver()
        world.now_s = 16.9
        await asyncio.sleep(0.5)
        assert world.topics[SPANS][0].high == 1, "2 s after the window's end"
        world.now_s = 17.0
        await until(lambda: world.topics[SPANS][0].high == 2)
        world.now_s = 60.0
        await asyncio.sleep(0.5)
        assert world.topics[SPANS][0].high == 2, "one, until it is read back"
        assert world.batches() == []
        await it.delivered(checkpoints=2)
        assert in_all_shards(world) == {15: 1}
        assert it.metrics.registry.get_sample_value("spanmill_generator_ticks_total", {"partition": "0"}) == 1


@pytest.mark.parametrize("lost", [0, 3], ids=["never had a record", "retention took everything"])
async def test_a_partition_without_records_gets_a_tick_at_once(lost: int) -> None:
    world = World()
    async with running(world) as it:
        for number in range(lost):
            world.tell(number, Told())
        if lost:
            world.tell(INTERVAL_MS, Told())
            await it.delivered(checkpoints=2)
    world.topics[SPANS][0].forget(world.topics[SPANS][0].high)
    async with running(world) as it:
        await until(lambda: len(world.topics[SPANS][0].records) == 1)
        await it.deliver()


async def test_records_that_retention_took_count_as_lost_in_the_window_that_was_open_and_only_there() -> None:
    world = World()
    async with running(world) as it:
        world.tell(0, Told())
        world.tell(INTERVAL_MS, Told())
        await it.delivered(checkpoints=2)
    for number in range(5):
        world.tell(INTERVAL_MS + 1 + number, Told())
    world.tell(4 * INTERVAL_MS, Told())
    world.tell(5 * INTERVAL_MS, Told())
    world.topics[SPANS][0].forget(7)
    async with running(world) as it:
        await it.delivered(checkpoints=3)
    assert in_all_shards(world, RECORDS_LOST) == {15: 0, 30: 6, 75: 0}
    assert it.metrics.registry.get_sample_value("spanmill_records_lost_total", {"tenant": "single-tenant"}) == 6
    for checkpoint, lost in ((1, 6), (2, 0)):
        again = World()
        again.topics[SPANS] = world.topics[SPANS]
        again.topics[CHECKPOINTS][0].records = list(world.topics[CHECKPOINTS][0].records)
        again.tell(6 * INTERVAL_MS, Told())
        async with running(again, checkpoint=checkpoint) as it:
            await it.delivered(checkpoints=4)
        assert sum(in_all_shards(again, RECORDS_LOST).values()) == lost, "a checkpoint behind the loss has counted it"
        world.topics[SPANS][0].records.pop()


async def test_with_keys_unsigned_control_records_become_dead_letters_and_the_stream_goes_on() -> None:
    world = World(keys=KEYS)
    other = "overrides: {defaults: {metrics_generator: {processors: [host-info]}}}"
    async with running(world) as it:
        world.control(0, change(world, 9, 15, 1, other), keys=NO_KEYS)
        world.control(1, change(world, 8, 15, 1, other), keys=ControlKeys.parse("x" * 32))
        world.control(2, change(world, 3, 15, 1))
        world.control(INTERVAL_MS, Tick(T0_MS), keys=NO_KEYS)
        await it.delivered(checkpoints=2)
        assert it.owner.rules is not None
        assert it.owner.rules.newest.revision == 3
        letters = world.topics[DEAD_LETTERS][0].records
        assert [dict(each.headers)["offset"] for each in letters] == [b"0", b"1", b"3"]
        assert all(each.value for each in letters), "what they said is kept"
        assert it.metrics.registry.get_sample_value("spanmill_controls_refused_total", {"stage": "generator"}) == 3
        await until(lambda: len(world.batches()) == 1)


async def test_own_ticks_are_signed() -> None:
    world = World(keys=KEYS)
    async with running(world) as it:
        await until(lambda: world.topics[SPANS][0].high == 1)
        await it.deliver()
        assert isinstance(KEYS.at(SPANS, 0).read(world.topics[SPANS][0].records[0].headers), Tick)
        assert world.topics[DEAD_LETTERS][0].records == []


async def test_a_deltas_topic_with_other_partitions_than_were_written_to_is_refused() -> None:
    world = World()
    async with running(world):
        await until(lambda: bool(world.checkpoints()))
    it = Running(world, 0, {checkpoint_key(0): world.topics[CHECKPOINTS][0].records[0].value or b""}, shards=3)
    with pytest.raises(OtherShardsError, match=r"spanmill-deltas has 3 partitions, and spanmill_generator .* with 2"):
        await it.owner.run()


async def test_batches_name_the_partitions_by_the_log_and_not_by_the_broker() -> None:
    world = World(partitions=2)
    async with running(world) as it:
        world.tell(0, Told())
        world.control(1, change(world, 1, 45, partitions=4))
        await it.deliver()
    world.grow(4)
    async with running(world) as it:
        for number in range(1, 5):
            world.tell(number * INTERVAL_MS, Told())
        await it.deliver()
        await until(lambda: len(world.batches()) == 4)
    assert [batch.partitions for batch in world.batches()] == [2, 2, 4, 4]


async def test_a_new_partition_begins_with_the_window_in_which_the_others_know_of_it() -> None:
    """Also what somebody wrote before is in that window, so none that is complete without it has any of it."""
    world = World(partitions=2)
    async with running(world) as old:
        world.tell(0, Told())
        world.control(1, change(world, 1, 0, partitions=2))
        await old.deliver()
        world.grow(3)
        world.tell(2, Told(), Told(id=2), partition=2)
        async with running(world, partition=2) as new:
            world.tell(INTERVAL_MS, Told())
            await old.delivered(checkpoints=2)  # the first one that knows a revision
            await until(lambda: len(world.topics[SPANS][2].records) == 2)
            assert new.owner.paused
            assert world.checkpoints(2) == []
            announced = NO_KEYS.at(SPANS, 2).read(world.topics[SPANS][2].records[1].headers)
            assert isinstance(announced, ConfigChange)
            assert (announced.revision, announced.spans_partitions) == (1, 3), "the same rules"
            first_s = (announced.from_end_ms - T0_MS) // 1000
            assert first_s > 15
            world.tell(2 * INTERVAL_MS, Told())
            await old.delivered(checkpoints=3)
            await until(lambda: bool(world.checkpoints(2)))
            assert not new.owner.paused
            before = {id(each) for each in world.topics[DELTAS][0].records}
            world.control(first_s * 1000, Tick(0), partition=2)
            await new.delivered(checkpoints=2)
            mine = [decode_batch(r.value or b"") for r in world.topics[DELTAS][0].records if id(r) not in before]
            assert [(batch.partition, batch.partitions, batch.previous_end_ms) for batch in mine] == [(2, 3, None)]
            assert mine[0].end_ms == announced.from_end_ms
            assert in_all_shards(world)[first_s] == 2
        world.tell(first_s * 1000 + INTERVAL_MS, Told())
        await old.delivered(checkpoints=4)
        counts = {b.end_ms >= announced.from_end_ms: b.partitions for b in world.batches() if b.partition == 0}
        assert counts == {False: 2, True: 3}


async def test_a_partition_of_a_new_app_waits_for_no_other() -> None:
    world = World(partitions=2)
    async with running(world):
        await until(lambda: bool(world.checkpoints()))
        world.tell(0, Told(), partition=1)
        async with running(world, partition=1) as it:
            await it.deliver()
            world.tell(INTERVAL_MS, Told(), partition=1)
            await it.delivered(checkpoints=2)
    assert in_all_shards(world) == {15: 1}


async def test_what_comes_before_an_owner_knows_that_its_app_is_new_waits_for_it() -> None:
    """A topic that was filled before anybody read it comes at once, in more deliveries than an inbox holds."""
    world = World(partitions=2)
    world.looks.clear()
    async with running(world, partition=1) as it:
        for number in range(6):
            world.tell(number, Told(), partition=1)

        async def deliver_one_by_one() -> None:
            for each in world.topics[SPANS][1].records:
                await it.owner.put([each])

        delivering = asyncio.create_task(deliver_one_by_one())
        await asyncio.sleep(0.05)
        world.looks.set()
        await asyncio.wait_for(delivering, 60)
        await until(lambda: it.owner.next_offset == 6)


async def test_a_new_partition_that_waits_holds_no_delivery_up_and_begins_again_where_it_dropped_one() -> None:
    """An owner that waits must not keep its process from reading the partition for which it waits."""
    world = World(partitions=1)
    async with running(world) as old:
        await until(lambda: bool(world.checkpoints()))
        world.grow(2)
        it = Running(world, 1, {}, SHARDS)
        task = asyncio.create_task(it.owner.run())
        await until(lambda: it.owner.paused)
        for number in range(6):
            world.tell(number, Told(), partition=1)
            await asyncio.wait_for(it.owner.put([world.topics[SPANS][1].records[-1]]), 5)
        world.tell(0, Told())
        world.control(1, change(world, 1, 30, partitions=2))
        world.tell(INTERVAL_MS, Told())
        await old.delivered(checkpoints=2)
        await until(lambda: bool(world.checkpoints(1)))
        world.tell(99, Told(), partition=1)
        await it.owner.put([world.topics[SPANS][1].records[-1]])
        with pytest.raises(ExceptionGroup) as failed:
            await asyncio.wait_for(task, 60)
        assert isinstance(failed.value.exceptions[0], GapError)
        async with running(world, partition=1) as again:
            await again.deliver()
            assert again.owner.next_offset == 7
