"""From pieces to records, with a log of our own that acknowledges when it is told to."""

import asyncio
from typing import cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from prometheus_client import CollectorRegistry

from agents.distributor.metrics import DistributorMetrics
from agents.distributor.producer import ProducerLostError, RecordProducer
from agents.distributor.status import Code, RefusedError
from agents.producer import Headers, Producer
from schemas.otlp.splice import Piece


class Log:
    """Takes records; `acknowledge` and `fail` end the oldest that waits."""

    def __init__(self) -> None:
        self.records: list[tuple[int, bytes, dict[str, bytes]]] = []
        self._waiting: list[asyncio.Future[int]] = []
        self._sent = asyncio.Condition()

    async def send(
        self, topic: str, partition: int, value: bytes, *, key: bytes | None = None, headers: Headers = ()
    ) -> asyncio.Future[int]:
        assert (topic, key) == ("spans", None)
        async with self._sent:
            self.records.append((partition, value, dict(headers)))
            self._waiting.append(asyncio.get_running_loop().create_future())
            self._sent.notify_all()
        return self._waiting[-1]

    async def holds(self, count: int) -> None:
        async with asyncio.timeout(10), self._sent:
            await self._sent.wait_for(lambda: len(self.records) >= count)

    def acknowledge(self) -> None:
        self._waiting.pop(0).set_result(0)

    def fail(self, error: KafkaError) -> None:
        self._waiting.pop(0).set_exception(KafkaException(error))


def producer_to(log: Log, *, max_record: int = 100, max_buffered: int = 0) -> RecordProducer:
    metrics = DistributorMetrics(CollectorRegistry())
    return RecordProducer(cast("Producer", log), "spans", metrics, max_record=max_record, max_buffered=max_buffered)


def push(producer: RecordProducer, *pieces: Piece, tenant: str = "t", no_metrics: bool = False) -> asyncio.Task[None]:
    return asyncio.create_task(producer.produce(tenant, pieces, no_metrics=no_metrics))


async def test_a_request_is_answered_when_all_its_records_are_acknowledged() -> None:
    log = Log()
    request = push(producer_to(log), Piece(0, b"a", 1), Piece(1, b"b", 1))
    await log.holds(2)
    log.acknowledge()
    done, _ = await asyncio.wait({request}, timeout=0.05)
    assert not done
    log.acknowledge()
    await asyncio.wait_for(request, 10)
    assert [(partition, value) for partition, value, _ in log.records] == [(0, b"a"), (1, b"b")]


async def test_only_requests_of_one_tenant_partition_and_flag_share_a_record() -> None:
    log = Log()
    producer = producer_to(log)
    requests = [
        push(producer, Piece(0, b"a", 1), Piece(1, b"b", 1)),
        push(producer, Piece(0, b"c", 1)),
        push(producer, Piece(0, b"d", 1), tenant="u"),
        push(producer, Piece(0, b"e", 1), no_metrics=True),
    ]
    await log.holds(4)
    for _ in range(4):
        log.acknowledge()
    await asyncio.wait_for(asyncio.gather(*requests), 10)
    assert log.records == [
        (0, b"ac", {"tenant": b"t"}),
        (1, b"b", {"tenant": b"t"}),
        (0, b"d", {"tenant": b"u"}),
        (0, b"e", {"tenant": b"t", "no-metrics": b"1"}),
    ]


async def test_records_are_shared_up_to_their_limit() -> None:
    log = Log()
    producer = producer_to(log, max_record=5)
    requests = [push(producer, Piece(0, value, 1)) for value in (b"aaa", b"bb", b"c", b"ddddd")]
    await log.holds(3)
    for _ in range(3):
        log.acknowledge()
    await asyncio.wait_for(asyncio.gather(*requests), 10)
    assert [value for _, value, _ in log.records] == [b"aaabb", b"c", b"ddddd"]


@pytest.mark.parametrize(
    ("error", "code", "retry_after_s"),
    [
        (KafkaError._MSG_TIMED_OUT, Code.UNAVAILABLE, 1.0),
        (KafkaError.MSG_SIZE_TOO_LARGE, Code.INVALID_ARGUMENT, 0.0),
        (KafkaError.NOT_ENOUGH_REPLICAS, Code.UNAVAILABLE, 1.0),
    ],
)
async def test_one_failed_record_fails_the_requests_that_it_holds(error: int, code: Code, retry_after_s: float) -> None:
    """KFK-12; when to come again is said where that may help."""
    log = Log()
    producer = producer_to(log)
    failed = push(producer, Piece(0, b"a", 1), Piece(1, b"b", 1))
    other = push(producer, Piece(1, b"c", 1))
    await log.holds(2)
    log.fail(KafkaError(error))
    log.acknowledge()
    with pytest.raises(RefusedError) as refused:
        await asyncio.wait_for(failed, 10)
    assert (refused.value.code, refused.value.retry_after_s) == (code, retry_after_s)
    await asyncio.wait_for(other, 10)
    assert not producer.lost.done()


async def test_a_fatal_failure_ends_the_distributor() -> None:
    log = Log()
    producer = producer_to(log)
    request = push(producer, Piece(0, b"a", 1))
    await log.holds(1)
    log.fail(KafkaError(KafkaError._FATAL, "out of sequence", fatal=True))
    with pytest.raises(RefusedError):
        await asyncio.wait_for(request, 10)
    with pytest.raises(ProducerLostError, match="out of sequence"):
        await producer.lost


async def test_bytes_that_wait_are_bounded() -> None:
    """KFK-11."""
    log = Log()
    producer = producer_to(log, max_buffered=4)
    first = push(producer, Piece(0, b"aaa", 1))
    await log.holds(1)
    with pytest.raises(RefusedError, match="too many bytes wait") as refused:
        await push(producer, Piece(0, b"bb", 1))
    assert (refused.value.code, refused.value.retry_after_s) == (Code.UNAVAILABLE, 1.0)
    log.acknowledge()
    await asyncio.wait_for(first, 10)
    second = push(producer, Piece(0, b"bb", 1))
    await log.holds(2)
    log.acknowledge()
    await asyncio.wait_for(second, 10)


async def test_closing_writes_what_is_open() -> None:
    log = Log()
    producer = producer_to(log)
    request = push(producer, Piece(0, b"a", 1))
    await asyncio.sleep(0)
    closing = asyncio.create_task(producer.close())
    await log.holds(1)
    log.acknowledge()
    await asyncio.wait_for(closing, 10)
    await asyncio.wait_for(request, 10)
