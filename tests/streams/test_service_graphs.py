"""Golden cases G81 to G125 are Tempo's own tests (specification, section 19.4), their fixtures written out here."""

from dataclasses import replace
from typing import Any

import pytest

from schemas.config import TenantSettings
from schemas.record import Record
from tests.delta_dicts import dicts
from tests.streams.log import (
    CLIENT,
    CONSUMER,
    ERROR,
    INTERNAL,
    PRODUCER,
    SECOND_NS,
    SERVER,
    T0_MS,
    Told,
    exemplars,
    ledger,
    new_fold,
    record,
    records,
    samples,
    settings,
    tick,
    windows,
)

TOTAL, FAILED = "traces_service_graph_request_total", "traces_service_graph_request_failed_total"
SERVER_SECONDS, CLIENT_SECONDS = (f"traces_service_graph_request_{side}_seconds" for side in ("server", "client"))
QUEUE_SECONDS, INFO = "traces_service_graph_request_messaging_system_seconds", "traces_service_graph_connection_info"
EXPIRED = "processor_service_graphs_expired_edges{unmatched_span_kind=SPAN_KIND_%s}"
EDGES, DROPPED = "processor_service_graphs_edges", "processor_service_graphs_dropped_spans"

REQUESTER, MYTHICAL, RECORDER = "mythical-requester", "mythical-server", "mythical-recorder"
POSTGRES = {"db.name": "postgres", "db.system": "postgresql", "net.peer.name": "mythical-database"}
RABBIT = {"messaging.system": "rabbitmq"}
QUEUE_DATABASE = [
    Told(REQUESTER, CLIENT, 0xD606, latency_ns=45_834_496, attributes={"beast": "manticore", "god": "ares"}),
    Told(MYTHICAL, SERVER, 2, 0xD606, latency_ns=29_986_048, attributes={"beast": "manticore", "god": "zeus"}),
    Told(MYTHICAL, CLIENT, 3, 2, latency_ns=23_781_376, attributes=POSTGRES),
    Told(MYTHICAL, CLIENT, 4, 2),
    Told(MYTHICAL, CLIENT, 5, 4),
    Told(REQUESTER, CLIENT, 6, 1),
    Told(REQUESTER, CLIENT, 7, 1),
    Told(REQUESTER, PRODUCER, 0x09BC, 0xD606, latency_ns=68_864, end_ns=0, attributes=RABBIT),
    Told(RECORDER, CONSUMER, 9, 0x09BC, latency_ns=699_392, end_ns=9_881_600 + 699_392, attributes=RABBIT),
]
"""QD: what the rules depend on. The consumer starts 9.8816 ms after the producer's end."""


def graphs(**changes: Any) -> TenantSettings:
    return settings(service_graphs={"histogram_buckets": (0.04,), **changes})


def found(tenants: TenantSettings, *told: Told) -> dict[str, Any]:
    return samples(windows(tenants, records((0, told))))


def totals(tenants: TenantSettings, *told: Told) -> dict[str, Any]:
    """Only the requests, by labels."""
    named = found(tenants, *told).items()
    return {name.removeprefix(TOTAL)[1:-1]: value for name, value in named if name.startswith(TOTAL)}


def counted(tenants: TenantSettings, *told: Told) -> dict[str, int]:
    """The counts of the processor."""
    closed = windows(tenants, records((0, told)))
    return {name: count for name, count in ledger(closed).items() if name.startswith("processor_service_graphs")}


def client(service: str = "svc-a", **changes: Any) -> Told:
    return replace(Told(service, CLIENT, id=1), **changes)


def server(service: str = "svc-b", **changes: Any) -> Told:
    return replace(Told(service, SERVER, id=2, parent=1), **changes)


def test_g81_halves_pair_with_latencies_of_their_own() -> None:
    """SG-1: an ordinary edge has no connection type. SG-9, SG-10."""
    values = found(graphs(), *QUEUE_DATABASE)

    labels = f"{{client={REQUESTER},server={MYTHICAL}}}"
    assert values[CLIENT_SECONDS + labels] == (1, (0, 1), 0.045834496)
    assert values[SERVER_SECONDS + labels] == (1, (1, 1), 0.029986048)


def test_g83_the_time_in_the_queue_has_a_histogram() -> None:
    """SG-2, SG-22."""
    values = found(graphs(enable_messaging_system_latency_histogram=True), *QUEUE_DATABASE)

    labels = f"{{client={REQUESTER},connection_type=messaging_system,server={RECORDER}}}"
    assert values[CLIENT_SECONDS + labels][2] == 0.000068864
    assert values[SERVER_SECONDS + labels][2] == 0.000699392
    assert values[QUEUE_SECONDS + labels] == (1, (1, 1), 0.0098816)


def test_sg22_no_time_in_the_queue_is_not_observed() -> None:
    """SG-22, step 3."""
    told = client(kind=PRODUCER, end_ns=5), server(kind=CONSUMER, end_ns=5, latency_ns=0)

    values = found(graphs(enable_messaging_system_latency_histogram=True), *told)

    assert not [name for name in values if name.startswith(QUEUE_SECONDS)]
    assert values[f"{TOTAL}{{client=svc-a,connection_type=messaging_system,server=svc-b}}"] == 1


def test_g85_failures_are_counted_and_have_no_series_before_the_first() -> None:
    """SG-3."""
    failed = [
        Told(REQUESTER, CLIENT, 1, status=ERROR),
        Told(MYTHICAL, SERVER, 2, 1, status=ERROR),
        Told(MYTHICAL, CLIENT, 3, 2, status=ERROR, attributes=POSTGRES),
    ]
    values = found(graphs(), *failed)

    for labels in (
        f"{{client={REQUESTER},server={MYTHICAL}}}",
        f"{{client={MYTHICAL},connection_type=database,server=postgres}}",
    ):
        assert (values[TOTAL + labels], values[FAILED + labels]) == (1, 1)
    assert not [name for name in found(graphs(), *QUEUE_DATABASE) if name.startswith(FAILED)]


@pytest.mark.parametrize("failing", [0, 1])
def test_sg9_a_failure_of_either_half_stays(failing: int) -> None:
    """SG-9, SG-11."""
    told = [client(), server()]
    told[failing] = replace(told[failing], status=ERROR)

    assert found(graphs(), *told)[f"{FAILED}{{client=svc-a,server=svc-b}}"] == 1


def test_g91_virtual_nodes_are_named_by_peers_or_user() -> None:
    """SG-2, SG-13, SG-26, SG-27, SG-28, SG-33."""
    told = [
        Told(MYTHICAL, SERVER, 1),
        Told(REQUESTER, CLIENT, 2, 1, attributes={"peer.service": "external-payments-platform"}),
        Told("internal-consumer", CONSUMER, 3, trace=2, attributes={"peer.service": "external-producer"}),
    ]
    values = found(graphs(wait_ms=0), *told)

    for pair in (
        f"client=user,connection_type=virtual_node,server={MYTHICAL}",
        f"client={REQUESTER},connection_type=virtual_node,server=external-payments-platform",
        "client=external-producer,connection_type=virtual_node,server=internal-consumer",
    ):
        assert values[f"{TOTAL}{{{pair}}}"] == 1
    assert not [name for name in values if name.startswith(FAILED)]
    assert counted(graphs(wait_ms=0), *told) == {EDGES: 3}


def test_g93_exemplars_carry_the_trace_id_of_the_edge() -> None:
    trace = bytes.fromhex("101112131415161718191a1b1c1d1e1f")
    log = records((0, [server(trace=trace, latency_ns=7)]), (3, [client(trace=trace, latency_ns=9)]))

    labels = "{client=svc-a,server=svc-b}"
    assert exemplars(windows(graphs(histogram_buckets=(1.0,)), log)) == {
        (SERVER_SECONDS + labels, 0): (trace.hex(), 7, 3, 1, 0),
        (CLIENT_SECONDS + labels, 0): (trace.hex(), 9, 3, 1, 0),
    }


def test_an_expired_edges_exemplar_has_its_own_position() -> None:
    log = [record(0, 0, client(attributes={"peer.service": "p"}, trace=0xF0)), record(1, 40_000, server(trace=5))]

    found_exemplars = exemplars(windows(graphs(), log))

    labels = "{client=svc-a,connection_type=virtual_node,server=p}"
    assert found_exemplars[CLIENT_SECONDS + labels, 1] == ("f0", SECOND_NS, 0, 0, 0)
    assert found_exemplars[SERVER_SECONDS + labels, 0] == ("f0", 0, 0, 0, 0)


def test_g99_half_edges_that_expire_unmatched_are_counted_by_kind() -> None:
    """SG-29."""
    told = [
        Told("a", CLIENT, 1),
        Told("b", SERVER, 2, 0x10),
        Told("c", PRODUCER, 3),
        Told("d", CONSUMER, 4, 0x11),
    ]
    kinds = ("CLIENT", "SERVER", "PRODUCER", "CONSUMER")
    assert counted(graphs(wait_ms=0), *told) == {EDGES: 4, **{EXPIRED % kind: 1 for kind in kinds}}


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        pytest.param(
            {"db.system": "postgresql", "server.address": "mythical-database"}, "mythical-database", id="G105"
        ),
        pytest.param(
            {"db.name": "postgres", "db.system": "postgresql", "server.address": "mythical-database"},
            "mythical-database",
            id="G107",
        ),
        pytest.param(
            {"db.name": "x", "network.peer.address": "mythical-database", "network.peer.port": "5432"},
            "mythical-database:5432",
            id="G109",
        ),
        pytest.param({"db.namespace": "mydb", "db.system": "postgresql"}, "mydb", id="G111"),
        pytest.param({"db.system.name": "postgresql"}, "postgresql", id="G113"),
        pytest.param({"db.name": "x", "network.peer.address": "h", "network.peer.port": 5432}, "h:5432", id="int port"),
        pytest.param({"db.name": "x", "network.peer.address": "h"}, "h", id="no port"),
        pytest.param({"db.name": "x", "network.peer.port": 5432}, "x", id="no host"),
        pytest.param({"db.name": "x", "peer.service": "p", "server.address": "s"}, "p", id="peer.service first"),
        pytest.param({"db.name": 7}, "7", id="int name"),
    ],
)
def test_database_edges_are_whole_at_once(attributes: dict[str, Any], name: str) -> None:
    """SG-14."""
    told = Told("app", CLIENT, latency_ns=5, attributes=attributes)

    values = found(graphs(), told)

    labels = f"{{client=app,connection_type=database,server={name}}}"
    assert values == {
        TOTAL + labels: 1,
        SERVER_SECONDS + labels: (1, (1, 1), 5e-9),
        CLIENT_SECONDS + labels: (1, (1, 1), 5e-9),
    }
    assert counted(graphs(), told) == {EDGES: 1}


def test_sg15_an_instrumented_database_expires_alone() -> None:
    """SG-15."""
    told = [client(attributes=POSTGRES), server("postgres")]

    assert totals(graphs(wait_ms=0), *told) == {"client=svc-a,connection_type=database,server=postgres": 1}
    assert counted(graphs(wait_ms=0), *told) == {EDGES: 2, EXPIRED % "SERVER": 1}
    # The other way round the client overwrites what the server said.
    assert totals(graphs(), *reversed(told)) == {"client=svc-a,connection_type=database,server=postgres": 1}


def test_g115_dimensions_have_prefixes_and_virtual_node_has_none() -> None:
    """SG-12, SG-24."""
    tenants = graphs(
        dimensions=("db.system", "messaging.system"), enable_client_server_prefix=True, enable_virtual_node_label=True
    )
    assert totals(tenants, *QUEUE_DATABASE) == {
        f"client={REQUESTER},server={MYTHICAL}": 1,
        f"client={REQUESTER},client_messaging_system=rabbitmq,connection_type=messaging_system,server={RECORDER}"
        ",server_messaging_system=rabbitmq": 1,
        f"client={MYTHICAL},client_db_system=postgresql,connection_type=database,server=postgres": 1,
    }


def test_virtual_node_says_which_side_was_made_up() -> None:
    tenants = graphs(wait_ms=0, enable_virtual_node_label=True, dimensions=("zone",))
    told = [server("root", parent=b"", attributes={"zone": "z"}), client(id=9, attributes={"peer.service": "p"})]

    assert totals(tenants, *told) == {
        "client=user,connection_type=virtual_node,server=root,virtual_node=client,zone=z": 1,
        "client=svc-a,connection_type=virtual_node,server=p,virtual_node=server": 1,
    }


def test_g117_connection_info_is_1_besides_the_requests() -> None:
    """SG-22, step 4."""
    values = found(graphs(connection_info=True), *QUEUE_DATABASE, *(replace(t, trace=2) for t in QUEUE_DATABASE))

    assert {name: value for name, value in values.items() if name.startswith((INFO, TOTAL))} == {
        f"{metric}{{{labels}}}": value
        for metric, value in ((INFO, 1), (TOTAL, 2))
        for labels in (
            f"client={REQUESTER},server={MYTHICAL}",
            f"client={REQUESTER},connection_type=messaging_system,server={RECORDER}",
            f"client={MYTHICAL},connection_type=database,server=postgres",
        )
    }


def test_g123_a_peer_told_by_the_server_survives_the_clients_database() -> None:
    """SG-13, SG-14: a callee that is found empty leaves the server without a name."""
    told = [
        server(attributes={"peer.service": "external-peer"}),
        client(attributes={"db.namespace": "database", "server.address": ""}),
    ]
    assert totals(graphs(wait_ms=0), *told) == {"client=svc-a,connection_type=virtual_node,server=external-peer": 1}
    assert counted(graphs(wait_ms=0), *told) == {EDGES: 1}


@pytest.mark.parametrize("kinds", [(CLIENT, SERVER), (PRODUCER, CONSUMER)])
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 0, 1)])
def test_g125_a_server_without_a_name_still_names_the_peer(kinds: tuple[int, int], order: tuple[int, ...]) -> None:
    halves = [client(kind=kinds[0]), server("", kind=kinds[1], attributes={"peer.service": "external-peer"})]

    told = [halves[i] for i in order]

    assert totals(graphs(wait_ms=0), *told) == {"client=svc-a,connection_type=virtual_node,server=external-peer": 1}


def test_sg5_lengths_of_ids_take_part_and_zeros_are_no_root() -> None:
    """SG-5."""
    told = [client(id=b"\0"), server(parent=b"\0\0"), server(parent=bytes(8)), server("root", parent=b"")]

    assert totals(graphs(wait_ms=0), *told) == {"client=user,connection_type=virtual_node,server=root": 1}
    assert counted(graphs(wait_ms=0), *told) == {EDGES: 4, EXPIRED % "CLIENT": 1, EXPIRED % "SERVER": 2}


def test_sg6_roots_of_one_trace_overwrite_one_another() -> None:
    """SG-6."""
    told = [server("one", parent=b""), server("two", parent=b"", latency_ns=3), server("three", parent=b"", trace=2)]

    assert totals(graphs(wait_ms=0), *told) == {
        "client=user,connection_type=virtual_node,server=three": 1,
        "client=user,connection_type=virtual_node,server=two": 1,
    }


@pytest.mark.parametrize(
    ("first", "second", "connection"),
    [(PRODUCER, SERVER, ""), (CLIENT, CONSUMER, "connection_type=messaging_system,")],
)
def test_sg11_the_last_writer_decides_the_connection(first: int, second: int, connection: str) -> None:
    """SG-11."""
    told = client(kind=first), server(kind=second)

    assert totals(graphs(), *told) == {f"client=svc-a,{connection}server=svc-b": 1}


def test_sg12_without_prefix_the_later_span_overwrites_and_a_missing_value_does_not_erase() -> None:
    """SG-12."""
    tenants = graphs(dimensions=("d", "e"))
    told = client(attributes={"d": "first", "e": "stays"}), server(attributes={"d": "second"})

    assert totals(tenants, *told) == {"client=svc-a,d=second,e=stays,server=svc-b": 1}
    emptied = client(attributes={"d": "first"}), server(attributes={"d": ""})
    assert totals(tenants, *emptied) == {"client=svc-a,server=svc-b": 1}


def test_sg24_a_dimension_called_client_overwrites_the_label() -> None:
    """SG-24."""
    told = client(attributes={"client": "other"}), server()

    assert totals(graphs(dimensions=("client",)), *told) == {"client=other,server=svc-b": 1}
    assert totals(graphs(dimensions=("client",)), client(), server()) == {"server=svc-b": 1}


def test_sg7_resources_without_a_service_name_are_passed_over() -> None:
    """SG-7."""
    assert counted(graphs(wait_ms=0), replace(client(), service=None), Told("x", INTERNAL)) == {}


def test_a_key_opens_again_after_its_edge_is_complete() -> None:
    told = [client(), server(), server("svc-c"), client("svc-d")]

    assert totals(graphs(), *told) == {"client=svc-a,server=svc-b": 1, "client=svc-d,server=svc-c": 1}


def test_sg18_a_full_store_refuses_new_half_edges_only() -> None:
    """SG-18, SG-21: every span that is refused is counted, one that updates an edge never is."""
    tenants = graphs(max_items=1)
    told = [client(), client(id=2), client(id=3, attributes=POSTGRES), server(), client(id=4)]

    assert totals(tenants, *told) == {
        "client=svc-a,server=svc-b": 1,
        "client=svc-a,connection_type=database,server=postgres": 1,
    }
    assert counted(tenants, *told) == {EDGES: 3, DROPPED: 1, EXPIRED % "CLIENT": 1}


def test_half_edges_past_their_deadline_leave_room_and_still_pair() -> None:
    tenants = graphs(max_items=1, wait_ms=5000)
    log = records((0, [client()]), (4999, [client(id=2)]), (5000, [client(id=3)]), (14_000, [server()]))

    closed = windows(tenants, log)

    assert samples(closed)[f"{TOTAL}{{client=svc-a,server=svc-b}}"] == 1
    assert ledger(closed)[DROPPED] == 1


def test_half_edges_are_limited_in_bytes_over_all_tenants() -> None:
    log = [record(i, i, client(service="s" * 1000, id=i + 1), tenant=f"t{i % 3}") for i in range(9)]
    log += [record(9 + i, 12_000 + i, client(service="s" * 1000, id=i + 1, trace=2), tenant="t0") for i in range(9)]

    fold = new_fold(graphs(), max_half_edge_bytes=5000)
    fold.feed(log)

    counts = ledger(fold.close_all())
    assert (counts[EDGES + "{tenant=t0}"], counts[DROPPED + "{tenant=t0}"]) == (2 + 4, 1 + 5)


def test_a_half_edge_that_grows_beyond_the_limit_in_bytes_is_dropped() -> None:
    tenants = graphs(dimensions=("d",))
    fold = new_fold(tenants, max_half_edge_bytes=1000)

    fold.feed([record(0, 0, client(), client(attributes={"d": "x" * 1000}), client(id=2))])

    counts = {name: count for name, count in ledger(fold.close_all()).items() if name.startswith("processor")}
    assert counts == {EDGES: 2, DROPPED: 1, EXPIRED % "CLIENT": 1}


def test_sg19_half_edges_expire_at_the_end_of_the_window_that_they_waited_for() -> None:
    """SG-19."""
    log = [record(0, 0, client()), record(1, 14_999, client(id=2)), tick(2, 15_000), tick(3, 30_000)]
    fold = new_fold(graphs())

    first, second = fold.feed(log).closings

    assert ledger(first.windows)[EXPIRED % "CLIENT"] == 1
    assert ledger(second.windows) == {EXPIRED % "CLIENT": 1}


def test_halves_pair_across_windows() -> None:
    log = records((14_000, [client(latency_ns=4)]), (16_000, [server(latency_ns=6)]))

    assert samples(windows(graphs(), log))[f"{CLIENT_SECONDS}{{client=svc-a,server=svc-b}}"] == (1, (1, 1), 4e-9)


def test_invalid_labels_are_counted_per_edge() -> None:
    value = record(0, 0, client("?bad?"), server(), client("?bad?", id=5), server(parent=5)).value
    closed = windows(graphs(), [Record(0, T0_MS, value.replace(b"?bad?", b"\xff\xfebad"))])

    assert samples(closed) == {}
    assert ledger(closed)["spans_discarded_total{processor=service-graphs,reason=invalid_utf8}"] == 2


def test_tenants_do_not_pair_with_each_other() -> None:
    log = [record(0, 0, client(), tenant="a"), record(1, 0, server(), tenant="b")]

    assert samples(windows(graphs(), log)) == {}


@pytest.mark.parametrize("part", ["request", "latency", "connection_info"])
def test_inst6_sub_processors_choose_metrics(part: str) -> None:
    tenants = graphs(**{name: name == part for name in ("request", "latency", "connection_info")})

    names = {name.split("{")[0] for name in found(tenants, *QUEUE_DATABASE)}

    assert names == {"request": {TOTAL}, "latency": {SERVER_SECONDS, CLIENT_SECONDS}, "connection_info": {INFO}}[part]


def test_edges_find_their_owner_by_the_final_server_label() -> None:
    (window,) = windows(graphs(), records((0, [client(), server()])))

    assert {row["route"] for row in dicts(window.rows)} == {b"svc-b"}
