"""The generator and the registry (`metrics_generator`, Tempo §2).

Defaults are Tempo's (CFG-1); a comment says where not, and why.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from schemas.config.durations import Milliseconds, Nanoseconds, PositiveMilliseconds
from schemas.config.filter_policies import FilterPolicy
from schemas.config.remote_write import RemoteWrites
from schemas.config.section import Buckets, Count, LabelName, Section, Texts

SERVICE_GRAPHS_BUCKETS = tuple(0.1 * 2**i for i in range(8))
SPAN_METRICS_BUCKETS = tuple(0.002 * 2**i for i in range(14))
"""Seconds; doubling is exact in binary, so these print as Tempo's: 0.002 ... 16.384 (CFG-2)."""

OWN_LABELS = frozenset({"__name__", "le", "metric_overflow", "shard"})
"""Labels that the sink itself gives to series to keep them apart: an external label of that name would merge them."""


def check_external_labels(labels: dict[str, str]) -> dict[str, str]:
    """Names that every exposition format can carry, and no label of the metrics' own grammar."""
    for name in labels:
        check_own_label(name)
        if not name:
            raise ValueError("a label without a name; name it")
    return labels


def check_host_identifiers(identifiers: Texts) -> Texts:
    """Tempo CFG-4."""
    if not identifiers:
        raise ValueError("at least one value must be provided in host_identifiers")
    return identifiers


def check_metric_name(name: str) -> str:
    """Tempo CFG-4: any valid UTF-8 but the empty name."""
    if not name:
        raise ValueError("metric_name is invalid")
    return name


def check_own_label(name: str) -> str:
    """As for external labels."""
    if name in OWN_LABELS:
        raise ValueError(f"{name!r} can't be an external label: it keeps series apart; choose another name")
    return name


def check_interval(interval_ms: int) -> int:
    """At least 1 s."""
    if interval_ms < 1000:
        raise ValueError("shorter than 1s, as often as the windows of an idle partition can close; write 1s or more")
    return interval_ms


def check_codec(codec: object) -> object:
    """Tempo CFG-4."""
    if isinstance(codec, str) and codec not in {"otlp", "push-bytes"}:
        raise ValueError(f"invalid codec: {codec}, valid choices are [push-bytes otlp]")
    return codec


def check_limiter(limiter: object) -> object:
    """Tempo CFG-4."""
    if isinstance(limiter, str) and limiter not in {"series", "entity"}:
        raise ValueError(f"invalid limiter type: {limiter}, valid values are series and entity")
    return limiter


class ServiceGraphsConfig(Section):
    """The service-graphs processor, for every tenant unless its overrides say otherwise."""

    wait_ms: Milliseconds = Field(default=10_000, alias="wait")
    max_items: Count = 10_000  # per (tenant, partition), not per process: half-edges belong to their partition
    histogram_buckets: Buckets = SERVICE_GRAPHS_BUCKETS
    dimensions: Texts = ()
    enable_client_server_prefix: bool = False
    enable_messaging_system_latency_histogram: bool = False
    enable_virtual_node_label: bool = False
    peer_attributes: Texts = ("peer.service", "db.name", "db.system", "db.system.name")
    database_name_attributes: Texts = ("db.namespace", "db.name", "db.system", "db.system.name")
    span_multiplier_key: str = ""
    enable_tracestate_span_multiplier: bool = False
    filter_policies: tuple[FilterPolicy, ...] = ()


class IntrinsicDimensions(Section):
    """Which of a span's own fields are labels."""

    service: bool = True
    span_name: bool = True
    span_kind: bool = True
    status_code: bool = True
    status_message: bool = False


class DimensionMapping(Section):
    """A label joined from several attributes (Tempo SM-12)."""

    name: str = Field(min_length=1)
    source_labels: Texts = Field(min_length=1)
    join: str = ""


class SpanMetricsConfig(Section):
    """The span-metrics processor, for every tenant unless its overrides say otherwise."""

    histogram_buckets: Buckets = SPAN_METRICS_BUCKETS
    intrinsic_dimensions: IntrinsicDimensions = IntrinsicDimensions()
    dimensions: Texts = ()
    dimension_mappings: tuple[DimensionMapping, ...] = ()
    enable_target_info: bool = False
    target_info_excluded_dimensions: Texts = ()
    enable_instance_label: bool = True
    span_multiplier_key: str = ""
    enable_tracestate_span_multiplier: bool = False
    filter_policies: tuple[FilterPolicy, ...] = ()


class HostInfoConfig(Section):
    """The host-info processor (Tempo §8)."""

    host_identifiers: Annotated[Texts, AfterValidator(check_host_identifiers)] = ("k8s.node.name", "host.id")
    metric_name: Annotated[str, AfterValidator(check_metric_name)] = "traces_host_info"


class ProcessorConfig(Section):
    """The processors; which of them run is the overrides' `processors`."""

    service_graphs: ServiceGraphsConfig = ServiceGraphsConfig()
    span_metrics: SpanMetricsConfig = SpanMetricsConfig()
    host_info: HostInfoConfig = HostInfoConfig()


class RegistryConfig(Section):
    """Series: how often they are written, how long they live, what every one of them carries."""

    # One for the whole app, since it is the length of the log's windows.
    collection_interval_ms: Annotated[Milliseconds, AfterValidator(check_interval)] = Field(
        default=15_000, alias="collection_interval"
    )
    stale_duration_ms: PositiveMilliseconds = Field(default=900_000, alias="stale_duration")
    external_labels: Annotated[dict[LabelName, str], AfterValidator(check_external_labels)] = Field(
        default_factory=dict
    )
    inject_tenant_id_as: Annotated[LabelName, AfterValidator(check_own_label)] = ""
    max_label_name_length: Count = 1024  # bytes; 0: any length
    max_label_value_length: Count = 2048


class StorageConfig(Section):
    """Where samples go."""

    remote_write: RemoteWrites = ()
    remote_write_add_org_id_header: bool = True


class GeneratorConfig(Section):
    """`metrics_generator`: in our words the generator (processors, slack, codec) and the sink (registry, storage)."""

    processor: ProcessorConfig = ProcessorConfig()
    registry: RegistryConfig = RegistryConfig()
    storage: StorageConfig = StorageConfig()
    slack_ns: Nanoseconds = Field(default=30_000_000_000, alias="metrics_ingestion_time_range_slack")
    # Tempo's default is push-bytes, what its distributor writes. Ours writes OTLP, as a Collector does; push-bytes
    # reads a topic of Tempo's.
    codec: Annotated[Literal["otlp", "push-bytes"], BeforeValidator(check_codec)] = "otlp"
    limiter_type: Annotated[Literal["series", "entity"], BeforeValidator(check_limiter)] = "series"
