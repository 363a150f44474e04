"""A range of the spans topic, read once and without a consumer group, partitions interleaved by their time.

A window is complete when every partition has closed it. So what is read next is always the partition that is furthest
behind, and what waits in memory is bounded by a chunk per partition.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from agents.replay.files import InputError

ANSWER_S = 10.0
"""How long the brokers may take to answer."""


class BoundError(ValueError):
    """A `--from` or `--to` that is neither an offset nor a time."""


def parse_bound(text: str) -> int | datetime:
    """An offset, or an ISO time, in UTC unless it says otherwise."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BoundError(f"{text!r} is neither an offset nor a time such as 2026-01-31T12:00:00Z") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


class TopicRecord(NamedTuple):
    """A record's parts as `RecordFormat` takes them."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def topic_record(message: Message) -> TopicRecord:
    """The parts of a message without an error."""
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return TopicRecord(message.offset() or 0, message.timestamp()[1], message.key(), message.value(), headers)


@dataclass(slots=True)
class Range:
    """What is left to read of a partition: offsets from `position` up to but not with `end`."""

    position: int
    end: int


class TopicReader:
    """Reads from `start` (default: the beginning) up to `end` (default: what is there now)."""

    def __init__(
        self, settings: Mapping[str, Any], topic: str, start: int | datetime | None, end: int | datetime | None
    ) -> None:
        self._topic = topic
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
            self.low = {p: self._watermarks(p)[0] for p in self._partition_ids()}
            self.ranges = {p: self._range(p, start, end) for p in self.low}
        except KafkaException as error:
            self._consumer.close()
            raise InputError(f"topic {topic}: {error.args[0].str()}") from error

    @property
    def records(self) -> int:
        """Offsets that are left, in all partitions."""
        return sum(left.end - left.position for left in self.ranges.values())

    @property
    def starts_inside(self) -> bool:
        """Whether the topic holds records before the range."""
        return any(left.position > self.low[p] for p, left in self.ranges.items())

    def chunks(
        self, stream_time_ms: Callable[[int], int | None], max_bytes: int
    ) -> Iterator[tuple[int, list[TopicRecord]]]:
        """Records of a partition at a time, always of the one whose stream time is lowest."""
        while left := [p for p, each in self.ranges.items() if each.position < each.end]:
            behind = min(left, key=lambda p: (stream_time_ms(p) or 0, p))
            records = self._read(behind, max_bytes)
            if records:
                yield behind, records

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def _read(self, partition: int, max_bytes: int) -> list[TopicRecord]:
        """The next records of a partition; none if its range has none left (compaction, a transaction's marker)."""
        left = self.ranges[partition]
        self._consumer.assign([TopicPartition(self._topic, partition, left.position)])
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

    def _next(self, partition: int) -> TopicRecord | None:
        """The next record, None at the partition's end; raises `InputError`."""
        message = self._consumer.poll(ANSWER_S)  # `consume` would wait until it has as many as were asked for
        if message is None:
            raise InputError(f"topic {self._topic}: no record from partition {partition} within {ANSWER_S:.0f} s")
        error = message.error()
        if error is None:
            return topic_record(message)
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  its public name
            return None
        raise InputError(f"topic {self._topic}: partition {partition}: {error.str()}")

    def _partition_ids(self) -> list[int]:
        found = self._consumer.list_topics(self._topic, ANSWER_S).topics[self._topic]
        if found.error is not None:
            raise InputError(f"topic {self._topic}: {found.error.str()}")
        return sorted(found.partitions)

    def _range(self, partition: int, start: int | datetime | None, end: int | datetime | None) -> Range:
        low, high = self._watermarks(partition)
        first = low if start is None else self._offset(partition, start, high)
        last = high if end is None else min(self._offset(partition, end, high), high)
        return Range(max(first, low), max(last, low))

    def _watermarks(self, partition: int) -> tuple[int, int]:
        found = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), ANSWER_S)
        if found is None:
            raise InputError(f"topic {self._topic}: no answer for partition {partition} within {ANSWER_S:.0f} s")
        low, high = found
        return int(low), int(high)

    def _offset(self, partition: int, bound: int | datetime, high: int) -> int:
        """The bound itself, or the first offset whose record isn't older than it."""
        if isinstance(bound, int):
            return bound
        wanted = TopicPartition(self._topic, partition, int(bound.timestamp() * 1000))
        (found,) = self._consumer.offsets_for_times([wanted], ANSWER_S)
        return int(found.offset) if found.offset >= 0 else high
