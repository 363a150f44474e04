"""Side reads of a topic: what a partition holds, asked outside any consumer group."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # re-exported without saying so

READ_TIMEOUT_S = 10.0


_NEWEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]


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

    async def newest(self, topic: str, partition: int) -> bytes | None:
        """The value of the newest record; None if the log is empty."""
        return await asyncio.to_thread(self._newest, topic, partition)

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
            message = _next(consumer, f"{topic}/{partition}: nothing read from offset {offset}")
            return None if message is None else (int(message.offset() or 0), message.timestamp()[1])
        finally:
            consumer.close()

    def _newest(self, topic: str, partition: int) -> bytes | None:
        """The record before the log's end, as a rule; the one there may be a transaction's marker."""
        low, high = self._ends(topic, partition)
        consumer = Consumer(self._settings)
        try:
            for offset in dict.fromkeys((max(high - 1, low), low)):
                consumer.assign([TopicPartition(topic, partition, offset)])
                newest = None
                while (message := _next(consumer, f"{topic}/{partition}: nothing read from {offset} on")) is not None:
                    newest = message
                if newest is not None:
                    return newest.value()
            return None
        finally:
            consumer.close()


def _next(consumer: Consumer, failure: str) -> Message | None:
    """The next record, None at the end of the log."""
    message = consumer.poll(READ_TIMEOUT_S)
    if message is None:
        raise TimeoutError(f"{failure} within {READ_TIMEOUT_S} s")
    error = message.error()
    if error is None:
        return message
    if error.name() == "_PARTITION_EOF":
        return None
    raise KafkaException(error)


class LogEnds:
    """Asks again and again for the ends of many partitions of a topic, over one connection."""

    def __init__(self, settings: Mapping[str, Any], topic: str) -> None:
        self._settings, self._topic = dict(settings), topic
        self._admin: AdminClient | None = None

    async def of(self, partitions: Iterable[int]) -> dict[int, int] | None:
        """The next offset of each partition; None if the brokers can't tell at the moment."""
        asked = {TopicPartition(self._topic, partition): _NEWEST for partition in partitions}
        if not asked:
            return {}
        if self._admin is None:
            self._admin = await asyncio.to_thread(AdminClient, self._settings)
        answers = self._admin.list_offsets(asked, request_timeout=READ_TIMEOUT_S)
        try:
            found = await asyncio.gather(*map(asyncio.wrap_future, answers.values()))
        except KafkaException:
            return None
        return {place.partition: info.offset for place, info in zip(answers, found, strict=True)}
