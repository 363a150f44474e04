"""What a tenant may override (`overrides`, Tempo §12). Absent (None) keeps the static value (INST-12)."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from schemas.config.durations import Milliseconds, Nanoseconds, PositiveSeconds, Seconds
from schemas.config.filter_policies import FilterPolicy
from schemas.config.generator import DimensionMapping, check_host_identifiers
from schemas.config.http_client import TenantHeaders
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


def check_cost_dimensions(dimensions: dict[str, str]) -> dict[str, str]:
    """Labels that every series of usage has can't be taken: Tempo would expose nothing then, and log an error."""
    for key, label in dimensions.items():
        name = label or key.removeprefix("resource.").removeprefix("span.")
        if name in {"tenant", "tracker"}:
            raise ValueError(f"{key} becomes the label {name}, which all series have; write another after the colon")
    return dimensions


class ServiceGraphsOverrides(Section):
    """Of the service-graphs processor."""

    histogram_buckets: OverrideBuckets | None = None
    """Seconds, strictly increasing."""
    dimensions: Texts | None = None
    peer_attributes: Texts | None = None
    filter_policies: tuple[FilterPolicy, ...] | None = None
    enable_client_server_prefix: bool | None = None
    """Can only switch it on, as in Tempo: false keeps the static value."""
    enable_messaging_system_latency_histogram: bool | None = None
    enable_virtual_node_label: bool | None = None
    span_multiplier_key: str = ""
    """An empty text keeps the static value, as in Tempo."""
    enable_tracestate_span_multiplier: bool | None = None


class SpanMetricsOverrides(Section):
    """Of the span-metrics processor."""

    histogram_buckets: OverrideBuckets | None = None
    """Seconds, strictly increasing."""
    dimensions: Texts | None = None
    intrinsic_dimensions: Annotated[dict[str, bool] | None, AfterValidator(check_intrinsics)] = None
    """Replace the static switches one by one."""
    filter_policies: tuple[FilterPolicy, ...] | None = None
    dimension_mappings: tuple[DimensionMapping, ...] | None = None
    enable_target_info: bool | None = None
    target_info_excluded_dimensions: Texts | None = None
    enable_instance_label: bool | None = None
    span_multiplier_key: str = ""
    """An empty text keeps the static value, as in Tempo."""
    enable_tracestate_span_multiplier: bool | None = None


class HostInfoOverrides(Section):
    """Of the host-info processor."""

    host_identifiers: Annotated[Texts, AfterValidator(check_host_identifiers)] | None = None
    metric_name: str = ""
    """An empty text keeps the static value, as in Tempo."""


class ProcessorOverrides(Section):
    """What replaces the static settings of processors. Lists do if they are there, empty ones too."""

    service_graphs: ServiceGraphsOverrides = ServiceGraphsOverrides()
    span_metrics: SpanMetricsOverrides = SpanMetricsOverrides()
    host_info: HostInfoOverrides = HostInfoOverrides()


class GeneratorOverrides(Section):
    """Of `metrics_generator`. Zero and empty mean "not overridden"."""

    processors: Texts = ()
    """Which processors run: service-graphs, span-metrics, host-info, or parts of the first two: service-graphs-request,
    -latency, -connection-info (never on by itself); span-metrics-count, -latency, -size. Others are ignored."""
    max_active_series: Count = 0
    """Beyond so many, new series are added up in one with the label metric_overflow. For each shard, undivided: a shard
    knows of no other. 0: any number."""
    max_active_entities: Count = 0
    """The same for label sets, if `limiter_type` is entity."""
    collection_interval_ms: Milliseconds = Field(default=0, alias="collection_interval")
    """How often the tenant's series are written, rounded up to whole windows. 0: every window."""
    disable_collection: bool = False
    """Whether nothing is written; series are still counted, to try limits out."""
    generate_native_histograms: Literal["", "classic", "native", "both"] = ""
    """Which histograms there are, for all processors. Empty: classic."""
    trace_id_label_name: Annotated[LabelName, AfterValidator(check_trace_id_label)] = ""
    """The label of an exemplar's trace ID. Empty: traceID."""
    remote_write_headers: TenantHeaders = Field(default_factory=dict)
    """Headers of the tenant's requests, over those of the endpoint."""
    slack_ns: Nanoseconds = Field(default=0, alias="ingestion_time_range_slack")
    """In the place of `metrics_generator.metrics_ingestion_time_range_slack`."""
    native_histogram_bucket_factor: Annotated[float, AfterValidator(check_bucket_factor)] = 1.1
    """How much a bucket of a native histogram is wider than the one before it, at most. Falls back to the defaults."""
    native_histogram_max_bucket_number: Count = 100
    """Beyond so many buckets a native histogram starts again or gets coarser. Falls back to the defaults."""
    native_histogram_min_reset_duration_ms: Milliseconds = Field(
        default=900_000, alias="native_histogram_min_reset_duration"
    )
    """It starts again only so long after the last time, else it gets coarser. Falls back to the defaults."""
    span_name_sanitization: Literal["", "dry_run", "enabled"] = ""
    """Whether span names that differ in a few words only become one pattern; dry_run counts what would. Falls back to
    the defaults."""
    max_cardinality_per_label: Count = 0
    """Beyond so many values of a label all of them become __cardinality_overflow__. 0: any number."""
    processor: ProcessorOverrides = ProcessorOverrides()


class IngestionOverrides(Section):
    """Of the distributor."""

    rate_strategy: Literal["local", "global"] = "local"
    """Whether the rate is each distributor's, or shared by all. Always the defaults'."""
    rate_limit_bytes: Count = 30_000_000
    """Bytes a second."""
    burst_size_bytes: Count = 30_000_000
    """Bytes at once."""
    max_attribute_bytes: Count = 0
    """In the place of `distributor.max_attribute_bytes`. 0: that holds."""
    artificial_delay_s: Seconds = Field(default=0.0, alias="artificial_delay")
    """How long an answer is held back."""
    retry_info_enabled: bool = True
    """Whether a refusal says when to come again. Falls back to the defaults."""


class CostAttributionOverrides(Section):
    """Bytes by attributes (Tempo DIST-19)."""

    max_cardinality: Count = 0
    """Combinations that are told apart. 0: the static number."""
    dimensions: Annotated[dict[str, str], AfterValidator(check_cost_dimensions)] = Field(default_factory=dict)
    """Labels by attribute, which may begin with `resource.` or `span.`; an empty label is the attribute's own name."""


class TenantOverrides(Section):
    """One block of overrides: the defaults', or a tenant's in its file."""

    ingestion: IngestionOverrides = IngestionOverrides()
    forwarders: Texts = ()
    """Names of `distributor.forwarders` that get a copy of the tenant's spans."""
    cost_attribution: CostAttributionOverrides = CostAttributionOverrides()
    metrics_generator: GeneratorOverrides = GeneratorOverrides()


class UserConfigurableOverrides(Section):
    """Overrides that tenants set themselves (Tempo §12.3)."""

    enabled: bool = False
    """Whether there are any."""
    poll_interval_s: Seconds = Field(default=60.0, alias="poll_interval")
    """How often they are read."""
    client: dict[str, Any] = Field(default_factory=dict)
    """Where they are stored."""
    api: dict[str, Any] = Field(default_factory=dict)
    """How they are set."""


class OverridesConfig(Section):
    """Where overrides come from (Tempo OVR-3). A tenant's own block replaces the defaults as a whole."""

    defaults: TenantOverrides = TenantOverrides()
    per_tenant_override_config: str = ""
    """The file with tenants' blocks: `overrides: {TENANT: {...}, "*": {...}}`, each with the keys of `defaults`, and
    `*` for the tenants without one. Empty: none."""
    per_tenant_override_period_s: PositiveSeconds = Field(default=10.0, alias="per_tenant_override_period")
    """How often that file is looked at. A broken one changes nothing, and is said."""
    user_configurable_overrides: UserConfigurableOverrides = UserConfigurableOverrides()
    enable_legacy_overrides: bool = False
    """Whether overrides may have Tempo's older, flat names, such as metrics_generator_max_active_series."""


class OverridesFile(Section):
    """A file of tenants (Tempo OVR-2): their blocks by name, and `*` for those without one."""

    overrides: dict[str, TenantOverrides] = Field(default_factory=dict)
    """By tenant."""
