"""A load of spans, written straight to the spans topic, and what the log then has of it."""

import itertools
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import Message, Producer

from tests.background import in_background
from tests.faults.orders import MS, SPANS, TRACES, Template, Truth, templates
from tests.servers.kafka import Kafka

ANSWERED_AFTER_S = 2.0
"""How much later the second record of a pair is written."""
STEP_S = 0.02
FLUSH_S = 90.0
HEADER = "load"
"""Names a pair's record in the log: template, pair, 0 or 1. A record that holds several has it several times."""

TraceIds = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Answer:
    """The second record of a pair, which is due at a time."""

    due: float
    partition: int
    pair: int
    trace_ids: TraceIds


@dataclass
class Logged:
    """What the log holds of the load."""

    truth: Truth = field(default_factory=Truth)
    spans_by_window: Counter[int] = field(default_factory=Counter)
    """Spans by the end, in ms, of the window in which the log took them."""
    halves: int = 0
    """Records of pairs."""
    slowest_pair_ms: int = 0
    """Greatest time between the records of a pair, by the log's clock: so long a half-edge had to wait."""


class Load:
    """Writes pairs of records, so many spans a second, until it is stopped. Every record is acknowledged by the log."""

    def __init__(self, address: str, topic: str, partitions: int, spans_per_s: int = 20_000) -> None:
        self.spans_per_s = spans_per_s
        self.acknowledged = 0
        """Records of pairs."""
        self._producer = Producer(
            {
                "bootstrap.servers": address,
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "linger.ms": 5,
                "compression.type": "lz4",
                "message.max.bytes": 50_000_000,
                "log_level": 0,
            }
        )
        self._topic, self._partitions = topic, partitions
        self._templates: list[Template] = list(templates())
        self._numbers = itertools.count()
        self._answers: deque[Answer] = deque()
        self._prefix = np.frombuffer(secrets.token_bytes(8), np.uint8)
        self._failure: BaseException | None = None
        self._lock = threading.Lock()

    @property
    def spans(self) -> int:
        """Spans that the log has acknowledged."""
        return self.acknowledged * SPANS

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write for the time of the context; at its end all pairs are whole and all records acknowledged."""
        with in_background(self._run, "load"):
            yield
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

    def _write_pair(self, now: float) -> None:
        pair = self._next_pair()
        partition = pair // len(self._templates) % self._partitions
        trace_ids = self._trace_ids(pair)
        self._produce([self._half(pair, 0, trace_ids)], partition, [(pair, 0)])
        self._answers.append(Answer(now + ANSWERED_AFTER_S, partition, pair, trace_ids))

    def _write_answers(self, now: float) -> None:
        while self._answers and self._answers[0].due <= now:
            answer = self._answers.popleft()
            self._produce([self._half(answer.pair, 1, answer.trace_ids)], answer.partition, [(answer.pair, 1)])

    def write_large(self, pairs: int, partition: int) -> None:
        """Write so many pairs in one record, and may the log take it or not."""
        numbers = [self._next_pair() for _ in range(pairs)]
        halves = [(pair, which) for which in (0, 1) for pair in numbers]
        self._produce([self._half(pair, which, self._trace_ids(pair)) for pair, which in halves], partition, halves)

    def _next_pair(self) -> int:
        with self._lock:
            return next(self._numbers)

    def _trace_ids(self, pair: int) -> TraceIds:
        """Of a pair: the same for both of its records, and no other's."""
        trace_ids = np.empty((TRACES, 16), np.uint8)
        trace_ids[:, :8] = self._prefix
        trace_ids[:, 8:] = np.arange(pair * TRACES, (pair + 1) * TRACES, dtype=">u8").view(np.uint8).reshape(-1, 8)
        return trace_ids

    def _half(self, pair: int, which: int, trace_ids: TraceIds) -> bytes:
        template = self._templates[pair % len(self._templates)]
        record = template.second if which else template.first
        return record.written(trace_ids, time.time_ns() - MS)

    def _produce(self, values: Sequence[bytes], partition: int, halves: Sequence[tuple[int, int]]) -> None:
        """Write a record; those of OTLP add up when they are put one after the other."""

        def delivered(error: Any, _: Message) -> None:
            if error is None:
                self.acknowledged += len(halves)
            elif len(halves) == 1:
                self._failure = AssertionError(f"a record of the load was refused: {error}")

        headers = [(HEADER, f"{pair} {which}".encode()) for pair, which in halves]
        while True:
            try:
                self._producer.produce(
                    self._topic, b"".join(values), partition=partition, headers=headers, on_delivery=delivered
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def logged(self, kafka: Kafka, interval_ms: int) -> Logged:
        """Read the whole log, and say what it has of the load."""
        found = Logged()
        appended: dict[int, int] = {}
        seen: Counter[tuple[int, int]] = Counter()
        for message in kafka.every(self._topic):
            _, at = message.timestamp()
            for name, value in message.headers() or ():
                if name != HEADER:
                    continue
                pair, which = map(int, value.split())
                seen[pair, which] += 1
                found.spans_by_window[at // interval_ms * interval_ms + interval_ms] += SPANS
                first = appended.setdefault(pair, at)
                found.slowest_pair_ms = max(found.slowest_pair_ms, abs(at - first))
        found.halves = seen.total()
        times: Counter[int] = Counter()
        for (pair, which), count in seen.items():
            assert count == 1, f"pair {pair} stands {count} times in the log: the load must be exact"
            assert (pair, 1 - which) in seen, f"half of pair {pair} is missing in the log: the load must be exact"
            times[pair % len(self._templates)] += which
        for number, count in times.items():
            found.truth.add(self._templates[number].truth, count)
        return found
