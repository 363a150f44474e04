"""Native histograms from spans to samples. Golden cases (G95 and so on) are of the specification, section 19."""

import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import HistogramSettings, LimitSettings, MultiplierSettings, TenantSettings
from schemas.deltas import ZERO_BUCKET, Batch, decode_batch, encode_window, native_layout
from schemas.deltas import split as limbs
from schemas.labels import encode_labels
from schemas.metrics import LATENCY_UNITS_PER_NS, METRICS, WEIGHT_ONE, Metric, MetricId
from schemas.native_histogram import NativeHistogram
from schemas.native_totals import NativeSettings, NativeTotals, OfferedExemplar
from schemas.snapshot import newest_snapshot, snapshot_records
from streams.label_set import LabelSet, Samples
from streams.native_cells import _BOUNDS, native_bucket
from streams.native_totals import MAX_EXEMPLARS, NativeRow, with_exemplars, written
from streams.series import Naming, Sample
from streams.shard import Shard, WindowSamples
from streams.totals import DeltaRow, UsedLayout, apply_rows, fitting_rows
from tests.delta_dicts import dicts
from tests.streams.delta_rows import Settings, batch
from tests.streams.delta_rows import latency as classic_row
from tests.streams.delta_rows import row as delta_row
from tests.streams.delta_rows import window as delta_window
from tests.streams.log import CLIENT, CONSUMER, INTERVAL_MS, PRODUCER, SECOND_NS, SERVER, Told, records, windows
from tests.streams.log import settings as tenant

CLASSIC = HistogramSettings()
NATIVE = HistogramSettings(classic=False, native=True)
BOTH = HistogramSettings(classic=True, native=True)
MODES = {"classic": CLASSIC, "native": NATIVE, "both": BOTH}
NAMING = Naming(0)
LATENCY = "traces_spanmetrics_latency"
SERVER_SECONDS = "traces_service_graph_request_server_seconds"
CLIENT_SECONDS = "traces_service_graph_request_client_seconds"
QUEUE_SECONDS = "traces_service_graph_request_messaging_system_seconds"
BY_FACTOR = MultiplierSettings(key="ratio")


def spans(histograms: HistogramSettings, buckets: tuple[float, ...] = (1.0, 2.0), **own: Any) -> TenantSettings:
    """Span metrics that measure latencies only."""
    return tenant(
        span_metrics={"histogram_buckets": buckets, "count": False, "size": False, **own}, histograms=histograms
    )


def graphs(histograms: HistogramSettings) -> TenantSettings:
    own = {"histogram_buckets": (0.04,), "enable_messaging_system_latency_histogram": True}
    return tenant(service_graphs=own, histograms=histograms)


class Collected(NamedTuple):
    """What a window writes: zeros of series that begin or begin again, and values."""

    zeros: list[Sample]
    values: list[Sample]


class Written:
    """The registry's label sets of a tenant, fed by the windows that a generator makes of spans."""

    def __init__(self, settings: TenantSettings) -> None:
        self.settings = settings
        self.label_sets: dict[tuple[bytes, int], LabelSet] = {}
        self.end_ms = 0

    def complete(self, *told: Told) -> Collected:
        """The samples of a window with these spans."""
        return self.of(windows(self.settings, records((0, told)))) if told else self.of([])

    def of(self, closed: Sequence[Any]) -> Collected:
        self.end_ms += INTERVAL_MS
        for window in closed:
            [[value]] = encode_window(window, 0, 1, 1)
            batch = decode_batch(value)
            layouts = [UsedLayout(0, layout) for layout in batch.layouts]
            rows = [tuple(row[name] for name in DeltaRow._fields) for row in dicts(batch.rows)]
            for (labels, metric), group in groupby(map(DeltaRow._make, rows), lambda row: (row.labels, row.metric)):
                self.update(labels, metric, list(group), layouts)
        samples = Samples([], [], [])
        for key in sorted(self.label_sets):
            self.label_sets[key].collect(NAMING, samples, self.end_ms)
        return Collected([*samples.zeros, *samples.restarts], samples.values)

    def update(self, labels: bytes, number: int, rows: Sequence[DeltaRow], layouts: Sequence[UsedLayout]) -> None:
        metric, histograms = METRICS[MetricId(number)], self.settings.histograms
        fitting = fitting_rows(metric, rows, histograms)
        if (labels, number) in self.label_sets:
            self.label_sets[labels, number].update(fitting, layouts, histograms, self.end_ms)
        else:
            totals = apply_rows(metric, None, fitting, layouts, histograms, self.end_ms)
            self.label_sets[labels, number] = LabelSet(metric, labels, totals)


def took(seconds: float, service: str = "a", trace: int = 0, **more: Any) -> Told:
    return Told(service=service, latency_ns=int(seconds * SECOND_NS), trace=trace, **more)


def name_of(sample: Sample) -> str:
    return dict(sample.series.labels)["__name__"]


def floats(samples: Sequence[Sample]) -> dict[str, float]:
    """By name and bound."""
    found = {}
    for sample in samples:
        if not isinstance(sample.value, NativeHistogram):
            bound = dict(sample.series.labels).get("le")
            found[name_of(sample) + ("" if bound is None else f"{{{bound}}}")] = sample.value
    return found


def natives(samples: Sequence[Sample]) -> dict[str, NativeHistogram]:
    """By name."""
    return {name_of(s): s.value for s in samples if isinstance(s.value, NativeHistogram)}


def the_native(samples: Collected) -> NativeHistogram:
    [value] = natives(samples.values).values()
    return value


def offered(samples: Sequence[Sample]) -> Iterator[tuple[str, str, float]]:
    """Series with bound, trace ID and value of exemplars of float samples."""
    for sample in samples:
        if sample.exemplar is not None:
            (((_, trace),), value, _) = sample.exemplar
            yield f"{name_of(sample)}{{{dict(sample.series.labels)['le']}}}", trace, value


# Buckets


def bounds(schema: int) -> list[float]:
    """Prometheus' bounds within [0.5, 1) of the schemas 1 to 3, as its client library prints them."""
    finest = [
        0.5,
        0.5452538663326288,
        0.5946035575013605,
        0.6484197773255048,
        0.7071067811865475,
        0.7711054127039704,
        0.8408964152537144,
        0.9170040432046711,
    ]
    return finest[:: 8 >> schema]


def library_bucket(schema: int, latency_ns: int) -> int:
    """How the client library finds it, for schemas of -4 to 3."""
    if latency_ns == 0:
        return ZERO_BUCKET
    fraction, exponent = math.frexp(latency_ns / 1e9)
    if schema > 0:
        return bisect.bisect_left(bounds(schema), fraction) + (exponent - 1) * (1 << schema)
    power = exponent - (fraction == 0.5)
    return -(-power // (1 << -schema))


LATENCIES = st.integers(0, 2**53) | st.integers(0, 40).map(lambda n: 10**9 << n >> 20) | st.integers(0, 2000)


@settings(deadline=None, max_examples=500)
@given(st.integers(-4, 3), LATENCIES)
def test_a_latency_falls_into_the_library_s_bucket(schema, latency_ns):
    """REG-16; values are float64 seconds (PRIM-10), upper bounds inclusive."""
    assert native_bucket(schema, latency_ns) == library_bucket(schema, latency_ns)


@settings(deadline=None, max_examples=500)
@given(st.integers(-4, 8), st.integers(1, 2**53))
def test_a_latency_is_within_its_bucket_of_any_schema(schema, latency_ns):
    """REG-16: the bounds are powers of 2^(2^-schema), but for the last bits of a float64."""
    index, value = native_bucket(schema, latency_ns), Fraction(latency_ns / 1e9)
    width = Fraction(2) ** (-schema) if schema < 0 else Fraction(1, 2**schema)
    low, high = (2.0 ** float((index - step) * width) for step in (1, 0))
    assert low * (1 - 1e-12) <= value <= high * (1 + 1e-12)


@settings(deadline=None, max_examples=300)
@given(st.integers(-3, 8), st.integers(1, 2**53))
def test_half_the_resolution_has_the_bucket_that_contains_it(schema, latency_ns):
    """REG-16: halving doesn't need the observations again."""
    assert (native_bucket(schema, latency_ns) + 1) // 2 == native_bucket(schema - 1, latency_ns)


def test_bounds_are_the_library_s_to_the_last_bit():
    """REG-16: every 64th of schema 8, its second one and its last."""
    assert _BOUNDS[[1, 64, 128, 192, 255]].tolist() == [
        0.5013556375251013,
        0.5946035575013605,
        0.7071067811865475,
        0.8408964152537144,
        0.9972960560854698,
    ]
    assert len(_BOUNDS) == 256


def test_bounds_belong_to_the_lower_bucket_and_only_zero_to_the_zero_bucket():
    assert [native_bucket(3, seconds * SECOND_NS) for seconds in (1, 2, 4)] == [0, 8, 16]
    assert [native_bucket(3, SECOND_NS + 1), native_bucket(0, SECOND_NS + 1), native_bucket(-4, SECOND_NS + 1)] == [
        1,
        1,
        1,
    ]
    assert [native_bucket(8, 0), native_bucket(8, 1), native_bucket(8, 2**53)] == [ZERO_BUCKET, -7653, 5915]


# Modes


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_holds_for_every_histogram_of_both_processors(mode):
    """REG-14, REG-15: native ones have the bare name, counters are what they are in any mode."""
    both = tenant(
        span_metrics={"histogram_buckets": (0.04,)},
        service_graphs={"histogram_buckets": (0.04,), "enable_messaging_system_latency_histogram": True},
        histograms=MODES[mode],
    )
    values = Written(both).complete(*messaging_edge()).values
    names = {name_of(sample) for sample in values}
    histograms = {LATENCY, SERVER_SECONDS, CLIENT_SECONDS, QUEUE_SECONDS}
    parts = {f"{name}_{part}" for name in histograms for part in ("sum", "count", "bucket")}
    assert names & parts == (set() if mode == "native" else parts)
    assert set(natives(values)) == (set() if mode == "classic" else histograms)
    assert {"traces_spanmetrics_calls_total", "traces_service_graph_request_total"} <= set(floats(values))


def messaging_edge() -> list[Told]:
    """A producer of 0.05 s, a consumer of 0.03 s, 0.01 s after it."""
    producer = Told(service="a", kind=PRODUCER, id=1, trace=0xAB, latency_ns=SECOND_NS // 20, end_ns=-SECOND_NS)
    end_ns = -SECOND_NS + SECOND_NS // 100 + 3 * SECOND_NS // 100
    return [
        producer,
        Told(service="b", kind=CONSUMER, id=2, parent=1, trace=0xAB, latency_ns=3 * SECOND_NS // 100, end_ns=end_ns),
    ]


def test_g95_classic_histograms_of_a_messaging_edge():
    """G95: 23 samples, none of them native; an exemplar on the lowest bucket that contains it."""
    zeros, values = Written(graphs(CLASSIC)).complete(*messaging_edge())
    assert (len(zeros) + len(values), natives([*zeros, *values])) == (23, {})
    assert sorted(offered(values)) == [
        (f"{CLIENT_SECONDS}_bucket{{+Inf}}", "ab", 0.05),
        (f"{QUEUE_SECONDS}_bucket{{0.04}}", "ab", 0.01),
        (f"{SERVER_SECONDS}_bucket{{0.04}}", "ab", 0.03),
    ]


def test_g97_both_kinds_of_a_messaging_edge():
    """G97, REG-20: the same 23 and 6 native ones; all exemplars are on buckets."""
    zeros, values = Written(graphs(BOTH)).complete(*messaging_edge())
    native = [sample for sample in (*zeros, *values) if isinstance(sample.value, NativeHistogram)]
    assert (len(zeros) + len(values) - len(native), len(native)) == (23, 6)
    assert len(list(offered(values))) == 3
    assert not any(value.exemplars for value in natives(values).values())


def test_native_ones_of_a_messaging_edge():
    zeros, values = Written(graphs(NATIVE)).complete(*messaging_edge())
    found = natives(values)
    assert {name: (value.count, value.sum) for name, value in found.items()} == {
        CLIENT_SECONDS: (1, 0.05),
        SERVER_SECONDS: (1, 0.03),
        QUEUE_SECONDS: (1, 0.01),
    }
    assert set(natives(zeros)) == set(found)
    assert {shown.labels for value in found.values() for shown in value.exemplars} == {(("traceID", "ab"),)}


# Golden cases of the registry


def test_g157_a_second_step_of_classic_histograms():
    """G157: what isn't updated is unchanged without exemplars; a new label set has zeros (REG-9, REG-11, REG-12)."""
    registry = Written(spans(CLASSIC))
    registry.complete(took(1.0, "v1", 0x1), took(1.5, "v2", 0x2))
    zeros, values = registry.complete(took(2.5, "v2", 0x22), took(3.0, "v3", 0x3))
    by_service: dict[str, list[Sample]] = {}
    for sample in values:
        by_service.setdefault(dict(sample.series.labels)["service"], []).append(sample)
    assert [sample.value for sample in by_service["v1"]] == [1.0, 1.0, 1.0, 1.0, 1.0]
    assert [sample.value for sample in by_service["v2"]] == [4.0, 2.0, 0.0, 1.0, 2.0]
    assert [sample.value for sample in by_service["v3"]] == [3.0, 1.0, 0.0, 0.0, 1.0]
    assert {dict(sample.series.labels)["service"] for sample in zeros} == {"v3"}
    assert sorted(offered(values)) == [
        (f"{LATENCY}_bucket{{+Inf}}", "22", 2.5),
        (f"{LATENCY}_bucket{{+Inf}}", "3", 3.0),
    ]


def test_g159_classic_histograms_take_fractions_of_spans():
    """G159, REG-9: 1.0 s for 1.5 spans, 2.0 s for 5."""
    registry = Written(spans(CLASSIC, multiplier=BY_FACTOR))
    told = [took(1.0, attributes={"ratio": 1 / 1.5}), took(2.0, attributes={"ratio": 0.2})]
    assert floats(registry.complete(*told).values) == {
        f"{LATENCY}_sum": 11.5,
        f"{LATENCY}_count": 6.5,
        f"{LATENCY}_bucket{{1}}": 1.5,
        f"{LATENCY}_bucket{{2}}": 6.5,
        f"{LATENCY}_bucket{{+Inf}}": 6.5,
    }


@pytest.mark.parametrize("histograms", [CLASSIC, BOTH])
def test_g161_unsorted_buckets_are_sorted(histograms):
    """G161, REG-22; bounds are written shortest (REG-10)."""
    found = floats(Written(spans(histograms, (5.0, 0.5, 2.0, 1.0))).complete(took(0.75)).values)
    assert [(name, value) for name, value in found.items() if "bucket" in name] == [
        (f"{LATENCY}_bucket{{0.5}}", 0.0),
        (f"{LATENCY}_bucket{{1}}", 1.0),
        (f"{LATENCY}_bucket{{2}}", 1.0),
        (f"{LATENCY}_bucket{{5}}", 1.0),
        (f"{LATENCY}_bucket{{+Inf}}", 1.0),
    ]


def test_repeated_bounds_are_one_bucket_where_the_library_panics():
    """REG-22."""
    found = floats(Written(spans(BOTH, (1.0, 0.5, 1.0))).complete(took(0.75)).values)
    assert list(found)[2:] == [f"{LATENCY}_bucket{{{bound}}}" for bound in ("0.5", "1", "+Inf")]


G163 = [
    took(1.5, "v1", 0x1, attributes={"ratio": 1 / 20}),
    took(3.0, "v2", 0x2, attributes={"ratio": 1 / 13}),
]


@pytest.mark.parametrize("histograms", [CLASSIC, BOTH])
def test_g163_classic_and_both_agree_on_whole_multipliers(histograms):
    """G163, REG-19."""
    _, values = Written(spans(histograms, multiplier=BY_FACTOR)).complete(*G163)
    shown = [sample.value for sample in values if not isinstance(sample.value, NativeHistogram)]
    assert shown == [30.0, 20.0, 0.0, 20.0, 20.0, 39.0, 13.0, 0.0, 0.0, 13.0]
    assert sorted(offered(values)) == [(f"{LATENCY}_bucket{{+Inf}}", "2", 3.0), (f"{LATENCY}_bucket{{2}}", "1", 1.5)]
    if histograms is BOTH:
        native = [sample.value for sample in values if isinstance(sample.value, NativeHistogram)]
        assert [(v.count, v.sum, v.schema, v.buckets) for v in native] == [
            (20, 30.0, 3, ((5, 20),)),
            (13, 39.0, 3, ((13, 13),)),
        ]


def test_g165_the_first_collection_has_zeros_and_the_second_none():
    """G165, REG-17: an empty native histogram of the same schema, and the classic zeros, but none of `_sum`."""
    registry = Written(spans(BOTH, multiplier=BY_FACTOR))
    zeros, _ = registry.complete(G163[0])
    assert [(name_of(zero).removeprefix(LATENCY), zero.value) for zero in zeros] == [
        ("_count", 0.0),
        ("_bucket", 0.0),
        ("_bucket", 0.0),
        ("_bucket", 0.0),
        ("", NativeHistogram(3, 0, 0.0, 0, ())),
    ]
    assert registry.complete(G163[0]).zeros == []


@pytest.mark.parametrize("histograms", [NATIVE, BOTH])
@pytest.mark.parametrize("trace", [b"", bytes(16)])
def test_g167_an_empty_trace_id_is_a_plain_observation(histograms, trace):
    """G167, REG-20."""
    _, values = Written(spans(histograms)).complete(took(1.5, trace=trace))
    assert list(offered(values)) == []
    assert [(value.count, value.exemplars) for value in natives(values).values()] == [(1, ())]


# Weights and totals


@pytest.mark.parametrize(("multiplier", "whole"), [(1.5, 2), (0.5, 1), (20.0, 20), (1.0, 1)])
@pytest.mark.parametrize("mode", ["native", "both"])
def test_weights_are_whole_where_there_are_native_histograms(mode, multiplier, whole):
    """REG-18: 1.5 counts 2, also in the classic part; in classic mode it counts 1.5."""
    told = took(2.0, attributes={"ratio": 1 / multiplier})
    _, values = Written(spans(MODES[mode], multiplier=BY_FACTOR)).complete(told)
    value = natives(values)[LATENCY]
    assert (value.count, value.sum) == (whole, 2.0 * whole)
    if mode == "both":
        assert floats(values)[f"{LATENCY}_count"] == whole
    _, exact = Written(spans(CLASSIC, multiplier=BY_FACTOR)).complete(told)
    assert floats(exact)[f"{LATENCY}_count"] == pytest.approx(multiplier)


def test_calls_keep_exact_weights_in_every_mode():
    """REG-18 is about observations only."""
    counted = tenant(span_metrics={"multiplier": BY_FACTOR}, histograms=NATIVE)
    found = floats(Written(counted).complete(took(1.0, attributes={"ratio": 1 / 1.5})).values)
    assert found["traces_spanmetrics_calls_total"] == pytest.approx(1.5)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(LATENCIES, st.integers(0, 1)), min_size=1, max_size=12))
def test_both_parts_count_the_same_observations(told):
    """REG-19: `_count` and `_sum` are those of the native one, whatever windows the spans are in."""
    registry = Written(spans(BOTH))
    for window in (0, 1):
        observed = [Told(service="a", latency_ns=ns) for ns, of in told if of == window]
        values = registry.complete(*observed).values
    value = natives(values)[LATENCY]
    assert value.count == len(told) == value.zero_count + sum(count for _, count in value.buckets)
    assert value.zero_count == sum(ns == 0 for ns, _ in told)
    assert (floats(values)[f"{LATENCY}_count"], floats(values)[f"{LATENCY}_sum"]) == (value.count, value.sum)
    indices = [index for index, _ in value.buckets]
    assert indices == sorted({library_bucket(3, ns) for ns, _ in told if ns})


def test_what_a_label_set_costs_of_a_limit():
    """REG-13, REG-21, LIM-5a: 14 buckets cost 17, native 1, both 18."""
    costs = {}
    for mode, histograms in MODES.items():
        registry = Written(spans(histograms, tuple(float(n) for n in range(14))))
        registry.complete(took(1.0))
        [costs[mode]] = (label_set.cost for label_set in registry.label_sets.values())
    assert costs == {"classic": 17, "native": 1, "both": 18}


# The limit on buckets


def limited(max_buckets: int, min_reset_ms: int = 900_000, *, classic: bool = False, schema: int = 3) -> TenantSettings:
    return spans(HistogramSettings(classic, True, schema, max_buckets, min_reset_ms))


def powers(*exponents: int) -> list[Told]:
    """Observations of powers of two seconds, each in a bucket of its own at schema 0 and above."""
    return [took(2.0**exponent) for exponent in exponents]


def test_too_many_buckets_halve_the_resolution_until_they_are_few_enough():
    """REG-16: no observation is lost."""
    value = the_native(Written(limited(3)).complete(*powers(0, 1, 2, 3, 4)))
    assert (value.schema, value.buckets) == (-1, ((0, 1), (1, 2), (2, 2)))
    assert (value.count, value.sum) == (5, 31.0)


def test_no_limit_and_as_many_buckets_as_the_limit_change_nothing():
    """REG-16: 0 is any number."""
    for max_buckets in (0, 5):
        assert the_native(Written(limited(max_buckets)).complete(*powers(0, 1, 2, 3, 4))).schema == 3


def test_the_lowest_schema_may_have_more_buckets_than_the_limit():
    value = the_native(Written(limited(1)).complete(*powers(-29, 0, 20)))
    assert (value.schema, len(value.buckets)) == (-4, 3)


def test_a_histogram_is_reset_instead_if_the_last_reset_is_long_enough_ago():
    """REG-16: the window's own observations stay; a reader sees a reset of a counter, and no zero comes again."""
    registry = Written(limited(3, 2 * INTERVAL_MS, classic=True))
    registry.complete(*powers(0, 1))
    registry.complete(*powers(2))
    zeros, values = registry.complete(*powers(3))
    value = natives(values)[LATENCY]
    assert (zeros, value.schema, value.count, value.sum) == ([], 3, 1, 8.0)
    found = floats(values)  # of the same histogram (REG-19)
    assert (found[f"{LATENCY}_count"], found[f"{LATENCY}_sum"], found[f"{LATENCY}_bucket{{1}}"]) == (1.0, 8.0, 0.0)


def test_a_window_with_too_many_buckets_of_its_own_is_reset_and_reduced():
    registry = Written(limited(2, INTERVAL_MS))
    registry.complete(*powers(0))
    value = the_native(registry.complete(*powers(1, 2, 3)))
    assert (value.schema, value.count, value.buckets) == (-1, 3, ((1, 2), (2, 1)))


def test_a_reset_gives_a_reduced_histogram_its_resolution_back_when_one_may_be():
    """REG-16: as the library schedules it; ours comes with the first observation from then on."""
    registry = Written(limited(2, 3 * INTERVAL_MS))
    assert the_native(registry.complete(*powers(0, 1, 2))).schema == -1
    assert the_native(registry.complete(*powers(2))).schema == -1
    assert the_native(registry.complete()).schema == -1
    value = the_native(registry.complete(*powers(2)))
    assert (value.schema, value.count, value.buckets) == (3, 1, ((16, 1),))


def test_without_a_reset_duration_a_histogram_is_never_reset():
    registry = Written(limited(2, 0))
    registry.complete(*powers(0, 1, 2))
    for _ in range(5):
        value = the_native(registry.complete(*powers(2)))
    assert (value.schema, value.count) == (-1, 8)


@pytest.mark.parametrize(
    "changed",
    [
        HistogramSettings(False, True, 4, 100, 900_000),
        HistogramSettings(False, True, 3, 101, 900_000),
        HistogramSettings(False, True, 3, 100, 900_001),
        BOTH,
    ],
    ids=["factor", "max buckets", "min reset", "mode"],
)
def test_changed_parameters_begin_the_series_anew(changed):
    """REG-16, INST-7: with another zero, in the first window that has the change."""
    registry = Written(spans(NATIVE))
    registry.complete(took(1.0))
    registry.settings = spans(changed)
    zeros, values = registry.complete(took(4.0))
    value = natives(values)[LATENCY]
    assert (value.schema, value.count, value.sum) == (changed.native_schema, 1, 4.0)
    assert natives(zeros) == {LATENCY: NativeHistogram(changed.native_schema, 0, 0.0, 0, ())}


def test_a_change_to_classic_leaves_no_native_series():
    """REG-14."""
    registry = Written(spans(BOTH))
    registry.complete(took(1.0))
    registry.settings = spans(CLASSIC)
    zeros, values = registry.complete(took(4.0))
    assert (natives(values), floats(values)[f"{LATENCY}_count"], len(zeros)) == ({}, 1.0, 4)


# Rows of earlier settings


LABELS = encode_labels((("service", "a"),))


def row(bucket: int, layout: int, n: int, seconds: float = 0.0) -> DeltaRow:
    units = int(seconds * SECOND_NS) * LATENCY_UNITS_PER_NS
    return DeltaRow("t", LABELS, 11, bucket, layout, *limbs(n * WEIGHT_ONE), *limbs(units), None, None)


def latency() -> Metric:
    return METRICS[MetricId.LATENCY]


def test_rows_of_histograms_that_a_tenant_no_longer_has_are_left_out():
    rows = [row(0, 0, 1), row(5, native_layout(3), 1)]
    assert fitting_rows(latency(), rows, CLASSIC) == rows[:1]
    assert fitting_rows(latency(), rows, NATIVE) == rows[1:]
    assert fitting_rows(latency(), rows, BOTH) == rows


def test_native_rows_of_other_schemas_are_counted_where_they_belong():
    """A finer bucket in the one that contains it, a coarser one at its bound."""
    rows = [row(5, native_layout(3), 1), row(21, native_layout(5), 2), row(1, native_layout(0), 4)]
    totals = apply_rows(latency(), None, rows, [], NATIVE, INTERVAL_MS)
    assert totals.native is not None
    assert totals.native.buckets == ((5, 1), (6, 2), (8, 4))


def test_both_parts_go_on_if_one_has_no_rows_in_a_window():
    before = apply_rows(
        latency(), None, [row(0, 0, 1), row(0, native_layout(3), 1)], [UsedLayout(0, (1.0,))], BOTH, INTERVAL_MS
    )
    after = apply_rows(latency(), before, [row(1, native_layout(3), 2)], [], BOTH, 2 * INTERVAL_MS)
    assert after.native is not None
    assert (after.counts, after.native.buckets, after.fresh) == (before.counts, ((0, 1), (1, 2)), before.fresh)


# Exemplars


def exemplars_of(samples: Collected) -> list[tuple[str, float]]:
    return [(trace, value) for ((_, trace),), value in the_native(samples).exemplars]


def test_native_exemplars_are_ordered_by_value_and_written_again_until_replaced():
    """REG-20."""
    registry = Written(spans(NATIVE))
    first = registry.complete(took(2.0, trace=0x2), took(1.0, trace=0x1), took(4.0, trace=0x4))
    assert exemplars_of(first) == [("1", 1.0), ("2", 2.0), ("4", 4.0)]
    assert exemplars_of(registry.complete()) == exemplars_of(first)
    assert exemplars_of(registry.complete(took(3.0, trace=0x3)))[2] == ("3", 3.0)


def test_the_exemplar_that_was_written_last_isn_t_written_again_at_once():
    """REG-20, ST-2: so a single one is written once, until another comes."""
    registry = Written(spans(NATIVE))
    assert exemplars_of(registry.complete(took(2.0, trace=0x2))) == [("2", 2.0)]
    assert exemplars_of(registry.complete(took(8.0))) == []
    assert exemplars_of(registry.complete(took(1.0, trace=0x1))) == [("1", 1.0), ("2", 2.0)]


def test_an_observation_without_a_trace_erases_no_native_exemplar():
    """REG-20: it is a plain observation."""
    registry = Written(spans(NATIVE))
    samples = registry.complete(took(2.0, trace=0x2), took(2.0))
    assert (exemplars_of(samples), the_native(samples).count) == ([("2", 2.0)], 2)


def test_a_bucket_offers_the_last_exemplar_of_a_window():
    samples = Written(spans(NATIVE)).complete(took(2.0, trace=0x1), took(2.0, trace=0x2))
    assert exemplars_of(samples) == [("2", 2.0)]


def test_exemplars_that_prometheus_would_refuse_are_left_out():
    totals = NativeTotals(NativeSettings(3, 0, 0), 3, 0, exemplars=(OfferedExemplar(1, b"f" * 122, 0),))
    assert written(totals, "traceID")[0] == ()
    assert len(written(totals, "trace")[0]) == 1


def kept(*offers: tuple[float, int]) -> list[float]:
    """The values that stay of (seconds, window's end in s), offered one by one."""
    totals = NativeTotals(NativeSettings(3, 0, 0), 3, 0)
    for number, (seconds, at_s) in enumerate(offers):
        offer = NativeRow(0, 3, 1, 0, b"%x" % (number + 1), int(seconds * SECOND_NS))
        totals = with_exemplars(totals, [offer], at_s * 1000)
    return [exemplar.value_ns / SECOND_NS for exemplar in totals.exemplars]


SPREAD = [(float(2**n), 0) for n in range(MAX_EXEMPLARS)]


def test_ten_exemplars_are_kept():
    """REG-20."""
    assert kept(*SPREAD) == [seconds for seconds, _ in SPREAD]
    assert MAX_EXEMPLARS == 10


def test_an_expired_exemplar_makes_room_first():
    """REG-20: the oldest, if it is older than 5 minutes."""
    assert 4.0 not in kept(*SPREAD[:2], (4.0, -10), *SPREAD[3:], (5.0, 291))
    assert 4.0 not in kept((1.0, 0), (4.0, -10), *SPREAD[1:2], *SPREAD[3:], (600.0, 291))
    assert 4.0 in kept((1.0, 0), (4.0, -10), *SPREAD[1:2], *SPREAD[3:], (600.0, 290))


def test_one_of_the_closest_pair_makes_room():
    """REG-20: in distance of logarithms, the older one of the two."""
    crowded = [(1.0, 0), (1.5, 1), *SPREAD[2:]]
    assert kept(*crowded, (1024.0, 2)) == [1.5, *[seconds for seconds, _ in SPREAD[2:]], 1024.0]
    assert kept((1.0, 1), (1.5, 0), *SPREAD[2:], (1024.0, 2))[:2] == [1.0, 4.0]


def test_a_new_one_replaces_the_neighbour_that_it_is_closest_to():
    """REG-20: so that values don't bunch up."""
    assert kept(*SPREAD, (17.0, 1))[3:6] == [8.0, 17.0, 32.0]
    assert kept(*SPREAD, (31.0, 1))[3:6] == [8.0, 16.0, 31.0]


def test_zero_is_infinitely_far_from_all_others():
    assert kept((0.0, 0), (0.0, 0), *SPREAD[2:], (600.0, 1))[:2] == [0.0, 0.0]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2**53), st.integers(0, 700)), max_size=40))
def test_exemplars_stay_ordered_and_few(offers):
    totals = NativeTotals(NativeSettings(3, 0, 0), 3, 0)
    for value_ns, at_s in sorted(offers, key=lambda offer: offer[1]):
        totals = with_exemplars(totals, [NativeRow(0, 3, 1, 0, b"1", value_ns)], at_s * 1000)
        assert OfferedExemplar(value_ns, b"1", at_s * 1000) in totals.exemplars
    assert len(totals.exemplars) == min(len(offers), MAX_EXEMPLARS)
    assert all(a.value_ns <= b.value_ns for a, b in pairwise(totals.exemplars))


# Both sides of an edge, and several partitions


def test_an_edge_s_histograms_are_native_ones_of_each_side():
    """REG-14."""
    told = [
        Told(service="a", kind=CLIENT, id=1, latency_ns=2 * SECOND_NS),
        Told(service="b", kind=SERVER, id=2, parent=1, latency_ns=SECOND_NS),
    ]
    found = natives(Written(graphs(NATIVE)).complete(*told).values)
    assert {name: value.buckets for name, value in found.items()} == {
        CLIENT_SECONDS: ((8, 1),),
        SERVER_SECONDS: ((0, 1),),
    }


# In a shard


def native_row(n: int = 1, bucket: int = 8, seconds: float = 2.0, trace: bytes | None = None, schema: int = 3, **more):
    """A delta row of a native bucket."""
    exemplar = (None,) * 5 if trace is None else (trace, int(seconds * SECOND_NS), 1, 1, 0)
    units = int(seconds * SECOND_NS) * LATENCY_UNITS_PER_NS * n
    own = {"bucket": bucket, "layout": native_layout(schema), "total": units, "exemplar": exemplar}
    return delta_row("a", MetricId.LATENCY, n * WEIGHT_ONE, **own, **more)


def completed(settings: Settings, *batches: Batch) -> list[WindowSamples]:
    shard = Shard(0, lambda _: settings, INTERVAL_MS)
    return [window for offset, each in enumerate(batches) for window in shard.feed(offset, each).windows]


@pytest.mark.parametrize("order", [1, -1])
def test_partitions_with_other_classic_layouts_share_their_native_buckets(order):
    """REG-19: numbers of layouts differ from batch to batch, native schemas are no such numbers."""
    one = [classic_row("a", 0, 1, seconds=0.05), native_row(1, -34, 0.05)]
    two = [classic_row("b", 0, 2), classic_row("a", 1, 1, layout=1, seconds=0.5), native_row(2, -8, 0.25)]
    batches = [
        batch(delta_window(INTERVAL_MS, None, one, layouts=((0.1, 1.0),)), 0, 2),
        batch(delta_window(INTERVAL_MS, None, two, layouts=((0.01,), (0.1, 1.0))), 1, 2),
    ][::order]
    [window] = completed(Settings(histograms=BOTH), *batches)
    of_a = [s for s in window.tenants[0].values if dict(s.series.labels).get("service") == "a"]
    assert floats(of_a)[f"{LATENCY}_bucket{{1}}"] == 2.0
    assert natives(of_a)[LATENCY] == NativeHistogram(3, 3, 0.55, 0, ((-34, 1), (-8, 2)))


def test_a_native_histogram_counts_as_one_series_of_the_limit():
    """REG-21, LIM-2."""
    rows = [native_row(), native_row(labels=(("service", "b"),))]
    limit = LimitSettings(max_active_series=1)
    [window] = completed(
        Settings(histograms=NATIVE, limits=limit), batch(delta_window(INTERVAL_MS, None, rows, layouts=()), 0, 1)
    )
    labels = [dict(s.series.labels) for s in window.tenants[0].values if isinstance(s.value, NativeHistogram)]
    assert [each.get("service", each.get("metric_overflow")) for each in labels] == ["a", "true"]


ROWS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(-40, 40), st.sampled_from([b"1", b"2", None])),
    max_size=4,
    unique_by=lambda of: of[1],
)


@settings(deadline=None, max_examples=40)
@given(st.lists(ROWS, min_size=2, max_size=8), st.integers(0, 7), st.sampled_from([NATIVE, BOTH]))
def test_a_snapshot_at_any_window_changes_no_sample(told, cut_after, mode):
    """REG-16, REG-20: resolution, the last reset and all that exemplars depend on are part of it."""
    histograms = replace(mode, native_max_buckets=4, native_min_reset_ms=3 * INTERVAL_MS)
    tenant_of = Settings(histograms=histograms)
    shard = Shard(0, lambda _: tenant_of, INTERVAL_MS)
    restored: Shard | None = None
    for number, rows in enumerate(told):
        frame = [native_row(n, bucket, 2.0 ** (bucket / 8), trace) for n, bucket, trace in rows]
        if mode is BOTH:
            frame += [classic_row("a", 0, n, at=n) for n in {sum(n for n, *_ in rows)} if n]
        end_ms = (number + 1) * INTERVAL_MS
        each = batch(delta_window(end_ms, end_ms - INTERVAL_MS if number else None, frame), 0, 1)
        samples = shard.feed(number, each).windows
        if restored is not None:
            assert restored.feed(number, each).windows == samples
        if number == cut_after:
            cut = shard.snapshot()
            assert cut is not None
            found = newest_snapshot(dict(snapshot_records(cut, b"\1")), 0)
            assert found is not None
            restored = Shard.restore(found.cut, lambda _: tenant_of, INTERVAL_MS)
