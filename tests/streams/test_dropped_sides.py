"""Halves whose other half a filter rejected (golden cases G87, G89, G101, G103, G127 to G133), and multipliers."""

from dataclasses import replace
from typing import Any

import pytest

from schemas.checkpoint import DROPPED_SIDE_SCHEMA, decode_checkpoint, encode_checkpoint
from schemas.config import FilterPolicySettings, MultiplierSettings, PolicyPartSettings, TenantSettings
from tests.streams.log import (
    CLIENT,
    CONSUMER,
    INTERVAL_MS,
    PRODUCER,
    SERVER,
    T0_MS,
    Told,
    ledger,
    new_fold,
    record,
    records,
    samples,
    settings,
    tick,
    windows,
)
from tests.streams.test_service_graphs import INFO, MYTHICAL, QUEUE_DATABASE, REQUESTER, SERVER_SECONDS, TOTAL, graphs

EDGES, DROPPED_SPANS = "processor_service_graphs_edges", "processor_service_graphs_dropped_spans"
DROPPED_EDGES = "processor_service_graphs_dropped_edges_total"
OVERFLOWS = "processor_service_graphs_dropped_span_side_cache_overflow_total"
FILTERED = "spans_discarded_total{processor=service-graphs,reason=service_graphs_filtered}"

PAIR = Told("svc-a", CLIENT, id=1), Told("svc-b", SERVER, id=2, parent=1)


def part(*attributes: tuple[str, Any]) -> PolicyPartSettings:
    return PolicyPartSettings(regex=False, attributes=attributes)


def without(service: str, **changes: Any) -> TenantSettings:
    """Service graphs that reject a service's spans."""
    policy = FilterPolicySettings(None, None, part(("resource.service.name", service)))
    return graphs(filter_policies=(policy,), **changes)


def counted(tenants: TenantSettings, *batches: tuple[int, list[Told]]) -> dict[str, int]:
    """Tempo's counters; of ours tests/streams/test_ledger_balance.py says enough."""
    closed = windows(tenants, records(*batches))
    tempo = {name: count for name, count in ledger(closed).items() if not name.startswith("spanmill_")}
    return {name: count for name, count in tempo.items() if "received" not in name}


def edges(tenants: TenantSettings, *told: Told) -> dict[str, Any]:
    found = samples(windows(tenants, records((0, list(told)))))
    return {name: value for name, value in found.items() if name.startswith(TOTAL)}


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        pytest.param(
            FilterPolicySettings(part(("resource.service.name", REQUESTER)), None, None), set(), id="G87, include"
        ),
        pytest.param(
            FilterPolicySettings(None, None, part(("resource.service.name", REQUESTER))),
            {f"{TOTAL}{{client={MYTHICAL},connection_type=database,server=postgres}}"},
            id="G89, exclude",
        ),
    ],
)
def test_edges_need_both_halves_accepted(policy: FilterPolicySettings, found: set[str]) -> None:
    """G87, G89, SG-8: requester to server, server to its database, requester to recorder."""
    assert set(edges(graphs(filter_policies=(policy,)), *QUEUE_DATABASE)) == found


@pytest.mark.parametrize("rejected", ["svc-a", "svc-b"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_g101_an_edge_whose_other_half_is_rejected_is_dropped(rejected: str, order: tuple[int, int]) -> None:
    """G101, G133, SG-18, SG-20: whichever half comes first. What found its other half rejected was never begun."""
    told = [PAIR[i] for i in order]
    first = told[0].service == rejected
    expected = {FILTERED: 1, DROPPED_EDGES: 1} | ({} if first else {EDGES: 1})

    assert counted(without(rejected), (0, told)) == expected
    assert edges(without(rejected), *told) == {}


def test_g103_a_rejected_root_is_not_remembered() -> None:
    """G103, SG-20: it has no client that could wait for it."""
    root, child = Told("svc-a", SERVER, id=1), Told("svc-b", SERVER, id=3)

    assert counted(without("svc-a"), (0, [root])) == {FILTERED: 1}
    # Another root of the trace isn't its other half either.
    assert EDGES in counted(without("svc-a"), (0, [root, child]))


def test_kinds_that_make_no_edges_are_not_filtered() -> None:
    """SG-8 step 1, SG-7."""
    internal, nameless = Told("svc-a", 1, id=1), Told(None, CLIENT, id=2)

    assert counted(without("svc-a"), (0, [internal, nameless])) == {}


def test_g127_a_half_is_completed_once() -> None:
    """G127, SG-18, SG-33."""
    assert counted(graphs(max_items=1), (0, list(PAIR))) == {EDGES: 1}
    assert edges(graphs(max_items=1), *PAIR) == {f"{TOTAL}{{client=svc-a,server=svc-b}}": 1}
    # It has left the store, so that the next one has room, and the one after it hasn't.
    more = [replace(PAIR[0], id=n) for n in (3, 4)]
    assert counted(graphs(max_items=1), (0, [*PAIR, *more]))[EDGES] == 2
    assert counted(graphs(max_items=1), (0, [*PAIR, *more]))[DROPPED_SPANS] == 1


def test_g129_all_that_waited_long_enough_expires() -> None:
    """G129, SG-19, SG-29."""
    lone = [replace(PAIR[0], id=n + 1) for n in range(100)]
    closed = windows(graphs(wait_ms=0), records((0, lone)))

    assert ledger(closed)["processor_service_graphs_expired_edges{unmatched_span_kind=SPAN_KIND_CLIENT}"] == 100
    assert {n: v for n, v in samples(closed).items() if n.startswith(TOTAL)} == {}


@pytest.mark.parametrize(("again_ms", "asked_ms", "dropped"), [(500, 1_200, 1), (500, 1_499, 1), (500, 1_500, 0)])
def test_g131_rejecting_again_begins_the_time_anew(again_ms: int, asked_ms: int, dropped: int) -> None:
    """G131, SG-20: a side counts until its time is over, in stream time."""
    client, server = PAIR
    batches = (0, [client]), (again_ms, [client]), (asked_ms, [server])

    assert counted(without("svc-a", wait_ms=1_000), *batches).get(DROPPED_EDGES, 0) == dropped


def test_sg20_the_sides_that_are_remembered_are_limited_and_one_that_is_known_is_noted_anew() -> None:
    """SG-20: at the limit too."""
    clients = [replace(PAIR[0], id=n) for n in (1, 2, 3, 1)]
    servers = [replace(PAIR[1], parent=n) for n in (1, 2, 3)]
    tenants = without("svc-a", max_items=2)

    # The third has no place, so its server's half waits, and expires.
    expired = "processor_service_graphs_expired_edges{unmatched_span_kind=SPAN_KIND_SERVER}"
    expected = {FILTERED: 4, OVERFLOWS: 1, DROPPED_EDGES: 2, EDGES: 1, expired: 1}
    assert counted(tenants, (0, clients), (1, servers)) == expected
    # What was remembered makes room when its time is over.
    later = (20_000, [replace(PAIR[0], id=3)]), (20_001, servers[2:])
    assert counted(tenants, (0, clients[:2]), *later) == {FILTERED: 3, DROPPED_EDGES: 1}


def test_sides_take_of_the_room_that_half_edges_have() -> None:
    """Ours: both are in the checkpoint, which must fit into a record."""
    clients = [replace(PAIR[0], id=n) for n in range(1, 9)]
    fold = new_fold(without("svc-a"), max_half_edge_bytes=4 * (64 + 24))
    fold.feed([record(0, 0, *clients)])
    (window,) = fold.close_all()

    assert ledger([window])[OVERFLOWS] == 4


def test_the_sides_are_in_the_checkpoint() -> None:
    tenants = without("svc-a", wait_ms=40_000)
    log = [record(0, 14_000, *PAIR, tenant="b"), record(1, 14_500, PAIR[0], tenant="a"), tick(2, 15_000)]
    (closing,) = new_fold(tenants).feed(log).closings
    sides = closing.checkpoint.dropped_sides

    assert sides.schema == DROPPED_SIDE_SCHEMA
    assert [tuple(row.values()) for row in sides.to_pylist()] == [
        ("a", False, bytes(15) + b"\1", bytes(7) + b"\1", T0_MS + 14_500),
        ("b", False, bytes(15) + b"\1", bytes(7) + b"\1", T0_MS + 14_000),
    ]
    assert decode_checkpoint(encode_checkpoint(closing.checkpoint)).dropped_sides.equals(sides)


def test_what_a_tenant_without_service_graphs_left_is_forgotten() -> None:
    """SG-32, whether it was a half-edge or a rejected side; half-edges are counted, as everything must be somewhere."""
    before = without("svc-a", wait_ms=40_000)
    waiting = replace(PAIR[1], trace=2)
    (closing,) = new_fold(before).feed([record(0, 0, *PAIR, waiting), tick(1, INTERVAL_MS)]).closings
    assert closing.checkpoint.half_edges.num_rows == closing.checkpoint.dropped_sides.num_rows == 1

    fold = new_fold(settings(), checkpoint=closing.checkpoint)
    (window,) = fold.close_all()

    assert not len(window.rows)
    assert ledger([window]) == {"spanmill_edges_forgotten_total": 1}


def test_g119_edges_are_weighted_and_connection_info_is_not() -> None:
    """G119, SG-23, SG-22."""
    tenants = graphs(multiplier=MultiplierSettings("sampler.param"), connection_info=True)
    told = [replace(each, attributes={**each.attributes, "sampler.param": 0.5}) for each in QUEUE_DATABASE]
    found = samples(windows(tenants, records((0, told))))

    labels = f"{{client={REQUESTER},server={MYTHICAL}}}"
    assert (found[TOTAL + labels], found[INFO + labels]) == (2, 1)


def test_g121_virtual_edges_have_connection_info() -> None:
    """G121."""
    told = [Told(MYTHICAL, SERVER, 1), Told(REQUESTER, CLIENT, 2, 1, attributes={"peer.service": "external"})]
    found = samples(windows(graphs(wait_ms=0, connection_info=True), records((0, told))))

    for pair in (
        f"client=user,connection_type=virtual_node,server={MYTHICAL}",
        f"client={REQUESTER},connection_type=virtual_node,server=external",
    ):
        assert found[f"{INFO}{{{pair}}}"] == 1


@pytest.mark.parametrize(("first", "second", "weight"), [(0.5, 0.25, 4), (0.25, 0.5, 2), (0.5, None, 1)])
def test_sg23_the_last_span_decides_the_weight(first: float, second: float | None, weight: int) -> None:
    """SG-4: it begins as one, and a span without a multiplier sets it to one again."""
    client = replace(PAIR[0], attributes={"rate": first})
    server = replace(PAIR[1], attributes={} if second is None else {"rate": second})

    found = edges(graphs(multiplier=MultiplierSettings("rate")), client, server)
    assert found == {f"{TOTAL}{{client=svc-a,server=svc-b}}": weight}


def test_a_virtual_edge_has_the_failure_and_the_weight_of_its_one_span() -> None:
    """SG-30, SG-31: the side that isn't known took no time."""
    lone = replace(PAIR[0], status=2, attributes={"peer.service": "x", "rate": 0.5})
    found = samples(windows(graphs(multiplier=MultiplierSettings("rate")), records((0, [lone]))))

    labels = "{client=svc-a,connection_type=virtual_node,server=x}"
    assert found[TOTAL.replace("_total", "_failed_total") + labels] == found[TOTAL + labels] == 2
    assert found[SERVER_SECONDS + labels] == (2, (2, 2), 0)


def test_sg25_an_edge_of_which_no_half_told_the_trace_has_no_exemplar() -> None:
    """SG-25, SG-10: a server that isn't a root tells none, and without a client there is no edge."""
    lone = replace(PAIR[1], attributes={"peer.service": "x"})

    assert samples(windows(graphs(wait_ms=0), records((0, [lone])))) == {}


@pytest.mark.parametrize(
    "key", ["net.peer.name", "net.peer.ip", "server.port", "messaging.system", "rpc.service", "http.host"]
)
def test_attributes_that_play_no_role(key: str) -> None:
    """SG-17, SG-16: only the default attributes name a peer or a database."""
    told = [replace(PAIR[0], attributes={key: "x"}), Told("c", PRODUCER, 5, attributes={key: "x"})]
    told += [Told("d", CONSUMER, 6, 9, attributes={key: "x"})]

    assert edges(graphs(wait_ms=0), *told) == {}
