"""A Faust app that reads one topic, with an owner for each assigned partition and the owners' state in one table.

The generator and the sink are both such workers. What they share is here: the settings that make Faust dependable, the
life of owners through rebalances and recoveries, the watchdog, and the end after a failure. What an owner does with the
records of its partition is its own affair.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import faust
import structlog
from faust.types import TP

from agents.faust_cure import App, acknowledged
from agents.inbox import LogRecord
from agents.log_probe import LogEnds
from agents.own_metrics import OwnMetrics
from agents.watchdog import DEFAULT_PATIENCE, LOOK_EVERY_S, Patience, Reading, Watchdog
from schemas.errors import Malformed

log = structlog.get_logger(__name__)

SHOW_EVERY_S = 2.0
STOP_WITHIN_S = 15.0
"""Faust waits for brokers when it stops, for minutes if they are away; nothing of ours is lost by not waiting."""
RECORD_OVERHEAD_BYTES = 1000
"""More than Kafka puts around a record and its key, by which aiokafka measures it."""

METADATA_MAX_AGE_S = 30
"""After so long at the latest a topic's new partitions are shared out; windows would wait for them (hold_back)."""


class Owner(Protocol):
    """What runs for one owned partition."""

    @property
    def start_offset(self) -> int:
        """Where to read from when the partition has just been assigned."""

    @property
    def next_offset(self) -> int:
        """The offset after the last record that was taken over."""

    @property
    def stream_time_ms(self) -> int | None:
        """Up to which time of the log it has come."""

    @property
    def paused(self) -> bool:
        """True while the owner doesn't read on purpose."""

    async def put(self, records: Sequence[LogRecord]) -> None:
        """Hand over a delivery; may wait."""

    async def run(self) -> None:
        """Work until cancelled; an exception stops the worker."""

    async def close(self) -> None:
        """Let go of whoever waits in `put`: the partition has been taken away."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is on the wire, and how it reaches the brokers."""

    app_id: str
    topic: str
    partitions: int
    table: str
    data_dir: Path
    newest_record_only: bool
    """One key per partition in the table: recovery reads the newest record only."""
    max_record_bytes: int
    """Largest record of the table's changelog."""
    broker: Mapping[str, Any] = field(default_factory=dict)
    """Faust's broker settings: address, credentials, instance id."""
    client: Mapping[str, Any] = field(default_factory=dict)
    """librdkafka's, for the watchdog, which doesn't ask the consumer that it watches."""
    look_every_s: float = LOOK_EVERY_S
    patience: Patience = DEFAULT_PATIENCE


class ChangelogMismatchError(Exception):
    """A process was given partitions of the topic without those of the changelog."""


class StateError(Exception):
    """A partition's state isn't what this program can read."""


class RecordTooLargeError(Exception):
    """A part of a partition's state is larger than its changelog takes."""


class Worker:
    """Runs owners; `new_owner(worker, partition, state)` makes one from the partition's keys in the table."""

    def __init__(
        self,
        settings: WorkerSettings,
        new_owner: Callable[["Worker", int, Mapping[bytes, bytes]], Owner],
        metrics: OwnMetrics,
        stage: str,
    ) -> None:
        self.settings = settings
        self._metrics, self._stage = metrics, stage
        self._new_owner = new_owner
        self._owners: dict[int, Owner] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._failure: BaseException | None = None
        self._assigned: bool | None = False
        """Whether the group has given an assignment that isn't recovered yet; None when it is."""
        self._recovered: int | None = None
        """The group's generation whose assignment is recovered."""
        self._rebalances = 0
        self._ready = asyncio.Event()
        self.app = self._make_app()
        self.table = self._make_table()
        self._make_agent()

    async def run(self, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
        """Work until `stop` is set; raises what made the worker fail.

        `ready` is set while the worker owns what the group gave it, be it nothing, and has recovered it.
        """
        if ready is not None:
            self._ready = ready
        starting = asyncio.ensure_future(self.app.start())  # it returns only after the first recovery
        try:
            await self._work(starting, stop)
        finally:
            self._ready.clear()
            await self._drop_owners()
            await self._stop_app()
            starting.cancel()
        if self._failure is not None:
            raise self._failure
        if self.app.crash_reason is not None and not stop.is_set():
            raise self.app.crash_reason

    async def _work(self, starting: asyncio.Future[None], stop: asyncio.Event) -> None:
        """Until one of them ends: the wish to stop, the app, or what watches it, without which nobody would notice."""
        ends: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(end)
            for end in (stop.wait(), self.app.wait_until_stopped(), self._show_lags(), self._watch())
        ]
        done, _ = await asyncio.wait([starting, *ends], return_when=asyncio.FIRST_COMPLETED)
        if done == {starting} and starting.exception() is None:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        for end in done:
            if (error := end.exception()) is not None:
                await self.fail(error)

    async def _stop_app(self) -> None:
        stopping = asyncio.ensure_future(self.app.stop())
        await asyncio.wait({stopping}, timeout=STOP_WITHIN_S)
        if not stopping.done():
            log.warning("the consumer doesn't stop: going on without it", app=self.settings.app_id)
            stopping.cancel()
        elif (error := stopping.exception()) is not None:
            log.warning("the consumer didn't stop cleanly", app=self.settings.app_id, error=str(error) or repr(error))

    async def fail(self, error: BaseException) -> None:
        """Stop the worker: its supervisor starts it again from its own state."""
        if self._failure is None:
            self._failure = error
            log.error("worker stops", app=self.settings.app_id, error=str(error) or repr(error))
            await self.app.crash(error)

    async def save(self, partition: int, items: Mapping[bytes, bytes | None]) -> None:
        """Write keys of a partition's state (None deletes) and wait until the changelog has acknowledged them.

        Raises `RecordTooLargeError` before anything is sent: Faust's producer would die of such a record, and whoever
        waits for it would wait for ever.
        """
        for key, value in items.items():
            self._check_size(partition, key, value)
        await self.app.know_partition(self.changelog, partition)
        sent = []
        for key, value in items.items():
            if value is None:
                self.table.data.pop(key, None)
            else:
                self.table.data[key] = value
            sent.append(self.table.send_changelog(partition, key, value))
        await acknowledged(sent)

    def _check_size(self, partition: int, key: bytes, value: bytes | None) -> None:
        size, limit = len(key) + len(value or b""), self.settings.max_record_bytes - RECORD_OVERHEAD_BYTES
        if size > limit:
            raise RecordTooLargeError(
                f"{self.changelog}: the state of partition {partition} has a record of {size} bytes, and there is room "
                f"for {limit}: lower what is kept for each tenant and partition (max_items), or tenants' "
                "limits"
            )

    async def commit(self, partition: int, offset: int) -> None:
        """Commit an offset for those who watch the lag; nothing of ours ever reads it."""
        await self.app.consumer.commit_offsets({self._tp(partition): offset})  # type: ignore[attr-defined]

    def end_offset(self, partition: int) -> int | None:
        """The partition's next offset as the last fetch told it; None before the first one."""
        try:
            end = self.app.consumer.highwater(self._tp(partition))
        except (AssertionError, KeyError, ValueError):  # not assigned at the moment
            return None
        return None if end is None or end < 0 else int(end)

    def lag(self) -> dict[int, int]:
        """Records that are in the log and haven't been taken over, by owned partition."""
        ends = {partition: self.end_offset(partition) for partition in self._owners}
        return {p: max(end - self._owners[p].next_offset, 0) for p, end in ends.items() if end is not None}

    @property
    def changelog(self) -> str:
        """The topic that keeps the state."""
        return str(self.table.changelog_topic.get_topic_name())

    def _tp(self, partition: int) -> TP:
        return TP(self.settings.topic, partition)

    def _make_app(self) -> App:
        settings = self.settings
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        options = {
            "datadir": settings.data_dir / settings.app_id,
            "autodiscover": False,
            "web_enabled": False,
            "key_serializer": "raw",
            "value_serializer": "raw",
            "producer_acks": -1,
            "producer_max_request_size": settings.max_record_bytes,
            "consumer_auto_offset_reset": "earliest",
            "consumer_metadata_max_age_ms": METADATA_MAX_AGE_S * 1000,
            "broker_session_timeout": 10.0,
            "broker_heartbeat_interval": 2.0,
            "broker_rebalance_timeout": 15.0,
            "stream_wait_empty": False,
            "stream_buffer_maxsize": 4,  # an element is all records of a fetch
            "topic_allow_declare": False,
            "topic_disable_leader": True,
            "table_standby_replicas": 0,
            "worker_redirect_stdouts": False,
        }
        app = App(settings.app_id, **{**options, **settings.broker})
        app.batch_topics = (settings.topic,)
        app.newest_record_only = settings.newest_record_only
        app.start_offsets = self._start_offsets
        app.on_partitions_revoked.connect(self._on_revoked)
        app.on_partitions_assigned.connect(self._on_assigned)
        return app

    def _make_table(self) -> Any:
        table = self.app.Table(
            self.settings.table, partitions=self.settings.partitions, key_type=bytes, value_type=bytes
        )
        table.on_recover(self._on_recover)
        return table

    def _make_agent(self) -> None:
        topic = self.app.topic(
            self.settings.topic, acks=False, partitions=self.settings.partitions, key_type=bytes, value_type=bytes
        )

        async def deliver(stream: faust.StreamT[bytes]) -> None:
            async for event in stream.noack().events():  # type: ignore[attr-defined]  # missing in the abstract type
                owner = self._owners.get(event.message.partition)
                if owner is not None:
                    await owner.put(event.message.value)  # batch delivery: the value is a list of records

        self.app.agent(topic, name=self.settings.topic)(deliver)

    def _start_offsets(self) -> dict[TP, int]:
        return {self._tp(partition): owner.start_offset for partition, owner in self._owners.items()}

    async def _on_assigned(self, *_: Any, **__: Any) -> None:
        self._rebalances += 1
        if self._recovered == self.app.consumer_generation_id:  # the recovery has been quicker than this signal
            return
        self._ready.clear()
        self._assigned = True

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        self._ready.clear()
        self._assigned, self._recovered = False, None
        await self._drop_owners()

    async def _on_recover(self) -> None:
        """Make the owners anew from the table. Faust swallows an exception here, hence the catch."""
        try:
            await self._drop_owners()
            assigned = self.app.assignor.assigned_actives()
            mine = sorted(tp.partition for tp in assigned if tp.topic == self.settings.topic)
            self._check_changelog(mine, sorted(tp.partition for tp in assigned if tp.topic == self._changelog))
            for partition in mine:
                owner = self._owner_of(partition)
                self._owners[partition] = owner
                self._tasks[partition] = asyncio.create_task(self._run_owner(owner), name=f"owner-{partition}")
            self._assigned, self._recovered = None, self.app.consumer_generation_id
            log.info("partitions assigned", app=self.settings.app_id, topic=self.settings.topic, partitions=mine)
            self._ready.set()
        except Exception as error:
            await self.fail(error)

    @property
    def _changelog(self) -> str:
        return f"{self.settings.app_id}-{self.settings.table}-changelog"

    def _check_changelog(self, mine: Sequence[int], of_changelog: Sequence[int]) -> None:
        """Faust shares out topics of different partition counts each by itself: an owner would miss its state."""
        if of_changelog != mine:
            raise ChangelogMismatchError(
                f"{self.settings.app_id}: partitions {mine} of {self.settings.topic} were assigned, and {of_changelog} "
                f"of {self._changelog}: the topics have different numbers of partitions, or are just being grown; see "
                "`spanmill topics check`"
            )

    def _owner_of(self, partition: int) -> Owner:
        try:
            return self._new_owner(self, partition, self.table.data)
        except Malformed as error:
            raise StateError(
                f"{self.changelog}: the state of partition {partition} can't be read: {error}; "
                "if a newer Spanmill wrote it, run that one"
            ) from error

    async def _run_owner(self, owner: Owner) -> None:
        try:
            await owner.run()
        except ExceptionGroup as group:  # of one of the owner's loops
            await self.fail(group.exceptions[0])
        except Exception as error:
            await self.fail(error)

    async def _drop_owners(self) -> None:
        for partition in self._owners:
            for gauge in (self._metrics.lag_records, self._metrics.lag_seconds):
                with contextlib.suppress(KeyError):
                    gauge.remove(self._stage, str(partition))
        tasks, self._tasks = list(self._tasks.values()), {}
        owners, self._owners = list(self._owners.values()), {}
        for owner in owners:
            await owner.close()
        current = asyncio.current_task()
        for task in tasks:
            task.cancel()
        for task in tasks:
            if task is not current:
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _show_lags(self) -> None:
        while True:
            for partition, behind in self.lag().items():
                self._show_lag(partition, behind)
            await asyncio.sleep(SHOW_EVERY_S)

    def _show_lag(self, partition: int, behind: int) -> None:
        self._metrics.lag_records.labels(self._stage, partition).set(behind)
        stream_time_ms = self._owners[partition].stream_time_ms
        if stream_time_ms is not None:
            self._metrics.lag_seconds.labels(self._stage, partition).set(time.time() - stream_time_ms / 1000)

    async def _watch(self) -> None:
        """Notice that the consumer is dead, or that nothing gets on. Raises what is wrong."""
        settings = self.settings
        ends_of, watchdog = LogEnds(settings.client, settings.topic), Watchdog(settings.app_id, settings.patience)
        while True:
            await asyncio.sleep(settings.look_every_s)
            trouble = self.app.consumer.trouble()  # type: ignore[attr-defined]
            if trouble is not None:
                raise trouble
            ends = await ends_of.of(sorted(self._owners) or [0])
            if ends is None:
                watchdog.excused()
            elif self._assigned is None:
                watchdog.reads(
                    {p: Reading(o.next_offset, ends.get(p, 0), o.paused) for p, o in sorted(self._owners.items())}
                )
            elif self._assigned:
                recovery: Any = self.app.tables.recovery  # type: ignore[attr-defined]  # missing in the abstract type
                watchdog.recovers((self._rebalances, tuple(sorted(recovery.active_offsets.items()))))
            else:
                watchdog.joins(self._rebalances)
