"""A scenario's surroundings: real Kafka, real Prometheus behind a proxy, supervised stages, a load; and a verdict."""

import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.e2e.cluster import configuration
from tests.faults.deployment import Deployment, Observer
from tests.faults.load import Load
from tests.faults.report import Fault, Report
from tests.faults.verdict import (
    Difference,
    difference,
    falls,
    holes,
    last_window_ms,
    replayed,
    stored,
    unlike,
    unlike_truth,
    until,
)
from tests.servers.fault_proxy import FaultProxy
from tests.servers.kafka import Kafka, KafkaBroker
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.prometheus import Prometheus

SETTLE_S = 300.0
REPLAY_S = 1800.0
SESSION_S = 10.0
"""The stages' session time-out (agents/worker.py)."""


@dataclass(frozen=True)
class Setup:
    """What a scenario runs on."""

    brokers: int = 1
    partitions: int = 6
    """Of either topic."""
    generators: int = 3
    sinks: int = 2
    spans_per_s: int = 20_000
    interval_s: int = 5
    wait_s: int = 20
    """How long half-edges wait: longer than the load's pairs do, through any fault."""
    out_of_order_window: str = "0s"
    whole: bool = True
    """No window may be missing."""


@dataclass(frozen=True)
class Options:
    """What a run of a scenario may be told."""

    seed: int = 1
    kills: int = 5
    down_s: float = 30.0
    backlog_spans: int = 200_000


@dataclass
class Trial:
    """One run of a scenario."""

    name: str
    setup: Setup
    options: Options
    directory: Path
    kafka: Kafka
    prometheus: Prometheus
    proxy: FaultProxy
    deployment: Deployment
    observer: Observer
    load: Load
    report: Report
    rng: random.Random
    begun: float
    config: dict[str, Any]
    extra: list[Difference] = field(default_factory=list)

    @property
    def generators(self) -> list[str]:
        return [name for name in self.deployment.names if name.startswith("generator")]

    @property
    def sinks(self) -> list[str]:
        return [name for name in self.deployment.names if name.startswith("sink")]

    @property
    def topics(self) -> Mapping[str, str]:
        """Names of the topics: spans, deltas, dead_letters."""
        found: dict[str, str] = self.config["spanmill"]["topics"]
        return found

    def cluster(self) -> KafkaCluster:
        """Kafka, of three brokers."""
        assert isinstance(self.kafka, KafkaCluster)
        return self.kafka

    def fault(self, what: str) -> None:
        """Note that something is done now."""
        self.report.faults.append(Fault(what, time.time()))

    def signal(self, instance: str, number: signal.Signals) -> None:
        """Send a signal to an instance, if it runs, and note it."""
        if self.deployment.send(instance, number):
            self.fault(f"{number.name} of a {instance.partition('-')[0]}")

    def freeze(self, instance: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        self.signal(instance, signal.SIGSTOP)
        time.sleep(seconds)
        self.signal(instance, signal.SIGCONT)

    def wait(self, seconds: float) -> None:
        """Let the load go on."""
        time.sleep(seconds)

    def wait_for_window(self, after: float | None = None) -> None:
        """Wait until every shard has written a window that ends after a time, by default now."""
        self.observer.wait_for(time.time() if after is None else after, SETTLE_S, self.deployment.cluster.logs)

    def judge(self) -> Report:
        """Wait until everything has arrived, stop the stages, compare."""
        report = self.report
        self.observer.wait_for(
            time.time() + self.setup.wait_s + 2 * self.setup.interval_s, SETTLE_S, self.deployment.cluster.logs
        )
        codes = self.deployment.stop(*self.deployment.names)
        found = stored(self.prometheus, self.deployment.app, round(time.time() - self.begun) + 600)
        end_ms = last_window_ms(found)
        samples = until(found, end_ms)
        report.samples = sum(len(points) for points in samples.values())
        report.differences += [
            *self.extra,
            *difference("exit codes", (f"{instance}: {code}" for instance, code in codes.items() if code)),
            *unlike_truth(samples, self.load.truth),
            *falls(samples),
            *(holes(samples, self.setup.interval_s * 1000) if self.setup.whole else ()),
            *unlike(samples, until(self.replay(), end_ms), "replay"),
        ]
        if self.load.slowest_pair_ms >= self.setup.wait_s * 1000:
            report.differences.append(
                Difference("pairs of the load that came too late to be edges: a run without meaning", 1, ())
            )
        self._sum_up()
        return report

    def replay(self) -> dict[Any, Any]:
        """What `spanmill replay` makes of the log."""
        out = self.directory / "replay.om"
        shards = str(self.setup.partitions)
        arguments = ("replay", "--topic", self.topics["spans"], "--shards", shards, "--output", str(out))
        self.deployment.cluster.run(*arguments, timeout_s=REPLAY_S)
        return replayed(out)

    def _sum_up(self) -> None:
        report = self.report
        report.spans = self.load.spans
        report.faults = [replace(f, resumed_after_s=self.observer.resumed_after(f.at)) for f in report.faults]
        report.exits = self.deployment.exits
        report.restarts = self.deployment.restarts.total()
        for instance in sorted({name for sight in self.observer.sights for name in sight.resident}):
            sizes = [sight.resident[instance] for sight in self.observer.sights if instance in sight.resident]
            report.resident_mb[instance] = (round(statistics.median(sizes)) >> 20, max(sizes) >> 20)


@dataclass(frozen=True)
class Scenario:
    """What is done to a deployment under load."""

    does: Callable[[Trial], None]
    setup: Setup = field(default_factory=Setup)
    changes: Callable[[dict[str, Any], Path], None] | None = None
    """Of the configuration, in place; takes the scenario's directory too."""

    @property
    def name(self) -> str:
        return self.does.__name__

    def run(self, directory: Path, options: Options) -> Report:
        """Run it; the report says what it found."""
        with self.trial(directory, options) as trial:
            started = time.monotonic()
            with trial.load.running():
                trial.wait_for_window()
                self.does(trial)
                trial.wait(2 * self.setup.interval_s)
            trial.report.seconds = time.monotonic() - started
            return trial.judge()

    @contextmanager
    def trial(self, directory: Path, options: Options) -> Iterator[Trial]:
        """Everything started, the stages ready."""
        setup = self.setup
        with ExitStack() as started:
            kafka = started.enter_context(running_kafka(directory / "kafka", setup.brokers))
            (directory / "prometheus").mkdir()
            prometheus = Prometheus(directory / "prometheus", setup.out_of_order_window)
            started.callback(prometheus.stop)
            prometheus.start()
            proxy = FaultProxy(prometheus.url)
            proxy.start()
            started.callback(proxy.stop)
            config = self.configuration(kafka, proxy, directory)
            deployment = Deployment(directory, config, config["spanmill"]["app_id"])
            deployment.cluster.run("topics", "create", "--partitions", str(setup.partitions))
            observer = Observer(deployment, prometheus, setup.partitions)
            started.enter_context(deployment.supervised())
            deployment.start(
                *(f"generator-{n}" for n in range(setup.generators)), *(f"sink-{n}" for n in range(setup.sinks))
            )
            started.enter_context(observer.running())
            spans = config["spanmill"]["topics"]["spans"]
            yield Trial(
                self.name,
                setup,
                options,
                directory,
                kafka,
                prometheus,
                proxy,
                deployment,
                observer,
                Load(kafka.address, spans, setup.partitions, setup.spans_per_s),
                Report(self.name, options.seed),
                random.Random(options.seed),
                time.time(),
                config,
            )

    def configuration(self, kafka: Kafka, proxy: FaultProxy, directory: Path) -> dict[str, Any]:
        """The stages' configuration."""
        app = kafka.unique("faults").replace("-", "_")
        config = configuration(app, kafka.address, f"{proxy.url}/api/v1/write")
        generator = config["metrics_generator"]
        generator["registry"]["collection_interval"] = f"{self.setup.interval_s}s"
        generator["metrics_ingestion_time_range_slack"] = "10m"  # the load's records may wait for a broker
        generator["processor"] = {"service_graphs": {"wait": f"{self.setup.wait_s}s", "max_items": 100_000}}
        if self.changes is not None:
            self.changes(config, directory)
        return config


@contextmanager
def running_kafka(directory: Path, brokers: int) -> Iterator[Kafka]:
    """One broker, or a cluster of three."""
    directory.mkdir()
    kafka = KafkaBroker(directory) if brokers == 1 else KafkaCluster(directory)
    kafka.format()
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.stop()
