"""The embedded broker: librdkafka's mock cluster, which comes with confluent-kafka and starts in milliseconds.

It is for trying out. It lives in this process's memory, keeps about 5 MB of each partition and drops the oldest, and
has no topic settings: no LogAppendTime, so that stream time is the running maximum of the producers' times.
"""

from collections.abc import Sequence
from contextlib import suppress

from confluent_kafka import KafkaException, Producer

ANSWER_S = 10.0


class EmbeddedBroker:
    """A broker that runs while this object lives."""

    def __init__(self) -> None:
        self._producer = Producer({"test.mock.num.brokers": 1, "log_level": 3, "client.id": "spanmill-embedded-broker"})
        (broker,) = self._producer.list_topics(timeout=ANSWER_S).brokers.values()
        self.address = f"{broker.host}:{broker.port}"

    def create(self, topics: Sequence[str]) -> None:
        """Create topics, of four partitions each: asking for one by its name does it."""
        for topic in topics:
            self._producer.list_topics(topic, timeout=ANSWER_S)

    def close(self) -> None:
        """Stop the broker."""
        with suppress(KafkaException):
            self._producer.purge()
            self._producer.flush(0.1)
        del self._producer
