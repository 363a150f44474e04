"""Laws of edges, on random logs in which halves meet, and in which filters reject many of them."""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from schemas.config import FilterPolicySettings, MultiplierSettings, PolicyPartSettings, TenantSettings
from schemas.otlp import Codec
from schemas.record import Record
from streams.partition import PartitionFold
from tests.delta_dicts import dicts
from tests.reference.generated import TENANTS, random_log, random_settings
from tests.streams.log import CLIENT, CONSUMER, INTERNAL, INTERVAL_MS, PRODUCER, SERVER, Told, ledger, record, tick
from tests.streams.test_differential import assert_same
from tests.streams.test_service_graphs import graphs

SERVICES = ("a", "b", "c", "", None)
PREFIX = "processor_service_graphs_"
EVERYTHING = {"edges", "dropped_spans", "dropped_edges_total", "dropped_span_side_cache_overflow_total"}
"""What the processor counts, besides expired half-edges."""
ROOMY = 1 << 20
IDS: tuple[int | bytes, ...] = (1, 2, 3, b"\3", b"")
"""The last one is a root's parent."""


def random_graphs(rng: random.Random) -> TenantSettings:
    """Service graphs that reject a service or two, for whatever reason."""
    rejected = [PolicyPartSettings(False, (("resource.service.name", name),)) for name in rng.sample("abc", 2)]
    policies = [FilterPolicySettings(None, None, part) for part in rejected[: rng.randint(0, 2)]]
    if rng.random() < 0.2:
        policies.append(FilterPolicySettings(PolicyPartSettings(True, (("kind", "SPAN_KIND_[SC]"),)), None, None))
    return graphs(
        filter_policies=tuple(policies),
        wait_ms=rng.choice([0, 1_000, 10_000, 40_000]),
        max_items=rng.choice([1, 2, 4, 10_000]),
        dimensions=rng.choice([(), ("zone",), ("zone", "client")]),
        enable_client_server_prefix=rng.random() < 0.3,
        enable_virtual_node_label=rng.random() < 0.3,
        enable_messaging_system_latency_histogram=rng.random() < 0.5,
        connection_info=rng.random() < 0.5,
        multiplier=MultiplierSettings(rng.choice(["", "rate"])),
    )


def random_edges(rng: random.Random) -> list[Record]:
    """Records of halves whose keys meet often, in any order."""
    at_ms, log = 0, list[Record]()
    for offset in range(rng.randint(1, 10)):
        at_ms += rng.choice([0, 1, 500, 3_000, 9_000, INTERVAL_MS, 3 * INTERVAL_MS])
        if rng.random() < 0.1:
            log.append(tick(offset, at_ms))
        else:
            spans = [random_half(rng) for _ in range(rng.randint(0, 6))]
            log.append(record(offset, at_ms, *spans, tenant=rng.choice(TENANTS)))
    return log


def random_half(rng: random.Random) -> Told:
    """A span that may be the half of an edge."""
    values: dict[str, tuple[Any, ...]] = {
        "zone": ("z1", "z2", ""),
        "client": ("x",),
        "rate": (0.5, 0.25),
        "peer.service": ("p", ""),
        "db.name": ("d", ""),
    }
    odds = {"zone": 0.4, "client": 0.1, "rate": 0.4, "peer.service": 0.3, "db.name": 0.1}
    return Told(
        rng.choices(SERVICES, [4, 4, 4, 1, 1])[0],
        rng.choices([CLIENT, SERVER, PRODUCER, CONSUMER, INTERNAL], [4, 4, 2, 2, 1])[0],
        id=rng.choice(IDS[:-1]),
        parent=rng.choice(IDS),
        trace=rng.choice([1, 1, 2]),
        latency_ns=rng.choice([0, 1, 40_000_000, 2_000_000_000]),
        end_ns=rng.choice([0, 0, -1_000_000, 1_000_000]),
        status=rng.choice([0, 1, 2]),
        attributes={key: rng.choice(values[key]) for key in values if rng.random() < odds[key]},
    )


def random_tenants(rng: random.Random) -> dict[str, TenantSettings]:
    return {tenant: random_graphs(rng) for tenant in TENANTS}


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_edges_are_what_the_rules_say_read_one_span_at_a_time(rng: random.Random) -> None:
    """SG-18, SG-20: keys of few values, so that halves meet, compete for room and are rejected."""
    for _ in range(5):
        log = random_edges(rng)
        assert_same(random_tenants(rng), log, rng.randint(1, len(log)))


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_chunks_and_any_restart_give_the_same_windows(rng: random.Random) -> None:
    """SG-20's memory included, and limits in bytes: the checkpoint holds all that later windows depend on."""
    assert_pure(rng, random_tenants(rng), random_edges(rng), rng.choice([300, 700, 1_500, ROOMY]))
    assert_pure(rng, {tenant: random_settings(rng) for tenant in TENANTS}, random_log(rng), ROOMY)


def test_the_logs_have_everything_that_is_counted() -> None:
    """So that the laws are about something."""
    rng, seen, carried = random.Random(1), Counter[str](), 0
    for _ in range(60):
        tenants, log = random_tenants(rng), random_edges(rng)
        fold = PartitionFold(tenants.__getitem__, INTERVAL_MS, Codec.OTLP)
        closings = fold.feed(log).closings
        closed = [window for closing in closings for window in closing.windows] + fold.close_all()
        seen.update({name.split("{")[0].removeprefix(PREFIX) for name in ledger(closed)})
        carried += any(closing.checkpoint.dropped_sides.num_rows for closing in closings)

    assert min(seen[name] for name in (*EVERYTHING, "expired_edges")) > 5
    assert carried > 5


def assert_pure(rng: random.Random, tenants: Mapping[str, TenantSettings], log: list[Record], max_bytes: int) -> None:
    """A log's windows are the same in any chunks, and from any checkpoint on."""

    def fold(start: Checkpoint | None = None) -> PartitionFold:
        return PartitionFold(tenants.__getitem__, INTERVAL_MS, Codec.OTLP, start, max_bytes)

    expected = digest(fold(), log, [len(log)])
    chunks = [rng.randint(1, 3) for _ in log]
    assert digest(fold(), log, chunks) == expected
    for closing in fold().feed(log).closings:
        checkpoint = decode_checkpoint(encode_checkpoint(closing.checkpoint))
        rest = [each for each in log if each.offset >= checkpoint.next_offset]
        again = digest(fold(checkpoint), rest, chunks)
        assert again
        assert again == expected[len(expected) - len(again) :]


def digest(fold: PartitionFold, log: list[Record], chunks: list[int]) -> list[tuple[Any, ...]]:
    """Every window as values that compare."""
    closed, at = [], 0
    for chunk in chunks:
        fed = fold.feed(log[at : at + chunk])
        closed += [window for closing in fed.closings for window in closing.windows]
        at += chunk
    return [
        (window.end_ms, window.previous_end_ms, dicts(window.rows), window.layouts, window.ledger)
        for window in [*closed, *fold.close_all()]
    ]
