"""The settings of a tenant: which processors its overrides name, and what decides their samples (INST-4 to INST-6)."""

import math
from collections.abc import Iterable

from schemas.config.config import Config
from schemas.config.effective import resolved, with_overrides
from schemas.config.filter_policies import FilterPolicy, PolicyMatch
from schemas.config.generator import GeneratorConfig, HostInfoConfig, ServiceGraphsConfig, SpanMetricsConfig
from schemas.config.overrides import GeneratorOverrides
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


def unknown_processors(names: Iterable[str]) -> list[str]:
    """Names that no processor has."""
    return [name for name in names if name not in PROCESSORS]


def tenant_settings(config: Config, tenant: str) -> TenantSettings:
    """The effective settings of a tenant (Tempo INST-5, INST-6, INST-12; CFG-6)."""
    generator, registry = config.metrics_generator, config.metrics_generator.registry
    overrides = resolved(config, config.tenant_overrides(tenant)).metrics_generator
    processor = with_overrides(generator.processor, overrides.processor)
    external = dict(registry.external_labels)
    if registry.inject_tenant_id_as:
        external[registry.inject_tenant_id_as] = tenant
    return TenantSettings(
        span_metrics=span_metrics_settings(processor.span_metrics, overrides.processors),
        service_graphs=service_graphs_settings(processor.service_graphs, overrides.processors),
        host_info=host_info_settings(processor.host_info, overrides.processors),
        slack_ns=overrides.slack_ns,
        max_label_name_length=registry.max_label_name_length,
        max_label_value_length=registry.max_label_value_length,
        collection_interval_ms=overrides.collection_interval_ms,
        collects=not overrides.disable_collection,
        stale_duration_ms=registry.stale_duration_ms,
        trace_id_label_name=overrides.trace_id_label_name,
        external_labels=tuple(sorted(external.items())),
        histograms=histogram_settings(overrides),
        limits=limit_settings(generator, overrides),
        host_info_metric_name=processor.host_info.metric_name,
    )


def span_metrics_settings(effective: SpanMetricsConfig, processors: Iterable[str]) -> SpanMetricsSettings | None:
    """INST-5: the bare name means every metric, else exactly the named ones; None if none is named."""
    parts = sub_processors("span-metrics", processors)
    if not parts:
        return None
    every = "" in parts
    latency = every or "latency" in parts
    return SpanMetricsSettings(
        count=every or "count" in parts,
        latency=latency,
        size=every or "size" in parts,
        # Where only the sub-processor is named, Tempo ignores configured buckets: a quirk of its own (Q2).
        histogram_buckets=ascending(effective.histogram_buckets) if latency else (),
        intrinsic_dimensions=IntrinsicDimensionsSettings(**effective.intrinsic_dimensions.model_dump()),
        dimensions=effective.dimensions,
        dimension_mappings=tuple(
            DimensionMappingSettings(m.name, m.source_labels, m.join) for m in effective.dimension_mappings
        ),
        enable_target_info=effective.enable_target_info,
        target_info_excluded_dimensions=effective.target_info_excluded_dimensions,
        enable_instance_label=effective.enable_instance_label,
        multiplier=multiplier(effective),
        filter_policies=tuple(map(filter_policy, effective.filter_policies)),
    )


def service_graphs_settings(effective: ServiceGraphsConfig, processors: Iterable[str]) -> ServiceGraphsSettings | None:
    """INST-6: the bare name means requests and latencies; connection info is on where it is named."""
    parts = sub_processors("service-graphs", processors)
    if not parts:
        return None
    return ServiceGraphsSettings(
        request=bool(parts & {"", "request"}),
        latency=bool(parts & {"", "latency"}),
        connection_info="connection-info" in parts,
        wait_ms=effective.wait_ms,
        max_items=effective.max_items,
        histogram_buckets=ascending(effective.histogram_buckets),
        dimensions=effective.dimensions,
        peer_attributes=effective.peer_attributes,
        database_name_attributes=effective.database_name_attributes,
        enable_client_server_prefix=effective.enable_client_server_prefix,
        enable_virtual_node_label=effective.enable_virtual_node_label,
        enable_messaging_system_latency_histogram=effective.enable_messaging_system_latency_histogram,
        multiplier=multiplier(effective),
        filter_policies=tuple(map(filter_policy, effective.filter_policies)),
    )


def host_info_settings(effective: HostInfoConfig, processors: Iterable[str]) -> HostInfoSettings | None:
    """None unless it is named."""
    if "host-info" not in processors:
        return None
    return HostInfoSettings(effective.host_identifiers, effective.metric_name)


def multiplier(effective: SpanMetricsConfig | ServiceGraphsConfig) -> MultiplierSettings:
    """PRIM-11."""
    return MultiplierSettings(effective.span_multiplier_key, effective.enable_tracestate_span_multiplier)


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


def histogram_settings(overrides: GeneratorOverrides) -> HistogramSettings:
    """REG-14, REG-16."""
    mode = overrides.generate_native_histograms
    return HistogramSettings(
        classic=mode in {"classic", "both"},
        native=mode in {"native", "both"},
        native_schema=schema_of(overrides.native_histogram_bucket_factor),
        native_max_buckets=overrides.native_histogram_max_bucket_number,
        native_min_reset_ms=overrides.native_histogram_min_reset_duration_ms,
    )


def schema_of(factor: float) -> int:
    """The coarsest schema whose buckets grow by no more than a factor, at most 8."""
    return min(max(-math.floor(math.log2(math.log2(factor))), -4), 8)


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


def ascending(buckets: tuple[float, ...]) -> tuple[float, ...]:
    """CFG-3: as the registry sorts them."""
    return tuple(sorted(buckets))
