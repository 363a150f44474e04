"""Random schedules over the product's pure functions: whatever crashes, what is stored is a function of the log."""

import random

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.streams.simulation import INTERVAL_MS, WAIT_MS, Generator, Row, Sink, World, reference, request

SERVICES = "abcdefghijkl"
STEPS = 300
FAULTS = frozenset({"crash", "zombie", "duplicate", "regress", "prometheus", "lost", "stale", "config"})
OTHER_SIDE = {Span.SPAN_KIND_CLIENT: Span.SPAN_KIND_SERVER, Span.SPAN_KIND_SERVER: Span.SPAN_KIND_CLIENT}


class Schedule:
    """One random course of events; the last owner of each partition is the rightful one."""

    def __init__(self, seed: int, faults: frozenset[str] = FAULTS, limit: int = 0) -> None:
        self.random, self.faults = random.Random(seed), faults
        self.world = World(limit)
        self.generators = {p: [Generator(self.world, p)] for p in range(2)}
        self.sinks = {s: [Sink(self.world, s)] for s in range(2)}
        self.halves: list[tuple[int, int, int, str]] = []
        self.traces = 0
        self.idle = self.random.random() < 0.3

    def run(self) -> "Schedule":
        for _ in range(STEPS):
            self.step()
        self.drain()
        return self

    def step(self) -> None:
        r = self.random
        kind = r.choices(("span", "time", "generator", "sink", "tick", "fault"), (10, 8, 25, 45, 4, 8))[0]
        if kind == "span":
            self.span()
        elif kind == "time":
            self.world.now_ms += r.randrange(1_500, 9_000)
        elif kind == "generator":
            self.generator_step(r.choice(r.choice(list(self.generators.values()))))
        elif kind == "sink":
            self.sink_step(r.choice(r.choice(list(self.sinks.values()))))
        elif kind == "tick":
            r.choice(r.choice(list(self.generators.values()))).tick()
        else:
            self.fault(r.choice(sorted(self.faults)))

    def span(self) -> None:
        """A half of a request: mostly the missing one of an earlier request, sometimes of a new one."""
        r = self.random
        if self.halves and r.random() < 0.6:
            p, trace, side, tenant = self.halves.pop(r.randrange(len(self.halves)))
        else:
            self.traces += 1
            p, trace = (0 if self.idle else self.traces % len(self.world.spans)), self.traces
            side, tenant = r.choice(list(OTHER_SIDE)), r.choice(("one", "one", "two"))
            self.halves.append((p, trace, OTHER_SIDE[side], tenant))
        known = SERVICES[: 3 + self.traces // 8]  # new services keep coming, so that limits bite late
        value = request(r.choice(known), trace, side, self.world.now_ms - 100, r.choice((10, 150, 2_000)))
        self.world.append(p, value, tenant)

    def generator_step(self, generator: Generator) -> None:
        r = self.random
        duplicate = "duplicate" in self.faults and r.random() < 0.1
        if r.random() < 0.5:
            generator.send(r.choice, duplicate=duplicate) or generator.read(r.randrange(1, 6))
        else:
            generator.read(r.randrange(1, 6)) or generator.send(r.choice, duplicate=duplicate)

    def sink_step(self, sink: Sink) -> None:
        if self.random.random() < 0.5:
            sink.read() or sink.write()
        else:
            sink.write() or sink.read()

    def fault(self, fault: str) -> None:
        r, world = self.random, self.world
        p, s = r.choice(list(self.generators)), r.choice(list(self.sinks))
        if fault == "crash":
            if r.random() < 0.5:
                self.generators[p] = [Generator(world, p)]
            else:
                self.sinks[s] = [Sink(world, s)]
        elif fault == "zombie":
            self.zombie(p, s)
        elif fault == "regress":
            world.skew_ms[p] = r.choice((-10_000, 0, 10_000))
        elif fault == "prometheus":
            world.prometheus.up = not world.prometheus.up
        elif fault == "lost":
            world.prometheus.lose_answer = True
        elif fault == "stale":  # a paused writer's old record ends up last in the changelog
            world.checkpoints[p].append(r.choice(world.checkpoints[p]))
            if world.written_snapshots[s]:
                key, value = r.choice(world.written_snapshots[s])
                world.snapshots[s][key] = value
        elif fault == "config":
            world.change_rules(r.randrange(len(world.rules)))
        elif fault == "hold_back":
            r.choice(self.sinks[s]).hold_back()
        elif fault == "partition" and len(world.spans) < 3 and len(world.deltas[0]) > 8:
            new = world.add_partition()
            self.generators[new] = [Generator(world, new)]

    def zombie(self, p: int, s: int) -> None:
        """Another owner, while the one before goes on; a generator may also leave in order."""
        if self.random.random() < 0.5:
            owners = self.generators[p]
            if self.random.random() < 0.5:
                owners.pop().flush()
            owners.append(Generator(self.world, p))
            del owners[:-2]
        else:
            self.sinks[s].append(Sink(self.world, s))
            del self.sinks[s][:-2]

    def drain(self) -> None:
        """Everything works again and time goes on, until all that waits has expired and is written."""
        world = self.world
        world.prometheus.up, world.prometheus.lose_answer = True, False
        for owners in (*self.generators.values(), *self.sinks.values()):
            del owners[:-1]
        for _ in range(2 + WAIT_MS // INTERVAL_MS):
            world.now_ms += INTERVAL_MS + 10_000
            self.settle()
            for (generator,) in self.generators.values():
                generator.tick()
            self.settle()

    def settle(self) -> None:
        busy = True
        while busy:
            busy = False
            for (generator,) in self.generators.values():
                busy |= generator.read(50) | generator.send(self.random.choice)
            for (sink,) in self.sinks.values():
                busy |= sink.read() | sink.write()

    def stored(self) -> dict:
        return {key: rows for key, rows in self.world.prometheus.series.items() if key[0] != ("__name__", "marker")}


def increase(rows: list[Row]) -> float:
    """What PromQL sees: every fall is a reset."""
    total = last = 0.0
    for row in rows:
        total += row.value - last if row.value >= last else row.value
        last = row.value
    return total


def counted(series: dict, metric: str) -> float:
    return sum(increase(rows) for key, rows in series.items() if ("__name__", metric) in key)


COUNTERS = (
    "traces_spanmetrics_calls_total",
    "traces_spanmetrics_latency_count",
    "traces_service_graph_request_total",
    "traces_service_graph_request_server_seconds_bucket",
    "spanmill_ledger_spans_received_total",
)


def check_counts(schedule: Schedule) -> tuple[dict, dict]:
    """What was counted is what the log holds, and nothing was written twice with different values."""
    got, want = schedule.stored(), reference(schedule.world)
    for metric in COUNTERS:
        assert counted(got, metric) == counted(want, metric), metric
    assert counted(got, COUNTERS[0]) > 0
    assert schedule.world.prometheus.refused["duplicate"] == 0
    return got, want


@pytest.mark.parametrize("seed", range(18))
def test_stored_samples_are_those_of_the_log(seed):
    got, want = check_counts(Schedule(seed).run())
    assert got == want


@pytest.mark.parametrize("seed", range(100, 112))
def test_stored_samples_are_those_of_the_log_where_limits_bite(seed):
    got, want = check_counts(Schedule(seed, limit=60).run())
    assert got == want
    assert any(("metric_overflow", "true") in key for key in got)


@pytest.mark.parametrize("seed", range(200, 207))
def test_waivers_shift_counts_but_lose_none(seed):
    check_counts(Schedule(seed, FAULTS | {"hold_back"}).run())


@pytest.mark.parametrize("seed", range(300, 305))
def test_a_partition_that_is_added_shifts_counts_but_loses_none(seed):
    check_counts(Schedule(seed, FAULTS | {"partition"}).run())
