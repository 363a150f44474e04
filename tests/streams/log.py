"""Logs of spans for the tests of streams, and what their windows say, as text and numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from schemas.config import TenantSettings, load_config, tenant_settings
from schemas.control import Tick
from schemas.deltas import Window, join
from schemas.labels import decode_labels
from schemas.metrics import LATENCY_UNITS_PER_NS, METRICS, WEIGHT_ONE, Kind, MetricId
from schemas.otlp import Codec
from schemas.record import DEFAULT_TENANT, Record
from streams.partition import PartitionFold
from tests.delta_dicts import dicts
from tests.otlp_samples import any_value

INTERVAL_MS = 15_000
T0_MS = 1_700_000_010_000
"""A window's end, hence another one's beginning."""
SECOND_NS = 1_000_000_000

UNSPECIFIED, INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = range(6)
UNSET, OK, ERROR = range(3)

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Told:
    """A span. Its end is relative to its record's time; IDs are numbers of 16 or 8 bytes, or the bytes themselves."""

    service: str | None = "test-service"
    kind: int = CLIENT
    id: int | bytes = 1
    parent: int | bytes = b""
    trace: int | bytes = 1
    latency_ns: int = SECOND_NS
    end_ns: int = 0
    status: int = OK
    name: str = "test"
    message: str = ""
    trace_state: str = ""
    attributes: Attributes = field(default_factory=dict)
    resource: Attributes = field(default_factory=dict)

    @property
    def trace_id(self) -> bytes:
        """The trace ID's bytes."""
        return self.trace if isinstance(self.trace, bytes) else self.trace.to_bytes(16)

    @property
    def span_id(self) -> bytes:
        """The span ID's bytes."""
        return self.id if isinstance(self.id, bytes) else self.id.to_bytes(8)

    @property
    def parent_id(self) -> bytes:
        """The parent's ID; empty for a root."""
        return self.parent if isinstance(self.parent, bytes) else self.parent.to_bytes(8)

    def lookup(self, key: str) -> Any:
        """An attribute, the resource's first; None if there is none."""
        return self.resource.get(key, self.attributes.get(key))


def record(offset: int, at_ms: int, *spans: Told, tenant: str = DEFAULT_TENANT, no_metrics: bool = False) -> Record:
    """A record at so many ms after `T0_MS`, with a ResourceSpans for each span."""
    timestamp_ms = T0_MS + at_ms
    value = TracesData(resource_spans=[_resource_spans(span, timestamp_ms) for span in spans]).SerializeToString()
    return Record(offset, timestamp_ms, value, tenant, no_metrics)


def tick(offset: int, at_ms: int) -> Record:
    """A control record that only tells the time."""
    return Record(offset, T0_MS + at_ms, b"", control=Tick(T0_MS))


def records(*batches: tuple[int, Sequence[Told]], tenant: str = DEFAULT_TENANT) -> list[Record]:
    """Records with offsets from 0 on."""
    return [record(offset, at_ms, *spans, tenant=tenant) for offset, (at_ms, spans) in enumerate(batches)]


def settings(
    span_metrics: Mapping[str, Any] | None = None, service_graphs: Mapping[str, Any] | None = None, **tenant: Any
) -> TenantSettings:
    """A tenant's settings: Tempo's defaults with these changes; a processor that isn't given is off."""
    default = _defaults()
    assert default.span_metrics is not None
    assert default.service_graphs is not None
    return replace(
        default,
        span_metrics=None if span_metrics is None else replace(default.span_metrics, **span_metrics),
        service_graphs=None if service_graphs is None else replace(default.service_graphs, **service_graphs),
        **tenant,
    )


@cache
def _defaults() -> TenantSettings:
    return tenant_settings(load_config(None, _ALL_PROCESSORS), DEFAULT_TENANT)


_ALL_PROCESSORS = "overrides: {defaults: {metrics_generator: {processors: [span-metrics, service-graphs]}}}"


def new_fold(tenants: TenantSettings, **options: Any) -> PartitionFold:
    """A partition at its beginning, with the same settings for every tenant."""
    return PartitionFold(lambda _: tenants, INTERVAL_MS, Codec.OTLP, **options)


def windows(tenants: TenantSettings, log: Sequence[Record]) -> list[Window]:
    """All windows of a log that ends."""
    fold = new_fold(tenants)
    fed = fold.feed(log)
    return [window for closing in fed.closings for window in closing.windows] + fold.close_all()


def samples(closed: Iterable[Window]) -> dict[str, Any]:
    """What windows add up to, by series: a number, or (count, buckets, sum in s) with cumulative buckets, +Inf last.

    A series of the default tenant is `metric{name=value,...}`, one of another tenant has its name before it.
    """
    totals: dict[str, Any] = {}
    for window in closed:
        for row in dicts(window.rows):
            metric = METRICS[MetricId(row["metric"])]
            name = series_name(row)
            value = join(row["value_lo"], row["value_hi"])
            if metric.kind is Kind.HISTOGRAM:
                layout = window.layouts[row["layout"]]
                buckets, sum_ns = totals.setdefault(name, ([0] * (len(layout) + 1), [0]))
                for bucket in range(row["bucket"], len(buckets)):
                    buckets[bucket] += value
                sum_ns[0] += join(row["sum_lo"], row["sum_hi"])
            elif metric.kind is Kind.GAUGE:
                totals[name] = max(totals.get(name, value), value)
            else:
                totals[name] = totals.get(name, 0) + value / metric.per_unit
    return {name: _histogram(total) if isinstance(total, tuple) else total for name, total in totals.items()}


def series_name(row: Mapping[str, Any]) -> str:
    """A row's series, as `samples` names it."""
    labels = ",".join(f"{name}={value}" for name, value in decode_labels(row["labels"]))
    tenant = "" if row["tenant"] == DEFAULT_TENANT else row["tenant"] + " "
    return f"{tenant}{METRICS[MetricId(row['metric'])].name}{{{labels}}}"


def ledger(closed: Iterable[Window]) -> dict[str, int]:
    """The counts of windows that aren't 0, as `counter{name=value,...}`, without the default tenant."""
    totals: dict[str, int] = {}
    for window in closed:
        for key, count in window.ledger.items():
            shown = ",".join(f"{n}={v}" for n, v in key.labels if (n, v) != ("tenant", DEFAULT_TENANT))
            name = key.counter.removeprefix("tempo_metrics_generator_") + (f"{{{shown}}}" if shown else "")
            totals[name] = totals.get(name, 0) + count
    return {name: count for name, count in sorted(totals.items()) if count}


def exemplars(closed: Iterable[Window]) -> dict[tuple[str, int], tuple[str, int, int, int, int]]:
    """By series and bucket, the exemplar of the last window with one: trace, ns, ms after `T0_MS`, offset, index."""
    found: dict[tuple[str, int], tuple[str, int, int, int, int]] = {}
    for window in closed:
        for row in dicts(window.rows):
            if row["ex_trace"] is not None:
                found[series_name(row), row["bucket"]] = (
                    row["ex_trace"].decode(),
                    row["ex_value_ns"],
                    row["ex_timestamp_ms"] - T0_MS,
                    row["ex_offset"],
                    row["ex_index"],
                )
    return found


def _histogram(total: tuple[list[int], list[int]]) -> tuple[float, tuple[float, ...], float]:
    buckets, (sum_units,) = total
    counts = tuple(bucket / WEIGHT_ONE for bucket in buckets)
    return counts[-1], counts, sum_units / LATENCY_UNITS_PER_NS / SECOND_NS


def _resource_spans(told: Told, timestamp_ms: int) -> ResourceSpans:
    service = {} if told.service is None else {"service.name": told.service}
    end_ns = timestamp_ms * 1_000_000 + told.end_ns
    span = Span(
        trace_id=told.trace_id,
        span_id=told.span_id,
        parent_span_id=told.parent_id,
        trace_state=told.trace_state,
        name=told.name,
        kind=told.kind,  # type: ignore[arg-type]
        start_time_unix_nano=end_ns - told.latency_ns,
        end_time_unix_nano=end_ns,
        attributes=_attributes(told.attributes),
        status=Status(code=told.status, message=told.message),  # type: ignore[arg-type]
    )
    resource = Resource(attributes=_attributes({**service, **told.resource}))
    return ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=[span])])


def _attributes(values: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]
