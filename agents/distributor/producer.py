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
from agents.distributor.status import Code, RefusedError, unavailable
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


class Unanswered:
    """A request of which `pieces` are still to be acknowledged; `answer` is done when all are, or have failed.

    A future of its own, which a client that goes away may cancel: nobody else waits for it.
    """

    __slots__ = ("_left", "_refusal", "answer")

    def __init__(self, pieces: int) -> None:
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = pieces
        self._refusal: RefusedError | None = None

    def written(self, refusal: RefusedError | None) -> None:
        """The record of one piece is acknowledged, or was refused."""
        self._left -= 1
        self._refusal = self._refusal or refusal
        if self._left or self.answer.done():
            return
        if self._refusal is None:
            self.answer.set_result(None)
        else:
            self.answer.set_exception(self._refusal)


@dataclass(slots=True)
class OpenRecord:
    """A record that more spans may join."""

    share: Share
    requests: list[Unanswered] = field(default_factory=list)
    """By part."""
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
            raise unavailable("too many bytes wait for Kafka's acknowledgement")
        self._metrics.records_per_request.observe(len(pieces))
        request = Unanswered(len(pieces))
        for piece in pieces:
            self._add(Share(tenant, piece.partition, no_metrics), piece.value, request)
        await request.answer

    async def close(self) -> None:
        """Write what is open and wait for the acknowledgements, or for the producer to give up."""
        self._flush_all()
        while self._writing:
            await asyncio.wait(self._writing)

    def _add(self, share: Share, part: bytes, request: Unanswered) -> None:
        """Put a piece into the open record of its share, or into a new one."""
        record = self._open.get(share)
        if record is not None and record.size + len(part) > self._max_record:
            self._flush(self._open.pop(share))
            record = None
        if record is None:
            record = self._open[share] = OpenRecord(share)
        record.requests.append(request)
        record.parts.append(part)
        record.size += len(part)
        self._buffered += len(part)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._flush_all)

    def _flush_all(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._metrics.buffered_produce_bytes.observe(self._buffered)
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
        refusal: RefusedError | None = unavailable("the spans weren't written")
        try:
            value = record.parts[0] if len(record.parts) == 1 else b"".join(record.parts)
            await (await self._producer.send(self._topic, share.partition, value, headers=headers))
        except KafkaException as error:
            refusal = self._refusal(error)
        else:
            refusal = None
            self._metrics.write_latency.observe(time.monotonic() - record.since)
            self._metrics.write_bytes.labels(f"partition_{share.partition}").inc(record.size)
            self._metrics.records_written.labels(share.partition).inc()
        finally:  # also after a fault of ours, or cancelled: nobody may wait for ever
            self._buffered -= record.size
            for request in record.requests:
                request.written(refusal)

    def _refusal(self, error: KafkaException) -> RefusedError:
        """Kafka's failure as the client is told it (Tempo KFK-12)."""
        cause: KafkaError = error.args[0]
        if cause.fatal() and not self.lost.done():
            self.lost.set_exception(ProducerLostError(f"the producer can't go on: {cause.str()}"))
        reason = failure_of(cause)
        self._metrics.produce_failures.labels(reason).inc()
        message = f"the spans couldn't be written to Kafka: {cause.str()}"
        if reason is ProduceFailure.RECORD_TOO_LARGE:
            return RefusedError(Code.INVALID_ARGUMENT, message)
        return unavailable(message)


def failure_of(error: KafkaError) -> ProduceFailure:
    """The class of a delivery's failure."""
    if error.code() in TOO_LARGE:
        return ProduceFailure.RECORD_TOO_LARGE
    return ProduceFailure.TIMEOUT if error.code() in TIMED_OUT else ProduceFailure.OTHER
