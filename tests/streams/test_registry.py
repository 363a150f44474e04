import struct
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import HistogramSettings, LimitSettings
from schemas.deltas import LedgerKey
from schemas.ledger_balance import REGISTRY_ROWS, Fate, balances
from schemas.metrics import MetricId
from schemas.snapshot import Cut, newest_snapshot, snapshot_records
from streams.merged_window import merge_batches
from streams.registry import Registry
from streams.shard import WindowSamples
from tests.streams.delta_rows import BOUNDS, INTERVAL, Settings, batch, calls, info, latency, row, text, window

T1, T2, T3, T4, T5, T6 = (INTERVAL * n for n in range(1, 7))


class Written:
    """A registry, and the samples of the windows that it was given, as text."""

    def __init__(self, shard=0, *, stale_markers=False, **settings) -> None:
        self.settings = Settings(**settings)
        self.shard, self.stale_markers = shard, stale_markers
        self.registry = Registry(shard, lambda tenant: self.settings, INTERVAL, stale_markers=stale_markers)

    def complete(self, end_ms, *rows, ledger_lines=False, **more) -> list[str]:
        batches = [batch(window(end_ms, end_ms - INTERVAL, rows, **more))]
        return self.merged(end_ms, batches, ledger_lines)

    def merged(self, end_ms, batches, ledger_lines=False) -> list[str]:
        tenants = self.registry.complete(merge_batches(end_ms, batches))
        self.tenants = {samples.tenant: samples for samples in tenants}
        samples = WindowSamples(self.shard, end_ms - INTERVAL, end_ms, tenants, 0)
        return text([samples], ledger=ledger_lines)

    def own(self, name, **labels) -> int:
        """A counter of the registry itself."""
        name = f"series_{name}" if name in {"added", "removed", "limited"} else name
        labels |= {"shard": str(self.shard), "tenant": "acme"}
        key = LedgerKey(f"tempo_metrics_generator_registry_{name}_total", tuple(sorted(labels.items())))
        return self.registry.ledger().get(key, 0)

    def gauge(self, name, tenant="acme", **labels) -> float | None:
        """A gauge of the registry after the last window."""
        key = (f"tempo_metrics_generator_registry_{name}", tuple(labels.items()))
        return self.tenants[tenant].gauges.get(key)

    def change(self, **settings) -> None:
        """Other settings from the next window on."""
        self.settings = replace(self.settings, **settings)

    def restarted(self) -> "Written":
        """Another one that goes on from a snapshot."""
        cut = Cut(
            shard=self.shard,
            end_ms=self.registry.end_ms,
            next_offset=0,
            partitions=1,
            applied={},
            waived={},
            adopted_after=None,
            series=self.registry.totals(),
            ledger=self.registry.ledger_totals(),
            limiters=self.registry.limiter_states(),
            written=self.registry.written(),
        )
        found = newest_snapshot(dict(snapshot_records(cut, b"w")), self.shard)
        other = Written(self.shard, stale_markers=self.stale_markers)
        other.settings = self.settings
        cut = found.cut
        other.registry.restore(cut.end_ms, cut.series, cut.ledger, cut.limiters, cut.written)
        return other


def test_a_new_counter_gets_a_zero_at_the_window_s_start():
    """REG-6 and REG-7: better than a minute earlier, it stands where the window begins."""
    written = Written()
    assert written.complete(T2, calls("a", 2.5)) == [
        "spanmetrics_calls_total{service=a} 0@15",
        "spanmetrics_calls_total{service=a} 2.5@30",
    ]
    assert written.complete(T3, calls("a", 1)) == ["spanmetrics_calls_total{service=a} 3.5@45"]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_zero_never_stands_before_its_tenant_s_last_samples(restarts):
    """With an interval that has grown, a series that comes back would have its zero where it has had a sample."""
    written = Written(stale_duration_ms=INTERVAL)
    written.complete(T1, calls("a", 3), calls("b"))
    assert "spanmetrics_calls_total{service=a} 3@30" in written.complete(T2, calls("b"))
    assert "service=a" not in "".join(written.complete(T3, calls("b"))), "stale"
    written.change(collection_interval_ms=2 * INTERVAL)
    if restarts:
        written = written.restarted()

    lines = written.complete(T4, calls("a"), calls("b"))

    assert [line for line in lines if "service=a" in line] == [
        "spanmetrics_calls_total{service=a} 0@45",
        "spanmetrics_calls_total{service=a} 1@60",
    ]


def test_every_live_series_is_written_in_every_window():
    """REG-1 and REG-3: at the end of each window, changed or not."""
    written = Written()
    written.complete(T1, calls("a"), info("a"), latency("a", 0))
    again = written.complete(T2)
    assert len(again) == 7
    assert {line.split("@")[1] for line in again} == {"30"}


def test_a_histogram_is_sum_count_and_cumulative_buckets_and_its_sum_has_no_zero():
    """REG-9 and REG-11: fractional weights are exact."""
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
    """REG-10."""
    layout = (1e-06, 0.002, 1.0, 16.384, 2e16)
    lines = Written().complete(T1, latency("a", 0), layouts=(layout,))
    bounds = [line.partition("le=")[2].partition(",")[0] for line in lines if "le=" in line and "@15" in line]
    assert bounds == ["0.000001", "0.002", "1", "16.384", "20000000000000000", "+Inf"]


def test_a_gauge_has_no_zero_and_keeps_its_last_value():
    """REG-8."""
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
    """REG-12."""
    written = Written()
    first = written.complete(T1, latency("a", 1, seconds=0.5, trace=b"1ab"))
    assert [line for line in first if "#" in line] == [
        "spanmetrics_latency_bucket{le=1,service=a} 1@15 # traceID=1ab 0.5@15"
    ]
    assert not any("#" in line for line in written.complete(T2))
    assert not any("#" in line for line in written.complete(T3, latency("a", 1)))


def test_an_observation_without_a_trace_erases_the_exemplar_that_waits():
    """REG-12."""
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
    """REG-23, G155: exactly the stale duration old, it is kept; no look every five minutes delays it."""
    written = Written(stale_duration_ms=2 * INTERVAL)
    written.complete(T1, calls("a"), calls("b"))
    assert len(written.complete(T2, calls("b"))) == 2
    assert len(written.complete(T3)) == 2
    assert written.complete(T4) == ["spanmetrics_calls_total{service=b} 2@60"]
    assert written.complete(T5) == []


def test_a_series_that_comes_back_begins_at_zero():
    """REG-25."""
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
    """LIM-2 and LIM-7, G151: counted once per window and label set."""
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
    """LIM-1, G151."""
    written = Written(limits=LimitSettings(max_active_series=1))
    written.complete(T1, calls("b"))
    assert "spanmetrics_calls_total{service=b} 2@30" in written.complete(T2, calls("a"), calls("b"))


def test_a_histogram_counts_for_all_its_series_and_whole():
    """REG-13 and LIM-2."""
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
    """LIM-7."""
    written = Written(limits=LimitSettings(max_active_series=1))
    written.complete(T1, calls("0"))
    lines = written.complete(
        T2, latency("a", 0, 2, seconds=1), latency("b", 1, 3, seconds=2), info("a", 7), info("b", 4)
    )
    assert "spanmetrics_latency_sum{metric_overflow=true,shard=0} 3@30" in lines
    assert "spanmetrics_latency_bucket{le=1,metric_overflow=true,shard=0} 5@30" in lines
    assert "service_graph_connection_info{metric_overflow=true,shard=0} 4@30" in lines


def test_a_dropped_series_makes_room_from_the_next_window_on():
    """REG-26."""
    written = Written(limits=LimitSettings(max_active_series=1), stale_duration_ms=INTERVAL)
    written.complete(T1, calls("a"))
    assert written.complete(T3, calls("b"))[-1].startswith("spanmetrics_calls_total{metric_overflow=true")
    assert written.own("removed") == 1
    assert "spanmetrics_calls_total{service=b} 1@60" in written.complete(T4, calls("b"))


def test_overflow_goes_stale_like_any_series_and_gives_nothing_back():
    """LIM-3 and LIM-7, G187."""
    written = Written(limits=LimitSettings(max_active_series=1), stale_duration_ms=INTERVAL)
    written.complete(T1, calls("a"), calls("b"))
    written.complete(T2, calls("a"))
    assert written.complete(T3, calls("a")) == ["spanmetrics_calls_total{service=a} 3@45"]
    assert (written.tenants["acme"].active_series, written.own("removed")) == (1, 0)
    written.complete(T5)
    assert (written.tenants["acme"].active_series, written.own("removed")) == (0, 1)


def test_tenants_have_limits_of_their_own():
    """LIM-1."""
    written = Written(limits=LimitSettings(max_active_series=1))
    lines = written.complete(T1, calls("a"), calls("a", tenant="other"))
    assert not any("overflow" in line for line in lines)


def test_external_labels_are_on_every_series_and_replace_own_ones():
    """REG-27, G153."""
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
    """G175: Tempo drops all series of a metric that changes, here they begin anew where they are."""
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


def labelled(metric=MetricId.CALLS, n=1, **labels):
    """A row of a label set."""
    value = n if metric in {MetricId.CONNECTION_INFO, MetricId.TARGET_INFO, MetricId.SIZE} else n << 32
    return row(labels.get("service", ""), metric, value, labels=tuple(sorted(labels.items())))


def values(lines) -> list[str]:
    """Those that are no zeros, without their names."""
    return [line.partition("{")[2] for line in lines if "} 0@" not in line]


def test_reg_27_no_label_names_an_instance():
    """REG-27 and REG-28: better, a rollout makes no new series; an external label of that name is as good as any."""
    assert Written().complete(T1, calls("a"))[-1] == "spanmetrics_calls_total{service=a} 1@15"
    external = (("__metrics_gen_instance", "mine"),)
    lines = Written(external_labels=external).complete(T1, calls("a"))
    assert lines[-1] == "spanmetrics_calls_total{__metrics_gen_instance=mine,service=a} 1@15"


def test_g169_the_tenant_as_a_label():
    """REG-27, G169."""
    lines = Written(external_labels=(("__tempo_tenant", "test"),)).complete(T1, calls("a"))
    assert lines[-1] == "spanmetrics_calls_total{__tempo_tenant=test,service=a} 1@15"


def test_series_go_on_under_external_labels_that_change_and_a_restart_makes_no_difference():
    written = Written(external_labels=(("cluster", "c1"),))
    written.complete(T1, calls("a", 5), ledger_lines=True)
    restarted = written.restarted()
    for each in (written, restarted):
        each.change(external_labels=(("cluster", "c2"),), host_info_metric_name="hosts")
    lines = written.complete(T2)
    assert lines == restarted.complete(T2) == ["spanmetrics_calls_total{cluster=c2,service=a} 5@30"]
    ledger = written.complete(T3, ledger_lines=True)
    assert ledger == restarted.complete(T3, ledger_lines=True)
    assert "spanmill_ledger_registry_series_added_total{cluster=c2,shard=0,tenant=acme} 1@45" in ledger


def test_a_tenant_that_does_not_collect_goes_on_adding_up():
    """REG-2: nothing is written, nothing is lost, and demand is shown."""
    written = Written(collects=False)
    assert written.complete(T1, calls("a", 2), ledger_lines=True) == []
    assert written.complete(T2, latency("a", 0, 1, trace=b"1")) == []
    assert written.tenants["acme"].is_empty
    assert written.own("collections") == 0
    assert (written.gauge("active_series"), written.gauge("active_series_demand_estimate")) == (6, 6)
    written.change(collects=True)
    lines = written.complete(T3, calls("a", 1))
    assert lines[0] == "spanmetrics_calls_total{service=a} 0@30"
    assert "spanmetrics_calls_total{service=a} 3@45" in lines
    assert "spanmetrics_latency_bucket{le=0.1,service=a} 1@45 # traceID=1 0@45" in lines
    assert written.own("collections") == 1


def test_collections_are_counted_when_a_tenant_is_written():
    """REG-1 and REG-2."""
    written = Written(collection_interval_ms=2 * INTERVAL)
    lines = written.complete(T2, calls("a"), ledger_lines=True)
    assert "spanmill_ledger_registry_collections_total{shard=0,tenant=acme} 1@30" in lines
    written.complete(T3)
    assert written.own("collections") == 1
    written.complete(T4)
    assert written.own("collections") == 2


def test_a_thinned_series_zero_stands_one_of_the_tenant_s_intervals_before():
    """REG-1 and REG-6: also of a series that began long before it is written."""
    written = Written(collection_interval_ms=4 * INTERVAL)
    for end_ms in (T1, T2, T3):
        assert written.complete(end_ms, calls("a")) == []
    assert written.complete(T4) == [
        "spanmetrics_calls_total{service=a} 0@0",
        "spanmetrics_calls_total{service=a} 3@60",
    ]


def test_no_stale_marker_is_written_unless_asked_for():
    """REG-24."""
    written = Written(stale_duration_ms=INTERVAL)
    written.complete(T1, calls("a"))
    written.complete(T3)
    assert written.tenants["acme"].stale == []


def bits(sample) -> int:
    return struct.unpack("<Q", struct.pack("<d", sample.value))[0]


def test_stale_markers_end_each_series_that_was_written():
    """REG-24, Q14: better, if asked for."""
    written = Written(stale_markers=True, stale_duration_ms=INTERVAL)
    written.complete(T1, calls("b"), latency("a", 0), calls("c"))
    assert written.tenants["acme"].stale == []
    restarted = written.restarted()
    for each in (written, restarted):
        assert len(each.complete(T3, calls("c"))) == 1
        (ended,) = (tenant.stale for tenant in each.tenants.values())
        names = [(dict(s.series.labels)["__name__"].split("_", 2)[2], s.series.labels[-1][1]) for s in ended]
        buckets = [("latency_bucket", "a")] * 3
        assert names == [("latency_sum", "a"), ("latency_count", "a"), *buckets, ("calls_total", "b")]
        assert {bits(sample) for sample in ended} == {0x7FF0000000000002}
        assert each.complete(T4, calls("c")) == ["spanmetrics_calls_total{service=c} 3@60"]
        assert each.tenants["acme"].stale == []


def test_stale_markers_end_buckets_that_are_no_more_and_nothing_that_was_never_written():
    written = Written(stale_markers=True, stale_duration_ms=INTERVAL)
    written.complete(T1, latency("a", 0))
    written.complete(T2, latency("a", 0), layouts=((1.0, 5.0),), revision=1)
    assert [dict(s.series.labels).get("le") for s in written.tenants["acme"].stale] == ["0.1"]
    unwritten = Written(stale_markers=True, stale_duration_ms=INTERVAL, collection_interval_ms=10 * INTERVAL)
    unwritten.complete(T1, latency("a", 0))
    unwritten.complete(T2, latency("a", 0), layouts=((1.0, 5.0),), revision=1)
    assert unwritten.tenants["acme"].stale == []


def test_a_thinned_tenant_s_series_that_comes_back_at_once_has_its_zero_after_its_last_sample():
    """Else the zero is refused, and a fall that isn't there hides what was counted since."""
    written = Written(stale_duration_ms=INTERVAL, collection_interval_ms=2 * INTERVAL)
    written.complete(T1, calls("a"))
    assert written.complete(T2) == ["spanmetrics_calls_total{service=a} 0@0", "spanmetrics_calls_total{service=a} 1@30"]
    assert written.complete(T3) == []
    assert written.complete(T4) == []
    assert written.complete(T5, calls("a")) == []
    assert written.complete(6 * INTERVAL) == [
        "spanmetrics_calls_total{service=a} 0@60",
        "spanmetrics_calls_total{service=a} 1@90",
    ]


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("interval", [2, 10], ids=["longer silence", "shorter stale duration"])
def test_a_thinned_tenant_s_series_is_not_dropped_before_its_last_value_is_written(interval, restarts):
    """The window in which that was due may be one that nobody sent."""
    written = Written(stale_duration_ms=2 * INTERVAL, collection_interval_ms=interval * INTERVAL)
    due = 10 * INTERVAL
    assert written.complete(due, calls("a", 3))
    written.complete(due + INTERVAL, calls("a", 2), calls("b", 1))
    if restarts:
        written = written.restarted()
    assert values(written.complete(due * 2)) == ["service=a} 5@300", "service=b} 1@300"]
    assert written.own("removed") == 0
    assert written.complete(due * 3) == []
    assert written.own("removed") == 2


def test_a_thinned_tenant_s_series_is_ended_in_the_window_that_drops_it():
    written = Written(stale_markers=True, stale_duration_ms=INTERVAL, collection_interval_ms=2 * INTERVAL)
    written.complete(T2, calls("a"))
    written.complete(T4)
    assert len(written.tenants["acme"].stale) == 1
    written.complete(T5)
    assert written.tenants["acme"].is_empty


def test_g171_entities_are_label_sets_whatever_the_metric():
    """LIM-4, G171: what is known is accepted though the limit is lower by now."""
    written = Written(limits=LimitSettings(by_entity=True, max_active_entities=2))
    written.complete(T1, labelled(service="a"), labelled(service="b"))
    written.change(limits=LimitSettings(by_entity=True, max_active_entities=1))
    written.complete(T2, labelled(MetricId.SIZE, service="a"), labelled(MetricId.SIZE, service="b"))
    assert (written.gauge("active_series"), written.gauge("active_entities")) == (4, 2)
    assert (written.own("entities_added"), written.own("entities_limited")) == (2, 0)


def test_a_new_entity_above_the_limit_overflows_with_all_of_its_metrics():
    """LIM-4: counted once per window and label set."""
    limits = LimitSettings(by_entity=True, max_active_entities=1, max_active_series=1)
    written = Written(limits=limits)
    rows = [labelled(metric, service=name) for name in ("b", "a") for metric in (MetricId.CALLS, MetricId.SIZE)]
    lines = written.complete(T1, *rows, latency("c", 0, 3))
    assert "spanmetrics_calls_total{service=a} 1@15" in lines
    assert "spanmetrics_size_total{metric_overflow=true,shard=0} 1@15" in lines
    assert "spanmetrics_latency_count{metric_overflow=true,shard=0} 3@15" in lines
    assert (written.own("entities_added"), written.own("entities_limited"), written.own("limited")) == (1, 2, 0)
    written.complete(T2, *rows)
    assert written.own("entities_limited") == 3


def test_an_entity_is_gone_with_its_last_metric_and_each_is_counted_as_removed():
    """LIM-5, Q13."""
    limits = LimitSettings(by_entity=True, max_active_entities=1)
    written = Written(limits=limits, stale_duration_ms=INTERVAL)
    written.complete(T1, labelled(service="a"), labelled(MetricId.SIZE, service="a"), latency("a", 0))
    written.complete(T3, labelled(service="a"))
    assert (written.own("entities_removed"), written.gauge("active_entities")) == (2, 1)
    written.complete(T5, labelled(service="b"))
    assert (written.own("entities_removed"), written.gauge("active_entities")) == (3, 0)
    assert written.own("removed") == 7
    assert "spanmetrics_calls_total{service=b} 1@90" in written.complete(T6, labelled(service="b"))


def test_gauges_of_limits_show_what_is_in_force():
    """LIM-6: better, a limit that changes is shown though nothing is added."""
    written = Written(limits=LimitSettings(max_active_series=7))
    written.complete(T1, calls("a"))
    assert (written.gauge("max_active_series"), written.gauge("max_active_entities")) == (7, None)
    written.change(limits=LimitSettings(by_entity=True, max_active_entities=5))
    written.complete(T2)
    assert (written.gauge("max_active_series"), written.gauge("max_active_entities")) == (None, 5)
    assert (written.gauge("active_series"), written.gauge("active_entities")) == (1, 1)


def test_a_limit_may_change_between_windows_without_a_reset():
    """LIM-2: it is read at each creation."""
    written = Written(limits=LimitSettings(max_active_series=1))
    written.complete(T1, calls("a"), calls("b"))
    written.change(limits=LimitSettings(max_active_series=2))
    assert "spanmetrics_calls_total{service=b} 1@30" in written.complete(T2, calls("b"))
    written.change(limits=LimitSettings())
    assert values(written.complete(T3, *(calls(name) for name in "abc"))) == [
        "service=a} 2@45",
        "service=b} 2@45",
        "service=c} 1@45",
        "metric_overflow=true,shard=0} 1@45",
    ]
    assert written.gauge("active_series") == 3


def test_demand_counts_what_limits_refuse_once_in_a_quarter_of_an_hour():
    """LIM-8: estimates times the series of a label set, and label sets of any metric."""
    written = Written(limits=LimitSettings(max_active_series=1), stale_duration_ms=900_000)
    written.complete(T1, *(calls(name) for name in "abc"), *(latency(name, 0) for name in "ab"), info("d"))
    assert written.gauge("active_series_demand_estimate") == 3 + 2 * 5 + 1
    assert written.gauge("entity_demand_estimate") == 4
    assert written.gauge("active_series") == 1
    written.complete(1_200_000, calls("e"))
    assert written.gauge("entity_demand_estimate") == 5
    written.complete(1_215_000)
    assert (written.gauge("active_series_demand_estimate"), written.gauge("entity_demand_estimate")) == (1, 1)


SETS = [labelled(service=f"s{n}", span_name=f"GET /{n}") for n in range(10)]


def test_g177_info_metrics_are_not_limited_by_label():
    """LIM-12, PRIM-7, G177."""
    written = Written(limits=LimitSettings(max_cardinality_per_label=100))
    infos = [labelled(MetricId.TARGET_INFO, job=f"j{n}", sdk=f"v{n}") for n in range(50)]
    written.complete(T1, *SETS, *infos, labelled(MetricId.HOST_INFO, grafana_host_id="h", host_source="x"))
    gauges = {labels: value for (name, labels), value in written.tenants["acme"].gauges.items() if labels}
    assert gauges == {(("label_name", "service"),): 10, (("label_name", "span_name"),): 10}


def test_all_values_of_a_label_over_its_limit_are_replaced_from_the_next_look_on():
    """LIM-10 and LIM-11: also values that were known, of every metric (LIM-12); counted per row of a window."""
    written = Written(shard=3, limits=LimitSettings(max_cardinality_per_label=9))
    assert len(values(written.complete(T1, *SETS))) == 10
    assert written.gauge("label_cardinality_demand_estimate", label_name="span_name") == 10
    known = labelled(service="s0", span_name="GET /0", span_kind="server")
    edge = labelled(MetricId.REQUEST_TOTAL, client="a", server="b", service="s0")
    lines = written.complete(T2, known, known | {"metric": int(MetricId.SIZE)}, edge)
    assert [line for line in lines if "overflow" in line and " 0@" not in line] == [
        "service_graph_request_total{client=a,server=b,service=__cardinality_overflow__} 1@30",
        "spanmetrics_calls_total{service=__cardinality_overflow__,shard=3,span_kind=server,"
        "span_name=__cardinality_overflow__} 1@30",
        "spanmetrics_size_total{service=__cardinality_overflow__,shard=3,span_kind=server,"
        "span_name=__cardinality_overflow__} 4.29497e+09@30",
    ]
    assert written.own("label_values_limited", label_name="service") == 3
    assert written.own("label_values_limited", label_name="span_name") == 2
    assert written.own("label_values_limited", label_name="span_kind") == 0


def test_label_sets_that_become_one_are_added_up_and_keep_the_latest_exemplar():
    """LIM-10: whatever partition and label set it came from."""
    written = Written(limits=LimitSettings(max_cardinality_per_label=2))
    labels = [tuple(sorted({"service": "a", "path": f"/{n}"}.items())) for n in range(3)]
    written.complete(T1, *(calls("a", labels=each) for each in labels))
    parts = [
        batch(window(T2, T1, [latency("a", 0, 1, trace=trace, at=at, labels=each)]), partition, 3)
        for partition, (each, trace, at) in enumerate(zip(labels, (b"1", b"2", b"3"), (5, 7, 6), strict=True))
    ]
    lines = written.merged(T2, parts)
    only = "path=__cardinality_overflow__,service=a} 3@30"
    assert f"spanmetrics_latency_bucket{{le=0.1,{only} # traceID=2 0@30" in lines
    assert f"spanmetrics_latency_count{{{only}" in lines
    assert written.own("label_values_limited", label_name="path") == 3


def test_a_shard_label_from_outside_does_not_make_shards_share_what_lost_its_route():
    written = Written(shard=2, external_labels=(("shard", "x"),), limits=LimitSettings(max_cardinality_per_label=1))
    written.complete(T1, calls("a"), calls("b"))
    lines = written.complete(T2, calls("c"))
    assert "spanmetrics_calls_total{service=__cardinality_overflow__,shard=2} 1@30" in lines
    assert "spanmetrics_calls_total{service=a,shard=x} 1@30" in lines


def test_g183_a_limit_of_labels_may_be_switched_on_and_off():
    """LIM-9 and LIM-11, G183: it bites after a look, and the gauge stays when it is off."""
    written = Written()
    for n, (end_ms, limit, limited) in enumerate(((T1, 0, False), (T2, 5, False), (T3, 5, True), (T4, 0, False))):
        written.change(limits=LimitSettings(max_cardinality_per_label=limit))
        fresh = [labelled(service="s", span_name=f"{n}.{i}") for i in range(10)]
        lines = written.complete(end_ms, *fresh)
        assert any("overflow" in line and f"0@{end_ms // 1000 - 15}" in line for line in lines) is limited
        estimate = written.gauge("label_cardinality_demand_estimate", label_name="span_name")
        assert (estimate is None) is (n == 0)
    assert estimate == 20


def test_g185_values_pass_again_when_the_many_are_forgotten():
    """LIM-11, G185: after four periods of five minutes."""
    written = Written(limits=LimitSettings(max_cardinality_per_label=5))
    written.complete(T1, *SETS)
    assert "service=s1" not in "".join(line for line in written.complete(T2, SETS[1]) if "} 0@15" in line)
    written.complete(1_200_000, SETS[1])
    written.complete(1_215_000, SETS[1])
    assert [line for line in written.complete(1_230_000, SETS[1]) if "} 0@" in line] == [
        "spanmetrics_calls_total{service=s1,span_name=GET /1} 0@1215"
    ]


def users(n, **more):
    return labelled(service="shop", span_name=f"GET /api/users/{n}", **more)


def test_span_names_become_patterns_in_canonical_order():
    """DRN-1, DRN-8, G189: the first keeps its name, and its series goes on."""
    written = Written(limits=LimitSettings(span_name_sanitization="enabled"))
    assert values(written.complete(T1, users(456), users(123), users(789))) == [
        "service=shop,span_name=GET /api/users/123} 1@15",
        "service=shop,span_name=GET /api/users/<_>} 2@15",
    ]
    assert (written.own("spans_sanitized"), written.own("drain_patterns_detected")) == (2, 1)
    assert values(written.complete(T2, users(123)))[1] == "service=shop,span_name=GET /api/users/<_>} 3@30"
    assert written.gauge("post_sanitization_demand_estimate") == 2
    assert (written.own("drain_patterns_evicted"), written.own("drain_patterns_expired")) == (0, 0)


def test_an_exact_repeat_keeps_its_name_until_a_second_one_comes():
    """DRN-8, G189."""
    written = Written(limits=LimitSettings(span_name_sanitization="enabled"))
    written.complete(T1, users(123))
    assert values(written.complete(T2, users(123))) == ["service=shop,span_name=GET /api/users/123} 2@30"]
    assert written.own("spans_sanitized") == 0


def test_g191_a_dry_run_counts_and_changes_nothing():
    """DRN-1 and DRN-8, G191."""
    written = Written(limits=LimitSettings(span_name_sanitization="dry_run"))
    assert len(values(written.complete(T1, users(1), users(2), users(3)))) == 3
    assert written.own("spans_sanitized") == 2
    assert written.gauge("post_sanitization_demand_estimate") == 2
    assert written.gauge("entity_demand_estimate") == 3


def test_while_it_is_off_nothing_is_learnt_and_nothing_forgotten():
    """DRN-1."""
    on, off = LimitSettings(span_name_sanitization="enabled"), LimitSettings()
    written = Written(limits=on)
    written.complete(T1, users(1))
    written.change(limits=off)
    assert len(values(written.complete(T2, users(2), labelled(service="shop", span_name="PUT /a/1")))) == 3
    assert written.gauge("post_sanitization_demand_estimate") is None
    written.change(limits=on)
    lines = written.complete(T3, users(3), labelled(service="shop", span_name="PUT /a/2"))
    assert "spanmetrics_calls_total{service=shop,span_name=GET /api/users/<_>} 1@45" in lines
    assert "spanmetrics_calls_total{service=shop,span_name=PUT /a/2} 1@45" in lines


def test_label_sets_without_a_span_name_have_too_few_tokens():
    """DRN-2 and DRN-4: an edge is looked at too, metrics about targets aren't (PRIM-7)."""
    written = Written(limits=LimitSettings(span_name_sanitization="enabled"))
    edge = {"client": "a", "server": "b"}
    written.complete(
        T1,
        labelled(MetricId.REQUEST_TOTAL, **edge),
        labelled(MetricId.CONNECTION_INFO, **edge),
        labelled(MetricId.TARGET_INFO, job="j", span_name="a b c"),
        labelled(service="s", span_name="." * 80),
        users(1),
        users(1, span_kind="server"),
    )
    assert written.own("drain_lines_skipped", reason="too_few_tokens") == 1
    assert written.own("drain_lines_skipped", reason="too_many_tokens") == 1
    ledger = {key.counter.removeprefix("tempo_metrics_generator_"): n for key, n in written.registry.ledger().items()}
    assert ledger["registry_drain_tokens_per_line_count"] == 2
    assert ledger["registry_drain_tokens_per_line_sum"] == 18


def test_span_names_become_patterns_before_their_values_are_limited():
    """PRIM-6: and an edge's span name does too, if it has one."""
    limits = LimitSettings(span_name_sanitization="enabled", max_cardinality_per_label=4)
    written = Written(limits=limits)
    edge = labelled(MetricId.REQUEST_TOTAL, client="a", server="b", span_name="GET /api/users/9")
    written.complete(T1, *map(users, range(8)), edge)
    assert written.gauge("label_cardinality_demand_estimate", label_name="span_name") == 2
    assert "service_graph_request_total{client=a,server=b,span_name=GET /api/users/<_>} 1@30" in written.complete(
        T2, edge
    )


def test_every_row_is_in_a_series_of_its_own_or_limited_or_a_misfit():
    """`schemas.ledger_balance`: also where a limit is reached, and histograms of another kind come a window late."""
    written = Written(limits=LimitSettings(max_active_series=6), histograms=HistogramSettings(classic=True))
    written.complete(T1, calls("a"), latency("a", 0), latency("a", 1), calls("b"), calls("c"))
    written.change(histograms=HistogramSettings(classic=False, native=True))
    written.complete(T2, calls("a"), latency("a", 0), calls("c"))
    (rows,) = balances(written.registry.ledger(), {}, (REGISTRY_ROWS,))
    assert (rows.whole, rows.difference) == (8, 0)
    assert rows.fates == {Fate.COUNTED: 4, Fate.LIMITED: 3, Fate.DISCARDED: 1}


@pytest.mark.parametrize("mode", ["", "dry_run", "enabled"])
@pytest.mark.parametrize("by_entity", [False, True])
def test_a_restart_from_a_snapshot_goes_on_identically(mode, by_entity):
    limits = LimitSettings(
        by_entity=by_entity,
        max_active_series=25,
        max_active_entities=4,
        max_cardinality_per_label=3,
        span_name_sanitization=mode,
    )
    written = Written(shard=1, stale_duration_ms=300_000, limits=limits)
    written.complete(T1)
    for n, end_ms in enumerate([T2, T3, 300_000, 315_000, 600_000, 630_000, 900_000, 915_000]):
        restarted = written.restarted()
        names = [f"GET /api/users/{n + i}" for i in range(3)] if n % 3 else [f"PUT /{n}", "list"]
        rows = [labelled(service=f"s{n % 4}", span_name=name) for name in names]
        rows.append(labelled(MetricId.REQUEST_TOTAL, client=f"c{n}", server=f"s{n % 4}"))
        assert restarted.complete(end_ms, *rows, ledger_lines=True) == written.complete(
            end_ms, *rows, ledger_lines=True
        )
        assert restarted.tenants == written.tenants
        assert restarted.registry.limiter_states() == written.registry.limiter_states()
