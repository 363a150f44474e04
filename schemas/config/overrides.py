"""What a tenant may override (`overrides`, Tempo §12). Absent (None) keeps the static value (INST-12)."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr

from schemas.config.durations import Milliseconds, Nanoseconds, PositiveSeconds, Seconds
from schemas.config.filter_policies import FilterPolicy
from schemas.config.generator import DimensionMapping, check_host_identifiers
from schemas.config.section import Count, LabelName, OverrideBuckets, Section, Texts

INTRINSICS = ("service", "span_name", "span_kind", "status_code", "status_message")


def check_intrinsics(intrinsics: dict[str, bool] | None) -> dict[str, bool] | None:
    """Tempo INST-12."""
    for name in intrinsics or {}:
        if name not in INTRINSICS:
            raise ValueError(f"{name} is not a valid intrinsic dimension; valid are {', '.join(INTRINSICS)}")
    return intrinsics


def check_bucket_factor(factor: float) -> float:
    """Tempo OVR-5; 0 is Tempo's word for unset."""
    if factor != 0 and not 1 < factor < math.inf:
        raise ValueError(f"{factor} must be a number greater than 1")
    return factor


def check_trace_id_label(name: str) -> str:
    """An exemplar's labels are at most 128 characters, 32 of which are the trace ID's."""
    if len(name) > 96:
        raise ValueError("longer than 96 characters; choose a shorter name")
    return name


class ServiceGraphsOverrides(Section):
    """Of the service-graphs processor."""

    histogram_buckets: OverrideBuckets | None = None
    dimensions: Texts | None = None
    peer_attributes: Texts | None = None
    filter_policies: tuple[FilterPolicy, ...] | None = None
    enable_client_server_prefix: bool | None = None
    enable_messaging_system_latency_histogram: bool | None = None
    enable_virtual_node_label: bool | None = None
    span_multiplier_key: str = ""
    enable_tracestate_span_multiplier: bool | None = None


class SpanMetricsOverrides(Section):
    """Of the span-metrics processor."""

    histogram_buckets: OverrideBuckets | None = None
    dimensions: Texts | None = None
    intrinsic_dimensions: Annotated[dict[str, bool] | None, AfterValidator(check_intrinsics)] = None
    filter_policies: tuple[FilterPolicy, ...] | None = None
    dimension_mappings: tuple[DimensionMapping, ...] | None = None
    enable_target_info: bool | None = None
    target_info_excluded_dimensions: Texts | None = None
    enable_instance_label: bool | None = None
    span_multiplier_key: str = ""
    enable_tracestate_span_multiplier: bool | None = None


class HostInfoOverrides(Section):
    """Of the host-info processor."""

    host_identifiers: Annotated[Texts, AfterValidator(check_host_identifiers)] | None = None
    metric_name: str = ""


class ProcessorOverrides(Section):
    """Of the processors."""

    service_graphs: ServiceGraphsOverrides = ServiceGraphsOverrides()
    span_metrics: SpanMetricsOverrides = SpanMetricsOverrides()
    host_info: HostInfoOverrides = HostInfoOverrides()


class GeneratorOverrides(Section):
    """Of `metrics_generator`. Zero and empty mean "not overridden"."""

    processors: Texts = ()
    max_active_series: Count = 0  # per shard, undivided (decisions.md, "Sink"); 0: unlimited
    max_active_entities: Count = 0
    collection_interval_ms: Milliseconds = Field(default=0, alias="collection_interval")
    disable_collection: bool = False
    generate_native_histograms: Literal["", "classic", "native", "both"] = ""
    trace_id_label_name: Annotated[LabelName, AfterValidator(check_trace_id_label)] = ""
    remote_write_headers: dict[str, SecretStr] = Field(default_factory=dict)
    slack_ns: Nanoseconds = Field(default=0, alias="ingestion_time_range_slack")
    native_histogram_bucket_factor: Annotated[float, AfterValidator(check_bucket_factor)] = 1.1
    native_histogram_max_bucket_number: Count = 100
    native_histogram_min_reset_duration_ms: Milliseconds = Field(
        default=900_000, alias="native_histogram_min_reset_duration"
    )
    span_name_sanitization: Literal["", "dry_run", "enabled"] = ""
    max_cardinality_per_label: Count = 0
    processor: ProcessorOverrides = ProcessorOverrides()


class IngestionOverrides(Section):
    """Of the distributor."""

    rate_strategy: Literal["local", "global"] = "local"
    rate_limit_bytes: Count = 30_000_000
    burst_size_bytes: Count = 30_000_000
    max_attribute_bytes: Count = 0  # 0: the static one
    artificial_delay_s: Seconds = Field(default=0.0, alias="artificial_delay")
    retry_info_enabled: bool = True


class CostAttributionOverrides(Section):
    """Bytes by attributes (Tempo DIST-19)."""

    max_cardinality: Count = 0
    dimensions: dict[str, str] = Field(default_factory=dict)


class TenantOverrides(Section):
    """One block of overrides: the defaults', or a tenant's."""

    ingestion: IngestionOverrides = IngestionOverrides()
    forwarders: Texts = ()
    cost_attribution: CostAttributionOverrides = CostAttributionOverrides()
    metrics_generator: GeneratorOverrides = GeneratorOverrides()


class UserConfigurableOverrides(Section):
    """Overrides that tenants set themselves (Tempo §12.3)."""

    enabled: bool = False
    poll_interval_s: Seconds = Field(default=60.0, alias="poll_interval")
    client: dict[str, Any] = Field(default_factory=dict)
    api: dict[str, Any] = Field(default_factory=dict)


class OverridesConfig(Section):
    """Where overrides come from (Tempo OVR-3)."""

    defaults: TenantOverrides = TenantOverrides()
    per_tenant_override_config: str = ""
    per_tenant_override_period_s: PositiveSeconds = Field(default=10.0, alias="per_tenant_override_period")
    user_configurable_overrides: UserConfigurableOverrides = UserConfigurableOverrides()
    enable_legacy_overrides: bool = False


class OverridesFile(Section):
    """A file of tenants (Tempo OVR-2): their blocks by name, and `*` for those without one."""

    overrides: dict[str, TenantOverrides] = Field(default_factory=dict)
