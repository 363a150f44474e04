"""Stages under a supervisor, as an orchestrator has them: what ends is started again; and what is seen of them."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.background import in_background
from tests.e2e.cluster import Cluster, Stage
from tests.servers.prometheus import Prometheus

SUPERVISE_EVERY_S = 0.1
RESTART_AFTER_S = 0.5
OBSERVE_EVERY_S = 0.5
MARKER = "spanmill_sink_window"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Exit:
    """A process that ended without being asked to."""

    at: float
    instance: str
    code: int
    last_line: str


class Deployment:
    """Generators and sinks of one app id. What isn't stopped on purpose is started again half a second later."""

    def __init__(self, directory: Path, config: Mapping[str, Any], app: str) -> None:
        self.app = app
        self.cluster = Cluster(directory, config, app)
        self.exits: list[Exit] = []
        self.restarts: Counter[str] = Counter()
        self._wanted: dict[str, Stage] = {}
        self._ended: dict[str, float] = {}
        self._expected: set[str] = set()
        self._lock = threading.RLock()

    @property
    def names(self) -> list[str]:
        """Instances that are wanted."""
        return sorted(self._wanted)

    def stage(self, instance: str) -> Stage:
        return self._wanted[instance]

    def start(self, *instances: str, wait: bool = True) -> None:
        """Start instances, named `generator-0`, and wait until they are ready."""
        for instance in instances:
            with self._lock:
                self._wanted[instance] = self.cluster.start(instance.split("-")[0], instance, wait=False)
        for instance in instances if wait else ():
            self.wait_ready(instance)

    def wait_ready(self, instance: str) -> None:
        self.cluster.wait_ready(self._wanted[instance])

    def stop(self, *instances: str) -> dict[str, int]:
        """SIGTERM to all of them, for good; gives their exit codes."""
        with self._lock:
            stages = {instance: self._wanted.pop(instance) for instance in instances}
        for stage in stages.values():
            if stage.alive:
                stage.send(signal.SIGTERM)
        return {instance: stage.ended() for instance, stage in stages.items()}

    def send(self, instance: str, number: signal.Signals) -> bool:
        """Send a signal; whether there was a process. One that ends by it is started again."""
        with self._lock:
            stage = self._wanted[instance]
            if not stage.alive:
                return False
            if number in (signal.SIGKILL, signal.SIGTERM):
                self._expected.add(instance)
            stage.send(number)
            return True

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """Start again what ends, for the time of the context; at its end everything is ended."""
        try:
            with in_background(self._supervise, "supervisor"):
                yield
        finally:
            for stage in self.cluster.stages:
                if stage.alive:
                    stage.send(signal.SIGCONT)
            self.cluster.close()

    def _supervise(self, stop: threading.Event) -> None:
        while not stop.wait(SUPERVISE_EVERY_S):
            with self._lock:
                for instance, stage in self._wanted.items():
                    if not stage.alive:
                        self._restart(instance, stage)

    def _restart(self, instance: str, stage: Stage) -> None:
        now = time.time()
        if instance not in self._ended:
            self._ended[instance] = now
            assert stage.process is not None
            if instance not in self._expected:
                self.exits.append(Exit(now, instance, stage.process.returncode, stage.tail(1)))
            self._expected.discard(instance)
        elif now - self._ended[instance] >= RESTART_AFTER_S:
            del self._ended[instance]
            self.restarts[instance] += 1
            stage.start()

    def resident_bytes(self) -> dict[str, int]:
        """Resident memory of the processes that run."""
        found = {}
        for instance, stage in list(self._wanted.items()):
            if stage.alive and stage.process is not None:
                try:
                    pages = Path(f"/proc/{stage.process.pid}/statm").read_text().split()[1]
                except (FileNotFoundError, ProcessLookupError):
                    continue
                found[instance] = int(pages) * PAGE_BYTES
        return found


@dataclass(frozen=True)
class Sight:
    """What was seen at a time: the window that every shard has written, in s, and memory by instance."""

    at: float
    window: float
    resident: Mapping[str, int]


class Observer:
    """Looks at Prometheus' markers and the processes' memory, twice a second."""

    def __init__(self, deployment: Deployment, prometheus: Prometheus, shards: int) -> None:
        self.sights: list[Sight] = []
        self._deployment, self._prometheus, self._shards = deployment, prometheus, shards

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look for the time of the context."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,), name="observer")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(OBSERVE_EVERY_S):
            self.sights.append(Sight(time.time(), self.window(), self._deployment.resident_bytes()))

    def window(self) -> float:
        """The end of the newest window that every shard has written, in s; 0: none, or nobody answers."""
        try:
            found = self._prometheus.query(f'{MARKER}{{app="{self._deployment.app}"}}')
        except OSError:
            return 0.0
        ends = list(found.values())
        return min(ends) / 1000 if len(ends) == self._shards else 0.0

    def resumed_after(self, fault: float) -> float | None:
        """How long after a fault every shard had written a window that ended after it; None: never."""
        return next((sight.at - fault for sight in self.sights if sight.at > fault and sight.window > fault), None)

    def wait_for(self, window: float, timeout_s: float, why: Callable[[], str]) -> None:
        """Wait until every shard has written a window that ends at this time or later."""
        deadline = time.monotonic() + timeout_s
        while self.window() < window:
            assert time.monotonic() < deadline, f"no window {window:.0f} within {timeout_s:.0f} s\n{why()}"
            time.sleep(OBSERVE_EVERY_S)
