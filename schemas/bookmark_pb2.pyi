# mypy: disable-error-code="type-arg"
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BookmarkHead(_message.Message):
    __slots__ = ("format_version", "app_id", "spans", "partitions", "deltas", "shards", "entries")
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    APP_ID_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    app_id: str
    spans: str
    partitions: int
    deltas: str
    shards: int
    entries: int
    def __init__(self, format_version: _Optional[int] = ..., app_id: _Optional[str] = ..., spans: _Optional[str] = ..., partitions: _Optional[int] = ..., deltas: _Optional[str] = ..., shards: _Optional[int] = ..., entries: _Optional[int] = ...) -> None: ...

class BookmarkEntry(_message.Message):
    __slots__ = ("checkpoint", "snapshot")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    checkpoint: SavedCheckpoint
    snapshot: SavedSnapshotRecord
    def __init__(self, checkpoint: _Optional[_Union[SavedCheckpoint, _Mapping]] = ..., snapshot: _Optional[_Union[SavedSnapshotRecord, _Mapping]] = ...) -> None: ...

class SavedCheckpoint(_message.Message):
    __slots__ = ("partition", "value")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    partition: int
    value: bytes
    def __init__(self, partition: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...

class SavedSnapshotRecord(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...
