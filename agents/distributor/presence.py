"""How many distributors there are, for rates that they share (Tempo DIST-7).

Each is a member of a consumer group that consumes nothing: the broker knows who is alive, and forgets who isn't.
"""

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

log = structlog.get_logger(__name__)

COUNT_EVERY_S = 10.0
ANSWER_S = 10.0
POLL_S = 0.5


class Presence:
    """A membership and a look at the others', in a thread. `topic` is any that there is: a group must want one."""

    def __init__(self, client: Mapping[str, Any], group: str, topic: str) -> None:
        self.distributors = 1
        """As last counted; itself until then."""
        self._client, self._group, self._topic = dict(client), group, topic
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Join."""
        self._thread.start()

    def close(self) -> None:
        """Leave."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(ANSWER_S)

    def _run(self) -> None:
        consumer = Consumer(
            {
                **self._client,
                "group.id": self._group,
                "enable.auto.commit": False,
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 2_000,
            }
        )
        consumer.subscribe([self._topic], on_assign=_take_nothing)
        admin = AdminClient(self._client)
        elapsed_s = COUNT_EVERY_S - 2 * POLL_S  # soon after the beginning, when it has joined
        while not self._stopping.is_set():
            consumer.poll(POLL_S)
            elapsed_s += POLL_S
            if elapsed_s >= COUNT_EVERY_S:
                elapsed_s = 0.0
                self._count(admin)
        consumer.close()

    def _count(self, admin: AdminClient) -> None:
        """Count the members; if the broker doesn't answer, the last number holds."""
        with contextlib.suppress(KafkaException):
            found = admin.describe_consumer_groups([self._group], request_timeout=ANSWER_S)[self._group]
            members = len(found.result(ANSWER_S).members)
            if members and members != self.distributors:
                log.info("distributors counted", before=self.distributors, now=members)
                self.distributors = members


def _take_nothing(consumer: Consumer, _: list[TopicPartition]) -> None:
    consumer.assign([])
