"""The columnar path and the plain reading of the rules (`tests.reference`) agree on every series, exactly."""

import random
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import TenantSettings
from schemas.deltas import NATIVE_LAYOUTS, NO_BUCKET, ZERO_BUCKET, Window, join
from schemas.labels import decode_labels
from schemas.metrics import METRICS, WEIGHT_ONE, Kind, MetricId
from schemas.otlp import Codec
from schemas.record import Record
from streams.partition import PartitionFold
from tests.delta_dicts import dicts
from tests.reference.generated import TENANTS, random_log, random_settings
from tests.reference.partition import Partition
from tests.reference.sums import ZERO_BUCKET as REFERENCE_ZERO
from tests.reference.sums import Cell, Series, Sums
from tests.streams.log import INTERVAL_MS

PREFIX = "tempo_metrics_generator_"


def told(window: Window) -> dict[str, dict[Any, Any]]:
    """A window of the columnar path, as the reference has it."""
    out: dict[str, dict[Any, Any]] = {kind: {} for kind in ("counters", "gauges", "weights", "latencies", "exemplars")}
    for row in dicts(window.rows):
        metric = METRICS[MetricId(row["metric"])]
        labels = tuple((name.encode(), value.encode()) for name, value in decode_labels(row["labels"]))
        series = Series(row["tenant"], metric.name, labels)
        value = join(row["value_lo"], row["value_hi"])
        if metric.kind is Kind.COUNTER:
            out["counters"][series] = value
        elif metric.kind is Kind.GAUGE:
            out["gauges"][series] = value
        else:
            cell = cell_of(series, window, row)
            out["weights"][cell] = value
            out["latencies"][cell] = join(row["sum_lo"], row["sum_hi"])
            if row["ex_trace"] is not None:
                position = (row["ex_timestamp_ms"], row["ex_offset"], row["ex_index"])
                out["exemplars"][cell] = (position, row["ex_trace"].decode(), row["ex_value_ns"])
    out["counts"] = {
        (key.counter.removeprefix(PREFIX), key.labels): count for key, count in window.ledger.items() if count
    }
    return out


def cell_of(series: Series, window: Window, row: Mapping[str, Any]) -> Cell:
    """The bucket that a row is about."""
    if row["layout"] >= NATIVE_LAYOUTS:
        return Cell(series, native=True, bucket=REFERENCE_ZERO if row["bucket"] == ZERO_BUCKET else row["bucket"])
    assert row["bucket"] != NO_BUCKET
    bounds = [*window.layouts[row["layout"]], "+Inf"]
    return Cell(series, native=False, bucket=bounds[row["bucket"]])


def expected(sums: Sums) -> dict[str, dict[Any, Any]]:
    """A window of the reference."""
    return {
        "counters": {series: value for series, value in sums.counters.items() if value},
        "gauges": sums.gauges,
        "weights": dict(sums.weights),
        "latencies": dict(sums.latencies),
        "exemplars": sums.exemplars,
        "counts": {key: count for key, count in sums.counts.items() if count},
    }


def columnar(log: list[Record], settings_of: Any, chunk: int) -> dict[int, Window]:
    """The windows by their ends, the log fed in chunks."""
    fold = PartitionFold(settings_of, INTERVAL_MS, Codec.OTLP)
    fed = [fold.feed(log[at : at + chunk]) for at in range(0, len(log), chunk)]
    windows = [window for each in fed for closing in each.closings for window in closing.windows]
    return {window.end_ms: window for window in (*windows, *fold.close_all())}


def assert_agree(rng: random.Random) -> None:
    tenants: dict[str, TenantSettings] = {tenant: random_settings(rng) for tenant in TENANTS}
    log = random_log(rng)
    assert_same(tenants, log, rng.randint(1, len(log)))


def assert_same(tenants: Mapping[str, TenantSettings], log: list[Record], chunk: int) -> None:
    """Both paths make the same windows of a log, ours from chunks of so many records."""
    windows = columnar(log, tenants.__getitem__, chunk)
    sums = dict(Partition(tenants.__getitem__, INTERVAL_MS).windows(log))
    assert list(windows) == list(sums)
    for end_ms, window in windows.items():
        ours, theirs = told(window), expected(sums[end_ms])
        for kind, values in theirs.items():
            differing = {k: (ours[kind].get(k), values.get(k)) for k in ours[kind].keys() | values.keys()}
            differing = {key: pair for key, pair in differing.items() if pair[0] != pair[1]}
            assert not differing, f"{kind}, ours and theirs: {differing}\nsettings: {tenants}"


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_columnar_path_agrees_with_the_rules_read_one_span_at_a_time(rng: random.Random) -> None:
    for _ in range(3):
        assert_agree(rng)


def test_the_two_can_disagree() -> None:
    """One span left out is noticed, so the comparison compares."""
    rng = random.Random(5)
    tenants = {tenant: random_settings(rng) for tenant in TENANTS}
    log = next(log for log in iter(lambda: random_log(rng), None) if len(log) > 4)
    windows = columnar(log[:-2], tenants.__getitem__, 1)
    sums = dict(Partition(tenants.__getitem__, INTERVAL_MS).windows(log))
    assert {end: told(window) for end, window in windows.items()} != {end: expected(s) for end, s in sums.items()}


def test_weights_are_in_the_units_of_deltas() -> None:
    assert WEIGHT_ONE == 1 << 32
