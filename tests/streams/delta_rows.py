"""Windows of a few delta rows, the batches that carry them, and samples as text."""

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.config import HistogramSettings, LimitSettings
from schemas.deltas import (
    NO_BUCKET,
    NO_LAYOUT,
    Batch,
    Layout,
    Ledger,
    Window,
    decode_batch,
    encode_window,
)
from schemas.deltas import split as limbs
from schemas.labels import encode_labels
from schemas.metrics import LATENCY_UNITS_PER_NS, WEIGHT_ONE, MetricId
from streams.shard import WindowSamples
from tests.delta_dicts import COLUMNS, routed_rows

INTERVAL = 15_000
BOUNDS: Layout = (0.1, 1.0)
SECOND = 1_000_000_000
NO_LIMITS = LimitSettings()
CLASSIC = HistogramSettings()


@dataclass(frozen=True)
class Settings:
    collection_interval_ms: int = INTERVAL
    stale_duration_ms: int = 900_000
    limits: LimitSettings = NO_LIMITS
    histograms: HistogramSettings = CLASSIC
    collects: bool = True
    host_info_metric_name: str = "traces_host_info"
    external_labels: tuple[tuple[str, str], ...] = ()
    trace_id_label_name: str = "traceID"


def row(
    service,
    metric=MetricId.CALLS,
    value=0,
    *,
    tenant="acme",
    bucket=NO_BUCKET,
    layout=NO_LAYOUT,
    total=0,
    exemplar=(None,) * 5,
    labels=None,
):
    """`exemplar`: trace ID, value in ns, timestamp, offset, index."""
    texts = labels or (("service", service),)
    fields = (tenant, int(metric), encode_labels(texts), bucket, layout, *limbs(value), *limbs(total), *exemplar)
    return dict(zip([*COLUMNS, "route"], [*fields, service.encode()], strict=True))


def calls(service, n=1.0, **more):
    return row(service, MetricId.CALLS, int(n * WEIGHT_ONE), **more)


def info(service, value=1, **more):
    return row(service, MetricId.CONNECTION_INFO, value, **more)


def latency(service, bucket, n=1.0, seconds=0.0, trace=None, *, at=1, layout=0, **more):
    """Observations in one bucket; `seconds` is their sum, `trace` an exemplar of that value at a timestamp."""
    exemplar = (None,) * 5 if trace is None else (trace, int(seconds * SECOND), at, at, 0)
    total = int(seconds * SECOND) * LATENCY_UNITS_PER_NS
    value = int(n * WEIGHT_ONE)
    return row(service, MetricId.LATENCY, value, bucket=bucket, layout=layout, total=total, exemplar=exemplar, **more)


def window(end_ms, previous_ms, rows=(), ledger: Ledger | None = None, *, layouts=(BOUNDS,), revision=0) -> Window:
    return Window(end_ms, previous_ms, routed_rows(rows), tuple(layouts), ledger or {}, revision)


def batches(window: Window, partition=0, partitions=1, shard=0, shards=1) -> list[Batch]:
    """The parts that a shard gets, as it reads them."""
    return [decode_batch(part) for part in encode_window(window, partition, partitions, shards)[shard]]


def batch(window: Window, partition=0, partitions=1) -> Batch:
    (only,) = batches(window, partition, partitions)
    return only


def text(windows: Iterable[WindowSamples], *, ledger=False) -> list[str]:
    """The samples, one a line, in order: name{labels} value@ms and its exemplar."""
    return [
        line
        for window in windows
        for tenant in window.tenants
        for samples, at in (
            (tenant.zeros, tenant.start_ms),
            (tenant.restarts, tenant.restart_ms),
            (tenant.values, window.end_ms),
        )
        for sample in samples
        if (line := _line(sample, at)).startswith("spanmill_ledger_") == ledger
    ]


def _line(sample, at_ms) -> str:
    labels = dict(sample.series.labels)
    name = labels.pop("__name__").removeprefix("traces_")
    inside = ",".join(f"{key}={value}" for key, value in labels.items())
    line = f"{name}{{{inside}}} {sample.value:g}@{at_ms // 1000}"
    if sample.exemplar is not None:
        ((label, trace),), value, at = sample.exemplar
        line += f" # {label}={trace} {value:g}@{at // 1000}"
    return line
