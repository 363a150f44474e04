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
from agents.own_metrics import OwnMetrics

log = structlog.get_logger(__name__)

WATCH_EVERY_S = 2.0
STALLED_AFTER_S = 60.0
"""Lag and no record for so long: the consumer is stuck (Faust issues 594, 602, 629), a restart helps."""


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
        self._progress: dict[int, tuple[int, float]] = {}
        self._recovering_since: float | None = None
        self._ready: asyncio.Event | None = None
        self.app = self._make_app()
        self.table = self._make_table()
        self._make_agent()

    async def run(self, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
        """Work until `stop` is set; raises what made the worker fail. `ready` is set after the first recovery."""
        self._ready = ready
        await self.app.start()
        stopped = asyncio.ensure_future(self.app.wait_until_stopped())
        asked = asyncio.ensure_future(stop.wait())
        watchdog = asyncio.ensure_future(self._watch())
        await asyncio.wait({stopped, asked}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopped, asked, watchdog):
            task.cancel()
        await self._drop_owners()
        await self.app.stop()
        if self._failure is not None:
            raise self._failure
        if self.app.crash_reason is not None and not stop.is_set():
            raise self.app.crash_reason

    async def fail(self, error: BaseException) -> None:
        """Stop the worker: its supervisor starts it again from its own state."""
        if self._failure is None:
            self._failure = error
            log.error("worker stops", app=self.settings.app_id, error=str(error) or repr(error))
            await self.app.crash(error)

    async def save(self, partition: int, items: Mapping[bytes, bytes | None]) -> None:
        """Write keys of a partition's state (None deletes) and wait until the changelog has acknowledged them."""
        sent = []
        for key, value in items.items():
            if value is None:
                self.table.data.pop(key, None)
            else:
                self.table.data[key] = value
            sent.append(self.table.send_changelog(partition, key, value))
        await acknowledged(sent)

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

    def _tp(self, partition: int) -> TP:
        return TP(self.settings.topic, partition)

    def _make_app(self) -> App:
        settings = self.settings
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        app = App(
            settings.app_id,
            **settings.broker,
            datadir=settings.data_dir / settings.app_id,
            autodiscover=False,
            web_enabled=False,
            key_serializer="raw",
            value_serializer="raw",
            producer_acks=-1,
            producer_max_request_size=settings.max_record_bytes,
            consumer_auto_offset_reset="earliest",
            broker_session_timeout=10.0,
            broker_heartbeat_interval=2.0,
            broker_rebalance_timeout=15.0,
            stream_wait_empty=False,
            stream_buffer_maxsize=4,  # an element is all records of a fetch
            topic_allow_declare=False,
            topic_disable_leader=True,
            table_standby_replicas=0,
            worker_redirect_stdouts=False,
        )
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
        self._recovering_since = asyncio.get_running_loop().time()

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        await self._drop_owners()

    async def _on_recover(self) -> None:
        """Make the owners anew from the table. Faust swallows an exception here, hence the catch."""
        try:
            await self._drop_owners()
            assigned = self.app.assignor.assigned_actives()
            mine = sorted(tp.partition for tp in assigned if tp.topic == self.settings.topic)
            for partition in mine:
                owner = self._new_owner(self, partition, self.table.data)
                self._owners[partition] = owner
                self._tasks[partition] = asyncio.create_task(self._run_owner(owner), name=f"owner-{partition}")
            self._recovering_since = None
            log.info("partitions assigned", app=self.settings.app_id, topic=self.settings.topic, partitions=mine)
            if self._ready is not None:
                self._ready.set()
        except Exception as error:
            await self.fail(error)

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
        self._progress.clear()
        for owner in owners:
            await owner.close()
        current = asyncio.current_task()
        for task in tasks:
            task.cancel()
        for task in tasks:
            if task is not current:
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _watch(self) -> None:
        """Show the lag; notice a consumer that has stopped delivering, or a recovery that doesn't end."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            since = self._recovering_since
            if since is not None and loop.time() - since > STALLED_AFTER_S:
                await self.fail(TimeoutError(f"{self.settings.app_id}: no recovery within {STALLED_AFTER_S:.0f} s"))
            for partition, behind in self.lag().items():
                self._show_lag(partition, behind)
                if self._stalled(partition, behind, loop.time()):
                    owner = self._owners[partition]
                    what = f"{behind} records behind at offset {owner.next_offset}"
                    where = f"{self.settings.topic}/{partition}"
                    await self.fail(TimeoutError(f"{where}: {what}, and none delivered for {STALLED_AFTER_S:.0f} s"))

    def _show_lag(self, partition: int, behind: int) -> None:
        self._metrics.lag_records.labels(self._stage, partition).set(behind)
        stream_time_ms = self._owners[partition].stream_time_ms
        if stream_time_ms is not None:
            self._metrics.lag_seconds.labels(self._stage, partition).set(time.time() - stream_time_ms / 1000)

    def _stalled(self, partition: int, behind: int, now: float) -> bool:
        owner = self._owners[partition]
        offset, at = self._progress.get(partition, (-1, now))
        if owner.next_offset != offset or not behind or owner.paused:
            self._progress[partition] = (owner.next_offset, now)
            return False
        return now - at > STALLED_AFTER_S
