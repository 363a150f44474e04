"""What agents/faust_cure.py cures, each shown twice: stock Faust has the defect, ours hasn't.

A new version of Faust that has one no longer fails here, and its cure may go. The first half runs whole apps on a
simulated consumer in virtual time, so that a fetch meets a seek each time and not one time in fifty.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, KafkaTimeoutError
from faust.types import TP

from agents import faust_cure
from agents.faust_cure import ConsumerThread
from tests.faust.simulated_kafka import CHANGELOG, OURS, SOURCE, STOCK, Broker, Faust, Owner, assigned, broker_of
from tests.faust.virtual_time import run

S0, C0, C1 = TP(SOURCE, 0), TP(CHANGELOG, 0), TP(CHANGELOG, 1)
LONG_S = 120.0
"""So long, in virtual time, that what hasn't happened won't."""

Scenario = Callable[[Owner], Awaitable[None]]


def played(of: Faust, broker: Broker, scenario: Scenario, **settings: Any) -> Owner:
    """The owner after a scenario."""

    async def play() -> Owner:
        owner = Owner(of, broker, len(broker.logs) // 2, **settings)
        async with owner.running():
            await scenario(owner)
        return owner

    return run(play())


def with_table(broker: Broker, partition: int, keys: int) -> Broker:
    """The same with a changelog of so many keys."""
    for i in range(keys):
        broker.append(TP(CHANGELOG, partition), b"value", key=b"%d-%d" % (partition, i))
    return broker


async def idle(owner: Owner) -> None:
    await owner.thread.rebalance(assigned(0))
    await asyncio.sleep(5.5)  # a fetch is in flight, as always
    assert owner.ready


# A fetch in flight meets the seek of a changelog


def test_a_fetch_in_flight_does_not_take_a_changelogs_records() -> None:
    async def a_partition_more(owner: Owner) -> None:
        await idle(owner)
        await owner.thread.rebalance(assigned(0, 1))
        await asyncio.sleep(LONG_S)
        stalled.append(not owner.ready)

    stalled: list[bool] = []
    stock = played(STOCK, with_table(broker_of(2), 1, 10), a_partition_more)
    ours = played(OURS, with_table(broker_of(2), 1, 10), a_partition_more)
    assert stalled == [True, False]
    assert stock.broker.taken[C1] == 10  # and were dropped
    assert len(ours.recovered[-1]) == 10


def test_a_fetch_in_flight_does_not_leave_a_table_incomplete() -> None:
    """The fetch takes the first records; records that come later end the recovery all the same."""

    async def a_partition_more(owner: Owner) -> None:
        await idle(owner)
        owner.thread.max_records = 4
        await owner.thread.rebalance(assigned(0, 1))
        await asyncio.sleep(LONG_S)
        assert owner.ready

    stock = played(STOCK, with_table(broker_of(2), 1, 10), a_partition_more)
    ours = played(OURS, with_table(broker_of(2), 1, 10), a_partition_more)
    assert 0 < len(stock.recovered[-1]) < 10
    assert len(ours.recovered[-1]) == 10


# ... and that of a source


def test_records_that_come_before_the_seek_are_not_lost() -> None:
    """Stock Faust lets the source flow before it seeks it; what waits in the agent's queue is cleared then."""

    async def a_slow_agent(owner: Owner) -> None:
        owner.app.start_offsets = lambda: {S0: 0}
        owner.thread.max_records = 1
        owner.may_read.clear()
        await owner.thread.rebalance(assigned(0))
        await asyncio.sleep(5)
        owner.may_read.set()
        await asyncio.sleep(5)

    def broker() -> Broker:
        made = with_table(broker_of(1), 0, 3)
        made.append(S0, *[b"x"] * 10)
        return made

    stock, ours = played(STOCK, broker(), a_slow_agent), played(OURS, broker(), a_slow_agent)
    assert set(stock.offsets[0]) < set(range(10))
    assert ours.offsets[0] == list(range(10))


def test_records_are_not_delivered_twice_by_a_seek_that_comes_too_late() -> None:
    async def recover(owner: Owner) -> None:
        owner.app.start_offsets = lambda: {S0: 2}
        owner.thread.max_records = 1
        await owner.thread.rebalance(assigned(0))
        await asyncio.sleep(5)

    def broker() -> Broker:
        made = with_table(broker_of(1), 0, 3)
        made.append(S0, *[b"x"] * 10)
        made.committed[S0] = 2
        return made

    stock, ours = played(STOCK, broker(), recover), played(OURS, broker(), recover)
    assert len(stock.offsets[0]) > len(set(stock.offsets[0]))
    assert ours.offsets[0] == list(range(2, 10))


def test_a_partition_without_a_commit_is_sought_too() -> None:
    """It stays assigned over a rebalance; what its queue held is cleared, and stock Faust goes on behind that."""

    async def stay(owner: Owner) -> None:
        owner.app.start_offsets = lambda: {S0: 0}
        await idle(owner)
        owner.may_read.clear()
        owner.append(0, 10)
        await asyncio.sleep(5)
        await owner.thread.rebalance(assigned(0))
        owner.may_read.set()
        await asyncio.sleep(5)
        assert owner.ready
        owner.append(0, 1)
        await asyncio.sleep(5)

    stock, ours = played(STOCK, broker_of(1), stay), played(OURS, broker_of(1), stay)
    assert stock.offsets[0] == [0, 10]
    assert ours.offsets[0] in (list(range(11)), [0, *range(11)])  # 0 was read before the rebalance


def test_reading_starts_at_the_own_offset_though_more_is_committed() -> None:
    """As after a zombie's commit. Stock Faust knows no other offset than the committed one."""

    async def start(owner: Owner) -> None:
        owner.app.start_offsets = lambda: {S0: 4}
        await owner.thread.rebalance(assigned(0))
        await asyncio.sleep(5)

    def broker() -> Broker:
        made = broker_of(1)
        made.append(S0, *[b"x"] * 10)
        made.committed[S0] = 9
        return made

    stock, ours = played(STOCK, broker(), start), played(OURS, broker(), start)
    assert stock.offsets[0] == [9]
    assert ours.offsets[0] == list(range(4, 10))


# Recovery


def test_no_table_is_handed_over_before_its_recovery_is_finished() -> None:
    async def a_rebalance_cuts_recovery_off(owner: Owner) -> None:
        owner.thread.max_records = 1
        await owner.thread.rebalance(assigned(0))
        await asyncio.sleep(5 * 0.02)
        assert not owner.ready
        owner.thread.max_records = 500
        await owner.thread.rebalance(assigned(0))
        await asyncio.sleep(LONG_S)

    stock = played(STOCK, with_table(broker_of(1), 0, 50), a_rebalance_cuts_recovery_off)
    ours = played(OURS, with_table(broker_of(1), 0, 50), a_rebalance_cuts_recovery_off)
    assert len(stock.recovered[0]) < 50
    assert [len(table) for table in ours.recovered] == [50]


def test_a_recovery_step_that_takes_too_long_does_not_end_recoveries_for_ever() -> None:
    async def brokers_are_slow_once(owner: Owner) -> None:
        owner.thread.offsets_hang = True
        await owner.thread.rebalance(assigned(0))
        await asyncio.sleep(LONG_S)
        crashes.append(owner.app.crash_reason)
        owner.thread.offsets_hang = False
        if not owner.app.should_stop:
            await owner.thread.rebalance(assigned(0))
            await asyncio.sleep(LONG_S)
            assert not owner.ready

    crashes: list[BaseException | None] = []
    played(STOCK, with_table(broker_of(1), 0, 3), brokers_are_slow_once)
    played(OURS, with_table(broker_of(1), 0, 3), brokers_are_slow_once)
    assert crashes[0] is None
    assert isinstance(crashes[1], TimeoutError)


def test_recovery_reads_only_the_newest_record_if_that_holds_the_state() -> None:
    async def recover(owner: Owner) -> None:
        owner.app.newest_record_only = True
        await owner.thread.rebalance(assigned(0))
        await asyncio.sleep(5)

    def broker() -> Broker:
        made = broker_of(1)
        made.append(C0, *[b"%d" % i for i in range(1000)], key=b"checkpoint")
        return made

    stock, ours = played(STOCK, broker(), recover), played(OURS, broker(), recover)
    assert stock.recovered == ours.recovered == [{b"checkpoint": b"999"}]
    assert stock.broker.taken[C0] == 1000
    assert ours.broker.taken[C0] <= 2


# Delivery


def test_records_come_by_the_fetch_not_one_by_one() -> None:
    async def read(owner: Owner) -> None:
        owner.app.batch_topics = (SOURCE,)
        await owner.thread.rebalance(assigned(0))
        await asyncio.sleep(5)

    def broker() -> Broker:
        made = broker_of(1)
        made.append(S0, *[b"x"] * 400)
        return made

    stock, ours = played(STOCK, broker(), read), played(OURS, broker(), read)
    assert stock.offsets == ours.offsets == {0: list(range(400))}
    assert (stock.events, ours.events) == (400, 1)


@pytest.mark.parametrize(("of", "resumed"), [(STOCK, True), (OURS, False)], ids=["stock", "ours"])
def test_a_paused_partition_stays_paused_when_its_buffer_drains(of: Faust, *, resumed: bool) -> None:
    async def drain(owner: Owner) -> None:
        await idle(owner)
        consumer = owner.app.consumer
        consumer.on_buffer_full(S0)
        consumer.pause_partitions({S0})
        consumer.on_buffer_drop(S0)
        assert (S0 in consumer._get_active_partitions()) is resumed

    played(of, broker_of(1), drain)


# The thread of aiokafka's consumer


def thread_of(of: Faust) -> Any:
    """The real thread's object, not started, of an app that reaches nobody."""
    app = of.app("app", broker="kafka://127.0.0.1:1", autodiscover=False)
    return app.consumer._thread


@pytest.mark.parametrize(("of", "wait_ms"), [(STOCK, 1500), (OURS, 200)], ids=["stock", "ours"])
async def test_an_idle_fetch_holds_the_first_one_after_a_seek_up_for_a_moment_only(of: Faust, wait_ms: int) -> None:
    assert thread_of(of)._create_worker_consumer(thread_of(of).transport)._fetch_max_wait_ms == wait_ms


@pytest.mark.parametrize(("of", "crashes"), [(STOCK, True), (OURS, False)], ids=["stock", "ours"])
async def test_a_commit_that_fails_crashes_nothing(
    of: Faust, monkeypatch: pytest.MonkeyPatch, *, crashes: bool
) -> None:
    class Consumer:
        def assignment(self) -> set[TP]:
            return {S0}

        async def commit(self, _: object) -> None:
            raise KafkaTimeoutError

    thread, crashed = thread_of(of), []

    async def crash(error: BaseException) -> None:
        crashed.append(error)

    monkeypatch.setattr(thread, "_consumer", Consumer())
    monkeypatch.setattr(thread, "crash", crash)
    assert not await thread._commit({S0: 5})
    assert bool(crashed) is crashes


@pytest.mark.parametrize(("of", "dies"), [(STOCK, True), (OURS, False)], ids=["stock", "ours"])
async def test_a_consumer_stops_while_its_brokers_are_away(
    of: Faust, monkeypatch: pytest.MonkeyPatch, *, dies: bool
) -> None:
    class Client:
        closed = False

        async def close(self) -> None:
            self.closed = True

    class Consumer:
        _client = Client()

        async def stop(self) -> None:  # as aiokafka's, whose fetch is in a pause before it tries again
            fetch = asyncio.ensure_future(asyncio.sleep(1))
            await asyncio.sleep(0)
            fetch.cancel()
            await fetch

    thread = thread_of(of)
    monkeypatch.setattr(thread, "_consumer", Consumer())
    try:
        await thread.on_thread_stop()
    except asyncio.CancelledError:
        assert dies
    assert Consumer._client.closed is not dies


def test_what_faust_logs_is_not_taken_for_ours() -> None:
    """mode names a class' logger after its module, whatever that of the class it extends is."""
    for each in (faust_cure.App, faust_cure.Consumer, faust_cure.ConsumerThread, faust_cure.Recovery):
        assert each.logger.name == "faust.cure"
    assert type("App", (STOCK.app,), {"__module__": "agents.other"}).logger.name == "agents.other"


class DeadEnd:
    """aiokafka's consumer, as far as `getmany` of its own looks for errors; Faust doesn't call that."""

    def __init__(self, coordination: "asyncio.Future[None]", fetching: "asyncio.Future[None]") -> None:
        self._coordinator = self
        self._fetcher = self
        self._pending_exception: BaseException | None = None
        self._coordination_task, self._fetch_task = coordination, fetching


async def test_what_ends_the_membership_or_the_fetching_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    thread = thread_of(OURS)
    assert isinstance(thread, ConsumerThread)
    consumer = DeadEnd(loop.create_future(), loop.create_future())
    assert thread.trouble() is None  # it hasn't begun
    monkeypatch.setattr(thread, "_consumer", consumer)
    monkeypatch.setattr(consumer, "_coordinator", None)
    assert thread.trouble() is None  # it is connecting
    monkeypatch.undo()
    monkeypatch.setattr(thread, "_consumer", consumer)
    assert thread.trouble() is None
    consumer._pending_exception = GroupAuthorizationFailedError("app")
    assert thread.trouble() is consumer._pending_exception
    consumer._pending_exception = None
    consumer._fetch_task.cancel()
    await asyncio.sleep(0)
    assert str(thread.trouble()) == "the fetching has ended: None"
    consumer._coordination_task.set_exception(KeyError("member"))
    assert str(thread.trouble()) == "the coordination of the group has ended: KeyError('member')"
