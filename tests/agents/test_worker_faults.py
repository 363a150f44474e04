"""Faults that a worker meets on real Kafka: its state stays that of the log, each record counted once."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from agents.logs import REPEAT_AFTER_S
from tests.agents.exact_worker import State
from tests.agents.recording_worker import PARTITIONS, WAIT_S, topics
from tests.servers.kafka import KafkaBroker

pytestmark = pytest.mark.kafka

POLL_S = 0.05


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it didn't come about"
        time.sleep(POLL_S)


class Process:
    """A worker in a process, restarted under the same name if it is."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command, self._log = command, log
        self.lines: list[str] = []
        self.popen = self._start()

    def _start(self) -> "subprocess.Popen[str]":
        with self._log.open("a") as log:
            popen = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log, text=True)
        threading.Thread(target=self._read, args=(popen,), daemon=True).start()
        return popen

    def _read(self, popen: "subprocess.Popen[str]") -> None:
        assert popen.stdout is not None
        self.lines += (line.strip() for line in popen.stdout)

    def logged(self) -> list[str]:
        """The lines of its log."""
        return self._log.read_text().splitlines()

    def restart(self) -> None:
        self.popen = self._start()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> int:
        self.popen.terminate()
        return self.popen.wait(WAIT_S)


class Workers:
    """Workers of one app, the source that they read, and what their changelog says of it."""

    def __init__(self, kafka: KafkaBroker, directory: Path) -> None:
        self._kafka, self._directory = kafka, directory
        self.app_id, self.topic = topics(kafka)
        self._producer = Producer({"bootstrap.servers": kafka.address, "log_level": 0, "acks": "all"})
        self.processes: dict[str, Process] = {}
        self.sent = 0

    def start(self, name: str) -> Process:
        directory = self._directory / name
        arguments = [self._kafka.address, self.app_id, self.topic, str(directory), name]
        command = [sys.executable, "-m", "tests.agents.exact_worker", *arguments]
        self.processes[name] = Process(command, self._directory / f"{name}.log")
        return self.processes[name]

    def fill(self, count: int) -> None:
        for _ in range(count):
            self._producer.produce(self.topic, b"%d" % self.sent, partition=self.sent % PARTITIONS)
            self.sent += 1
        assert self._producer.flush(WAIT_S) == 0

    def states(self) -> dict[int | None, State]:
        """The newest of each partition."""
        newest = {
            message.partition() or 0: message.value() for message in self._kafka.read(f"{self.app_id}-state-changelog")
        }
        return {partition: State(value) for partition, value in newest.items() if isinstance(value, bytes)}

    def read_all(self) -> bool:
        states, each = self.states(), self.sent // PARTITIONS
        return len(states) == PARTITIONS and all(state.next_offset >= each for state in states.values())

    def check(self) -> None:
        """Wait until everything is read; each record must have been counted once."""
        until(self.read_all)
        for partition, state in self.states().items():
            values = range(partition, self.sent, PARTITIONS)
            assert (state.count, state.sum) == (len(values), sum(values))

    def close(self) -> None:
        for process in self.processes.values():
            process.popen.kill()
            process.popen.wait()


@pytest.fixture
def workers(kafka: KafkaBroker, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(kafka, tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_kills_at_any_moment_cost_and_repeat_nothing(workers: Workers) -> None:
    chance = random.Random(5)
    one, two = workers.start("one"), workers.start("two")
    workers.fill(200)
    until(lambda: bool(one.lines) and bool(two.lines))
    for _ in range(3):
        victim = chance.choice([one, two])
        workers.fill(chance.randrange(2, 400) * PARTITIONS)
        seen = len(victim.lines)
        victim.kill()
        victim.restart()
        workers.fill(chance.randrange(2, 400) * PARTITIONS)
        if chance.random() < 0.5:  # else it is killed before it has recovered
            until(lambda seen=seen, victim=victim: len(victim.lines) > seen)  # type: ignore[misc]
    workers.check()
    assert [one.stop(), two.stop()] == [0, 0]


def test_a_worker_that_was_stopped_for_longer_than_its_session_does_no_harm(workers: Workers) -> None:
    """Its partition is another's when it goes on; what it writes then is an older state, which is right too."""
    one, two = workers.start("one"), workers.start("two")
    workers.fill(200)
    until(lambda: bool(one.lines) and bool(two.lines))
    workers.check()
    seen = len(two.lines)
    os.kill(one.popen.pid, signal.SIGSTOP)
    workers.fill(2000)
    until(lambda: {"owns 0", "owns 1"} <= set(two.lines[seen:]))
    workers.fill(2000)
    os.kill(one.popen.pid, signal.SIGCONT)
    workers.fill(2000)
    workers.check()
    assert two.stop() == 0
    assert one.stop() == 0


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker to kill: the session's would have the topics of all tests to recover."""
    broker = KafkaBroker(tmp_path)
    broker.format()
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def test_a_broker_that_is_away_is_waited_for_and_keeps_nobody_from_stopping(
    own_kafka: KafkaBroker, tmp_path: Path
) -> None:
    workers = Workers(own_kafka, tmp_path)
    try:
        one = workers.start("one")
        workers.fill(2000)
        until(lambda: bool(one.lines))
        before, from_s = len(one.logged()), time.monotonic()
        own_kafka.kill()
        own_kafka.start()
        workers.fill(2000)
        workers.check()
        # aiokafka alone has more than a hundred a second to say, of about ten kinds.
        assert len(one.logged()) - before < 20 * (1 + (time.monotonic() - from_s) / REPEAT_AFTER_S)
        own_kafka.stop()
        assert one.stop() == 0
    finally:
        workers.close()
