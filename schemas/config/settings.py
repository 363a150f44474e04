"""What decides a tenant's samples, resolved: static configuration with the tenant's overrides applied.

Settings hold nothing else: no endpoints, headers or secrets. Equal settings give equal samples, and `digest()` names
them.
"""

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class IntrinsicDimensionsSettings:
    """Which of a span's own fields are labels."""

    service: bool
    span_name: bool
    span_kind: bool
    status_code: bool
    status_message: bool


@dataclass(frozen=True, slots=True)
class DimensionMappingSettings:
    """A label joined from several attributes (Tempo SM-12)."""

    name: str
    source_labels: tuple[str, ...]
    join: str


@dataclass(frozen=True, slots=True)
class MultiplierSettings:
    """How many spans a span stands for (Tempo PRIM-11); an empty key and no trace state: always one."""

    key: str = ""
    tracestate: bool = False


@dataclass(frozen=True, slots=True)
class PolicyPartSettings:
    """A part of a filter policy: all its attributes, keys and values, must match (Tempo FLT-4)."""

    regex: bool
    attributes: tuple[tuple[str, str | bool | int | float], ...]


@dataclass(frozen=True, slots=True)
class FilterPolicySettings:
    """A filter policy (Tempo FLT-1), with one part at least."""

    include: PolicyPartSettings | None
    include_any: PolicyPartSettings | None
    exclude: PolicyPartSettings | None


@dataclass(frozen=True, slots=True)
class SpanMetricsSettings:
    """The span-metrics processor; buckets are seconds, ascending, without +Inf."""

    count: bool
    latency: bool
    size: bool
    histogram_buckets: tuple[float, ...]
    intrinsic_dimensions: IntrinsicDimensionsSettings
    dimensions: tuple[str, ...]
    dimension_mappings: tuple[DimensionMappingSettings, ...] = ()
    enable_target_info: bool = False
    target_info_excluded_dimensions: tuple[str, ...] = ()
    enable_instance_label: bool = True
    multiplier: MultiplierSettings = MultiplierSettings()
    filter_policies: tuple[FilterPolicySettings, ...] = ()


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
    multiplier: MultiplierSettings = MultiplierSettings()
    filter_policies: tuple[FilterPolicySettings, ...] = ()


@dataclass(frozen=True, slots=True)
class HostInfoSettings:
    """The host-info processor (Tempo §8)."""

    host_identifiers: tuple[str, ...]
    metric_name: str


@dataclass(frozen=True, slots=True)
class HistogramSettings:
    """Which histograms there are: classic ones, native ones or both (Tempo REG-14 to REG-16)."""

    classic: bool = True
    native: bool = False
    native_schema: int = 3
    """-4 to 8: buckets grow by 2^(2^-schema)."""
    native_max_buckets: int = 100
    """0: any number."""
    native_min_reset_ms: int = 900_000


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """What bounds the series of a tenant in one shard; 0: no limit (Tempo §10)."""

    by_entity: bool = False
    """Whether `max_active_entities` limits label sets (LIM-4), else `max_active_series` series (LIM-2)."""
    max_active_series: int = 0
    max_active_entities: int = 0
    max_cardinality_per_label: int = 0
    span_name_sanitization: str = ""
    """Empty, `dry_run` or `enabled` (DRN-1)."""


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """What decides a tenant's samples. A processor that is off is None."""

    span_metrics: SpanMetricsSettings | None
    service_graphs: ServiceGraphsSettings | None
    host_info: HostInfoSettings | None
    slack_ns: int
    max_label_name_length: int
    max_label_value_length: int
    collection_interval_ms: int
    collects: bool
    """Whether samples are written at all (`disable_collection`, Tempo REG-2)."""
    stale_duration_ms: int
    trace_id_label_name: str
    external_labels: tuple[tuple[str, str], ...]
    """By name; the tenant's own label (`inject_tenant_id_as`) is among them."""
    histograms: HistogramSettings
    limits: LimitSettings
    host_info_metric_name: str
    """Also of a tenant whose processor is off, since its series live on for a while (Tempo INST-9)."""

    def digest(self) -> str:
        """A name for these values: 32 hex digits, the same wherever and whenever they are equal."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]
