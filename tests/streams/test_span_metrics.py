"""Golden cases G1 to G5 are Tempo's own tests (specification, section 19.1)."""

import random
from dataclasses import replace
from fractions import Fraction

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.config import IntrinsicDimensionsSettings, TenantSettings
from schemas.deltas import Window, encode_window
from schemas.record import Record
from streams.layouts import limit_ns
from tests.delta_dicts import dicts
from tests.streams.log import (
    CLIENT,
    ERROR,
    SECOND_NS,
    T0_MS,
    Told,
    exemplars,
    ledger,
    record,
    records,
    samples,
    settings,
    windows,
)

STD = "service=test-service,span_kind=SPAN_KIND_CLIENT,span_name=test,status_code=STATUS_CODE_OK"
CALLS, LATENCY, SIZE = "traces_spanmetrics_calls_total", "traces_spanmetrics_latency", "traces_spanmetrics_size_total"


def span_metrics(**changes: object) -> TenantSettings:
    return settings(span_metrics={"histogram_buckets": (0.5, 1.0), **changes})


def spans(count: int = 1, **changes: object) -> list[Told]:
    """B(n) of the golden cases."""
    one = Told(message="OK", attributes={"random.attr": "r"}, resource={"random.res.attr": "r"}, parent=bytes(8))
    return [replace(one, id=i + 1, **changes) for i in range(count)]  # type: ignore[arg-type]


def measured(tenants: TenantSettings, *told: Told) -> dict[str, object]:
    return samples(windows(tenants, records((0, told))))


def labels_of(tenants: TenantSettings, told: Told) -> str:
    """The labels of a span's one series of calls."""
    (name,) = (name for name in measured(tenants, told) if name.startswith(CALLS))
    return name.removeprefix(CALLS)


def test_g1_spans_of_one_label_set_are_counted_and_measured() -> None:
    found = measured(span_metrics(), *spans(10))

    assert found.pop(f"{SIZE}{{{STD}}}") == 10 * len(span_bytes(spans()[0]))
    assert found == {f"{CALLS}{{{STD}}}": 10, f"{LATENCY}{{{STD}}}": (10, (0, 10, 10), 10)}


def test_g3_dimensions_become_labels_and_intrinsics_can_be_chosen() -> None:
    intrinsics = IntrinsicDimensionsSettings(
        service=True, span_name=True, span_kind=False, status_code=True, status_message=True
    )
    tenants = span_metrics(dimensions=("foo", "bar", "does-not-exist"), intrinsic_dimensions=intrinsics)

    found = measured(tenants, *spans(10, attributes={"foo": "foo-value", "bar": "bar-value"}))

    labels = (
        "{bar=bar-value,foo=foo-value,service=test-service,span_name=test,status_code=STATUS_CODE_OK,status_message=OK}"
    )
    assert found[CALLS + labels] == 10
    assert found[LATENCY + labels] == (10, (0, 10, 10), 10)


def test_g5_dimensions_that_no_span_has_leave_no_labels() -> None:
    tenants = span_metrics(dimensions=("label-name", "foo.name", "foo bar"))

    assert measured(tenants, *spans(10))[f"{CALLS}{{{STD}}}"] == 10


@pytest.mark.parametrize(
    ("told", "labels"),
    [
        (Told(service=None), "{span_kind=SPAN_KIND_CLIENT,span_name=test,status_code=STATUS_CODE_OK}"),
        (Told(service=""), "{span_kind=SPAN_KIND_CLIENT,span_name=test,status_code=STATUS_CODE_OK}"),
        (Told(kind=17, status=9), "{service=test-service,span_kind=17,span_name=test,status_code=9}"),
        (
            Told(resource={"service.name": 5}, service=None),
            "{service=5,span_kind=SPAN_KIND_CLIENT,span_name=test,status_code=STATUS_CODE_OK}",
        ),
        (
            Told(name="", kind=0, status=0),
            "{service=test-service,span_kind=SPAN_KIND_UNSPECIFIED,status_code=STATUS_CODE_UNSET}",
        ),
        (
            Told(kind=5, status=ERROR, service="用户"),
            "{service=用户,span_kind=SPAN_KIND_CONSUMER,span_name=test,status_code=STATUS_CODE_ERROR}",
        ),
    ],
)
def test_intrinsic_labels_are_texts_and_empty_ones_are_absent(told: Told, labels: str) -> None:
    assert labels_of(span_metrics(), told) == labels


def test_sm8_a_dimension_named_as_an_intrinsic_is_prefixed() -> None:
    tenants = span_metrics(dimensions=("service", "span.kind"))

    told = Told(attributes={"service": "s", "span.kind": "k"})

    assert labels_of(tenants, told) == "{__service=s,__span_kind=k," + STD + "}"


def test_sm9_the_last_of_equal_names_counts_even_if_it_is_missing() -> None:
    tenants = span_metrics(dimensions=("deployment.environment", "deployment_environment"))

    assert labels_of(tenants, Told(attributes={"deployment.environment": "prod"})) == f"{{{STD}}}"
    both = Told(attributes={"deployment.environment": "prod", "deployment_environment": "dev"})
    assert labels_of(tenants, both) == f"{{deployment_environment=dev,{STD}}}"


def test_prim2_the_resource_comes_before_the_span() -> None:
    tenants = span_metrics(dimensions=("region",))

    told = Told(attributes={"region": "span"}, resource={"region": "resource"})

    assert labels_of(tenants, told) == f"{{region=resource,{STD}}}"
    assert labels_of(tenants, replace(told, resource={"region": ""})) == f"{{{STD}}}"


def test_sm14_values_of_any_type_are_labels_and_equal_texts_are_one_series() -> None:
    tenants = span_metrics(dimensions=("d",))
    values = [5, "5", 5.0, True, "true", 1e21, False]

    found = measured(tenants, *(Told(attributes={"d": value}) for value in values))

    calls = {name.split("d=")[1].split(",")[0]: count for name, count in found.items() if name.startswith(CALLS)}
    assert calls == {"5": 3, "true": 2, "1000000000000000000000": 1, "false": 1}
    histogram = found[f"{LATENCY}{{d=5,{STD}}}"]
    assert histogram == (3, (0, 3, 3), 3)


def test_groups_with_the_same_labels_become_one_row_each() -> None:
    tenants = span_metrics(dimensions=("d",))
    told = [Told(attributes={"d": value}, trace=i + 1) for i, value in enumerate([5, "5", 5.0])]

    (window,) = windows(tenants, records((0, told)))

    assert len(window.rows) == 3
    assert {row["route"] for row in dicts(window.rows)} == {b"test-service"}
    assert exemplars([window])[f"{LATENCY}{{d=5,{STD}}}", 1] == ("3", SECOND_NS, 0, 0, 2)
    encode_window(window, 0, 1, 3)


def test_rows_find_their_owner_by_the_final_service_label() -> None:
    cut = windows(replace(span_metrics(), max_label_value_length=4), records((0, [Told()])))
    without = IntrinsicDimensionsSettings(
        service=False, span_name=True, span_kind=True, status_code=True, status_message=False
    )

    assert {row["route"] for row in dicts(cut[0].rows)} == {b"test"}
    hidden = windows(span_metrics(intrinsic_dimensions=without), records((0, [Told()])))
    assert {row["route"] for row in dicts(hidden[0].rows)} == {b""}


@pytest.mark.parametrize(
    ("part", "names"), [("count", {CALLS}), ("latency", {LATENCY}), ("size", {SIZE}), (None, set[str]())]
)
def test_inst5_sub_processors_choose_metrics(part: str | None, names: set[str]) -> None:
    tenants = span_metrics(**{name: name == part for name in ("count", "latency", "size")})

    assert {name.split("{")[0] for name in measured(tenants, *spans(2))} == names


@given(st.floats(0, 2e7, allow_nan=False), st.integers(-3, 3))
def test_a_bucket_holds_exactly_what_float64_compares_below_its_bound(bound: float, step: int) -> None:
    latency_ns = min(max(round(Fraction(bound) * SECOND_NS) + step, 0), 1 << 53)

    assert (latency_ns <= limit_ns(bound)) == (latency_ns / 1e9 <= bound)


def test_negative_bounds_hold_nothing_and_far_ones_everything() -> None:
    assert [limit_ns(bound) for bound in (-1.0, 1e300)] == [-1, (1 << 63) - 1]


@hypothesis.settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 3 * SECOND_NS), min_size=1, max_size=30))
def test_histograms_count_and_sum_exactly(latencies: list[int]) -> None:
    told = [Told(latency_ns=latency, id=i + 1) for i, latency in enumerate(latencies)]

    (window,) = windows(span_metrics(), records((0, told)))

    counts = [sum(latency / 1e9 <= bound for latency in latencies) for bound in (0.5, 1.0, float("inf"))]
    assert samples([window])[f"{LATENCY}{{{STD}}}"][1] == tuple(counts)
    assert sum(row["sum_lo"] for row in dicts(window.rows)) == sum(latencies) << 16


def test_sums_pass_64_bits() -> None:
    years = 1 << 53
    told = [Told(latency_ns=years, end_ns=0, id=i + 1) for i in range(40)]
    far = replace(span_metrics(), slack_ns=1 << 62)
    log = [record(0, years // 10**6 + 10**9, *told)]

    (window,) = windows(far, log)

    assert samples([window])[f"{LATENCY}{{{STD}}}"][2] == 40 * years / 1e9


def test_exemplars_are_the_last_in_the_log_of_their_bucket() -> None:
    log = records(
        (0, [Told(trace=1), Told(trace=2, latency_ns=1)]),
        (5, [Told(trace=3), Told(trace=0x1AB)]),
        (7, [Told(trace=4, latency_ns=9 * SECOND_NS)]),
    )

    assert exemplars(windows(span_metrics(), log)) == {
        (f"{LATENCY}{{{STD}}}", 0): ("2", 1, 0, 0, 1),
        (f"{LATENCY}{{{STD}}}", 1): ("1ab", SECOND_NS, 5, 1, 1),
        (f"{LATENCY}{{{STD}}}", 2): ("4", 9 * SECOND_NS, 7, 2, 0),
    }


@pytest.mark.parametrize("trace", [b"", bytes(16), b"\1" * 33])
def test_reg12_a_trace_id_that_cannot_be_an_exemplar_erases(trace: bytes) -> None:
    found = exemplars(windows(span_metrics(), records((0, [Told(trace=1), Told(trace=trace)]))))

    assert found[f"{LATENCY}{{{STD}}}", 1] == ("", SECOND_NS, 0, 0, 1)


def test_prim9_zeros_before_a_long_trace_id_do_not_count() -> None:
    found = exemplars(windows(span_metrics(), records((0, [Told(trace=bytes(40) + b"\x0f" * 32)]))))

    assert found[f"{LATENCY}{{{STD}}}", 1][0] == ("0f" * 32).lstrip("0")


def test_sm20_spans_with_invalid_labels_touch_no_series_and_are_counted() -> None:
    good, bad = Told(), Told(name="?bad?")
    value = record(0, 0, good, bad, bad).value.replace(b"?bad?", b"\xff\xfebad")

    closed = windows(span_metrics(), [Record(0, T0_MS, value)])

    assert samples(closed)[f"{CALLS}{{{STD}}}"] == 1
    assert {row["metric"] for row in dicts(closed[0].rows)} == {10, 11, 12}
    assert ledger(closed)["spans_discarded_total{processor=span-metrics,reason=invalid_utf8}"] == 2


def test_sm20_a_value_cut_in_the_middle_of_a_character_is_invalid() -> None:
    closed = windows(replace(span_metrics(), max_label_value_length=20), records((0, [Told(name="a" * 19 + "é")])))

    assert samples(closed) == {}
    assert ledger(closed)["spans_discarded_total{processor=span-metrics,reason=invalid_utf8}"] == 1


def test_tenants_have_settings_and_series_of_their_own() -> None:
    log = [record(0, 0, Told()), record(1, 1, Told(), tenant="b"), record(2, 2, Told(service="x"), tenant="a")]

    found = samples(windows(span_metrics(), log))

    assert {name.split("{")[0]: value for name, value in found.items() if CALLS in name} == {
        CALLS: 1,
        f"a {CALLS}": 1,
        f"b {CALLS}": 1,
    }


def test_many_groups_are_kept_apart_while_tables_grow() -> None:
    rng = random.Random(7)
    names = [f"op-{rng.randrange(3000)}" for _ in range(9000)]
    told = [
        Told(name=name, kind=CLIENT, latency_ns=rng.randrange(2 * SECOND_NS), id=i + 1) for i, name in enumerate(names)
    ]

    found = samples(windows(span_metrics(dimensions=("a", "b")), records((0, told[:10]), (1, told[10:]))))

    calls = {name.split("span_name=")[1].split(",")[0]: n for name, n in found.items() if name.startswith(CALLS)}
    assert calls == {name: names.count(name) for name in sorted(set(names))}


def span_bytes(told: Told) -> bytes:
    data = TracesData.FromString(record(0, 0, told).value)
    return data.resource_spans[0].scope_spans[0].spans[0].SerializeToString()


def test_windows_are_empty_without_processors() -> None:
    closed: list[Window] = windows(settings(), records((0, spans(3))))

    assert samples(closed) == {}
    assert ledger(closed)["spans_received_total"] == 3
