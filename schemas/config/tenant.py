"""The settings of one tenant that decide samples: static configuration with the tenant's overrides applied.

They hold nothing else: no endpoints, headers or secrets. Equal settings give equal samples, and `digest()` names them.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from schemas.config.config import Config
from schemas.config.generator import ServiceGraphsConfig, SpanMetricsConfig
from schemas.config.overrides import GeneratorOverrides, SpanMetricsOverrides

PROCESSORS = frozenset(
    {
        "service-graphs",
        "service-graphs-request",
        "service-graphs-latency",
        "service-graphs-connection-info",
        "span-metrics",
        "span-metrics-count",
        "span-metrics-latency",
        "span-metrics-size",
        "host-info",
    }
)
"""Tempo INST-4."""

DEFAULT_TRACE_ID_LABEL = "traceID"


@dataclass(frozen=True, slots=True)
class IntrinsicDimensionsSettings:
    """Which of a span's own fields are labels."""

    service: bool
    span_name: bool
    span_kind: bool
    status_code: bool
    status_message: bool


@dataclass(frozen=True, slots=True)
class SpanMetricsSettings:
    """The span-metrics processor; buckets are seconds, ascending, without +Inf."""

    count: bool
    latency: bool
    size: bool
    histogram_buckets: tuple[float, ...]
    intrinsic_dimensions: IntrinsicDimensionsSettings
    dimensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServiceGraphsSettings:
    """The service-graphs processor; buckets are seconds, ascending, without +Inf."""

    request: bool
    latency: bool
    connection_info: bool
    wait_ms: int
    max_items: int
    histogram_buckets: tuple[float, ...]
    dimensions: tuple[str, ...]
    peer_attributes: tuple[str, ...]
    database_name_attributes: tuple[str, ...]
    enable_client_server_prefix: bool
    enable_virtual_node_label: bool
    enable_messaging_system_latency_histogram: bool


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """What decides a tenant's samples. A processor that is off is None."""

    span_metrics: SpanMetricsSettings | None
    service_graphs: ServiceGraphsSettings | None
    slack_ns: int
    max_label_name_length: int
    max_label_value_length: int
    collection_interval_ms: int
    stale_duration_ms: int
    trace_id_label_name: str
    external_labels: tuple[tuple[str, str], ...]
    """By name; the tenant's own label (`inject_tenant_id_as`) is among them."""
    max_active_series: int
    """Per shard; 0: unlimited."""

    def digest(self) -> str:
        """A name for these values: 32 hex digits, the same wherever and whenever they are equal."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def unknown_processors(names: Iterable[str]) -> list[str]:
    """Names that no processor has."""
    return [name for name in names if name not in PROCESSORS]


def tenant_settings(config: Config, tenant: str) -> TenantSettings:
    """The effective settings of a tenant (Tempo INST-5, INST-6, INST-12; CFG-6)."""
    overrides = config.overrides.defaults.metrics_generator
    generator, registry = config.metrics_generator, config.metrics_generator.registry
    external = dict(registry.external_labels)
    if registry.inject_tenant_id_as:
        external[registry.inject_tenant_id_as] = tenant
    return TenantSettings(
        span_metrics=span_metrics_settings(generator.processor.span_metrics, overrides),
        service_graphs=service_graphs_settings(generator.processor.service_graphs, overrides),
        slack_ns=overrides.slack_ns or generator.slack_ns,
        max_label_name_length=registry.max_label_name_length,
        max_label_value_length=registry.max_label_value_length,
        collection_interval_ms=registry.collection_interval_ms,
        stale_duration_ms=registry.stale_duration_ms,
        trace_id_label_name=overrides.trace_id_label_name or DEFAULT_TRACE_ID_LABEL,
        external_labels=tuple(sorted(external.items())),
        max_active_series=overrides.max_active_series,
    )


def span_metrics_settings(static: SpanMetricsConfig, overrides: GeneratorOverrides) -> SpanMetricsSettings | None:
    """INST-5: the bare name means every metric, else exactly the named ones; None if none is named."""
    parts = sub_processors("span-metrics", overrides.processors)
    if not parts:
        return None
    own = overrides.processor.span_metrics
    every = "" in parts
    latency = every or "latency" in parts
    return SpanMetricsSettings(
        count=every or "count" in parts,
        latency=latency,
        size=every or "size" in parts,
        # Where only the sub-processor is named, Tempo ignores configured buckets: a quirk of its own (Q2).
        histogram_buckets=sorted_buckets(own.histogram_buckets, static.histogram_buckets) if latency else (),
        intrinsic_dimensions=intrinsic_dimensions(static, own),
        dimensions=static.dimensions if own.dimensions is None else own.dimensions,
    )


def intrinsic_dimensions(static: SpanMetricsConfig, own: SpanMetricsOverrides) -> IntrinsicDimensionsSettings:
    """INST-12: merged key by key."""
    return IntrinsicDimensionsSettings(
        **{**static.intrinsic_dimensions.model_dump(), **(own.intrinsic_dimensions or {})}
    )


def service_graphs_settings(static: ServiceGraphsConfig, overrides: GeneratorOverrides) -> ServiceGraphsSettings | None:
    """INST-6: the bare name means requests and latencies; connection info is on where it is named."""
    parts = sub_processors("service-graphs", overrides.processors)
    if not parts:
        return None
    own = overrides.processor.service_graphs
    latency = bool(parts & {"", "latency"})
    return ServiceGraphsSettings(
        request=bool(parts & {"", "request"}),
        latency=latency,
        connection_info="connection-info" in parts,
        wait_ms=static.wait_ms,
        max_items=static.max_items,
        histogram_buckets=sorted_buckets(own.histogram_buckets, static.histogram_buckets),
        dimensions=static.dimensions if own.dimensions is None else own.dimensions,
        peer_attributes=static.peer_attributes if own.peer_attributes is None else own.peer_attributes,
        database_name_attributes=static.database_name_attributes,
        # An override can only switch it on (INST-12).
        enable_client_server_prefix=static.enable_client_server_prefix or bool(own.enable_client_server_prefix),
        enable_virtual_node_label=switch(own.enable_virtual_node_label, static.enable_virtual_node_label),
        enable_messaging_system_latency_histogram=switch(
            own.enable_messaging_system_latency_histogram, static.enable_messaging_system_latency_histogram
        ),
    )


def sub_processors(processor: str, names: Iterable[str]) -> frozenset[str]:
    """What of a processor is listed: its parts' names, "" for the bare name."""
    known = (name for name in names if name in PROCESSORS and name.startswith(processor))
    return frozenset(name.removeprefix(processor).removeprefix("-") for name in known)


def sorted_buckets(own: tuple[float, ...] | None, static: tuple[float, ...]) -> tuple[float, ...]:
    """CFG-3: ascending, as the registry sorts them."""
    return tuple(sorted(static if own is None else own))


def switch(own: bool | None, static: bool) -> bool:
    """INST-12: absent keeps the static value."""
    return static if own is None else own
