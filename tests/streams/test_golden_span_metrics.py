"""Golden cases G7 to G37 and G141: Tempo's own tests of span metrics, target_info and host info (section 19)."""

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.config import (
    DimensionMappingSettings,
    FilterPolicySettings,
    HostInfoSettings,
    LimitSettings,
    MultiplierSettings,
    PolicyPartSettings,
    TenantSettings,
)
from schemas.metrics import METRICS, MetricId
from schemas.otlp import Codec
from schemas.record import Record
from streams.pipeline import Pipeline
from streams.shard import WindowSamples
from tests.otlp_samples import length_delimited
from tests.streams.log import Told, exemplars, ledger, record, records, samples, settings, tick, windows

STD = {
    "service": "test-service",
    "span_name": "test",
    "span_kind": "SPAN_KIND_CLIENT",
    "status_code": "STATUS_CODE_OK",
}
CALLS, LATENCY, SIZE = "traces_spanmetrics_calls_total", "traces_spanmetrics_latency", "traces_spanmetrics_size_total"
INFO, HOST = "traces_target_info", "traces_host_info"
INSTANCE = {"service.instance.id": "abc-instance-id-test-def"}
NAMED = {"service.namespace": "test-namespace", **INSTANCE}
JOB = {"job": "test-namespace/test-service", "instance": "abc-instance-id-test-def"}
INVALID = "spans_discarded_total{processor=span-metrics,reason=invalid_utf8}"
FILTERED = "spans_discarded_total{processor=span-metrics,reason=span_metrics_filtered}"


def span_metrics(**changes: Any) -> TenantSettings:
    """With target_info, unless the changes say otherwise."""
    return settings(span_metrics={"histogram_buckets": (0.5, 1.0), "enable_target_info": True, **changes})


def spans(count: int = 10, resource: dict[str, Any] | None = None, **changes: Any) -> list[Told]:
    """B(n): spans of one batch."""
    one = Told(message="OK", parent=bytes(8), resource=resource or {}, **changes)
    return [replace(one, id=i + 1) for i in range(count)]


def measured(tenants: TenantSettings, *told: Told) -> dict[str, Any]:
    return samples(windows(tenants, records((0, told))))


def series(metric: str, **labels: str) -> str:
    shown = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
    return f"{metric}{{{shown}}}"


def of(found: dict[str, Any], metric: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name.split("{")[0] == metric}


def test_g7_job_has_the_namespace_and_instance_the_id() -> None:
    """G7, SM-6, SM-36."""
    found = measured(span_metrics(), *spans(resource=NAMED))

    assert of(found, CALLS) == {series(CALLS, **STD, **JOB): 10}
    assert of(found, LATENCY) == {series(LATENCY, **STD, **JOB): (10, (0, 10, 10), 10)}


@pytest.mark.parametrize(
    ("case", "attribute", "regex", "count"),
    [
        pytest.param("G9", ("span.nope", "nothere"), False, 0, id="G9"),
        pytest.param("G11", ("kind", "SPAN_KIND_.*"), True, 10, id="G11"),
    ],
)
def test_filters_decide_what_is_measured(case: str, attribute: tuple[str, str], regex: bool, count: int) -> None:
    """G9, G11, SM-1, SM-15."""
    policy = FilterPolicySettings(PolicyPartSettings(regex, (attribute,)), None, None)
    closed = windows(span_metrics(enable_target_info=False, filter_policies=(policy,)), records((0, spans())))

    assert sum(of(samples(closed), CALLS).values()) == count
    assert len(samples(closed)) == (3 if count else 0)
    assert ledger(closed).get(FILTERED, 0) == 10 - count


def test_g13_batches_of_one_service_with_and_without_a_namespace() -> None:
    """G13."""
    found = measured(span_metrics(), *spans(), *spans(resource=NAMED), *spans())

    assert of(found, CALLS) == {
        series(CALLS, **STD, job="test-service"): 20,
        series(CALLS, **STD, **JOB): 10,
    }
    assert of(found, LATENCY)[series(LATENCY, **STD, job="test-service")] == (20, (0, 20, 20), 20)


def test_g15_no_target_info_unless_it_is_on() -> None:
    """G15, SM-30, SM-35: nor is a job or an instance part of any label set (SM-10)."""
    resource = {**NAMED, "cluster": "eu-west-0"}
    found = measured(span_metrics(enable_target_info=False), *spans(resource=resource))

    assert of(found, INFO) == {}
    assert of(found, CALLS) == {series(CALLS, **STD): 10}


@pytest.mark.parametrize(
    ("resource", "excluded", "labels"),
    [
        pytest.param({"host.id": "", "cluster": "eu-west-0"}, (), {"cluster": "eu-west-0"}, id="G17"),
        pytest.param(
            {**INSTANCE, "cluster": "eu-west-0", "ip": "1.1.1.1", "container": "c", "container.id": "xxx"},
            ("container", "container.id"),
            {"instance": INSTANCE["service.instance.id"], "cluster": "eu-west-0", "ip": "1.1.1.1"},
            id="G19",
        ),
        pytest.param(INSTANCE, (), None, id="G21"),
        pytest.param({"5badlabel": "no", "good_label": "should-appear"}, (), {"good_label": "should-appear"}, id="G29"),
        pytest.param({}, (), None, id="SM-31, only a name"),
        pytest.param(
            {"job": "j", "instance": "i", "service": "s", "span.kind": 3},
            (),
            {"__job": "j", "__instance": "i", "__service": "s", "__span_kind": "3"},
            id="SM-30 and PRIM-5, reserved names",
        ),
    ],
)
def test_target_info_tells_what_is_known_of_a_resource(
    resource: dict[str, Any], excluded: tuple[str, ...], labels: dict[str, str] | None
) -> None:
    """G17, G19, G21, G29, SM-30, SM-31."""
    found = measured(span_metrics(target_info_excluded_dimensions=excluded), *spans(2, resource))

    assert of(found, INFO) == ({} if labels is None else {series(INFO, job="test-service", **labels): 1})


def test_target_info_needs_a_job_or_an_instance() -> None:
    """SM-31, SM-7: a resource without service.name counts, and its target_info names the instance."""
    nameless = span_metrics()
    found = measured(
        nameless, *spans(2, {"cluster": "c"}, service=None), *spans(3, {"ip": "1", **INSTANCE}, service="")
    )

    instance = INSTANCE["service.instance.id"]
    assert of(found, INFO) == {series(INFO, instance=instance, ip="1"): 1}
    without = {name: value for name, value in STD.items() if name != "service"}
    assert of(found, CALLS) == {series(CALLS, **without): 2, series(CALLS, **without, instance=instance): 3}


def test_g23_each_resource_has_its_own_target_info() -> None:
    """G23."""
    found = measured(span_metrics(), *spans(1), *spans(1, {**INSTANCE, "cluster": "c"}), *spans(1, {"ip": "1.1.1.1"}))

    assert of(found, INFO) == {
        series(INFO, job="test-service", instance=INSTANCE["service.instance.id"], cluster="c"): 1,
        series(INFO, job="test-service", ip="1.1.1.1"): 1,
    }


@pytest.mark.parametrize("enabled", [True, False])
def test_g25_the_instance_label_is_on_unless_it_is_switched_off(enabled: bool) -> None:
    """G25, SM-5."""
    one, two = ({"service.instance.id": name, "cluster": "c"} for name in ("one", "two"))
    found = measured(span_metrics(enable_instance_label=enabled), *spans(10, one), *spans(10, two))

    if enabled:
        assert of(found, CALLS) == {
            series(CALLS, **STD, job="test-service", instance=name): 10 for name in ("one", "two")
        }
        assert len(of(found, INFO)) == 2
    else:
        assert of(found, CALLS) == {series(CALLS, **STD, job="test-service"): 20}
        assert of(found, INFO) == {series(INFO, job="test-service", cluster="c"): 1}


def test_g27_mappings_join_what_is_there() -> None:
    """G27, SM-12."""
    mappings = (
        DimensionMappingSettings("first_only", ("first", "second"), "/"),
        DimensionMappingSettings("world_only", ("hello", "world"), "/"),
        DimensionMappingSettings("first/last", ("first", "middle", "last"), "->"),
        DimensionMappingSettings("nothing", ("hello",), "/"),
    )
    attributes = {"first": "first-value", "world": "world-value", "last": "last-value"}
    found = measured(span_metrics(enable_target_info=False, dimension_mappings=mappings), *spans(attributes=attributes))

    mapped = {"first_only": "first-value", "world_only": "world-value", "first_last": "first-value->last-value"}
    assert of(found, CALLS) == {series(CALLS, **STD, **mapped): 10}


def test_mappings_are_prefixed_like_dimensions_and_look_at_the_resource_first() -> None:
    """SM-8, SM-12, PRIM-2."""
    mappings = (DimensionMappingSettings("status_code", ("zone", "http.status"), " "),)
    told = spans(1, {"zone": "a"}, attributes={"zone": "b", "http.status": 200})
    found = measured(span_metrics(enable_target_info=False, dimension_mappings=mappings), *told)

    assert of(found, CALLS) == {series(CALLS, **STD, __status_code="a 200"): 1}


def test_g33_span_series_come_before_target_info_in_the_order_of_admission() -> None:
    """G33, SM-16: the registry admits new series in the order of their labels, then of these numbers."""
    assert MetricId.CALLS < MetricId.LATENCY < MetricId.SIZE < MetricId.TARGET_INFO
    assert METRICS[MetricId.TARGET_INFO].name == INFO


def test_g35_a_span_with_invalid_labels_has_no_target_info_but_another_has() -> None:
    """G35, SM-15, SM-20."""
    first, second = spans(2, {"cluster": "c"})
    log = [invalid_name(record(0, 0, first, second))]
    closed = windows(span_metrics(), log)

    assert of(samples(closed), CALLS) == {series(CALLS, **STD, job="test-service"): 1}
    assert of(samples(closed), INFO) == {series(INFO, job="test-service", cluster="c"): 1}
    assert ledger(closed)[INVALID] == 1
    alone = windows(span_metrics(), [invalid_name(record(0, 0, first))])
    assert of(samples(alone), INFO) == {}


def test_dimensions_named_job_and_instance_give_way_to_what_names_the_resource() -> None:
    """SM-10, SM-5: unless that is off, or there is nothing that names it."""
    told = {"attributes": {"job": "mine", "instance": "my own"}, "resource": NAMED}
    own = {"job": "mine", "instance": "my own"}
    dimensions = {"dimensions": ("job", "instance")}

    on = measured(span_metrics(**dimensions), *spans(1, **told))
    assert of(on, CALLS) == {series(CALLS, **STD, **JOB): 1}
    off = measured(span_metrics(enable_target_info=False, **dimensions), *spans(1, **told))
    assert of(off, CALLS) == {series(CALLS, **STD, **own): 1}
    without = measured(span_metrics(**dimensions), *spans(1, service=None, attributes=own))
    assert of(without, CALLS) == {series(CALLS, **{k: v for k, v in STD.items() if k != "service"}, **own): 1}


def test_spans_count_where_their_target_info_is_invalid_and_each_is_counted() -> None:
    """SM-15 step 4, SM-33."""
    log = [record(0, 0, *spans(3, {"cluster": "valid-name"}))]
    broken = log[0]._replace(value=log[0].value.replace(b"valid-name", b"\xff\xfe-8-chars"))
    closed = windows(span_metrics(), [broken])

    assert of(samples(closed), CALLS) == {series(CALLS, **STD, job="test-service"): 3}
    assert of(samples(closed), INFO) == {}
    assert ledger(closed)[INVALID] == 3


def test_g37_target_info_needs_no_sub_processor() -> None:
    """G37."""
    off = {"count": False, "latency": False, "size": False}
    closed = windows(span_metrics(**off), records((0, spans(1, {"random.res.attr": "r"}))))

    assert samples(closed) == {series(INFO, job="test-service", random_res_attr="r"): 1}
    assert INVALID not in ledger(closed)


def test_target_info_counts_nothing_twice_and_is_written_by_every_window() -> None:
    """SM-34 (ours refreshes it), PRIM-8."""
    log = records((0, spans(2, {"cluster": "c"})), (15_000, spans(2, {"cluster": "c"})))
    closed = windows(span_metrics(), log)

    assert [len(of(samples([window]), INFO)) for window in closed] == [1, 1]


@pytest.mark.parametrize("end_ns", [0, -3600 * 10**9])
def test_g141_the_first_identifier_with_a_text_names_the_host(end_ns: int) -> None:
    """G141, HI-1, HI-2, HI-4: also where all spans are outside the slack."""
    both = {"k8s.node.name": "node-1", "host.id": "host-1"}
    told = [*spans(1, both, end_ns=end_ns), *spans(1, {"host.id": "host-2"}, end_ns=end_ns)]
    found = measured(hosts(), *told, *spans(1, {"zone": "z"}, end_ns=end_ns))

    assert found == {
        series(HOST, grafana_host_id="node-1", host_source="k8s.node.name"): 1,
        series(HOST, grafana_host_id="host-2", host_source="host.id"): 1,
    }


def test_a_host_is_a_string_that_is_not_empty() -> None:
    """HI-1."""
    found = measured(hosts(), *spans(1, {"k8s.node.name": 7, "host.id": "h"}), *spans(1, {"host.id": ""}))

    assert found == {series(HOST, grafana_host_id="h", host_source="host.id"): 1}


def test_a_host_without_valid_labels_is_counted_once_a_resource() -> None:
    """INT-6, HI-2."""
    log = [record(0, 0, *spans(2, {"host.id": "valid"}))]
    broken = log[0]._replace(value=log[0].value.replace(b"valid", b"\xff\xfe-xx"))
    closed = windows(hosts(), [broken])

    assert samples(closed) == {}
    assert ledger(closed)["spans_discarded_total{processor=host-info,reason=invalid_utf8}"] == 2


def test_hosts_of_records_that_may_not_be_measured_are_not() -> None:
    """INT-7: the flag holds for every processor, and each counts what it was kept from."""
    closed = windows(hosts(), [record(0, 0, *spans(1, {"host.id": "h"}), no_metrics=True)])

    assert samples(closed) == {}
    assert ledger(closed)["metrics_generation_skipped_processor_pushes_total"] == 1


def hosts() -> TenantSettings:
    return settings(host_info=HostInfoSettings(("k8s.node.name", "host.id"), HOST))


def invalid_name(log: Any) -> Any:
    """The record with a first span whose name isn't UTF-8."""
    return log._replace(value=log.value.replace(b"\x2a\x04test", b"\x2a\x04t\xff\xfft", 1))


def test_a_span_without_duration_falls_into_the_first_bucket() -> None:
    """SM-2, PRIM-10: nor is it negative where the end is before the start."""
    found = measured(span_metrics(enable_target_info=False), *spans(1, latency_ns=0), *spans(1, latency_ns=-5))

    assert of(found, LATENCY) == {series(LATENCY, **STD): (2, (2, 2, 2), 0)}


def test_the_size_is_that_of_the_spans_own_encoding() -> None:
    """SM-3: without unknown fields, and without values that are encoded though they are the default."""
    (one,) = spans(1)
    log = record(0, 0, one)
    message = TracesData.FromString(log.value)
    span = message.resource_spans[0].scope_spans[0].spans[0]
    span.flags = 0x101
    plain = log._replace(value=message.SerializeToString())
    unknown, default = b"\xfa\x07\x01x", b"\x30\x00"  # field 127 of length 1; kind 0, before the real one
    padded = length_delimited(2, length_delimited(2, default + span.SerializeToString() + unknown))
    resource = length_delimited(1, message.resource_spans[0].resource.SerializeToString())
    odd = log._replace(value=length_delimited(1, resource + padded))

    for each in (plain, odd):
        found = samples(windows(span_metrics(enable_target_info=False), [each]))
        assert of(found, SIZE) == {series(SIZE, **STD): span.ByteSize()}


def test_what_is_weighted() -> None:
    """SM-19: calls and latencies are, sizes and target_info aren't; SM-4: no name has a unit."""
    told = spans(1, {"cluster": "c"}, attributes={"rate": 0.25})
    found = measured(span_metrics(multiplier=MultiplierSettings("rate")), *told)

    labels = {**STD, "job": "test-service"}
    assert found[series(CALLS, **labels)] == 4
    assert found[series(LATENCY, **labels)] == (4, (0, 4, 4), 4)
    unweighted = measured(span_metrics(), *told)
    assert found[series(SIZE, **labels)] == unweighted[series(SIZE, **labels)]
    assert found[series(INFO, job="test-service", cluster="c")] == 1
    assert {name.split("{")[0] for name in found} == {CALLS, LATENCY, SIZE, INFO}


def test_exemplars_are_of_latencies_only_and_of_the_raw_value() -> None:
    """SM-18."""
    told = spans(1, attributes={"rate": 0.25})
    closed = windows(span_metrics(enable_target_info=False, multiplier=MultiplierSettings("rate")), records((0, told)))

    assert exemplars(closed) == {(series(LATENCY, **STD), 1): ("1", 10**9, 0, 0, 0)}


def test_dimensions_that_are_labels_of_the_format_are_overwritten() -> None:
    """SM-11."""
    told = spans(1, attributes={"le": "y", "__name__": "x"})
    (window,) = written(span_metrics(enable_target_info=False, dimensions=("le", "__name__")), record(0, 0, *told))
    labels = [dict(sample.series.labels) for tenant in window.tenants for sample in tenant.values]

    assert {each["__name__"] for each in labels if "span_name" in each} == {
        CALLS,
        SIZE,
        f"{LATENCY}_sum",
        f"{LATENCY}_count",
        f"{LATENCY}_bucket",
    }
    bounds = [each["le"] for each in labels if each["__name__"] == f"{LATENCY}_bucket"]
    assert bounds == ["0.5", "1", "+Inf"]


@pytest.mark.parametrize(("limit", "first"), [(0, {INFO, HOST}), (1, {INFO})])
def test_info_metrics_count_for_the_limit_and_go_stale(limit: int, first: set[str]) -> None:
    """SM-32, HI-3, SM-17 (our time of an update is the window's end).

    target_info comes first in the order of label bytes, and takes the one place.
    """
    off = {"count": False, "latency": False, "size": False}
    tenants = replace(
        span_metrics(**off),
        host_info=HostInfoSettings(("host.id",), HOST),
        limits=LimitSettings(max_active_series=limit),
        stale_duration_ms=30_000,
    )
    ticks = [tick(n, 15_000 * n) for n in range(1, 5)]
    out = written(tenants, record(0, 0, *spans(1, {"host.id": "h"})), *ticks)

    # Dropped in the first window that ends more than the stale duration after the last update.
    assert [written_names(window) for window in out[:4]] == [first, first, first, set()]


def written(tenants: TenantSettings, *log: Record) -> list[WindowSamples]:
    """The windows of a log that ends, as the sink writes them."""
    out: list[WindowSamples] = []
    pipeline = Pipeline(lambda _: tenants, 15_000, Codec.OTLP, out.append)
    pipeline.feed(0, log)
    pipeline.close()
    return out


def written_names(window: WindowSamples) -> set[str]:
    return {
        dict(sample.series.labels)["__name__"]
        for tenant in window.tenants
        for sample in tenant.values
        if ("metric_overflow", "true") not in sample.series.labels
        and not dict(sample.series.labels)["__name__"].startswith("spanmill_")
    }
