"""What a stage needs of Kafka besides Faust, as one argument: a simulation gives its own."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from agents import kafka
from agents.control_keys import control_keys
from agents.log_probe import Ends, LogProbe
from agents.producer import Headers, Producer
from agents.rules_log import KafkaTopics, Topics
from schemas.config import Config
from schemas.control_format import NO_KEYS, ControlKeys


class RecordProducer(Protocol):
    """Appends records, in order within a partition; see `agents.producer.Producer`."""

    def send(
        self, topic: str, partition: int, value: bytes, *, key: bytes | None = None, headers: Headers = ()
    ) -> Awaitable[asyncio.Future[int]]:
        """Queue a record; gives the future of its offset."""

    def purge(self) -> None:
        """Give up everything that is queued or in flight."""

    def close(self) -> None:
        """Flush and stop; blocks."""


class Probe(Protocol):
    """Looks at a log; see `agents.log_probe.LogProbe`."""

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has; 0 if there is no such topic."""

    async def ends(self, topic: str, partition: int) -> Ends:
        """The partition's first and next offset."""

    async def first_from(self, topic: str, partition: int, offset: int) -> tuple[int, int] | None:
        """Offset and timestamp (ms) of the first record at or after `offset`; None at the end of the log."""

    async def newest(self, topic: str, partition: int) -> bytes | None:
        """The value of the newest record; None if the log is empty."""


@dataclass(frozen=True, slots=True)
class Broker:
    """The way to Kafka of the owners of one process. The producer is to be closed by whoever made it."""

    producer: RecordProducer
    probe: Probe
    topics: Topics
    control_keys: ControlKeys = NO_KEYS


def kafka_broker(config: Config) -> Broker:
    """The real one, of a configuration. Raises `ControlKeyError`."""
    keys = control_keys(config)
    probe = LogProbe(kafka.client_settings(config))
    return Broker(Producer(kafka.producer_settings(config)), probe, KafkaTopics(config, keys), keys)
