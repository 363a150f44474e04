"""The worker on real Kafka: owners start where their state says, and get every record once, in order.

Stock Faust starts at the committed offset, which after a zombie's commit is ahead of the state, and may lose records to
a fetch that meets a seek (tests/faust). What must stop a worker does, with an error that says why.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import faust
import pytest
from aiokafka.errors import InvalidSessionTimeoutError, MessageSizeTooLargeError
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.cimpl import NewPartitions

from agents import worker as worker_module
from agents.inbox import GapError, Inbox, LogRecord
from agents.log_probe import LogEnds, LogProbe
from agents.watchdog import Patience, StalledError
from agents.worker import RECORD_OVERHEAD_BYTES, RecordTooLargeError
from tests.agents.recording_worker import WAIT_S, RecordingOwner, Running, fill, settings, topics, until
from tests.servers.kafka import KafkaBroker

pytestmark = pytest.mark.kafka


async def test_owners_start_at_their_state_though_more_is_committed(kafka: KafkaBroker, tmp_path: Path) -> None:
    app_id, topic = topics(kafka)
    fill(kafka, topic, 200)
    committer = Consumer({"bootstrap.servers": kafka.address, "group.id": app_id})
    committer.commit(offsets=[TopicPartition(topic, p, 90) for p in (0, 1)], asynchronous=False)
    committer.close()
    async with Running(settings(kafka, app_id, topic, tmp_path)).running() as first:
        await until(lambda: first.has_all(100))
        assert [first.current(p).offsets for p in (0, 1)] == [list(range(100))] * 2
        await first.worker.save(0, {b"0": b"40"})
        await first.worker.save(1, {b"1": b"70"})
        await first.worker.commit(0, 95)
    async with Running(settings(kafka, app_id, topic, tmp_path)).running() as second:
        await until(lambda: second.has_all(100))
        assert second.current(0).offsets == list(range(40, 100))
        assert second.current(1).offsets == list(range(70, 100))


async def test_records_come_in_batches(kafka: KafkaBroker, tmp_path: Path) -> None:
    app_id, topic = topics(kafka)
    fill(kafka, topic, 2000)
    async with Running(settings(kafka, app_id, topic, tmp_path)).running() as running:
        await until(lambda: running.has_all(1000))
        assert sum(len(owner.deliveries) for owner in running.made) < 200


async def test_a_rebalance_loses_nothing(kafka: KafkaBroker, tmp_path: Path) -> None:
    app_id, topic = topics(kafka)
    fill(kafka, topic, 100)
    async with Running(settings(kafka, app_id, topic, tmp_path / "a")).running() as first:
        await until(lambda: first.has_all(50))
        async with Running(settings(kafka, app_id, topic, tmp_path / "b")).running() as second:
            await until(lambda: bool(second.made))
            fill(kafka, topic, 100)
            await until(lambda: second.made[-1].next_offset == 100)
            assert second.made[-1].offsets == list(range(100))
        await until(lambda: first.has_all(100))
        assert [first.current(p).offsets for p in (0, 1)] == [list(range(100))] * 2


async def test_a_worker_is_ready_while_it_owns_what_the_group_gave_it(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Nothing, if there are more workers than partitions; and not between a revocation and the next recovery."""
    app_id, topic = topics(kafka)
    revoked: list[bool] = []

    class Leaving(RecordingOwner):
        async def close(self) -> None:
            revoked.append(first.ready.is_set())
            await super().close()

    async with Running(settings(kafka, app_id, topic, tmp_path / "a"), Leaving).running() as first:
        async with (
            Running(settings(kafka, app_id, topic, tmp_path / "b")).running() as second,
            Running(settings(kafka, app_id, topic, tmp_path / "c")).running() as third,
        ):
            all_three = first, second, third

            def owned() -> list[list[int]]:
                return sorted([owner.partition for owner in each.made if not owner.closed] for each in all_three)

            await until(lambda: owned() == [[], [0], [1]] and all(each.ready.is_set() for each in all_three))
        assert revoked
        assert not any(revoked)
        await until(lambda: {owner.partition for owner in first.made if not owner.closed} == {0, 1})
    assert not first.ready.is_set()


async def test_a_worker_stops_before_it_has_recovered(kafka: KafkaBroker, tmp_path: Path) -> None:
    app_id, topic = topics(kafka)
    running, stop = Running(settings(kafka, app_id, topic, tmp_path)), asyncio.Event()
    stop.set()
    async with asyncio.timeout(WAIT_S):
        await running.worker.run(stop, running.ready)
    assert not running.made


async def test_an_owners_failure_stops_the_worker(kafka: KafkaBroker, tmp_path: Path) -> None:
    class Failing(RecordingOwner):
        async def run(self) -> None:
            raise ValueError("no way on")

    app_id, topic = topics(kafka)
    with pytest.raises(ValueError, match="no way on"):
        await Running(settings(kafka, app_id, topic, tmp_path), Failing).fails()


async def test_a_gap_stops_the_worker(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Here the consumer begins three records too far on, as it would had a fetch met a seek."""

    class Guarded(RecordingOwner):
        def __init__(self, partition: int, state: Mapping[bytes, bytes]) -> None:
            super().__init__(partition, state)
            probe = LogProbe({"bootstrap.servers": kafka.address})
            self.inbox = Inbox(probe, topic, partition, 10)
            self.start_offset = 13

        async def put(self, records: Sequence[LogRecord]) -> None:
            await self.inbox.put([record for record in records if record.offset >= self.start_offset])

        async def run(self) -> None:
            await self.inbox.take(1000)

    app_id, topic = topics(kafka)
    fill(kafka, topic, 100)
    with pytest.raises(GapError, match=": offset 10 was expected, 13 was delivered, and the log holds 10: starting"):
        await Running(settings(kafka, app_id, topic, tmp_path), Guarded).fails()


# State


async def test_state_of_a_partition_that_has_just_been_added_is_saved(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Faust's producer looks at what it knows of the topic, which may be minutes old, and dies of another partition."""
    app_id, topic = topics(kafka)
    async with Running(settings(kafka, app_id, topic, tmp_path)).running() as running:
        changelog = running.worker.changelog
        await running.worker.save(0, {b"0": b"10"})
        admin = kafka.admin()  # named: its futures fail once it is collected
        await asyncio.to_thread(admin.create_partitions([NewPartitions(changelog, 3)])[changelog].result, 30)
        async with asyncio.timeout(WAIT_S):
            await running.worker.save(2, {b"2": b"20"})
    assert [(each.partition(), each.value()) for each in kafka.read(changelog)] == [(0, b"10"), (2, b"20")]


async def test_a_record_that_is_too_large_is_refused_before_it_is_sent(kafka: KafkaBroker, tmp_path: Path) -> None:
    app_id, topic = topics(kafka)
    limit = 50_000 - RECORD_OVERHEAD_BYTES
    async with Running(settings(kafka, app_id, topic, tmp_path, max_record_bytes=50_000)).running() as running:
        await running.worker.save(0, {b"0": b"x" * (limit - 1)})
        with pytest.raises(RecordTooLargeError, match=f"partition 1 has a record of {limit + 1} bytes"):
            await running.worker.save(1, {b"0": b"x", b"1": b"x" * limit})
    assert [len(message.value() or b"") for message in kafka.read(f"{app_id}-state-changelog")] == [limit - 1]


async def test_stock_faust_never_says_that_a_record_is_too_large(kafka: KafkaBroker) -> None:
    """Its producer dies of it, and the future stays as it is: hence the check before."""
    app_id, _ = topics(kafka)
    app = faust.App(
        app_id,
        broker=f"kafka://{kafka.address}",
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        producer_max_request_size=50_000,
    )
    table = app.Table("state", partitions=2, key_type=bytes, value_type=bytes)
    await app.start_client()
    try:
        sent = table.send_changelog(0, b"0", b"x" * 50_000)
        await until(lambda: app.producer.buffer.crashed)
        assert not sent.done()
    finally:
        await app.stop()


async def test_a_record_that_the_broker_refuses_is_an_error(kafka: KafkaBroker, tmp_path: Path) -> None:
    app_id, topic = topics(kafka, {"max.message.bytes": "10000"})
    async with Running(settings(kafka, app_id, topic, tmp_path)).running() as running:
        with pytest.raises(MessageSizeTooLargeError):
            await running.worker.save(0, {b"0": bytes(range(256)) * 100})
        await running.worker.save(0, {b"0": b"40"})


# Watchdogs


async def test_a_group_that_cannot_be_joined_stops_the_worker(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Stock Faust waits for ever: aiokafka tells only callers of its own `getmany`."""
    app_id, topic = topics(kafka)
    too_short = settings(kafka, app_id, topic, tmp_path, look_every_s=0.1, broker_session_timeout=1.0)
    with pytest.raises(InvalidSessionTimeoutError):
        await Running(too_short).fails()


IMPATIENT = Patience(joining=1_000_000, recovering=1_000_000, reading=3)


class Stuck(RecordingOwner):
    """Takes nothing."""

    async def put(self, records: Sequence[LogRecord]) -> None:
        await asyncio.Event().wait()


async def test_records_that_are_not_delivered_stop_the_worker(kafka: KafkaBroker, tmp_path: Path) -> None:
    app_id, topic = topics(kafka)
    fill(kafka, topic, 10)
    impatient = settings(kafka, app_id, topic, tmp_path, look_every_s=0.1, patience=IMPATIENT)
    with pytest.raises(StalledError, match=r"^worker.*: partition 0 is 5 records behind at offset 0"):
        await Running(impatient, Stuck).fails()


async def test_an_owner_may_pause(kafka: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Paused(Stuck):
        paused = True

    looks = 0

    class CountedEnds(LogEnds):
        async def of(self, partitions: Iterable[int]) -> dict[int, int] | None:
            nonlocal looks
            looks += 1
            return await super().of(partitions)

    monkeypatch.setattr(worker_module, "LogEnds", CountedEnds)
    app_id, topic = topics(kafka)
    fill(kafka, topic, 10)
    impatient = settings(kafka, app_id, topic, tmp_path, look_every_s=0.05, patience=IMPATIENT)
    async with Running(impatient, Paused).running() as running:
        seen = looks
        await until(lambda: looks > seen + 10)
        assert running.ready.is_set()


async def test_a_watchdog_that_fails_stops_the_worker(
    kafka: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nobody would watch from then on, and nobody would know."""

    class BrokenEnds(LogEnds):
        async def of(self, partitions: Iterable[int]) -> dict[int, int] | None:
            raise KeyError("ends")

    monkeypatch.setattr(worker_module, "LogEnds", BrokenEnds)
    app_id, topic = topics(kafka)
    with pytest.raises(KeyError, match="ends"):
        await Running(settings(kafka, app_id, topic, tmp_path, look_every_s=0.1)).fails()


async def test_ends_that_the_brokers_do_not_tell_are_no_failure(kafka: KafkaBroker) -> None:
    topic = kafka.new_topic("ends", 2)
    fill(kafka, topic, 3)
    assert await LogEnds({"bootstrap.servers": kafka.address}, topic).of([0, 1]) == {0: 2, 1: 1}
    assert await LogEnds({"bootstrap.servers": kafka.address}, topic).of([]) == {}
    assert await LogEnds({"bootstrap.servers": kafka.address, "log_level": 0}, f"no-{topic}").of([0]) is None
