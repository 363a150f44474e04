"""A scenario's surroundings: real Kafka, real Prometheus behind a proxy, supervised stages, a load; and a verdict."""

import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agents.audit import Report as Audit
from agents.audit import audit
from schemas.config import load_all
from tests.e2e.cluster import configuration
from tests.faults.deployment import Deployment, Observer
from tests.faults.load import Load, Logged
from tests.faults.report import Fault, Report
from tests.faults.verdict import (
    Difference,
    Points,
    Samples,
    difference,
    falls,
    holes,
    last_window_ms,
    misplaced,
    replayed,
    stored,
    unbalanced,
    unlike,
    unlike_truth,
    until,
)
from tests.servers.fault_proxy import FaultProxy
from tests.servers.kafka import Kafka, KafkaBroker
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.prometheus import Labels, Prometheus
from tests.servers.tcp_proxy import TcpProxy

SETTLE_S = 300.0
REPLAY_S = 1800.0
SESSION_S = 10.0
"""The stages' session time-out (agents/worker.py)."""


class ImpossibleError(Exception):
    """This machine, or this user, can't run the scenario."""


@dataclass(frozen=True)
class Setup:
    """What a scenario runs on."""

    brokers: int = 1
    partitions: int = 6
    """Of either topic."""
    dimensions: tuple[str, ...] = ()
    """Labels of span metrics that the truth doesn't know: series are added up over them."""
    generators: int = 3
    sinks: int = 2
    spans_per_s: int = 20_000
    interval_s: int = 5
    wait_s: int = 20
    """How long half-edges wait: longer than the load's pairs do, through any fault of a scenario."""
    cut_off: tuple[str, ...] = ()
    """Instances that reach Kafka through a proxy."""
    servers: int = 1
    """Prometheus servers, each written through a proxy of its own."""
    out_of_order_window: str = "0s"
    placed: bool = True
    """Every span must be counted in the window in which the log took it, and no window may be missing."""


@dataclass(frozen=True)
class Options:
    """What a run of a scenario may be told."""

    seed: int = 1
    kills: int = 5
    down_s: float = 30.0
    backlog_spans: int = 200_000


@dataclass(frozen=True)
class Server:
    """A Prometheus, and the proxy through which the sinks reach it."""

    prometheus: Prometheus
    proxy: FaultProxy


@dataclass
class Trial:
    """One run of a scenario."""

    name: str
    setup: Setup
    options: Options
    directory: Path
    kafka: Kafka
    way: TcpProxy
    """To Kafka, of the instances that may be cut off from it."""
    servers: list[Server]
    deployment: Deployment
    observer: Observer
    load: Load
    report: Report
    rng: random.Random
    begun: float
    config: dict[str, Any]

    @property
    def proxy(self) -> FaultProxy:
        return self.servers[0].proxy

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
        """Send a signal to an instance, as soon as it runs, and note it."""
        self.wait_until(lambda: self.deployment.send(instance, number), f"{instance} runs")
        self.fault(f"{number.name} of a {instance.partition('-')[0]}")

    def freeze(self, instance: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        self.signal(instance, signal.SIGSTOP)
        time.sleep(seconds)
        self.signal(instance, signal.SIGCONT)

    def wait(self, seconds: float) -> None:
        """Let the load go on."""
        time.sleep(seconds)

    def wait_until(self, holds: Callable[[], bool], what: str, timeout_s: float = SETTLE_S) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, (
                f"{what}: not within {timeout_s:.0f} s\n{self.deployment.cluster.logs()}"
            )
            time.sleep(0.2)

    def wait_in_sync(self) -> None:
        """Wait until no replica is missing: one broker more may be lost then."""
        cluster, topics = self.cluster(), self.topics_of_app()
        self.wait_until(lambda: cluster.in_sync(topics), "all replicas in sync")

    def topics_of_app(self) -> list[str]:
        """Every topic of ours."""
        admin = self.kafka.admin()
        known = admin.list_topics(timeout=30).topics
        return sorted(name for name in known if name.startswith(self.deployment.app))

    def log(self, instance: str) -> str:
        """All that an instance has said."""
        return self.deployment.stage(instance).log.read_text(errors="replace")

    def resident_mb(self, instances: Sequence[str]) -> int:
        """Resident memory of the largest of some processes."""
        resident = self.deployment.resident_bytes()
        return max(resident.get(instance, 0) for instance in instances) >> 20

    def wait_for_window(self, after: float | None = None) -> None:
        """Wait until every shard has written a window that ends after a time, by default now."""
        self.observer.wait_for(time.time() if after is None else after, SETTLE_S, self.deployment.cluster.logs)

    def expect(self, holds: bool, what: str) -> None:
        """A difference if something doesn't hold that isn't seen in samples."""
        if not holds:
            self.report.differences.append(Difference(what, 1))

    def judge(self) -> None:
        """Wait until everything has arrived, stop the stages, compare."""
        self.wait_for_window(time.time() + self.setup.wait_s + 2 * self.setup.interval_s)
        codes = self.deployment.stop(*self.deployment.names)
        report, logged = self.report, self.load.logged(self.kafka, self.interval_ms)
        self.expect(logged.halves == self.load.acknowledged, "the log holds other records than it has acknowledged")
        self.expect(logged.slowest_pair_ms < self.setup.wait_s * 1000, "pairs of the load came too late to be edges")
        report.differences += difference("exit codes", (f"{name}: {code}" for name, code in codes.items() if code))
        report.differences += unbalanced(self.audit())
        whole = self.replay()
        for number, server in enumerate(self.servers):
            found = self.stored(server)
            end_ms = last_window_ms(found)
            samples = until(found, end_ms)
            report.samples += sum(map(len, samples.values()))
            for each in self._differences(samples, logged, until(whole, end_ms)):
                report.differences.append(replace(each, what=f"{each.what} (server {number})"))
        self._sum_up()

    @property
    def interval_ms(self) -> int:
        return self.setup.interval_s * 1000

    def stored(self, server: Server) -> dict[Labels, Points]:
        """All that a server holds of the scenario, markers included."""
        return stored(server.prometheus, self.deployment.app, round(time.time() - self.begun) + 600)

    def _differences(self, samples: Samples, logged: Logged, wanted: Samples) -> Iterator[Difference]:
        yield from unlike_truth(samples, logged.truth, self.setup.dimensions)
        yield from falls(samples)
        if self.setup.placed:
            yield from holes(samples, logged.spans_by_window)
            yield from misplaced(samples, logged.spans_by_window)
        yield from unlike(samples, wanted, "replay")

    def replay(self, *options: str) -> dict[Labels, Points]:
        """What `spanmill replay` makes of the log."""
        out = self.directory / "replay.om"
        arguments = ("replay", "--topic", self.topics["spans"], "--output", str(out), *options)
        self.deployment.cluster.run(*arguments, timeout_s=REPLAY_S)
        return replayed(out)

    def audit(self) -> Audit:
        """What `spanmill audit` finds."""
        return audit(load_all(self.deployment.cluster.config_file("audit", 1)))

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
    before: Callable[[Path], AbstractContextManager[None]] = lambda _: nullcontext()
    """What must be there before the stages are, in the scenario's directory."""
    after: Callable[[Trial], None] | None = None
    """What is done when all is said, the stages being stopped."""

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
            trial.judge()
            if self.after is not None:
                self.after(trial)
            return trial.report

    @contextmanager
    def trial(self, directory: Path, options: Options) -> Iterator[Trial]:
        """Everything started, the stages ready."""
        setup = self.setup
        with ExitStack() as started:
            way = TcpProxy()
            kafka = started.enter_context(running_kafka(directory / "kafka", setup.brokers, way))
            servers = [
                started.enter_context(running_server(directory / f"prometheus-{number}", setup.out_of_order_window))
                for number in range(setup.servers)
            ]
            started.enter_context(self.before(directory))
            config = self.configuration(kafka, servers, directory)
            deployment = Deployment(directory, config, config["spanmill"]["app_id"])
            deployment.cluster.addresses |= dict.fromkeys(setup.cut_off, way.address)
            deployment.cluster.run("topics", "create", "--partitions", str(setup.partitions))
            observer = Observer(deployment, servers[0].prometheus, setup.partitions)
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
                way,
                servers,
                deployment,
                observer,
                Load(kafka.address, spans, setup.partitions, setup.spans_per_s),
                Report(self.name, options.seed),
                random.Random(options.seed),
                time.time(),
                config,
            )

    def configuration(self, kafka: Kafka, servers: Sequence[Server], directory: Path) -> dict[str, Any]:
        """The stages' configuration."""
        app = kafka.unique("faults").replace("-", "_")
        urls = [f"{server.proxy.url}/api/v1/write" for server in servers]
        config = configuration(app, kafka.address, urls[0])
        generator = config["metrics_generator"]
        generator["storage"]["remote_write"] = [{"url": url, "name": f"server-{n}"} for n, url in enumerate(urls)]
        generator["registry"]["collection_interval"] = f"{self.setup.interval_s}s"
        generator["metrics_ingestion_time_range_slack"] = "10m"  # the load's records may wait for a broker
        generator["processor"] = {"service_graphs": {"wait": f"{self.setup.wait_s}s", "max_items": 100_000}}
        if self.changes is not None:
            self.changes(config, directory)
        return config


@contextmanager
def running_server(directory: Path, out_of_order_window: str) -> Iterator[Server]:
    """A Prometheus and its proxy."""
    directory.mkdir()
    prometheus = Prometheus(directory, out_of_order_window)
    try:
        prometheus.start()
        proxy = FaultProxy(prometheus.url)
        proxy.start()
        try:
            yield Server(prometheus, proxy)
        finally:
            proxy.stop()
    finally:
        prometheus.stop()


@contextmanager
def running_kafka(directory: Path, brokers: int, way: TcpProxy) -> Iterator[Kafka]:
    """One broker, which can be reached through a proxy too, or a cluster of three."""
    directory.mkdir()
    kafka = KafkaBroker(directory, way.port) if brokers == 1 else KafkaCluster(directory)
    kafka.format()
    with ExitStack() as started:
        started.callback(kafka.stop)
        kafka.start()
        if isinstance(kafka, KafkaBroker):
            way.start(kafka.behind_proxy)
            started.callback(way.stop)
        yield kafka
