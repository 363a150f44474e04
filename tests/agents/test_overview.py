"""What the terminal shows is what PromQL would compute."""

from math import inf, isnan

import pytest

from agents.overview import Increase, Line, overview, quantile


def grew(name: str, value: float, seconds: float = 10.0, **labels: str) -> Increase:
    return Increase(tuple(sorted({"__name__": name, **labels}.items())), value, seconds)


def test_an_edge_has_its_rate_error_ratio_and_p95() -> None:
    edge = {"client": "a", "server": "b", "connection_type": "database"}
    bucket = "traces_service_graph_request_server_seconds_bucket"
    seen = overview(
        [
            grew("traces_service_graph_request_total", 40.0, **edge),
            grew("traces_service_graph_request_failed_total", 10.0, **edge),
            grew(bucket, 20.0, le="0.1", **edge),
            grew(bucket, 40.0, le="0.2", **edge),
            grew(bucket, 40.0, le="+Inf", **edge),
            grew("traces_service_graph_request_client_seconds_bucket", 40.0, le="+Inf", **edge),
        ]
    )
    assert seen.edges == (Line(("a", "b", "database"), 4.0, 0.25, pytest.approx(0.19)),)


def test_edges_of_several_dimensions_are_added_up() -> None:
    total = "traces_service_graph_request_total"
    seen = overview([grew(total, 10.0, client="a", server="b", region=region) for region in ("x", "y")])
    assert [(line.key, line.rate) for line in seen.edges] == [(("a", "b", ""), 2.0)]


def test_the_side_of_a_virtual_edge_that_has_instruments_tells_its_time() -> None:
    def virtual(client_under: str, server_under: str) -> float:
        edge = {"client": "a", "server": "bank", "connection_type": "virtual_node"}
        increases = [grew("traces_service_graph_request_total", 2.0, **edge)]
        for side, under in (("client", client_under), ("server", server_under)):
            for le in ("0.1", "0.2", "+Inf"):
                value = 2.0 if float(le) >= float(under) else 0.0
                increases.append(grew(f"traces_service_graph_request_{side}_seconds_bucket", value, le=le, **edge))
        return overview(increases).edges[0].p95_s

    assert virtual(client_under="0.2", server_under="0.1") == pytest.approx(0.195)
    assert virtual(client_under="0.1", server_under="0.2") == pytest.approx(0.195)


def test_operations_are_ordered_by_rate_and_their_errors_are_part_of_it() -> None:
    def calls(value: float, name: str, status: str) -> Increase:
        labels = {"service": "s", "span_name": name, "span_kind": "SPAN_KIND_SERVER", "status_code": status}
        return grew("traces_spanmetrics_calls_total", value, **labels)

    seen = overview(
        [
            calls(10.0, "rare", "STATUS_CODE_UNSET"),
            calls(30.0, "often", "STATUS_CODE_UNSET"),
            calls(10.0, "often", "STATUS_CODE_ERROR"),
        ]
    )
    assert [(line.key[1], line.rate, line.error_ratio) for line in seen.operations] == [
        ("often", 4.0, 0.25),
        ("rare", 1.0, 0.0),
    ]


def test_what_did_not_grow_is_not_shown() -> None:
    assert overview([grew("traces_service_graph_request_total", 0.0, client="a", server="b")]).edges == ()
    assert overview([grew("traces_service_graph_request_total", 1.0, 0.0, client="a", server="b")]).edges == ()
    assert overview([grew("traces_target_info", 1.0)]).operations == ()


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ([(0.1, 0.0), (0.2, 100.0), (inf, 100.0)], 0.195),
        ([(0.1, 10.0), (inf, 100.0)], 0.1),  # above the last bound: that bound
        ([(0.1, 95.0), (inf, 100.0)], 0.1),
    ],
)
def test_quantiles_are_interpolated_as_in_promql(buckets: list[tuple[float, float]], expected: float) -> None:
    assert quantile(0.95, buckets) == pytest.approx(expected)


def test_nothing_observed_has_no_quantile() -> None:
    assert isnan(quantile(0.95, []))
    assert isnan(quantile(0.95, [(inf, 0.0)]))
