"""The generator and the registry (`metrics_generator`, Tempo §2).

Defaults are Tempo's (CFG-1); what is written below a key says where not, and why. `make docs` collects it.
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
    """The service-graphs processor, for every tenant unless its overrides say otherwise (Tempo §7)."""

    wait_ms: Milliseconds = Field(default=10_000, alias="wait")
    """How long one half of an edge waits for the other, in the log's time."""
    max_items: Count = 10_000
    """Halves that wait at once. For each tenant and partition, not process: half-edges belong to their partition."""
    histogram_buckets: Buckets = SERVICE_GRAPHS_BUCKETS
    """Seconds, in any order; +Inf is always there."""
    dimensions: Texts = ()
    """Attributes, of the resource or else of the span, that become labels of edges."""
    enable_client_server_prefix: bool = False
    """Whether each dimension is two labels, `client_...` and `server_...`, each from its own side's span."""
    enable_messaging_system_latency_histogram: bool = False
    """Whether the time between a producer's span and its consumer's is measured."""
    enable_virtual_node_label: bool = False
    """Whether edges say in a label which of their sides has sent no span of its own."""
    peer_attributes: Texts = ("peer.service", "db.name", "db.system", "db.system.name")
    """Attributes of a client's span that name a server which sends none; the first that is there."""
    database_name_attributes: Texts = ("db.namespace", "db.name", "db.system", "db.system.name")
    """Attributes of a client's span that name a database; the first that is there."""
    span_multiplier_key: str = ""
    """The attribute that holds a span's sampling ratio: 0.1 makes it count for ten. Empty: none."""
    enable_tracestate_span_multiplier: bool = False
    """Whether the sampling threshold in a span's trace state says how many it counts for; it goes before the key."""
    filter_policies: tuple[FilterPolicy, ...] = ()
    """Which spans make edges; all of them if there is no policy (Tempo FLT-3)."""


class IntrinsicDimensions(Section):
    """Which of a span's own fields are labels."""

    service: bool = True
    """The resource's service.name."""
    span_name: bool = True
    """The span's name."""
    span_kind: bool = True
    """Its kind, such as SPAN_KIND_SERVER."""
    status_code: bool = True
    """Its status, such as STATUS_CODE_ERROR."""
    status_message: bool = False
    """The status's text. Off since every text is a series of its own."""


class DimensionMapping(Section):
    """A label joined from several attributes (Tempo SM-12)."""

    name: str = Field(min_length=1)
    """The label; characters that no label may have become `_`. No other dimension may make the same (SM-13)."""
    source_labels: Texts = Field(min_length=1)
    """The attributes; those that a span lacks are left out."""
    join: str = ""
    """What stands between their values."""


class SpanMetricsConfig(Section):
    """The span-metrics processor, for every tenant unless its overrides say otherwise (Tempo §6)."""

    histogram_buckets: Buckets = SPAN_METRICS_BUCKETS
    """Seconds, in any order; +Inf is always there."""
    intrinsic_dimensions: IntrinsicDimensions = IntrinsicDimensions()
    dimensions: Texts = ()
    """Attributes, of the resource or else of the span, that become labels."""
    dimension_mappings: tuple[DimensionMapping, ...] = ()
    """Labels joined from several attributes."""
    enable_target_info: bool = False
    """Whether there is `traces_target_info`, with the resource's attributes, and span metrics have `job` and `instance`
    to join it by."""
    target_info_excluded_dimensions: Texts = ()
    """Attributes that `traces_target_info` leaves out, as they are named in the resource."""
    enable_instance_label: bool = True
    """Whether there is a label `instance`, if target_info is on: without it instances share their series."""
    span_multiplier_key: str = ""
    """The attribute that holds a span's sampling ratio: 0.1 makes it count for ten. Empty: none."""
    enable_tracestate_span_multiplier: bool = False
    """Whether the sampling threshold in a span's trace state says how many it counts for; it goes before the key."""
    filter_policies: tuple[FilterPolicy, ...] = ()
    """Which spans are measured; all of them if there is no policy (Tempo FLT-3)."""


class HostInfoConfig(Section):
    """The host-info processor (Tempo §8)."""

    host_identifiers: Annotated[Texts, AfterValidator(check_host_identifiers)] = ("k8s.node.name", "host.id")
    """Attributes of the resource that name its host; the first that is there."""
    metric_name: Annotated[str, AfterValidator(check_metric_name)] = "traces_host_info"
    """The metric's name."""


class ProcessorConfig(Section):
    """The processors; which of them run is the overrides' `processors`."""

    service_graphs: ServiceGraphsConfig = ServiceGraphsConfig()
    span_metrics: SpanMetricsConfig = SpanMetricsConfig()
    host_info: HostInfoConfig = HostInfoConfig()


class RegistryConfig(Section):
    """Series: how often they are written, how long they live, what every one of them carries."""

    collection_interval_ms: Annotated[Milliseconds, AfterValidator(check_interval)] = Field(
        default=15_000, alias="collection_interval"
    )
    """The length of the log's windows: each series has one sample for each. One for the whole app, and for its life."""
    stale_duration_ms: PositiveMilliseconds = Field(default=900_000, alias="stale_duration")
    """A series that nothing has updated for so long is dropped; if it comes back it begins at 0."""
    external_labels: Annotated[dict[LabelName, str], AfterValidator(check_external_labels)] = Field(
        default_factory=dict
    )
    """Labels of every series."""
    inject_tenant_id_as: Annotated[LabelName, AfterValidator(check_own_label)] = ""
    """The label that holds the tenant. Empty: none."""
    max_label_name_length: Count = 1024
    """Bytes; longer names are cut. 0: any length."""
    max_label_value_length: Count = 2048
    """Bytes; longer values are cut. 0: any length."""


class StorageConfig(Section):
    """Where samples go."""

    remote_write: RemoteWrites = ()
    """Endpoints. Without any, windows are completed and written nowhere (Tempo ST-7)."""
    remote_write_add_org_id_header: bool = True
    """Whether requests carry the tenant in X-Scope-OrgID, if there is more than one."""


class GeneratorConfig(Section):
    """What Tempo's generator is, here two stages: the generator (processors, slack, codec), the sink (the rest)."""

    processor: ProcessorConfig = ProcessorConfig()
    registry: RegistryConfig = RegistryConfig()
    storage: StorageConfig = StorageConfig()
    slack_ns: Nanoseconds = Field(default=30_000_000_000, alias="metrics_ingestion_time_range_slack")
    """Spans that end further than this from their record's time are discarded, before it and after it."""
    codec: Annotated[Literal["otlp", "push-bytes"], BeforeValidator(check_codec)] = "otlp"
    """What the spans topic holds. Tempo's default is push-bytes, what its distributor writes; ours writes OTLP, as a
    Collector does. push-bytes reads a topic of Tempo's."""
    limiter_type: Annotated[Literal["series", "entity"], BeforeValidator(check_limiter)] = "series"
    """Whether max_active_series limits a tenant, or max_active_entities: label sets, whatever their metrics."""
