# mypy: disable-error-code="type-arg"
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PackedRows(_message.Message):
    __slots__ = ("rows", "size", "checksum")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    rows: bytes
    size: int
    checksum: bytes
    def __init__(self, rows: _Optional[bytes] = ..., size: _Optional[int] = ..., checksum: _Optional[bytes] = ...) -> None: ...

class CheckpointRecord(_message.Message):
    __slots__ = ("format_version", "next_offset", "next_timestamp_ms", "stream_time_ms", "previous_end_ms", "revision", "half_edges", "half_edges_size", "half_edges_checksum", "dropped_sides", "rules", "shards")
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    STREAM_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_END_MS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    HALF_EDGES_FIELD_NUMBER: _ClassVar[int]
    HALF_EDGES_SIZE_FIELD_NUMBER: _ClassVar[int]
    HALF_EDGES_CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    DROPPED_SIDES_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    next_offset: int
    next_timestamp_ms: int
    stream_time_ms: int
    previous_end_ms: int
    revision: int
    half_edges: bytes
    half_edges_size: int
    half_edges_checksum: bytes
    dropped_sides: PackedRows
    rules: bytes
    shards: int
    def __init__(self, format_version: _Optional[int] = ..., next_offset: _Optional[int] = ..., next_timestamp_ms: _Optional[int] = ..., stream_time_ms: _Optional[int] = ..., previous_end_ms: _Optional[int] = ..., revision: _Optional[int] = ..., half_edges: _Optional[bytes] = ..., half_edges_size: _Optional[int] = ..., half_edges_checksum: _Optional[bytes] = ..., dropped_sides: _Optional[_Union[PackedRows, _Mapping]] = ..., rules: _Optional[bytes] = ..., shards: _Optional[int] = ...) -> None: ...
