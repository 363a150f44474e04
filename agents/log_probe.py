"""Side reads of a topic: what a partition holds, asked outside any consumer group."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

READ_TIMEOUT_S = 10.0


class Ends(NamedTuple):
    """Offsets of a partition: `low` is the first that is still kept, `high` the next that will be written."""

    low: int
    high: int


class LogProbe:
    """Answers questions about a log that a consumer in a group can't ask without losing its place.

    The calls block in librdkafka, so they run in threads; each opens a consumer of its own, which is short-lived and
    joins no group.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = {
            **settings,
            "group.id": "spanmill-probe",  # librdkafka wants one; nothing is ever committed or joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has; 0 if there is no such topic."""
        return await asyncio.to_thread(self._partitions, topic)

    async def ends(self, topic: str, partition: int) -> Ends:
        """The partition's first and next offset."""
        return await asyncio.to_thread(self._ends, topic, partition)

    async def first_from(self, topic: str, partition: int, offset: int) -> tuple[int, int] | None:
        """Offset and timestamp (ms) of the first record at or after `offset`; None at the end of the log."""
        return await asyncio.to_thread(self._first_from, topic, partition, offset)

    def _partitions(self, topic: str) -> int:
        consumer = Consumer(self._settings)
        try:
            found = consumer.list_topics(topic, timeout=READ_TIMEOUT_S).topics.get(topic)
            return 0 if found is None or found.error is not None else len(found.partitions)
        finally:
            consumer.close()

    def _ends(self, topic: str, partition: int) -> Ends:
        consumer = Consumer(self._settings)
        try:
            return Ends(*consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=READ_TIMEOUT_S))
        finally:
            consumer.close()

    def _first_from(self, topic: str, partition: int, offset: int) -> tuple[int, int] | None:
        consumer = Consumer(self._settings)
        try:
            consumer.assign([TopicPartition(topic, partition, offset)])
            message = consumer.poll(READ_TIMEOUT_S)
            if message is None:
                raise TimeoutError(f"{topic}/{partition}: nothing read from offset {offset} within {READ_TIMEOUT_S} s")
            error = message.error()
            if error is None:
                return int(message.offset() or 0), message.timestamp()[1]
            if error.name() == "_PARTITION_EOF":
                return None
            raise KafkaException(error)
        finally:
            consumer.close()
