"""What may happen to an installation. Each scenario ends with the same verdict (tests/faults/trial.py)."""

import copy
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, ResourceType

from schemas.control import CONTROL_HEADER, Waiver, decode_control
from tests.faults.deployment import Deployment, Observer
from tests.faults.trial import SESSION_S, ImpossibleError, Scenario, Server, Setup, Trial, running_server
from tests.faults.verdict import after, last_window_ms, unlike, until
from tests.servers.fault_proxy import Fault, Kind

MIB = 1 << 20


def random_kills(trial: Trial) -> None:
    """kill -9 of any process at any moment, also of one that has just been started again."""
    for _ in range(trial.options.kills):
        trial.signal(trial.rng.choice(trial.deployment.names), signal.SIGKILL)
        trial.wait(trial.rng.uniform(0.5, 8.0))


def random_stops(trial: Trial) -> None:
    """SIGTERM to any process at any moment, its start included."""
    for _ in range(trial.options.kills):
        trial.signal(trial.rng.choice(trial.deployment.names), signal.SIGTERM)
        trial.wait(trial.rng.uniform(0.5, 8.0))


def frozen(trial: Trial) -> None:
    """SIGSTOP for longer than the session time-out: others take the partitions, then the zombie wakes up."""
    for instance in ("generator-0", "sink-0", "generator-1"):
        trial.freeze(instance, SESSION_S + 6)
        trial.wait_for_window()


def rolling_restart(trial: Trial) -> None:
    """Every process is stopped and started again, one after the other, each when the one before is ready."""
    for instance in trial.deployment.names:
        started = trial.deployment.restarts[instance]
        trial.signal(instance, signal.SIGTERM)
        trial.wait_until(lambda: trial.deployment.restarts[instance] > started, f"{instance} is started again")  # noqa: B023  called at once
        trial.deployment.wait_ready(instance)


def scaling(trial: Trial) -> None:
    """From one generator and one sink to three of each, and back to one that wasn't the first."""
    for more in (("generator-1", "generator-2"), ("sink-1", "sink-2")):
        trial.fault(f"started {' and '.join(more)}")
        trial.deployment.start(*more)
        trial.wait_for_window()
    for fewer in (("generator-0", "generator-2"), ("sink-0", "sink-1")):
        trial.fault(f"stopped {' and '.join(fewer)}")
        codes = trial.deployment.stop(*fewer)
        trial.expect(set(codes.values()) == {0}, f"exit codes {codes}")
        trial.wait_for_window()


def brokers_restarted(trial: Trial) -> None:
    """Every broker is stopped and started again; then the first replicas lead again, without a death."""
    kafka = trial.cluster()
    for number in range(len(kafka.nodes)):
        trial.fault("restart of a broker")
        kafka.restart(number)
        trial.wait_in_sync()
    for topic in trial.topics_of_app():
        before = kafka.leaders(topic)
        trial.fault("change of leaders")
        kafka.elect_preferred(topic)
        trial.expect(topic == trial.topics["dead_letters"] or kafka.leaders(topic) != before, f"{topic}: same leaders")
        trial.wait(2)


def brokers_killed(trial: Trial) -> None:
    """kill -9 of one broker of three, which comes back; then of another."""
    kafka = trial.cluster()
    for number in trial.rng.sample(range(len(kafka.nodes)), 2):
        trial.fault("SIGKILL of a broker")
        kafka.nodes[number].kill()
        trial.wait(12)
        trial.fault("start of the broker")
        kafka.nodes[number].launch()
        kafka.nodes[number].wait()
        trial.wait_in_sync()


def prometheus_down(trial: Trial) -> None:
    """Prometheus is stopped for a while; then every window comes, and the sinks' memory hasn't grown."""
    before = trial.resident_mb(trial.sinks)
    trial.fault("Prometheus stopped")
    prometheus = trial.servers[0].prometheus
    prometheus.stop()
    trial.wait(trial.options.down_s)
    during = trial.resident_mb(trial.sinks)
    trial.fault("Prometheus started")
    prometheus.start()
    trial.wait_for_window()
    trial.report.notes.append(f"memory of the sinks before {before} MB, after {trial.options.down_s:.0f} s {during} MB")
    trial.expect(during < before * 1.25 + 32, f"the sinks' memory grew from {before} to {during} MB")


def prometheus_faults(trial: Trial) -> None:
    """Prometheus answers 429 and 5xx, slowly, not at all, half; or takes what it doesn't answer; or nobody listens."""
    for fault in (
        Fault(Kind.ANSWER, 429, retry_after="1"),
        Fault(Kind.ANSWER, 500),
        Fault(Kind.ANSWER, 503),
        Fault(Kind.SLOW, delay_s=2),
        Fault(Kind.CLOSE),
        Fault(Kind.FORGET),
        Fault(Kind.CUT),
        Fault(Kind.REFUSE),
    ):
        trial.fault(f"requests meet: {fault}")
        trial.proxy.set(fault)
        trial.wait(trial.setup.interval_s + 3)
        trial.proxy.set(None)
        trial.expect(fault.kind is Kind.REFUSE or trial.proxy.met[str(fault)] > 0, f"no request met {fault}")
        trial.wait(1)


def spill_disk_full(trial: Trial) -> None:
    """An endpoint is down for so long that windows go to disk, which is full."""
    trial.fault("one endpoint of two refuses connections")
    trial.servers[1].proxy.set(Fault(Kind.REFUSE))
    said = "windows can't be kept on disk"
    trial.wait_until(lambda: all(said in trial.log(sink) for sink in trial.sinks), f"both sinks say: {said}")
    trial.wait(trial.options.down_s / 3)
    trial.fault("the endpoint is back")
    trial.servers[1].proxy.set(None)


@contextmanager
def small_disks(directory: Path) -> Iterator[None]:
    """Disks of the sinks' windows that have room for a few of them."""
    if os.geteuid() != 0:
        raise ImpossibleError("only root may mount a small disk; tests/agents/test_spill_disk_full.py needs no root")
    with ExitStack() as mounted:
        for number in range(2):
            place = directory / "data" / f"sink-{number}"
            place.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], check=True)
            mounted.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
        yield


def poison(trial: Trial) -> None:
    """Records that can't be read: garbage, a cut one, a control record of garbage. They go to the dead letters."""
    spans = trial.topics["spans"]
    good = next(value for message in trial.kafka.every(spans) if len(value := message.value() or b"") > 1000)
    values = (trial.rng.randbytes(5000), good[:-3], b"\x0a\xff\xff\xff\xff\x0f")
    for value in values:
        trial.fault("a record that can't be read")
        trial.kafka.produce(spans, value, partition=trial.rng.randrange(trial.setup.partitions))
        trial.signal(trial.rng.choice(trial.generators), signal.SIGKILL)
        trial.wait(4)
    trial.fault("a control record that can't be read")
    trial.kafka.produce(spans, b"", partition=0, headers=[("spanmill-control", b"\xff\xff")])
    trial.wait_for_window()
    dead = {message.value() for message in trial.kafka.every(trial.topics["dead_letters"])}
    trial.expect(set(values) <= dead, "records that can't be read are missing among the dead letters")


def large_records(trial: Trial) -> None:
    """Records larger than a fetch, of 200 and of 100 whole pairs; and one that the log doesn't take."""
    spans = trial.topics["spans"]
    set_topic(trial, spans, "max.message.bytes", str(8 * MIB))
    for pairs, partition in ((200, 1), (100, 3)):
        trial.fault(f"a record of {pairs * 30 // 1024} MiB")
        trial.load.write_large(pairs, partition)
        trial.wait(3)
    before = trial.kafka.ends(spans)
    trial.fault("a record above the log's limit")
    trial.load.write_large(600, 2)
    trial.wait(3)
    trial.expect(before != trial.kafka.ends(spans), "the load goes on")


def set_topic(trial: Trial, topic: str, name: str, value: str) -> None:
    """Change a topic's setting."""
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = trial.kafka.admin()
    admin.incremental_alter_configs([resource])[resource].result(30)


def overrides_changed(trial: Trial) -> None:
    """The tenants' overrides change while processes are killed: a dimension more, from one window on everywhere."""
    trial.fault("changed overrides")
    write_overrides(trial.directory / "tenants.yaml", ["db.system"])
    for _ in range(3):
        trial.wait(3)
        trial.signal(trial.rng.choice(trial.deployment.names), signal.SIGKILL)
    found = f'count(traces_spanmetrics_calls_total{{app="{trial.deployment.app}",db_system="postgresql"}})'
    trial.wait_until(lambda: bool(trial.servers[0].prometheus.query(found)), "series with the new dimension")


def overrides(config: dict[str, Any], directory: Path) -> None:
    """Overrides in a file that is read every second."""
    path = directory / "tenants.yaml"
    write_overrides(path, [])
    config["overrides"] |= {"per_tenant_override_config": str(path), "per_tenant_override_period": "1s"}


def write_overrides(path: Path, dimensions: list[str]) -> None:
    """The default tenant's dimensions, in one step."""
    processor = {"span_metrics": {"dimensions": dimensions}}
    block = {"processors": ["service-graphs", "span-metrics"], "processor": processor}
    beside = path.with_suffix(".new")
    beside.write_text(yaml.safe_dump({"overrides": {"single-tenant": {"metrics_generator": block}}}))
    beside.replace(path)


def refused(trial: Trial) -> None:
    """The deltas topic has got another number of partitions: no stage starts, and each says why."""
    app, topic = trial.deployment.app, trial.topics["deltas"]
    admin = trial.kafka.admin()
    grown = [NewPartitions(name, trial.setup.partitions + 1) for name in (topic, f"{app}_sink-snapshots-changelog")]
    for answer in admin.create_partitions(grown).values():
        answer.result(30)
    for instance in ("generator-0", "sink-0"):
        stage = trial.deployment.cluster.start(instance.split("-")[0], instance, wait=False)
        assert stage.process is not None
        deadline = time.monotonic() + 60
        while stage.alive and time.monotonic() < deadline:
            time.sleep(0.2)
        said = stage.tail(1)
        trial.expect(stage.process.poll() == 1 and topic in said and "partitions" in said, f"{instance} said: {said}")


def deltas_grown(trial: Trial) -> None:
    """One kill of each kind, before the deltas topic gets another number of partitions."""
    for instance in ("generator-0", "sink-0"):
        trial.signal(instance, signal.SIGKILL)
        trial.wait_for_window()


def cut_off(trial: Trial) -> None:
    """A generator and a sink can't reach Kafka, but Prometheus: connections break, then stall for a session's time."""
    for _ in range(3):
        trial.fault("connections to Kafka reset")
        trial.way.reset()
        trial.wait(2)
    for seconds in (4, SESSION_S + 8):
        trial.fault(f"connections to Kafka stall for {seconds:.0f} s")
        trial.way.stall()
        trial.wait(seconds)
        trial.fault("connections to Kafka flow again")
        trial.way.resume()
        trial.wait_for_window()
    trial.expect(trial.way.connections > 0, "nobody came through the proxy")


def waived(trial: Trial) -> None:
    """A generator is frozen for longer than `hold_back`: windows go on without it, and what it has is counted later."""
    for instance in ("generator-0", "generator-1"):
        trial.freeze(instance, SESSION_S + 6)
        trial.wait_for_window()
    controls = [dict(message.headers()) for message in trial.kafka.every(trial.topics["deltas"]) if not message.value()]
    waivers = [each for each in controls if isinstance(decode_control(each[CONTROL_HEADER]), Waiver)]
    trial.report.notes.append(f"{len(waivers)} waivers")
    trial.expect(bool(waivers), "no waiver was appended")


def impatient(config: dict[str, Any], _: Path) -> None:
    """Windows wait for a late partition for two seconds only."""
    config["spanmill"]["sink"]["hold_back"] = "2s"


def bookmarked(trial: Trial) -> None:
    """A bookmark is taken while processes are killed; a replay from there gives live's samples from there."""
    for number in range(4):
        trial.signal(trial.rng.choice(trial.deployment.names), signal.SIGKILL)
        trial.wait(4)
        if number == 1:
            trial.wait_for_window()
            trial.deployment.cluster.run("bookmark", "--output", str(trial.directory / BOOKMARK))


BOOKMARK = "bookmark"


def replayed_from_bookmark(trial: Trial) -> None:
    """Every sample after the bookmark was taken is live's."""
    bookmark = trial.directory / BOOKMARK
    taken_ms = bookmark.stat().st_mtime * 1000
    live = trial.stored(trial.servers[0])
    end_ms = last_window_ms(live)
    again = after(until(trial.replay("--bookmark", str(bookmark)), end_ms), taken_ms)
    trial.report.notes.append(f"{sum(map(len, again.values()))} samples replayed from the bookmark")
    trial.expect(bool(again), "nothing was replayed from the bookmark")
    trial.report.differences += unlike(after(until(live, end_ms), taken_ms), again, "a replay from the bookmark")


def backlog(trial: Trial) -> None:
    """A second installation reads the same log; all of its stages are stopped, the log goes on, they are started.

    Its samples must be those of the first one, which never stopped, at the same times.
    """
    with running_server(trial.directory / "prometheus-late", "2h") as server:
        late = second_installation(trial, server)
        observer = Observer(late, server.prometheus, trial.setup.partitions)
        with late.supervised(), observer.running():
            late.start(*LATE)
            observer.wait_for(time.time(), 300, late.cluster.logs)
            trial.fault("all stages of an installation stopped")
            late.stop(*LATE)
            before = trial.load.spans
            trial.wait_until(
                lambda: trial.load.spans - before >= trial.options.backlog_spans, "the backlog", BACKLOG_WRITTEN_S
            )
            waiting, started = trial.load.spans - before, time.time()
            late.start(*LATE)
            observer.wait_for(started, BACKLOG_READ_S, late.cluster.logs)
            trial.report.notes.append(
                f"{waiting} spans waited; caught up {time.time() - started:.0f} s after the start"
            )
            end = time.time()
            observer.wait_for(end, 300, late.cluster.logs)
            trial.wait_for_window(end)
            codes = late.stop(*LATE)
        trial.expect(set(codes.values()) == {0}, f"exit codes {codes}")
        end_ms = round(end * 1000)
        theirs = until(trial.stored(trial.servers[0]), end_ms)
        trial.report.differences += unlike(until(trial.stored(server), end_ms), theirs, "those that never stopped")
        trial.report.notes.append(f"{sum(map(len, theirs.values()))} samples compared with the run that never stopped")


LATE = ("generator-0", "generator-1", "sink-0", "sink-1")
BACKLOG_WRITTEN_S, BACKLOG_READ_S = 1800.0, 1800.0


def second_installation(trial: Trial, server: Server) -> Deployment:
    """Of the same rules over the same spans topic, everything else its own."""
    app = f"{trial.deployment.app}_late"
    config = copy.deepcopy(trial.config)
    config["metrics_generator"]["storage"] = {"remote_write": [{"url": f"{server.proxy.url}/api/v1/write"}]}
    config["spanmill"] |= {
        "app_id": app,
        "topics": {"spans": trial.topics["spans"], "deltas": f"{app}-deltas", "dead_letters": f"{app}-dead"},
    }
    directory = trial.directory / "late"
    directory.mkdir()
    late = Deployment(directory, config, app)
    late.cluster.run("topics", "create", "--partitions", str(trial.setup.partitions))
    return late


def mixed(trial: Trial) -> None:
    """A little of everything, for every change to pass."""
    for instance in ("generator-0", "sink-0"):
        trial.signal(instance, signal.SIGKILL)
    trial.wait(2)
    trial.signal("generator-1", signal.SIGTERM)
    for fault in (Fault(Kind.ANSWER, 500), Fault(Kind.FORGET)):
        trial.fault(f"requests meet: {fault}")
        trial.proxy.set(fault)
        trial.wait(trial.setup.interval_s + 2)
    trial.proxy.set(None)
    trial.freeze("generator-1", SESSION_S + 4)


SMALL = Setup(generators=2, partitions=4, wait_s=15)
REPLICATED = Setup(brokers=3)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(mixed, SMALL),
        Scenario(random_kills),
        Scenario(random_stops),
        Scenario(frozen),
        Scenario(cut_off, Setup(cut_off=("generator-0", "sink-0"))),
        Scenario(waived, Setup(placed=False), changes=impatient),
        Scenario(rolling_restart),
        Scenario(scaling, Setup(generators=1, sinks=1)),
        Scenario(brokers_restarted, REPLICATED),
        Scenario(brokers_killed, REPLICATED),
        Scenario(prometheus_down),
        Scenario(prometheus_faults),
        Scenario(spill_disk_full, replace(SMALL, servers=2, interval_s=1), before=small_disks),
        Scenario(poison),
        Scenario(large_records),
        Scenario(bookmarked, SMALL, after=replayed_from_bookmark),
        Scenario(overrides_changed, Setup(dimensions=("db_system",)), changes=overrides),
        Scenario(deltas_grown, SMALL, after=refused),
        Scenario(backlog, Setup(generators=2)),
    )
}
CI = ("mixed",)
"""What every change has to pass: under three minutes together."""
