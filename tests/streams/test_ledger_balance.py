"""Everything that comes is in exactly one of the ledger's counters, whatever the log and the settings are."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import FilterPolicySettings, PolicyPartSettings, TenantSettings
from schemas.deltas import Ledger, LedgerKey
from schemas.ledger_balance import (
    GENERATOR_EQUATIONS,
    REGISTRY_ROWS,
    SERVICE_GRAPHS_EDGES,
    SPAN_METRICS_SPANS,
    Fate,
    added,
    balances,
)
from schemas.ledger_counters import EDGES_DROPPED, LEDGER_COUNTERS, RECORDS_UNREADABLE, SPANS_RECEIVED
from schemas.otlp import Codec
from schemas.record import DEFAULT_TENANT, Record
from streams.partition import PartitionFold
from tests.otlp_oracle import parse
from tests.reference.generated import TENANTS, random_log, random_settings
from tests.streams.log import (
    CLIENT,
    CONSUMER,
    INTERNAL,
    INTERVAL_MS,
    PRODUCER,
    SERVER,
    T0_MS,
    Told,
    new_fold,
    record,
    tick,
)
from tests.streams.log import settings as tenant_settings

BYTES = (0, 400, 700, 1 << 20)
"""Limits of half-edges: for none, one, two, all of them."""

Settings = Callable[[random.Random], TenantSettings]


def dense_log(rng: random.Random) -> list[Record]:
    """Spans of few keys, which meet their other halves, or their rejected ones, or grow."""
    at_ms, log = 0, list[Record]()
    for offset in range(rng.randint(2, 12)):
        at_ms += rng.choice([0, 1, 4_000, INTERVAL_MS])
        spans = [dense_span(rng) for _ in range(rng.randint(0, 6))]
        log.append(record(offset, at_ms, *spans, tenant=rng.choice(TENANTS)))
    return log


def dense_span(rng: random.Random) -> Told:
    kind, number = rng.choice([INTERNAL, SERVER, CLIENT, CLIENT, PRODUCER, CONSUMER]), rng.randint(1, 2)
    peer = {"peer.service": rng.choice(["p", "p" * 400])} if rng.random() < 0.3 else {}
    service = rng.choice(["a", "b", "c", "", None])
    return Told(service, kind, id=number, parent=number, trace=rng.randint(1, 2), attributes=peer)


def dense_settings(rng: random.Random) -> TenantSettings:
    """Edges that wait for long, of services of which one or none is rejected."""
    rejected = PolicyPartSettings(regex=False, attributes=(("resource.service.name", rng.choice(["a", "b", "none"])),))
    graphs = {
        "wait_ms": rng.choice([5_000, 40_000]),
        "max_items": rng.choice([1, 10_000, 10_000]),
        "filter_policies": (FilterPolicySettings(None, None, rejected),),
        "peer_attributes": ("peer.service",),
    }
    return tenant_settings(span_metrics={}, service_graphs=None if rng.random() < 0.2 else graphs)


def lives(
    log: Sequence[Record], rng: random.Random, settings_of: Settings
) -> Iterator[tuple[int, Ledger, Counter[str]]]:
    """A partition that is taken up again at its checkpoints now and then, with other settings.

    Gives, at each checkpoint and at the end, how many records are in the ledger so far, that, and what waits.
    """
    ledgers: list[Ledger] = []
    checkpoint, at = None, 0
    while True:
        tenants = {tenant: settings_of(rng) for tenant in TENANTS}
        most = rng.choice(BYTES)
        fold = PartitionFold(tenants.__getitem__, INTERVAL_MS, Codec.OTLP, checkpoint, max_half_edge_bytes=most)
        restarted = False
        for number in range(at, len(log)):
            for closing in fold.feed(log[number : number + 1]).closings:
                ledgers += [window.ledger for window in closing.windows]
                yield number, added(iter(ledgers)), Counter(closing.checkpoint.half_edges.column("tenant").to_pylist())
                checkpoint, at, restarted = closing.checkpoint, number, rng.random() < 0.5
            if restarted:
                break
        if not restarted:
            ledgers += [window.ledger for window in fold.close_all()]
            yield len(log), added(iter(ledgers)), Counter()
            return


def spans_of(log: Sequence[Record]) -> Counter[str]:
    """The spans of records by tenant, as protobuf's own parser finds them."""
    found: Counter[str] = Counter()
    for each in log:
        message = parse(each.value)
        if message is not None:
            found[each.tenant] += sum(len(s.spans) for r in message.resource_spans for s in r.scope_spans)
    return found


LOGS: tuple[tuple[Callable[[random.Random], list[Record]], Settings], ...] = (
    (random_log, random_settings),
    (dense_log, dense_settings),
)


@settings(max_examples=60)
@given(st.randoms(use_true_random=False))
def test_the_generator_s_ledger_balances_at_every_checkpoint(rng: random.Random) -> None:
    for new_log, settings_of in (LOGS[0], LOGS[0], LOGS[1], LOGS[1]):
        log = new_log(rng)
        for records, ledger, waiting in lives(log, rng, settings_of):
            found = list(balances(ledger, waiting, GENERATOR_EQUATIONS))
            assert [each for each in found if each.difference] == []
            received = {each.tenant: each.whole for each in found if each.equation is SPAN_METRICS_SPANS and each.whole}
            assert received == +spans_of(log[:records])


def test_every_term_of_the_equations_occurs_in_such_logs() -> None:
    """Otherwise the law above would say nothing of it."""
    seen: Counter[str] = Counter()
    for seed, (new_log, settings_of) in product(range(200), LOGS):
        rng = random.Random(seed)
        for _, ledger, waiting in lives(new_log(rng), rng, settings_of):
            for each in balances(ledger, waiting, GENERATOR_EQUATIONS):
                seen.update({f"{each.equation.name}: {term}": count for term, count in each.parts})
                seen[f"{each.equation.name}: waiting"] += each.waiting
    terms = {f"{equation.name}: {term}" for equation in GENERATOR_EQUATIONS for term in equation.parts}
    assert sorted(name for name in terms | {f"{SERVICE_GRAPHS_EDGES.name}: waiting"} if not seen[name]) == []


def test_a_count_that_is_missing_shows_as_the_difference_of_its_equations() -> None:
    (window,) = (
        new_fold(tenant_settings(span_metrics={}, service_graphs={}))
        .feed([record(0, 0, Told(), Told(kind=SERVER, parent=1, id=2, service="b")), tick(1, 15_000)])
        .closings[0]
        .windows
    )
    assert [each.difference for each in balances(window.ledger, {})] == [0, 0, 0, 0]
    for counter, differences in (
        (SPANS_RECEIVED, [-2, -2, 0, 0]),
        ("spanmill_spans_measured_total", [2, 0, 0, 0]),
        ("spanmill_edge_spans_joined_total", [0, 1, 0, 0]),
        ("spanmill_edges_measured_total", [0, 0, 1, 0]),
    ):
        rest = {key: count for key, count in window.ledger.items() if key.counter != counter}
        assert [each.difference for each in balances(rest, {})] == differences


def test_fates_are_what_terms_add_up_to() -> None:
    """A term that another one counts too is taken off that one's fate."""

    def key(counter: str, **labels: str) -> LedgerKey:
        return LedgerKey(counter, tuple(sorted({**labels, "tenant": "a"}.items())))

    ledger = {
        key(SERVICE_GRAPHS_EDGES.whole): 7,
        key("spanmill_edges_measured_total", connection_type=""): 2,
        key("spanmill_edges_measured_total", connection_type="database"): 1,
        key(EDGES_DROPPED): 4,
        key("spanmill_edge_spans_alone_total"): 3,
    }
    (edges,) = balances(ledger, {"a": 2}, (SERVICE_GRAPHS_EDGES,))
    assert edges.fates == {Fate.COUNTED: 3, Fate.FILTERED: 1, Fate.WAITING: 2}
    assert edges.difference == 1


def test_every_counter_of_the_equations_is_one_of_the_ledger_s() -> None:
    equations = (*GENERATOR_EQUATIONS, REGISTRY_ROWS)
    counters = {term.counter for each in equations for term in each.parts} | {each.whole for each in equations}
    assert counters <= LEDGER_COUNTERS.keys()


@pytest.mark.parametrize("unreadable", [0, 1, 3])
def test_records_that_cannot_be_read_are_counted(unreadable: int) -> None:
    """Of their tenants where that could be read."""
    fold = new_fold(tenant_settings(span_metrics={}))
    log = [record(0, 0, Told())]
    log += [Record(1 + i, T0_MS, b"\x0a\x7f", "a") for i in range(unreadable)]
    log += [Record(10 + i, T0_MS, b"", unreadable=True) for i in range(unreadable)]
    fold.feed(log)
    (window,) = fold.close_all()
    found = {dict(k.labels)["tenant"]: n for k, n in window.ledger.items() if k.counter == RECORDS_UNREADABLE}
    assert found == ({"a": unreadable, DEFAULT_TENANT: unreadable} if unreadable else {})
