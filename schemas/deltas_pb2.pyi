# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeltaBatch(_message.Message):
    __slots__ = ("format_version", "partition", "end_ms", "previous_end_ms", "partitions", "part", "parts", "digest", "revision", "layouts", "ledger", "rows", "rows_size", "rows_checksum")
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_END_MS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LAYOUTS_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_SIZE_FIELD_NUMBER: _ClassVar[int]
    ROWS_CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    partition: int
    end_ms: int
    previous_end_ms: int
    partitions: int
    part: int
    parts: int
    digest: bytes
    revision: int
    layouts: _containers.RepeatedCompositeFieldContainer[Layout]
    ledger: _containers.RepeatedCompositeFieldContainer[LedgerEntry]
    rows: bytes
    rows_size: int
    rows_checksum: bytes
    def __init__(self, format_version: _Optional[int] = ..., partition: _Optional[int] = ..., end_ms: _Optional[int] = ..., previous_end_ms: _Optional[int] = ..., partitions: _Optional[int] = ..., part: _Optional[int] = ..., parts: _Optional[int] = ..., digest: _Optional[bytes] = ..., revision: _Optional[int] = ..., layouts: _Optional[_Iterable[_Union[Layout, _Mapping]]] = ..., ledger: _Optional[_Iterable[_Union[LedgerEntry, _Mapping]]] = ..., rows: _Optional[bytes] = ..., rows_size: _Optional[int] = ..., rows_checksum: _Optional[bytes] = ...) -> None: ...

class Layout(_message.Message):
    __slots__ = ("bounds",)
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    bounds: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, bounds: _Optional[_Iterable[float]] = ...) -> None: ...

class LedgerEntry(_message.Message):
    __slots__ = ("counter", "labels", "count")
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    counter: str
    labels: _containers.RepeatedCompositeFieldContainer[LedgerLabel]
    count: int
    def __init__(self, counter: _Optional[str] = ..., labels: _Optional[_Iterable[_Union[LedgerLabel, _Mapping]]] = ..., count: _Optional[int] = ...) -> None: ...

class LedgerLabel(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
