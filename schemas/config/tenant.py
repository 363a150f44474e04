"""The effective settings of a tenant: how its overrides apply to the static configuration (Tempo INST-5, 6 and 12)."""

import math
from collections.abc import Iterable

from schemas.config.config import Config
from schemas.config.filter_policies import FilterPolicy, PolicyMatch
from schemas.config.generator import GeneratorConfig, HostInfoConfig, ServiceGraphsConfig, SpanMetricsConfig
from schemas.config.overrides import (
    GeneratorOverrides,
    HostInfoOverrides,
    ServiceGraphsOverrides,
    SpanMetricsOverrides,
)
from schemas.config.settings import (
    DimensionMappingSettings,
    FilterPolicySettings,
    HistogramSettings,
    HostInfoSettings,
    IntrinsicDimensionsSettings,
    LimitSettings,
    MultiplierSettings,
    PolicyPartSettings,
    ServiceGraphsSettings,
    SpanMetricsSettings,
    TenantSettings,
)

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


def unknown_processors(names: Iterable[str]) -> list[str]:
    """Names that no processor has."""
    return [name for name in names if name not in PROCESSORS]


def tenant_settings(config: Config, tenant: str) -> TenantSettings:
    """The effective settings of a tenant (Tempo INST-5, INST-6, INST-12; CFG-6)."""
    overrides = config.tenant_overrides(tenant).metrics_generator
    generator, registry = config.metrics_generator, config.metrics_generator.registry
    external = dict(registry.external_labels)
    if registry.inject_tenant_id_as:
        external[registry.inject_tenant_id_as] = tenant
    return TenantSettings(
        span_metrics=span_metrics_settings(generator.processor.span_metrics, overrides),
        service_graphs=service_graphs_settings(generator.processor.service_graphs, overrides),
        host_info=host_info_settings(generator.processor.host_info, overrides),
        slack_ns=overrides.slack_ns or generator.slack_ns,
        max_label_name_length=registry.max_label_name_length,
        max_label_value_length=registry.max_label_value_length,
        collection_interval_ms=overrides.collection_interval_ms or registry.collection_interval_ms,
        collects=not overrides.disable_collection,
        stale_duration_ms=registry.stale_duration_ms,
        trace_id_label_name=overrides.trace_id_label_name or DEFAULT_TRACE_ID_LABEL,
        external_labels=tuple(sorted(external.items())),
        histograms=histogram_settings(overrides),
        limits=limit_settings(generator, overrides),
        host_info_metric_name=overrides.processor.host_info.metric_name or generator.processor.host_info.metric_name,
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
        dimension_mappings=dimension_mappings(static, own),
        enable_target_info=switch(own.enable_target_info, static.enable_target_info),
        target_info_excluded_dimensions=(
            static.target_info_excluded_dimensions
            if own.target_info_excluded_dimensions is None
            else own.target_info_excluded_dimensions
        ),
        enable_instance_label=switch(own.enable_instance_label, static.enable_instance_label),
        multiplier=multiplier(static, own),
        filter_policies=filter_policies(static, own),
    )


def dimension_mappings(static: SpanMetricsConfig, own: SpanMetricsOverrides) -> tuple[DimensionMappingSettings, ...]:
    """An empty list clears the static one."""
    mappings = static.dimension_mappings if own.dimension_mappings is None else own.dimension_mappings
    return tuple(DimensionMappingSettings(m.name, m.source_labels, m.join) for m in mappings)


def multiplier(
    static: SpanMetricsConfig | ServiceGraphsConfig, own: SpanMetricsOverrides | ServiceGraphsOverrides
) -> MultiplierSettings:
    """An empty key can't clear the static one (INST-12)."""
    return MultiplierSettings(
        key=own.span_multiplier_key or static.span_multiplier_key,
        tracestate=switch(own.enable_tracestate_span_multiplier, static.enable_tracestate_span_multiplier),
    )


def filter_policies(
    static: SpanMetricsConfig | ServiceGraphsConfig, own: SpanMetricsOverrides | ServiceGraphsOverrides
) -> tuple[FilterPolicySettings, ...]:
    """An empty list clears the static one."""
    policies = static.filter_policies if own.filter_policies is None else own.filter_policies
    return tuple(map(filter_policy, policies))


def filter_policy(policy: FilterPolicy) -> FilterPolicySettings:
    """A policy as it is compared and carried."""
    return FilterPolicySettings(
        include=policy_part(policy.include),
        include_any=policy_part(policy.include_any),
        exclude=policy_part(policy.exclude),
    )


def policy_part(part: PolicyMatch | None) -> PolicyPartSettings | None:
    """A part of it."""
    if part is None:
        return None
    return PolicyPartSettings(part.match_type == "regex", tuple((a.key, a.value) for a in part.attributes))


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
        multiplier=multiplier(static, own),
        filter_policies=filter_policies(static, own),
    )


def host_info_settings(static: HostInfoConfig, overrides: GeneratorOverrides) -> HostInfoSettings | None:
    """None unless it is named."""
    if "host-info" not in overrides.processors:
        return None
    own: HostInfoOverrides = overrides.processor.host_info
    return HostInfoSettings(
        host_identifiers=static.host_identifiers if own.host_identifiers is None else own.host_identifiers,
        metric_name=own.metric_name or static.metric_name,
    )


def histogram_settings(overrides: GeneratorOverrides) -> HistogramSettings:
    """REG-14, REG-16."""
    mode = overrides.generate_native_histograms or "classic"
    return HistogramSettings(
        classic=mode in {"classic", "both"},
        native=mode in {"native", "both"},
        native_schema=schema_of(overrides.native_histogram_bucket_factor),
        native_max_buckets=overrides.native_histogram_max_bucket_number,
        native_min_reset_ms=overrides.native_histogram_min_reset_duration_ms,
    )


def schema_of(factor: float) -> int:
    """The coarsest schema whose buckets grow by no more than a factor, at most 8; 0 is Tempo's word for unset (1.1)."""
    return min(max(-math.floor(math.log2(math.log2(factor or 1.1))), -4), 8)


def limit_settings(generator: GeneratorConfig, overrides: GeneratorOverrides) -> LimitSettings:
    """Per shard, undivided: a shard knows of no other."""
    return LimitSettings(
        by_entity=generator.limiter_type == "entity",
        max_active_series=overrides.max_active_series,
        max_active_entities=overrides.max_active_entities,
        max_cardinality_per_label=overrides.max_cardinality_per_label,
        span_name_sanitization=overrides.span_name_sanitization,
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
