"""Spans of another topic: each record is a request, and is read for good when our own topic has its spans.

A crash between the two copies the newest records twice. What a client would be told of a request is told nobody here:
what may be taken later is tried again, and the topic waits; what never will be goes to the dead letters.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException, Message
from prometheus_client import Counter, Gauge

from agents.dead_letters import DeadLetter
from agents.distributor.intake import Intake
from agents.distributor.producer import TOO_LARGE
from agents.distributor.reception import Reception
from agents.distributor.status import Code, RefusedError
from agents.group_reader import GroupReader, Waiting
from agents.producer import Producer
from agents.topic_record import TopicRecord, topic_record
from schemas import jaeger, zipkin
from schemas.config.kafka_receiver import KafkaReceiver as Settings
from schemas.errors import Malformed
from schemas.otlp.codecs import Codec, traces_data
from schemas.otlp_json import traces_data_bytes
from schemas.record_format import RecordFormat

log = structlog.get_logger(__name__)

STAGE = "kafka receiver"
AGAIN = frozenset({Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.CANCELLED})
MIN_BACKOFF_S, MAX_BACKOFF_S = 0.1, 10.0
STOP_S = 30.0
"""Far above what a reader takes to finish what it has begun."""

DECODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "otlp_json": partial(traces_data_bytes, number=1),
    "jaeger_proto": lambda value: jaeger.traces_data(jaeger.batch_of_span(value)).SerializeToString(),
    "zipkin_json": lambda value: zipkin.traces_data(value).SerializeToString(),
}


class Request(NamedTuple):
    """A record's spans, or why it has none."""

    record: TopicRecord
    tenant: str = ""
    body: bytes = b""
    """A TracesData."""
    no_metrics: bool = False
    fault: Malformed | None = None


class KafkaReceiver:
    """Reads the topic of `settings` for as long as it runs. `headers` name a record's tenant."""

    name = "Kafka"

    def __init__(
        self,
        settings: Settings,
        headers: tuple[str, ...],
        intake: Intake,
        producer: Producer,
        dead_letters: str,
        counted: Counter,
        lag: Gauge,
        reception: Reception,
    ) -> None:
        self._settings, self._intake, self._producer = settings, intake, producer
        self._topic, self._encoding = settings.source.topic, settings.source.encoding
        self._codec = Codec.PUSH_BYTES if self._encoding == "push-bytes" else Codec.OTLP
        self._format = RecordFormat(self._codec, headers)
        self._dead_letters, self._counted, self._lag, self._reception = dead_letters, counted, lag, reception
        self._stop = asyncio.Event()
        self.running: asyncio.Task[None] | None = None
        """Ends with an error, or when it is stopped."""
        self.ready = asyncio.Event()
        """Set when the group has given it partitions, or none."""

    @property
    def address(self) -> str:
        """Where it reads."""
        return f"{self._topic} of {','.join(self._settings.brokers)}"

    async def start(self) -> None:
        """Begin to read. Brokers that can't be reached are tried again and again."""
        reader = GroupReader(client_settings(self._settings), self._topic, self, STAGE, self._lag, self.ready)
        self.running = asyncio.get_running_loop().create_task(reader.run(self._stop))

    async def stop(self) -> None:
        """Finish what has begun, and commit it."""
        self._stop.set()
        if self.running is not None:
            await asyncio.wait([self.running], timeout=STOP_S)

    def parse(self, message: Message) -> Waiting[Request]:
        """A record's tenant and spans, or what is wrong with it."""
        record = topic_record(message)
        try:
            request = self._request(record)
        except Malformed as error:
            request = Request(record, fault=error)
        return Waiting(record.offset, len(record.value or b""), None, request)

    async def do(self, partition: int, items: Sequence[Request]) -> None:
        """Have the spans of records written, all at once: their order means nothing to those who read them."""
        await asyncio.gather(*(self._take(partition, request) for request in items))

    def failed(self, error: KafkaError) -> None:
        """Say it: the other receivers go on, and so does this one when it can."""
        log.error("the Kafka receiver can't read", topic=self._topic, reason=error.str())

    def _request(self, record: TopicRecord) -> Request:
        read = self._format.parse(*record)
        found = traces_data(read.value, self._codec)
        decode = DECODERS.get(self._encoding)
        body = found.value if decode is None or not found.value else decode(found.value)
        return Request(record, read.tenant, body, no_metrics=read.no_metrics or found.no_metrics)

    async def _take(self, partition: int, request: Request) -> None:
        """Until the spans are written, or the record is with the dead letters."""
        fault = request.fault
        if fault is None and request.body:
            fault = await self._copy(partition, request)
        if fault is not None:
            await self._bury(partition, request.record, fault)

    async def _copy(self, partition: int, request: Request) -> Malformed | None:
        """Have spans written, however long that takes; gives what is wrong if they never can be."""
        backoffs = backoffs_s()
        with self._reception.request(lambda: f"{self._topic}/{partition}") as arrival:
            while True:
                try:
                    await self._intake.push(arrival, request.body, [request.tenant], no_metrics=request.no_metrics)
                except RefusedError as refusal:
                    if refusal.code not in AGAIN:
                        arrival.answered(refusal.code.name)
                        return Malformed(refusal.message)
                    await _wait(max(refusal.retry_after_s, next(backoffs)), refusal.message)
                else:
                    arrival.answered("OK", taken=True)
                    return None

    async def _bury(self, partition: int, record: TopicRecord, fault: Malformed) -> None:
        """Put a record with the dead letters, however long that takes."""
        where = {"topic": self._topic, "partition": partition, "offset": record.offset, "reason": str(fault)}
        value, position = record.value or b"", fault.position or 0
        letter = DeadLetter(self._topic, partition, record.offset, record.timestamp_ms, str(fault), position, value)
        backoffs = backoffs_s()
        while True:
            failure = await self._write(letter)
            if failure is None:
                log.warning("a record that can't be read was put with the dead letters", **where)
                break
            if failure.code() in TOO_LARGE:
                log.error(
                    "a record that can't be read is too large for the dead letters; it stays where it is", **where
                )
                break
            await _wait(next(backoffs), f"{self._dead_letters}: {failure.str()}")
        self._counted.labels("malformed").inc()

    async def _write(self, letter: DeadLetter) -> KafkaError | None:
        sending = self._producer.send(self._dead_letters, 0, letter.value, key=letter.key, headers=letter.headers)
        try:
            await (await sending)
        except KafkaException as error:
            failure: KafkaError = error.args[0]
            return failure
        return None


def backoffs_s() -> Iterator[float]:
    """How long to wait after each failure."""
    backoff_s = MIN_BACKOFF_S
    while True:
        yield backoff_s
        backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)


async def _wait(seconds: float, reason: str) -> None:
    log.warning("the Kafka receiver waits", reason=reason, seconds=round(seconds, 1))
    await asyncio.sleep(seconds)


def client_settings(settings: Settings) -> dict[str, Any]:
    """Librdkafka's settings for the receiver's consumer."""
    sasl, tls = settings.sasl, settings.encryption
    protocol = ("SASL_" if sasl else "") + ("SSL" if tls else "PLAINTEXT")
    found: dict[str, Any] = {
        "bootstrap.servers": ",".join(settings.brokers),
        "client.id": settings.client_id,
        "group.id": settings.group_id,
        "auto.offset.reset": settings.initial_offset,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "session.timeout.ms": round(settings.session_timeout_s * 1000),
        "heartbeat.interval.ms": round(settings.heartbeat_interval_s * 1000),
        "security.protocol": protocol,
    }
    if sasl is not None:
        found["sasl.mechanism"] = sasl.mechanism
        found["sasl.username"] = sasl.username
        found["sasl.password"] = sasl.password.get_secret_value()
    if tls is not None:
        paths = {
            "ssl.ca.location": tls.ca_file,
            "ssl.certificate.location": tls.cert_file,
            "ssl.key.location": tls.key_file,
        }
        found |= {key: str(path) for key, path in paths.items() if path is not None}
        found["enable.ssl.certificate.verification"] = not tls.insecure_skip_verify
    return found
