# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SnapshotManifest(_message.Message):
    __slots__ = ("format_version", "parts", "digest", "size")
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    parts: int
    digest: bytes
    size: int
    def __init__(self, format_version: _Optional[int] = ..., parts: _Optional[int] = ..., digest: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("shard", "end_ms", "next_offset", "partitions", "applied", "waived", "adoption", "tenants", "layouts", "series", "ledger", "rules", "limiters", "shards", "written")
    class AppliedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class WaivedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class WrittenEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SHARD_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    WAIVED_FIELD_NUMBER: _ClassVar[int]
    ADOPTION_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    LAYOUTS_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    LIMITERS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    shard: int
    end_ms: int
    next_offset: int
    partitions: int
    applied: _containers.ScalarMap[int, int]
    waived: _containers.ScalarMap[int, int]
    adoption: Adoption
    tenants: _containers.RepeatedScalarFieldContainer[str]
    layouts: _containers.RepeatedCompositeFieldContainer[Layout]
    series: _containers.RepeatedCompositeFieldContainer[Series]
    ledger: _containers.RepeatedCompositeFieldContainer[LedgerSeries]
    rules: bytes
    limiters: _containers.RepeatedCompositeFieldContainer[TenantLimiters]
    shards: int
    written: _containers.ScalarMap[str, int]
    def __init__(self, shard: _Optional[int] = ..., end_ms: _Optional[int] = ..., next_offset: _Optional[int] = ..., partitions: _Optional[int] = ..., applied: _Optional[_Mapping[int, int]] = ..., waived: _Optional[_Mapping[int, int]] = ..., adoption: _Optional[_Union[Adoption, _Mapping]] = ..., tenants: _Optional[_Iterable[str]] = ..., layouts: _Optional[_Iterable[_Union[Layout, _Mapping]]] = ..., series: _Optional[_Iterable[_Union[Series, _Mapping]]] = ..., ledger: _Optional[_Iterable[_Union[LedgerSeries, _Mapping]]] = ..., rules: _Optional[bytes] = ..., limiters: _Optional[_Iterable[_Union[TenantLimiters, _Mapping]]] = ..., shards: _Optional[int] = ..., written: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Adoption(_message.Message):
    __slots__ = ("delivered",)
    class DeliveredEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    delivered: _containers.ScalarMap[int, int]
    def __init__(self, delivered: _Optional[_Mapping[int, int]] = ...) -> None: ...

class Layout(_message.Message):
    __slots__ = ("bounds",)
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    bounds: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, bounds: _Optional[_Iterable[float]] = ...) -> None: ...

class Series(_message.Message):
    __slots__ = ("tenant", "labels", "metric", "layout", "revision", "counts_lo", "counts_hi", "sum_lo", "sum_hi", "updated_ms", "fresh", "exemplars", "native", "restarted")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    COUNTS_LO_FIELD_NUMBER: _ClassVar[int]
    COUNTS_HI_FIELD_NUMBER: _ClassVar[int]
    SUM_LO_FIELD_NUMBER: _ClassVar[int]
    SUM_HI_FIELD_NUMBER: _ClassVar[int]
    UPDATED_MS_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    EXEMPLARS_FIELD_NUMBER: _ClassVar[int]
    NATIVE_FIELD_NUMBER: _ClassVar[int]
    RESTARTED_FIELD_NUMBER: _ClassVar[int]
    tenant: int
    labels: bytes
    metric: int
    layout: int
    revision: int
    counts_lo: _containers.RepeatedScalarFieldContainer[int]
    counts_hi: _containers.RepeatedScalarFieldContainer[int]
    sum_lo: int
    sum_hi: int
    updated_ms: int
    fresh: bool
    exemplars: _containers.RepeatedCompositeFieldContainer[Exemplar]
    native: NativeTotals
    restarted: bool
    def __init__(self, tenant: _Optional[int] = ..., labels: _Optional[bytes] = ..., metric: _Optional[int] = ..., layout: _Optional[int] = ..., revision: _Optional[int] = ..., counts_lo: _Optional[_Iterable[int]] = ..., counts_hi: _Optional[_Iterable[int]] = ..., sum_lo: _Optional[int] = ..., sum_hi: _Optional[int] = ..., updated_ms: _Optional[int] = ..., fresh: _Optional[bool] = ..., exemplars: _Optional[_Iterable[_Union[Exemplar, _Mapping]]] = ..., native: _Optional[_Union[NativeTotals, _Mapping]] = ..., restarted: _Optional[bool] = ...) -> None: ...

class Exemplar(_message.Message):
    __slots__ = ("bucket", "trace", "value_ns")
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    VALUE_NS_FIELD_NUMBER: _ClassVar[int]
    bucket: int
    trace: bytes
    value_ns: int
    def __init__(self, bucket: _Optional[int] = ..., trace: _Optional[bytes] = ..., value_ns: _Optional[int] = ...) -> None: ...

class LedgerSeries(_message.Message):
    __slots__ = ("tenant", "counter", "labels", "total_lo", "total_hi", "fresh")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_LO_FIELD_NUMBER: _ClassVar[int]
    TOTAL_HI_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    tenant: int
    counter: str
    labels: _containers.RepeatedCompositeFieldContainer[LedgerLabel]
    total_lo: int
    total_hi: int
    fresh: bool
    def __init__(self, tenant: _Optional[int] = ..., counter: _Optional[str] = ..., labels: _Optional[_Iterable[_Union[LedgerLabel, _Mapping]]] = ..., total_lo: _Optional[int] = ..., total_hi: _Optional[int] = ..., fresh: _Optional[bool] = ...) -> None: ...

class LedgerLabel(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class TenantLimiters(_message.Message):
    __slots__ = ("tenant", "demand", "costs", "labels", "label_estimates", "labels_over", "span_names")
    class CostsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class LabelEstimatesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DEMAND_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LABEL_ESTIMATES_FIELD_NUMBER: _ClassVar[int]
    LABELS_OVER_FIELD_NUMBER: _ClassVar[int]
    SPAN_NAMES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    demand: Sketches
    costs: _containers.ScalarMap[int, int]
    labels: Sketches
    label_estimates: _containers.ScalarMap[str, int]
    labels_over: _containers.RepeatedScalarFieldContainer[str]
    span_names: SpanNames
    def __init__(self, tenant: _Optional[str] = ..., demand: _Optional[_Union[Sketches, _Mapping]] = ..., costs: _Optional[_Mapping[int, int]] = ..., labels: _Optional[_Union[Sketches, _Mapping]] = ..., label_estimates: _Optional[_Mapping[str, int]] = ..., labels_over: _Optional[_Iterable[str]] = ..., span_names: _Optional[_Union[SpanNames, _Mapping]] = ...) -> None: ...

class Sketches(_message.Message):
    __slots__ = ("keys", "periods")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    PERIODS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    periods: _containers.RepeatedCompositeFieldContainer[SketchPeriod]
    def __init__(self, keys: _Optional[_Iterable[str]] = ..., periods: _Optional[_Iterable[_Union[SketchPeriod, _Mapping]]] = ...) -> None: ...

class SketchPeriod(_message.Message):
    __slots__ = ("period", "words", "counts")
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    period: int
    words: bytes
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, period: _Optional[int] = ..., words: _Optional[bytes] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class SpanNames(_message.Message):
    __slots__ = ("next_number", "clusters", "nodes")
    NEXT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    next_number: int
    clusters: _containers.RepeatedCompositeFieldContainer[Cluster]
    nodes: _containers.RepeatedCompositeFieldContainer[TokenNode]
    def __init__(self, next_number: _Optional[int] = ..., clusters: _Optional[_Iterable[_Union[Cluster, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[TokenNode, _Mapping]]] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("number", "tokens")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    number: int
    tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, number: _Optional[int] = ..., tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class TokenNode(_message.Message):
    __slots__ = ("key", "children", "clusters")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    key: str
    children: int
    clusters: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, key: _Optional[str] = ..., children: _Optional[int] = ..., clusters: _Optional[_Iterable[int]] = ...) -> None: ...

class NativeTotals(_message.Message):
    __slots__ = ("configured_schema", "max_buckets", "min_reset_ms", "schema", "reset_ms", "zero_count", "indices", "counts", "exemplars", "last_written")
    CONFIGURED_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MAX_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    MIN_RESET_MS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    RESET_MS_FIELD_NUMBER: _ClassVar[int]
    ZERO_COUNT_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    EXEMPLARS_FIELD_NUMBER: _ClassVar[int]
    LAST_WRITTEN_FIELD_NUMBER: _ClassVar[int]
    configured_schema: int
    max_buckets: int
    min_reset_ms: int
    schema: int
    reset_ms: int
    zero_count: int
    indices: _containers.RepeatedScalarFieldContainer[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    exemplars: _containers.RepeatedCompositeFieldContainer[OfferedExemplar]
    last_written: OfferedExemplar
    def __init__(self, configured_schema: _Optional[int] = ..., max_buckets: _Optional[int] = ..., min_reset_ms: _Optional[int] = ..., schema: _Optional[int] = ..., reset_ms: _Optional[int] = ..., zero_count: _Optional[int] = ..., indices: _Optional[_Iterable[int]] = ..., counts: _Optional[_Iterable[int]] = ..., exemplars: _Optional[_Iterable[_Union[OfferedExemplar, _Mapping]]] = ..., last_written: _Optional[_Union[OfferedExemplar, _Mapping]] = ...) -> None: ...

class OfferedExemplar(_message.Message):
    __slots__ = ("value_ns", "trace", "seen_ms")
    VALUE_NS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    SEEN_MS_FIELD_NUMBER: _ClassVar[int]
    value_ns: int
    trace: bytes
    seen_ms: int
    def __init__(self, value_ns: _Optional[int] = ..., trace: _Optional[bytes] = ..., seen_ms: _Optional[int] = ...) -> None: ...
