"""A record's parts, as a consumer gives them."""

from typing import NamedTuple, cast

from confluent_kafka import Message


class TopicRecord(NamedTuple):
    """A record's parts as `RecordFormat.parse` takes them."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def topic_record(message: Message) -> TopicRecord:
    """The parts of a message without an error."""
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])  # a consumer gets no dicts
    return TopicRecord(message.offset() or 0, message.timestamp()[1], message.key(), message.value(), headers)
