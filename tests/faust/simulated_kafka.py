"""A Faust app, stock or ours, on a Kafka of a few lists, all in one loop: what meets what is decided here.

`SimulatedThread` stands for aiokafka's consumer in its thread, as Faust uses it. What it copies of aiokafka is named
where it does; the rest of Faust is Faust's.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import faust
from faust.transport.consumer import ensure_TPset
from faust.transport.drivers.aiokafka import Consumer as StockConsumer
from faust.transport.drivers.aiokafka import Producer as StockProducer
from faust.transport.drivers.aiokafka import Transport as StockTransport
from faust.types import TP, RecordMetadata
from mode import Service

from agents import faust_cure

SOURCE, TABLE = "source", "state"
CHANGELOG = "app-state-changelog"
FETCH_S = 0.02
"""From a new position to its records."""
SEEK_S = 0.05
"""From a seek to its end, as Faust sees it: the answer of a fetch may come meanwhile."""


class Record(NamedTuple):
    """What aiokafka delivers."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0
    timestamp_type: int = 1
    headers: tuple[tuple[str, bytes], ...] = ()
    checksum: int | None = None
    serialized_key_size: int = 0
    serialized_value_size: int = 0


@dataclass
class Broker:
    """Logs, the committed offsets, and how many records consumers have taken from each log."""

    logs: dict[TP, list[Record]] = field(default_factory=dict)
    committed: dict[TP, int] = field(default_factory=dict)
    taken: dict[TP, int] = field(default_factory=dict)

    def create(self, topic: str, partitions: int) -> None:
        self.logs |= {TP(topic, partition): [] for partition in range(partitions)}

    def append(self, tp: TP, *values: bytes, key: bytes | None = None) -> None:
        log = self.logs[tp]
        for value in values:
            log.append(Record(tp.topic, tp.partition, len(log), key, value))


class SimulatedThread(Service):
    """aiokafka's consumer: positions, an assignment, fetches that wait."""

    def __init__(self, consumer: Any, broker: Broker) -> None:
        super().__init__()
        self.consumer, self.broker = consumer, broker
        self.positions: dict[TP, int] = {}
        self.max_records = 500
        self.offsets_hang = False
        self._available_s: dict[TP, float] = {}
        self._assigned = asyncio.Event()
        self._changed = asyncio.Event()
        self._generation = 0

    async def subscribe(self, topics: Iterable[str]) -> None:
        pass

    # The group

    async def rebalance(self, assigned: set[TP]) -> None:
        """Take everything away, give what is assigned. Fetches wait meanwhile (`Fetcher.fetched_records`)."""
        self._assigned.clear()
        app = self.consumer.app
        app.on_rebalance_start()
        await self.consumer.on_partitions_revoked(set(self.positions))
        self.positions = {tp: self.positions.get(tp, self.broker.committed.get(tp, 0)) for tp in assigned}
        app.assignor._assignment.actives = {
            topic: sorted(tp.partition for tp in assigned if tp.topic == topic)
            for topic in {tp.topic for tp in assigned}
        }
        self._generation += 1
        app.consumer_generation_id = self._generation
        self._fetch_anew(assigned)
        self._assigned.set()
        await self.consumer.on_partitions_assigned(set(assigned), self._generation)

    def assignment(self) -> set[TP]:
        return set(self.positions)

    # Fetching

    async def getmany(self, active: set[TP], timeout: float) -> dict[TP, list[Record]]:  # noqa: ASYNC109
        """As `AIOKafkaConsumerThread._fetch_records` and `Fetcher.fetched_records`: an empty `active` means any."""
        if not self.consumer.flow_active:
            return {}
        await self._assigned.wait()
        while not (drained := self._drain(active)):
            self._changed.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                return {}
            await self._assigned.wait()
        return drained

    def _drain(self, active: set[TP]) -> dict[TP, list[Record]]:
        drained, now_s = {}, asyncio.get_running_loop().time()
        for tp, position in self.positions.items():
            if (active and tp not in active) or self._available_s.get(tp, 0.0) > now_s:
                continue
            records = self.broker.logs[tp][position : position + self.max_records]
            if records:
                drained[tp] = records
                self.positions[tp] += len(records)
                self.broker.taken[tp] = self.broker.taken.get(tp, 0) + len(records)
                self._fetch_anew([tp])
        return drained

    def _fetch_anew(self, partitions: Iterable[TP]) -> None:
        loop = asyncio.get_running_loop()
        self._available_s |= dict.fromkeys(partitions, loop.time() + FETCH_S)
        loop.call_later(FETCH_S, self.wake)

    def wake(self) -> None:
        """Let fetches look again."""
        self._changed.set()

    # Offsets

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """As `AIOKafkaConsumerThread._seek_wait`."""
        for tp, offset in partitions.items():
            self.positions[tp] = offset
            if offset > 0:
                self.consumer._read_offset[tp] = offset
            else:
                self.consumer._read_offset.pop(tp, None)
        self._fetch_anew(partitions)
        await asyncio.sleep(SEEK_S)

    async def seek_to_committed(self) -> Mapping[TP, int | None]:
        """As aiokafka's: it asks the broker first, and a partition without a commit isn't sought."""
        await asyncio.sleep(SEEK_S)
        for tp in self.positions:
            if self.broker.committed.get(tp):
                self.positions[tp] = self.broker.committed[tp]
                self._fetch_anew([tp])
        return {tp: self.broker.committed.get(tp) for tp in self.positions}

    async def commit(self, offsets: Mapping[TP, int]) -> bool:
        self.broker.committed |= offsets
        return True

    async def position(self, tp: TP) -> int:
        return self.positions[tp]

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 0)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        if self.offsets_hang:
            await asyncio.Event().wait()
        return {tp: len(self.broker.logs[tp]) for tp in partitions}

    def highwater(self, tp: TP) -> int:
        return len(self.broker.logs[tp])

    def topic_partitions(self, topic: str) -> int:
        return sum(tp.topic == topic for tp in self.broker.logs)

    def verify_event_path(self, now: float, tp: TP) -> None:
        pass

    def verify_recovery_event_path(self, now: float, tp: TP) -> None:
        pass

    def close(self) -> None:
        pass


class SimulatedProducer(StockProducer):
    """Appends to the lists."""

    async def on_start(self) -> None:
        await self.add_runtime_dependency(self.buffer)

    async def on_stop(self) -> None:
        pass

    async def flush(self) -> None:
        await self.buffer.flush()

    async def send(self, topic: str, key: Any, value: Any, partition: Any, *_: Any, **__: Any) -> Any:
        broker: Broker = self.app.simulated_broker
        tp = TP(topic, partition)
        broker.append(tp, value, key=key)
        sent: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        offset = len(broker.logs[tp]) - 1
        sent.set_result(RecordMetadata(topic, partition, tp, offset, timestamp=None, timestamp_type=1))
        return sent


class Faust(NamedTuple):
    """Classes of an app: Faust's own, or ours."""

    app: type[Any]
    consumer: type[Any]
    transport: type[Any]


STOCK = Faust(faust.App, StockConsumer, StockTransport)
OURS = Faust(faust_cure.App, faust_cure.Consumer, faust_cure.Transport)


def simulated_app(of: Faust, broker: Broker, **settings: Any) -> Any:
    """An app of these classes over the lists; the topics are the broker's."""

    class Consumer(of.consumer):  # type: ignore[misc, name-defined]
        def _new_consumer_thread(self) -> SimulatedThread:
            return SimulatedThread(self, broker)

    class Transport(of.transport):  # type: ignore[misc, name-defined]
        pass

    Transport.Consumer, Transport.Producer = Consumer, SimulatedProducer

    class App(of.app):  # type: ignore[misc, name-defined]
        simulated_broker = broker

        def _new_transport(self) -> Transport:
            return Transport(self.conf.broker_consumer, self)

        def _new_producer_transport(self) -> Transport:
            return Transport(self.conf.broker_producer, self)

    options = {
        "broker": "kafka://127.0.0.1:1",
        "autodiscover": False,
        "web_enabled": False,
        "key_serializer": "raw",
        "value_serializer": "raw",
        "stream_wait_empty": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "table_standby_replicas": 0,
    }
    return App("app", **(options | settings))


class Owner:
    """What reads: its offsets by partition, and what the table holds each time a recovery says that it is done."""

    def __init__(self, of: Faust, broker: Broker, partitions: int, **settings: Any) -> None:
        self.broker = broker
        self.app = simulated_app(of, broker, **settings)
        self.offsets: dict[int, list[int]] = {partition: [] for partition in range(partitions)}
        self.recovered: list[dict[bytes, bytes]] = []
        self.events = 0
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.table = self.app.Table(TABLE, partitions=partitions, key_type=bytes, value_type=bytes)
        self.table.on_recover(self._note_recovery)
        topic = self.app.topic(SOURCE, acks=False, partitions=partitions, key_type=bytes, value_type=bytes)

        async def read(stream: faust.StreamT[bytes]) -> None:
            async for event in stream.noack().events():  # type: ignore[attr-defined]
                self.events += 1
                records = event.message.value if isinstance(event.message.value, list) else [event.message]
                self.offsets[event.message.partition] += [record.offset for record in records]
                await self.may_read.wait()

        self.app.agent(topic, name=SOURCE)(read)

    async def _note_recovery(self) -> None:
        self.recovered.append(dict(self.table.data))

    @property
    def thread(self) -> SimulatedThread:
        thread = self.app.consumer._thread
        assert isinstance(thread, SimulatedThread)
        return thread

    @property
    def ready(self) -> bool:
        """Whether the app has recovered its assignment and reads."""
        return not self.app.rebalancing

    def append(self, partition: int, count: int) -> None:
        """Let records arrive."""
        self.broker.append(TP(SOURCE, partition), *[b"x"] * count)
        self.thread.wake()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Owner"]:
        starting = asyncio.ensure_future(self.app.start())  # it returns after the first recovery
        while not self.app.tables.recovery.started:
            await asyncio.sleep(0.1)
        try:
            yield self
        finally:
            await self.app.stop()
            starting.cancel()


def assigned(*partitions: int) -> set[TP]:
    """Partitions of the source, and those of the changelog that go with them."""
    return ensure_TPset({TP(topic, partition) for topic in (SOURCE, CHANGELOG) for partition in partitions})


def broker_of(partitions: int) -> Broker:
    broker = Broker()
    broker.create(SOURCE, partitions)
    broker.create(CHANGELOG, partitions)
    return broker
