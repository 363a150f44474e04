"""Faust 0.15.3 on aiokafka: safe seeks and table recovery, seek to our own offsets, batch delivery.

What is wrong upstream: a fetch that is in flight while positions are set moves a position on and loses the records
it took. Faust drops them (flow stopped or partition paused) and doesn't seek back (transport/consumer.py:767; its
seek_to_committed skips a partition without a commit, and a changelog never has one). Lost changelog records: recovery
waits for ever, or ends with an incomplete table. Lost source records: a gap. Such a fetch is the normal case in a
rebalance: nothing waits for it (:787 sets the event that should be cleared), it sleeps until the new assignment
(aiokafka/consumer/fetcher.py:1215), and then Faust's live set of active partitions, empty while all are paused, means
"any partition" (:1221).

Rules kept here, by subclasses only:

1. No position is set while a fetch is in flight or its records are handed on: `Consumer.getmany` and the seeks.
2. A paused partition delivers nothing, and a source partition nothing before its seek: `Consumer.on_buffer_drop`,
   `Recovery.on_recovery_completed`.
3. `on_recover` callbacks run for a finished recovery only: `Recovery.on_recovery_completed`.
4. A recovery step that times out crashes the app; upstream, recovery ends for ever: `Recovery._wait`.
5. What ends aiokafka's membership or fetching can be seen: `ConsumerThread.trouble`. Faust takes records past the
   checks of aiokafka's own interface, so that upstream a group that can't be joined is waited for in silence.
6. A consumer stops while its brokers are away: `ConsumerThread.on_thread_stop`.
7. A commit that fails is a warning: nothing reads ours. Upstream it crashes the app: `ConsumerThread._commit`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import faust
import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.tables.manager import TableManager as _TableManager
from faust.tables.recovery import RebalanceAgain, ServiceStopped
from faust.tables.recovery import Recovery as _Recovery
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, ensure_aiokafka_TP
from faust.transport.drivers.aiokafka import Consumer as _Consumer
from faust.transport.drivers.aiokafka import Transport as _Transport
from faust.types import TP

log = structlog.get_logger(__name__)

FAUST_LOGGER = logging.getLogger("faust.cure")
"""For each class here: mode would name its logger after this module, and Faust's chatter would pass for ours."""

EXPECTED_FAUST = "0.15.3"

if faust.__version__ != EXPECTED_FAUST:  # getmany is a rewrite: compare it with a new version's first
    raise ImportError(
        f"faust-streaming {faust.__version__} is installed, Spanmill needs {EXPECTED_FAUST}: "
        f"pip install faust-streaming=={EXPECTED_FAUST}"
    )


class ConsumerThread(AIOKafkaConsumerThread):
    """aiokafka's consumer with a short fetch wait, which says what is wrong with it."""

    logger = FAUST_LOGGER

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = 200  # noqa: SLF001  upstream 1500: after a seek the first fetch waits for the idle one
        return consumer

    async def on_thread_stop(self) -> None:
        """Stop aiokafka's consumer.

        While a broker is away, it cancels a fetch and then waits for that, which raises
        (aiokafka/consumer/fetcher.py:457). Upstream the thread dies of it, and whoever stops the app waits a minute.
        """
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            if self._consumer is not None:
                await self._consumer._client.close()  # noqa: SLF001  what it would have done next

    def trouble(self) -> BaseException | None:
        """What has ended the membership or the fetching, for good; None while all is well, or it is being stopped."""
        consumer = self._consumer
        if consumer is None or self.should_stop:
            return None
        if self._thread is not None and not self._thread.is_alive():
            return RuntimeError("the consumer's thread has ended")
        coordinator, fetcher = consumer._coordinator, consumer._fetcher  # noqa: SLF001  it tells only its own callers
        if coordinator is None or fetcher is None:  # it is connecting
            return None
        refused: BaseException | None = coordinator._pending_exception  # noqa: SLF001
        if refused is not None:
            return refused
        for what, task in (
            ("coordination of the group", coordinator._coordination_task),  # noqa: SLF001
            ("fetching", fetcher._fetch_task),  # noqa: SLF001
        ):
            if task.done():
                ended = None if task.cancelled() else task.exception()
                return RuntimeError(f"the {what} has ended: {ended!r}")
        return None

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        consumer = self._ensure_consumer()
        here = self.assignment()
        mine = {ensure_aiokafka_TP(tp): OffsetAndMetadata(at, "") for tp, at in offsets.items() if tp in here}
        try:
            await consumer.commit(mine)
        except KafkaError as error:  # a rebalance, mostly
            log.warning("offsets weren't committed", error=str(error) or repr(error))
            return False
        return True


class Consumer(_Consumer):
    """A consumer whose seeks never meet a fetch, and which delivers batches."""

    logger = FAUST_LOGGER
    app: Any  # an App of this module; Faust's type is its abstract one
    _thread: ConsumerThread
    fetch_timeout_s = 0.2  # upstream 1.0: a seek has to wait for the fetch in flight

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109  upstream's signature
        """Hand on the records of one fetch; `not_waiting_next_records` is clear from the fetch to its last record."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # mode's annotation, an Event by design
        active = self._get_active_partitions()  # live: says what may be handed on
        if self.should_stop or not active:
            await self.sleep(0.05)
            return
        self.not_waiting_next_records.clear()
        try:
            generation = self.app.consumer_generation_id
            fetched = await self._getmany(active_partitions=set(active), timeout=min(timeout, self.fetch_timeout_s))
            for tp, message in self._messages(fetched):
                if self.should_stop or not self.flow_active or self.app.consumer_generation_id != generation:
                    return  # recovery seeks before the flow goes on
                if tp in active or tp in self._buffered_partitions:
                    self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                    yield tp, message
        finally:
            self.not_waiting_next_records.set()

    def _messages(self, fetched: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, Any]]:
        """Batch topics: one message per partition and fetch, its value is the list of records. Others: as upstream."""
        batch_topics = self.app.batch_topics
        for tp, records in fetched.items():
            if tp.topic in batch_topics:
                message = self._to_message(tp, records[-1])
                message.value = records  # type: ignore[assignment]
                yield tp, message
        rest = {tp: records for tp, records in fetched.items() if tp.topic not in batch_topics}
        for tp, record in self.scheduler.iterate(rest):
            yield tp, self._to_message(tp, record)

    def trouble(self) -> BaseException | None:
        """What has ended the membership or the fetching, for good; None while all is well."""
        return self._thread.trouble()

    async def _stop_fetching(self) -> None:
        self.stop_flow()  # Faust's callers of the seeks resume the flow afterwards
        await self.wait_for_stopped_flow()

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Seek changelog partitions, for recovery."""
        await self._stop_fetching()
        await super().seek_wait(partitions)

    def on_buffer_drop(self, tp: TP) -> None:
        """Drop a buffer; called late, upstream makes a paused partition active."""
        if tp in self._paused_partitions:
            self._buffered_partitions.discard(tp)
        else:
            super().on_buffer_drop(tp)

    async def perform_seek(self) -> None:
        """Seek the source partitions at the end of a recovery: to the committed offsets, then to the app's own."""
        await self._stop_fetching()
        await super().perform_seek()
        if self.app.start_offsets is not None:
            here = self.assignment()
            await super().seek_wait({tp: offset for tp, offset in self.app.start_offsets().items() if tp in here})

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> bool:
        """Commit our own offsets, for those who watch the lag; Faust's bookkeeping of acks isn't asked."""
        here = self.assignment()
        return bool(await self._commit({tp: offset for tp, offset in offsets.items() if tp in here}))


class Recovery(_Recovery):
    """Table recovery that ends either complete or loudly."""

    logger = FAUST_LOGGER
    app: Any

    async def _build_offsets(self, consumer: Any, tps: set[TP], destination: Any, title: str) -> None:
        await super()._build_offsets(consumer, tps, destination, title)
        if self.app.newest_record_only and title == "active":
            for tp in tps:
                destination[tp] = max(destination[tp], self.active_highwaters[tp] - 1)

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """Finish a recovery that really has read everything.

        While it waits for the records, `_restart_recovery` swallows `RebalanceAgain` and `ServiceStopped`
        (faust/tables/recovery.py:466) and goes on as if all had been read.
        """
        if self.should_stop:
            raise ServiceStopped
        if self.signal_recovery_start.is_set():
            raise RebalanceAgain
        self.app.consumer.stop_flow()  # upstream resumes the source partitions before it seeks them
        await super().on_recovery_completed(generation_id)

    async def _resume_streams(self, generation_id: int = 0) -> None:  # the same for an app without tables
        self.app.consumer.stop_flow()
        await super()._resume_streams(generation_id)

    async def _wait(self, coro: Any, timeout: Any = None) -> None:  # noqa: ASYNC109  upstream's signature
        try:
            await super()._wait(coro, timeout)
        except ServiceStopped:
            if self.should_stop or self.crashed:
                raise
            raise TimeoutError(f"recovery step took longer than {timeout} s") from None  # upstream stops recovering


class TableManager(_TableManager):
    """Tables with the recovery above."""

    logger = FAUST_LOGGER

    @property
    def recovery(self) -> Recovery:
        """The recovery service, made when first asked for."""
        if self._recovery is None:
            self._recovery = Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return cast("Recovery", self._recovery)


class Transport(_Transport):
    """aiokafka with the consumer above."""

    Consumer = Consumer


class App(faust.App):
    """A Faust app whose start offsets are its own and whose recoveries can be relied on."""

    logger = FAUST_LOGGER
    batch_topics: tuple[str, ...] = ()
    """Topics with batch delivery: `acks=False`, one agent each."""
    newest_record_only = False
    """Tables with one key per partition: recovery reads only the newest record of each."""
    start_offsets: Callable[[], Mapping[TP, int]] | None = None
    """Where to go on from, asked after the `on_recover` callbacks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("TableManager", TableManager)
        super().__init__(*args, **kwargs)

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    async def know_partition(self, topic: str, partition: int) -> None:
        """Let the producer learn of a partition that is younger than what it knows of the topic: it would die of it."""
        client = (await self.maybe_start_producer())._producer.client  # noqa: SLF001  it has no other way in
        # Of a topic that it has never written it asks by itself.
        while partition not in (client.cluster.partitions_for_topic(topic) or (partition,)):
            await client.force_metadata_update()


async def acknowledged(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Wait for changelog sends; never cancels them, since a cancelled one breaks Faust's producer buffer."""
    waiting = list(futures)
    if waiting:
        await asyncio.wait(waiting)
        for future in waiting:
            future.result()
