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
    __slots__ = ("shard", "end_ms", "next_offset", "partitions", "applied", "waived", "adoption", "tenants", "layouts", "series", "ledger", "rules")
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
    def __init__(self, shard: _Optional[int] = ..., end_ms: _Optional[int] = ..., next_offset: _Optional[int] = ..., partitions: _Optional[int] = ..., applied: _Optional[_Mapping[int, int]] = ..., waived: _Optional[_Mapping[int, int]] = ..., adoption: _Optional[_Union[Adoption, _Mapping]] = ..., tenants: _Optional[_Iterable[str]] = ..., layouts: _Optional[_Iterable[_Union[Layout, _Mapping]]] = ..., series: _Optional[_Iterable[_Union[Series, _Mapping]]] = ..., ledger: _Optional[_Iterable[_Union[LedgerSeries, _Mapping]]] = ..., rules: _Optional[bytes] = ...) -> None: ...

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
    __slots__ = ("tenant", "labels", "metric", "layout", "revision", "counts_lo", "counts_hi", "sum_lo", "sum_hi", "updated_ms", "fresh", "exemplars")
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
    def __init__(self, tenant: _Optional[int] = ..., labels: _Optional[bytes] = ..., metric: _Optional[int] = ..., layout: _Optional[int] = ..., revision: _Optional[int] = ..., counts_lo: _Optional[_Iterable[int]] = ..., counts_hi: _Optional[_Iterable[int]] = ..., sum_lo: _Optional[int] = ..., sum_hi: _Optional[int] = ..., updated_ms: _Optional[int] = ..., fresh: _Optional[bool] = ..., exemplars: _Optional[_Iterable[_Union[Exemplar, _Mapping]]] = ...) -> None: ...

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
