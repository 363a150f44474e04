"""A load of spans, written straight to the spans topic, and the truth about what the log has of it."""

import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import Producer

from tests.faults.orders import MS, SPANS, TRACES, Record, Template, Truth, templates

ANSWERED_AFTER_S = 2.0
"""How much later the second record of a pair is written."""
STEP_S = 0.02
FLUSH_S = 90.0


@dataclass(frozen=True)
class Answer:
    """The second record of a pair, which is due at a time."""

    due: float
    partition: int
    record: Record
    trace_ids: Any
    asked_at_ms: "AppendTime"


class AppendTime:
    """When the log took a record, in ms."""

    ms = 0


class Load:
    """Writes pairs of records, so many spans a second, until it is stopped. Every record is acknowledged by the log."""

    def __init__(self, address: str, topic: str, partitions: int, spans_per_s: int = 20_000) -> None:
        self.spans_per_s = spans_per_s
        self.slowest_pair_ms = 0
        """Greatest time between a pair's records, by the log's clock: a half-edge had to wait so long."""
        self._producer = Producer(
            {
                "bootstrap.servers": address,
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "linger.ms": 5,
                "compression.type": "lz4",
                "log_level": 0,
            }
        )
        self._topic, self._partitions = topic, partitions
        self._templates: list[Template] = list(templates())
        self._pairs: Counter[int] = Counter()
        self._records = Counter[str]()
        self._answers: deque[Answer] = deque()
        self._prefix = np.frombuffer(secrets.token_bytes(8), np.uint8)
        self._failure: BaseException | None = None

    @property
    def spans(self) -> int:
        """Spans in the log."""
        return self._records["acknowledged"] * SPANS

    @property
    def truth(self) -> Truth:
        """What the metrics must say when everything has arrived."""
        assert self._records["acknowledged"] == 2 * self._pairs.total(), "the load runs on, or records were refused"
        truth = Truth()
        for number, times in self._pairs.items():
            truth.add(self._templates[number].truth, times)
        return truth

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write for the time of the context; at its end all pairs are whole and all records acknowledged."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,), name="load")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self, stop: threading.Event) -> None:
        try:
            self._write_until(stop)
        except BaseException as error:  # told by the thread that waits
            self._failure = error

    def _write_until(self, stop: threading.Event) -> None:
        begun, written = time.monotonic(), 0
        while not stop.wait(STEP_S):
            now = time.monotonic()
            self._write_answers(now)
            due = int((now - begun) * self.spans_per_s / (2 * SPANS))
            for _ in range(due - written):
                self._write_pair(now)
            written = due
            self._producer.poll(0)
        while self._answers:
            time.sleep(STEP_S)
            self._write_answers(time.monotonic())
        left = self._producer.flush(FLUSH_S)
        assert left == 0, f"Kafka hasn't acknowledged {left} records within {FLUSH_S:.0f} s"

    def write(self, pairs: int) -> None:
        """Write so many pairs as fast as the log takes them, the answers a second later."""
        for _ in range(pairs):
            self._write_pair(time.monotonic())
            self._write_answers(time.monotonic())
        while self._answers:
            time.sleep(STEP_S)
            self._write_answers(time.monotonic())
        assert self._producer.flush(FLUSH_S) == 0

    def _write_pair(self, now: float) -> None:
        number = self._pairs.total()
        which, partition = number % len(self._templates), number // len(self._templates) % self._partitions
        template = self._templates[which]
        trace_ids = np.empty((TRACES, 16), np.uint8)
        trace_ids[:, :8] = self._prefix
        numbers = np.arange(number * TRACES, (number + 1) * TRACES, dtype=">u8")
        trace_ids[:, 8:] = numbers.view(np.uint8).reshape(-1, 8)
        asked = AppendTime()
        self._produce(template.first, partition, trace_ids, asked)
        self._answers.append(Answer(now + ANSWERED_AFTER_S, partition, template.second, trace_ids, asked))
        self._pairs[which] += 1

    def _write_answers(self, now: float) -> None:
        while self._answers and self._answers[0].due <= now:
            answer = self._answers.popleft()
            self._produce(answer.record, answer.partition, answer.trace_ids, AppendTime(), answer.asked_at_ms)

    def _produce(
        self, record: Record, partition: int, trace_ids: Any, at: AppendTime, asked: AppendTime | None = None
    ) -> None:
        def delivered(error: object, message: Any) -> None:
            if error is not None:
                self._failure = AssertionError(f"a record of the load was refused: {error}")
                return
            at.ms = message.timestamp()[1]
            self._records["acknowledged"] += 1
            if asked is not None:
                self.slowest_pair_ms = max(self.slowest_pair_ms, at.ms - asked.ms)

        value = record.written(trace_ids, time.time_ns() - MS)
        while True:
            try:
                self._producer.produce(self._topic, value, partition=partition, on_delivery=delivered)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return
