from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import LimitSettings
from schemas.deltas import LedgerKey
from schemas.metrics import MetricId
from streams.merged_window import merge_batches
from streams.registry import Registry
from streams.shard import WindowSamples
from tests.streams.delta_rows import BOUNDS, INTERVAL, Settings, batch, calls, info, latency, row, text, window

T1, T2, T3, T4, T5, T6 = (INTERVAL * n for n in range(1, 7))


class Written:
    """A registry, and the samples of the windows that it was given, as text."""

    def __init__(self, shard=0, **settings) -> None:
        self.settings = Settings(**settings)
        self.shard = shard
        self.registry = Registry(shard, lambda tenant: self.settings, INTERVAL)

    def complete(self, end_ms, *rows, ledger_lines=False, **more) -> list[str]:
        batches = [batch(window(end_ms, end_ms - INTERVAL, rows, **more))]
        return self.merged(end_ms, batches, ledger_lines)

    def merged(self, end_ms, batches, ledger_lines=False) -> list[str]:
        tenants = self.registry.complete(merge_batches(end_ms, batches))
        self.tenants = {samples.tenant: samples for samples in tenants}
        samples = WindowSamples(self.shard, end_ms - INTERVAL, end_ms, tenants, 0)
        return text([samples], ledger=ledger_lines)

    def own(self, name) -> int:
        """A counter of the registry itself."""
        labels = (("shard", str(self.shard)), ("tenant", "acme"))
        return self.registry.ledger()[LedgerKey(f"tempo_metrics_generator_registry_series_{name}_total", labels)]


def test_a_new_counter_gets_a_zero_at_the_window_s_start():
    written = Written()
    assert written.complete(T2, calls("a", 2.5)) == [
        "spanmetrics_calls_total{service=a} 0@15",
        "spanmetrics_calls_total{service=a} 2.5@30",
    ]
    assert written.complete(T3, calls("a", 1)) == ["spanmetrics_calls_total{service=a} 3.5@45"]


def test_every_live_series_is_written_in_every_window():
    written = Written()
    written.complete(T1, calls("a"), info("a"), latency("a", 0))
    again = written.complete(T2)
    assert len(again) == 7
    assert {line.split("@")[1] for line in again} == {"30"}


def test_a_histogram_is_sum_count_and_cumulative_buckets_and_its_sum_has_no_zero():
    written = Written()
    lines = written.complete(T1, latency("a", 0, 1.5, seconds=0.25), latency("a", 2, 5, seconds=10))
    assert lines == [
        "spanmetrics_latency_count{service=a} 0@0",
        "spanmetrics_latency_bucket{le=0.1,service=a} 0@0",
        "spanmetrics_latency_bucket{le=1,service=a} 0@0",
        "spanmetrics_latency_bucket{le=+Inf,service=a} 0@0",
        "spanmetrics_latency_sum{service=a} 10.25@15",
        "spanmetrics_latency_count{service=a} 6.5@15",
        "spanmetrics_latency_bucket{le=0.1,service=a} 1.5@15",
        "spanmetrics_latency_bucket{le=1,service=a} 1.5@15",
        "spanmetrics_latency_bucket{le=+Inf,service=a} 6.5@15",
    ]


def test_bounds_are_written_shortest_and_without_exponent():
    layout = (1e-06, 0.002, 1.0, 16.384, 2e16)
    lines = Written().complete(T1, latency("a", 0), layouts=(layout,))
    bounds = [line.partition("le=")[2].partition(",")[0] for line in lines if "le=" in line and "@15" in line]
    assert bounds == ["0.000001", "0.002", "1", "16.384", "20000000000000000", "+Inf"]


def test_a_gauge_has_no_zero_and_keeps_its_last_value():
    written = Written()
    assert written.complete(T1, info("a", 3)) == ["service_graph_connection_info{service=a} 3@15"]
    assert written.complete(T2, info("a", 1)) == ["service_graph_connection_info{service=a} 1@30"]
    assert written.complete(T3) == ["service_graph_connection_info{service=a} 1@45"]


def test_samples_are_in_canonical_order():
    written = Written()
    rows = [calls("b"), info("a"), calls("a"), calls("a", tenant="Zeta"), row("a", MetricId.SIZE, 7)]
    values = [line for line in written.complete(T1, *rows) if "@15" in line]
    assert values == [
        "spanmetrics_calls_total{service=a} 1@15",
        "spanmetrics_calls_total{service=a} 1@15",
        "spanmetrics_size_total{service=a} 7@15",
        "service_graph_connection_info{service=a} 1@15",
        "spanmetrics_calls_total{service=b} 1@15",
    ]
    assert list(written.tenants) == ["Zeta", "acme"]


def test_an_exemplar_is_written_once_with_the_window_s_time():
    written = Written()
    first = written.complete(T1, latency("a", 1, seconds=0.5, trace=b"1ab"))
    assert [line for line in first if "#" in line] == [
        "spanmetrics_latency_bucket{le=1,service=a} 1@15 # traceID=1ab 0.5@15"
    ]
    assert not any("#" in line for line in written.complete(T2))
    assert not any("#" in line for line in written.complete(T3, latency("a", 1)))


def test_an_observation_without_a_trace_erases_the_exemplar_that_waits():
    written = Written(collection_interval_ms=2 * INTERVAL)
    written.complete(T1, latency("a", 0, trace=b"1"), latency("a", 1, trace=b"2"))
    lines = written.complete(T2, latency("a", 0, trace=b""), latency("a", 1))
    assert [line.partition("#")[2] for line in lines if "#" in line] == [" traceID=2 0@30"]


def test_the_exemplar_s_label_is_the_tenant_s():
    lines = Written(trace_id_label_name="trace_id").complete(T1, latency("a", 0, trace=b"f"))
    assert sum("# trace_id=f 0@15" in line for line in lines) == 1


def test_an_exemplar_that_prometheus_would_refuse_is_left_out():
    written = Written(trace_id_label_name="t" * 97)
    lines = written.complete(T1, latency("a", 0, trace=b"f" * 32), latency("a", 1, trace=b"f" * 31))
    assert [line.partition("{")[2].partition(",")[0] for line in lines if "#" in line] == ["le=1"]


def test_the_exemplar_of_several_partitions_is_the_latest():
    parts = [
        batch(window(T1, None, [latency("a", 0, trace=trace, at=at)]), partition, 3)
        for partition, (trace, at) in enumerate([(b"1", 5), (b"2", 7), (b"3", 6)])
    ]
    lines = Written().merged(T1, parts)
    assert sum("traceID=2" in line for line in lines) == 1


def test_a_series_is_dropped_in_the_first_window_more_than_the_stale_duration_after_its_update():
    written = Written(stale_duration_ms=2 * INTERVAL)
    written.complete(T1, calls("a"), calls("b"))
    assert len(written.complete(T2, calls("b"))) == 2
    assert len(written.complete(T3)) == 2
    assert written.complete(T4) == ["spanmetrics_calls_total{service=b} 2@60"]
    assert written.complete(T5) == []


def test_a_series_that_comes_back_begins_at_zero():
    written = Written(stale_duration_ms=INTERVAL)
    written.complete(T1, calls("a", 5))
    assert written.complete(T3) == []
    assert written.complete(T4, calls("a", 2)) == [
        "spanmetrics_calls_total{service=a} 0@45",
        "spanmetrics_calls_total{service=a} 2@60",
    ]


def test_a_series_that_is_stale_when_it_is_updated_goes_on():
    written = Written(stale_duration_ms=INTERVAL)
    written.complete(T1, calls("a", 5))
    assert written.complete(T5, calls("a", 2)) == ["spanmetrics_calls_total{service=a} 7@75"]


def test_the_limit_admits_in_canonical_order_and_the_rest_goes_into_one_series_of_the_shard():
    written = Written(shard=5, limits=LimitSettings(max_active_series=2))
    lines = written.complete(T1, calls("c", 4), calls("b", 3), calls("a", 1), calls("d", 8))
    assert sorted(line for line in lines if "@15" in line) == [
        "spanmetrics_calls_total{metric_overflow=true,shard=5} 12@15",
        "spanmetrics_calls_total{service=a} 1@15",
        "spanmetrics_calls_total{service=b} 3@15",
    ]
    assert "spanmetrics_calls_total{metric_overflow=true,shard=5} 0@0" in lines
    assert written.tenants["acme"].active_series == 2
    assert (written.own("added"), written.own("limited")) == (2, 2)


def test_the_limit_never_stops_updates_of_what_exists():
    written = Written(limits=LimitSettings(max_active_series=1))
    written.complete(T1, calls("b"))
    assert "spanmetrics_calls_total{service=b} 2@30" in written.complete(T2, calls("a"), calls("b"))


def test_a_histogram_counts_for_all_its_series_and_whole():
    written = Written(limits=LimitSettings(max_active_series=5))
    lines = written.complete(T1, latency("a", 0, 3), calls("a"))
    assert "spanmetrics_latency_bucket{le=+Inf,metric_overflow=true,shard=0} 3@15" in lines
    assert written.tenants["acme"].active_series == 1
    assert (
        Written(limits=LimitSettings(max_active_series=6))
        .complete(T1, latency("a", 0), calls("a"))[0]
        .startswith("spanmetrics_calls_total{service=a}")
    )


def test_overflow_of_a_histogram_adds_up_and_of_a_gauge_keeps_the_last():
    written = Written(limits=LimitSettings(max_active_series=1))
    written.complete(T1, calls("0"))
    lines = written.complete(
        T2, latency("a", 0, 2, seconds=1), latency("b", 1, 3, seconds=2), info("a", 7), info("b", 4)
    )
    assert "spanmetrics_latency_sum{metric_overflow=true,shard=0} 3@30" in lines
    assert "spanmetrics_latency_bucket{le=1,metric_overflow=true,shard=0} 5@30" in lines
    assert "service_graph_connection_info{metric_overflow=true,shard=0} 4@30" in lines


def test_a_dropped_series_makes_room_from_the_next_window_on():
    written = Written(limits=LimitSettings(max_active_series=1), stale_duration_ms=INTERVAL)
    written.complete(T1, calls("a"))
    assert written.complete(T3, calls("b"))[-1].startswith("spanmetrics_calls_total{metric_overflow=true")
    assert written.own("removed") == 1
    assert "spanmetrics_calls_total{service=b} 1@60" in written.complete(T4, calls("b"))


def test_overflow_goes_stale_like_any_series_and_gives_nothing_back():
    written = Written(limits=LimitSettings(max_active_series=1), stale_duration_ms=INTERVAL)
    written.complete(T1, calls("a"), calls("b"))
    written.complete(T2, calls("a"))
    assert written.complete(T3, calls("a")) == ["spanmetrics_calls_total{service=a} 3@45"]
    assert (written.tenants["acme"].active_series, written.own("removed")) == (1, 0)


def test_tenants_have_limits_of_their_own():
    written = Written(limits=LimitSettings(max_active_series=1))
    lines = written.complete(T1, calls("a"), calls("a", tenant="other"))
    assert not any("overflow" in line for line in lines)


def test_external_labels_are_on_every_series_and_replace_own_ones():
    written = Written(
        external_labels=(("cluster", "c1"), ("service", "x"), ("zone", "")), limits=LimitSettings(max_active_series=1)
    )
    lines = written.complete(T1, calls("a", labels=(("service", "a"), ("zone", "z"))), calls("b"))
    assert [line for line in lines if "@15" in line] == [
        "spanmetrics_calls_total{cluster=c1,service=x} 1@15",
        "spanmetrics_calls_total{cluster=c1,metric_overflow=true,service=x,shard=0} 1@15",
    ]


def test_an_external_shard_label_doesn_t_make_shards_share_their_overflow():
    written = Written(shard=2, external_labels=(("shard", "mine"),), limits=LimitSettings(max_active_series=1))
    lines = written.complete(T1, calls("a"), calls("b"))
    assert [line for line in lines if "@15" in line] == [
        "spanmetrics_calls_total{service=a,shard=mine} 1@15",
        "spanmetrics_calls_total{metric_overflow=true,shard=2} 1@15",
    ]


def test_a_tenant_s_longer_interval_thins_its_samples():
    written = Written(collection_interval_ms=INTERVAL + 1)
    assert written.complete(T1, latency("a", 0, 1, trace=b"1")) == []
    lines = written.complete(T2, latency("a", 0, 1))
    assert lines[0] == "spanmetrics_latency_count{service=a} 0@0"
    assert "spanmetrics_latency_bucket{le=0.1,service=a} 2@30 # traceID=1 0@30" in lines
    assert written.complete(T3, latency("a", 0, 1)) == []
    assert "spanmetrics_latency_count{service=a} 4@75" in written.complete(T5, latency("a", 0, 1))


def test_other_buckets_begin_anew_at_the_higher_revision():
    written = Written()
    written.complete(T1, latency("a", 0, 3, seconds=3))
    lines = written.complete(T2, latency("a", 1, 2, seconds=1), layouts=((5.0,),), revision=1)
    assert lines == [
        "spanmetrics_latency_count{service=a} 0@15",
        "spanmetrics_latency_bucket{le=5,service=a} 0@15",
        "spanmetrics_latency_bucket{le=+Inf,service=a} 0@15",
        "spanmetrics_latency_sum{service=a} 1@30",
        "spanmetrics_latency_count{service=a} 2@30",
        "spanmetrics_latency_bucket{le=5,service=a} 0@30",
        "spanmetrics_latency_bucket{le=+Inf,service=a} 2@30",
    ]
    assert written.tenants["acme"].active_series == 4


def test_rows_of_the_lower_revision_s_buckets_are_counted_in_the_last_one():
    written = Written()
    written.complete(T1, latency("a", 0, 1, seconds=1), layouts=((5.0,),), revision=1)
    lines = written.complete(T2, latency("a", 0, 2, seconds=1, trace=b"1"), layouts=(BOUNDS,), revision=0)
    assert lines == [
        "spanmetrics_latency_sum{service=a} 2@30",
        "spanmetrics_latency_count{service=a} 3@30",
        "spanmetrics_latency_bucket{le=5,service=a} 1@30",
        "spanmetrics_latency_bucket{le=+Inf,service=a} 3@30",
    ]
    assert written.tenants["acme"].misfits == 1


def test_two_revisions_in_one_window_give_the_newer_one_s_buckets_whatever_the_order():
    old = batch(window(T1, None, [latency("a", 0, 1)], layouts=((9.0,),), revision=3), 0, 2)
    new = batch(window(T1, None, [latency("a", 0, 1)], layouts=((5.0,),), revision=4), 1, 2)
    for batches in ([old, new], [new, old]):
        assert Written().merged(T1, batches)[-2:] == [
            "spanmetrics_latency_bucket{le=5,service=a} 1@15",
            "spanmetrics_latency_bucket{le=+Inf,service=a} 2@15",
        ]


def test_the_ledger_is_written_as_counters_that_count_for_no_limit_and_never_go_stale():
    key = LedgerKey("tempo_metrics_generator_spans_discarded_total", (("reason", "slack"), ("tenant", "acme")))
    written = Written(
        limits=LimitSettings(max_active_series=1), stale_duration_ms=INTERVAL, external_labels=(("cluster", "c"),)
    )
    lines = written.complete(T1, ledger={key: 3}, ledger_lines=True)
    series = "spanmill_ledger_spans_discarded_total{cluster=c,reason=slack,tenant=acme}"
    assert f"{series} 0@0" in lines
    assert f"{series} 3@15" in lines
    assert f"{series} 3@90" in written.complete(T6, ledger_lines=True)


def test_the_registry_counts_its_own_series_in_the_ledger_from_a_tenant_s_beginning():
    written = Written(shard=4, stale_duration_ms=INTERVAL)
    lines = written.complete(T1, latency("a", 0), ledger_lines=True)
    assert "spanmill_ledger_registry_series_removed_total{shard=4,tenant=acme} 0@15" in lines
    assert "spanmill_ledger_registry_series_added_total{shard=4,tenant=acme} 5@15" in lines
    assert "spanmill_ledger_registry_series_removed_total{shard=4,tenant=acme} 5@60" in written.complete(
        T4, ledger_lines=True
    )


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 1 << 90), min_size=1, max_size=5))
def test_values_are_the_nearest_float64_to_the_exact_totals(counts):
    written = Written()
    for n, count in enumerate(counts, 1):
        rows = [row("a", value=count), row("a", MetricId.LATENCY, count, bucket=0, layout=0, total=count)]
        written.complete(n * INTERVAL, *rows)
    values = [sample.value for sample in written.tenants["acme"].values]
    total = Fraction(sum(counts))
    assert values[0] == values[2] == values[3] == float(total / (1 << 32))
    assert values[1] == float(total / ((1 << 16) * 10**9))


def test_unchanged_series_are_written_as_the_same_objects():
    written = Written()
    written.complete(T1, calls("a"), calls("b"))
    written.complete(T2, calls("b"))
    first = written.tenants["acme"].values
    written.complete(T3, calls("b"))
    second = written.tenants["acme"].values
    assert first[0] is second[0]
    assert first[1].series is second[1].series
