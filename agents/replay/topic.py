"""Ranges of topics, read once and without a consumer group.

A window is complete when every partition has closed it. So what is read next of the spans topic is always the partition
that is furthest behind, and what waits in memory is bounded by a chunk per partition.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from agents.replay.files import InputError
from agents.topic_record import TopicRecord, topic_record

ANSWER_S = 10.0
"""How long the brokers may take to answer."""
CHUNK_BYTES = 4 << 20


class BoundError(ValueError):
    """A `--from` or `--to` that is neither an offset nor a time."""


Bound = int | datetime


def parse_bound(text: str) -> Bound:
    """An offset, or an ISO time, in UTC unless it says otherwise."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BoundError(f"{text!r} is neither an offset nor a time such as 2026-01-31T12:00:00Z") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


class Ends(NamedTuple):
    """Offsets of a partition: the first that is still kept, and the next that will be written."""

    low: int
    high: int


@dataclass(slots=True)
class Range:
    """What is left to read of a partition: offsets from `position` up to but not with `end`."""

    position: int
    end: int


class Topic:
    """A topic: what its partitions hold when it is opened, and their records. Its calls raise `InputError`."""

    def __init__(self, settings: Mapping[str, Any], name: str) -> None:
        self.name = name
        self._consumer = Consumer(
            {
                **settings,
                "group.id": "spanmill-replay",  # librdkafka wants one; nothing joins or commits
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 10,  # a fetch that waits for new records holds up the next partition's
                "isolation.level": "read_uncommitted",  # as the generator reads (faust.md, rule 3)
            }
        )
        try:
            self.ends = {partition: self._watermarks(partition) for partition in self._partition_ids()}
        except KafkaException as error:
            self._consumer.close()
            raise InputError(f"topic {name}: {error.args[0].str()}") from error

    @classmethod
    def if_there(cls, settings: Mapping[str, Any], name: str) -> Self | None:
        """The topic; None if there is no such topic."""
        consumer = Consumer({**settings, "group.id": "spanmill-replay"})
        try:
            found = consumer.list_topics(name, ANSWER_S).topics.get(name)
        except KafkaException as error:
            raise InputError(f"topic {name}: {error.args[0].str()}") from error
        finally:
            consumer.close()
        missing = found is None or (found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART)
        return None if missing else cls(settings, name)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever written to it."""
        return all(ends.high == 0 for ends in self.ends.values())

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def read(self, partition: int, left: Range, max_bytes: int = CHUNK_BYTES) -> list[TopicRecord]:
        """The next records of a range; none if it has none left (compaction, a transaction's marker)."""
        self._consumer.assign([TopicPartition(self.name, partition, left.position)])
        records: list[TopicRecord] = []
        size = 0
        while size < max_bytes and left.position < left.end:
            record = self._next(partition)
            if record is None or record.offset >= left.end:
                left.position = left.end
            else:
                records.append(record)
                size += len(record.value or b"")
                left.position = record.offset + 1
        return records

    def first_from(self, partition: int, offset: int) -> TopicRecord | None:
        """The first record at or after an offset that is still kept; None if there is none."""
        ends = self.ends[partition]
        found = self.read(partition, Range(max(offset, ends.low), ends.high), max_bytes=1)
        return found[0] if found else None

    def offset_at(self, partition: int, time_ms: int) -> int:
        """The first offset whose record isn't older than a time; the end if there is none."""
        (found,) = self._consumer.offsets_for_times([TopicPartition(self.name, partition, time_ms)], ANSWER_S)
        if found.error is not None:
            raise InputError(f"topic {self.name}: partition {partition}: {found.error.str()}")
        return int(found.offset) if found.offset >= 0 else self.ends[partition].high

    def _next(self, partition: int) -> TopicRecord | None:
        """The next record, None at the partition's end."""
        message = self._consumer.poll(ANSWER_S)  # `consume` would wait until it has as many as were asked for
        if message is None:
            raise InputError(f"topic {self.name}: no record from partition {partition} within {ANSWER_S:.0f} s")
        error = message.error()
        if error is None:
            return topic_record(message)
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  its public name
            return None
        raise InputError(f"topic {self.name}: partition {partition}: {error.str()}")

    def _partition_ids(self) -> list[int]:
        found = self._consumer.list_topics(self.name, ANSWER_S).topics[self.name]
        if found.error is not None:
            raise InputError(f"topic {self.name}: {found.error.str()}")
        return sorted(found.partitions)

    def _watermarks(self, partition: int) -> Ends:
        found = self._consumer.get_watermark_offsets(TopicPartition(self.name, partition), ANSWER_S)
        if found is None:
            raise InputError(f"topic {self.name}: no answer for partition {partition} within {ANSWER_S:.0f} s")
        low, high = found
        return Ends(int(low), int(high))


class TopicReader:
    """Reads partitions of a topic from `starts` (by partition; default: the beginning) up to `end`.

    `end` is by default what was there when the topic was opened.
    """

    def __init__(self, topic: Topic, starts: Mapping[int, int] | None = None, end: Bound | None = None) -> None:
        self._topic = topic
        starts = {} if starts is None else starts
        self.ranges = {
            p: Range(max(starts.get(p, ends.low), ends.low), max(self._end(p, end), ends.low))
            for p, ends in topic.ends.items()
        }

    @property
    def records(self) -> int:
        """Offsets that are left, in all partitions."""
        return sum(max(left.end - left.position, 0) for left in self.ranges.values())

    def chunks(
        self, stream_time_ms: Callable[[int], int | None], max_bytes: int
    ) -> Iterator[tuple[int, list[TopicRecord]]]:
        """Records of a partition at a time, always of the one whose stream time is lowest."""
        while left := [p for p, each in self.ranges.items() if each.position < each.end]:
            behind = min(left, key=lambda p: (stream_time_ms(p) or 0, p))
            records = self._topic.read(behind, self.ranges[behind], max_bytes)
            if records:
                yield behind, records

    def _end(self, partition: int, end: Bound | None) -> int:
        high = self._topic.ends[partition].high
        if end is None:
            return high
        return min(end if isinstance(end, int) else self._topic.offset_at(partition, to_ms(end)), high)


def to_ms(time: datetime) -> int:
    """A time as Kafka counts it."""
    return int(time.timestamp() * 1000)
