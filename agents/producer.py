"""An idempotent producer for asyncio: order within a partition is part of the protocol (`acks=all`, no reordering)."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import Producer as KafkaProducer

Headers = Sequence[tuple[str, bytes]]

FULL_RETRY_S = 0.01


class Producer:
    """Sends records and gives a future per record, which the broker's acknowledgement completes with the offset.

    librdkafka delivers in a thread of its own; its answers are handed to the loop that sent. A failed delivery leaves
    the futures of its record with a `KafkaException`, and it is the caller who purges and stops: a later record must
    never overtake one that failed.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._producer = KafkaProducer({**settings, "enable.idempotence": True, "acks": "all"})
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="producer-poll", daemon=True)
        self._thread.start()

    async def send(
        self, topic: str, partition: int, value: bytes, *, key: bytes | None = None, headers: Headers = ()
    ) -> asyncio.Future[int]:
        """Queue a record; returns the future of its offset. Waits only while librdkafka's queue is full."""
        loop = asyncio.get_running_loop()
        acknowledged: asyncio.Future[int] = loop.create_future()

        def delivered(error: KafkaError | None, message: KafkaMessage) -> None:
            loop.call_soon_threadsafe(_complete, acknowledged, error, message.offset())

        while True:
            try:
                self._producer.produce(
                    topic, value, key, partition, on_delivery=delivered, headers=list(headers) or None
                )
            except BufferError:
                await asyncio.sleep(FULL_RETRY_S)
            else:
                return acknowledged

    def purge(self) -> None:
        """Give up everything that is queued or in flight: after a failure nothing may be sent out of order."""
        self._producer.purge()

    def close(self, timeout_s: float = 5.0) -> None:
        """Flush for up to `timeout_s` and stop the thread."""
        self._producer.flush(timeout_s)
        self._stopping.set()
        self._thread.join(timeout_s)
        self._producer.close()  # Faust keeps its apps, and so us: librdkafka would go on looking for its brokers

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(0.1)


def _complete(acknowledged: asyncio.Future[int], error: KafkaError | None, offset: int | None) -> None:
    if acknowledged.done():
        return
    if error is not None:
        acknowledged.set_exception(KafkaException(error))
    else:
        acknowledged.set_result(-1 if offset is None else offset)
