"""From pieces of requests to acknowledged records.

Requests that arrive within the linger time share records: a TracesData is a list, so its pieces put one after the other
are one TracesData too.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException

from agents.distributor.metrics import DistributorMetrics, ProduceFailure
from agents.distributor.status import Code, RefusedError
from agents.producer import Headers, Producer
from schemas.otlp.splice import Piece
from schemas.record import NO_METRICS_HEADER, TENANT_HEADER

LINGER_S = 0.02
"""How long a record waits for more spans. Tempo waits 50 ms (KFK-10), in which few clients send twice."""

TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE})
TIMED_OUT = frozenset({KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT})  # noqa: SLF001


class ProducerLostError(Exception):
    """The idempotent producer can't go on: only a new one can, so the process must end."""


class Share(NamedTuple):
    """What the spans of one record have in common."""

    tenant: str
    partition: int
    no_metrics: bool


@dataclass(slots=True)
class OpenRecord:
    """A record that more spans may join."""

    share: Share
    written: asyncio.Future[None]
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    since: float = field(default_factory=time.monotonic)


class RecordProducer:
    """Gathers pieces into records and writes these to the spans topic. All of it runs in one event loop."""

    def __init__(
        self, producer: Producer, topic: str, metrics: DistributorMetrics, *, max_record: int, max_buffered: int
    ) -> None:
        self._producer, self._topic, self._metrics = producer, topic, metrics
        self._max_record, self._max_buffered = max_record, max_buffered
        self._open: dict[Share, OpenRecord] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._buffered = 0
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done with a `ProducerLostError` when nothing can be written any more."""
        metrics.buffered_bytes.set_function(lambda: self._buffered)
        metrics.buffered_bytes_limit.set(max_buffered)

    async def produce(self, tenant: str, pieces: Sequence[Piece], *, no_metrics: bool) -> None:
        """Write the pieces of a request; returns when every record that holds one is acknowledged.

        Raises `RefusedError` for the first record that wasn't written; others may have been, so what the client sends
        again is there twice (as in Tempo, KFK-12).
        """
        size = sum(len(piece.value) for piece in pieces)
        if self._max_buffered and self._buffered + size > self._max_buffered:
            self._metrics.produce_failures.labels(ProduceFailure.BUFFER_FULL).inc()
            raise RefusedError(Code.UNAVAILABLE, "too many bytes wait for Kafka's acknowledgement")
        written = [self._add(Share(tenant, piece.partition, no_metrics), piece.value) for piece in pieces]
        self._metrics.records_per_request.observe(len(written))
        await asyncio.wait(set(written))  # not gather: a client that goes away mustn't cancel what others wait for
        for record in written:
            record.result()

    async def close(self) -> None:
        """Write what is open and wait for the acknowledgements, or for the producer to give up."""
        self._flush_all()
        while self._writing:
            await asyncio.wait(self._writing)

    def _add(self, share: Share, part: bytes) -> asyncio.Future[None]:
        """Put a piece into the open record of its share, or into a new one; gives the record's future."""
        record = self._open.get(share)
        if record is not None and record.size + len(part) > self._max_record:
            self._flush(self._open.pop(share))
            record = None
        loop = asyncio.get_running_loop()
        if record is None:
            record = self._open[share] = OpenRecord(share, loop.create_future())
            record.written.add_done_callback(_retrieve)
        record.parts.append(part)
        record.size += len(part)
        self._buffered += len(part)
        if self._timer is None:
            self._timer = loop.call_later(LINGER_S, self._flush_all)
        return record.written

    def _flush_all(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        records = list(self._open.values())
        self._open.clear()
        for record in records:
            self._flush(record)

    def _flush(self, record: OpenRecord) -> None:
        task = asyncio.get_running_loop().create_task(self._write(record))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, record: OpenRecord) -> None:
        share = record.share
        headers: Headers = [(TENANT_HEADER, share.tenant.encode())]
        if share.no_metrics:
            headers = [*headers, (NO_METRICS_HEADER, b"1")]
        try:
            value = record.parts[0] if len(record.parts) == 1 else b"".join(record.parts)
            await (await self._producer.send(self._topic, share.partition, value, headers=headers))
        except KafkaException as error:
            record.written.set_exception(self._refusal(error))
        else:
            record.written.set_result(None)
            self._metrics.write_latency.observe(time.monotonic() - record.since)
            self._metrics.write_bytes.labels(f"partition_{share.partition}").inc(record.size)
            self._metrics.records_written.labels(share.partition).inc()
        finally:
            self._buffered -= record.size
            if not record.written.done():  # a fault of ours, or cancelled: nobody may wait for ever
                record.written.set_exception(RefusedError(Code.UNAVAILABLE, "the spans weren't written"))

    def _refusal(self, error: KafkaException) -> RefusedError:
        """Kafka's failure as the client is told it (Tempo KFK-12)."""
        cause: KafkaError = error.args[0]
        if cause.fatal() and not self.lost.done():
            self.lost.set_exception(ProducerLostError(f"the producer can't go on: {cause.str()}"))
        reason = failure_of(cause)
        self._metrics.produce_failures.labels(reason).inc()
        code = Code.INVALID_ARGUMENT if reason is ProduceFailure.RECORD_TOO_LARGE else Code.UNAVAILABLE
        return RefusedError(code, f"the spans couldn't be written to Kafka: {cause.str()}")


def failure_of(error: KafkaError) -> ProduceFailure:
    """The class of a delivery's failure."""
    if error.code() in TOO_LARGE:
        return ProduceFailure.RECORD_TOO_LARGE
    return ProduceFailure.TIMEOUT if error.code() in TIMED_OUT else ProduceFailure.OTHER


def _retrieve(written: asyncio.Future[None]) -> None:
    """Look at the outcome, so that nobody complains if all clients have gone away."""
    if not written.cancelled():
        written.exception()
