# mypy: disable-error-code="type-arg"
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ControlRecord(_message.Message):
    __slots__ = ("format_version", "tick", "config_change", "waiver", "accept_gap", "skip_record")
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    TICK_FIELD_NUMBER: _ClassVar[int]
    CONFIG_CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIVER_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_GAP_FIELD_NUMBER: _ClassVar[int]
    SKIP_RECORD_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    tick: Tick
    config_change: ConfigChange
    waiver: Waiver
    accept_gap: AcceptGap
    skip_record: SkipRecord
    def __init__(self, format_version: _Optional[int] = ..., tick: _Optional[_Union[Tick, _Mapping]] = ..., config_change: _Optional[_Union[ConfigChange, _Mapping]] = ..., waiver: _Optional[_Union[Waiver, _Mapping]] = ..., accept_gap: _Optional[_Union[AcceptGap, _Mapping]] = ..., skip_record: _Optional[_Union[SkipRecord, _Mapping]] = ...) -> None: ...

class Tick(_message.Message):
    __slots__ = ("end_ms",)
    END_MS_FIELD_NUMBER: _ClassVar[int]
    end_ms: int
    def __init__(self, end_ms: _Optional[int] = ...) -> None: ...

class ConfigChange(_message.Message):
    __slots__ = ("revision", "from_end_ms", "rules", "program", "spans_partitions")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FROM_END_MS_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    SPANS_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    from_end_ms: int
    rules: bytes
    program: str
    spans_partitions: int
    def __init__(self, revision: _Optional[int] = ..., from_end_ms: _Optional[int] = ..., rules: _Optional[bytes] = ..., program: _Optional[str] = ..., spans_partitions: _Optional[int] = ...) -> None: ...

class AcceptGap(_message.Message):
    __slots__ = ("partition", "after_end_ms")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    AFTER_END_MS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    after_end_ms: int
    def __init__(self, partition: _Optional[int] = ..., after_end_ms: _Optional[int] = ...) -> None: ...

class SkipRecord(_message.Message):
    __slots__ = ("offset",)
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    offset: int
    def __init__(self, offset: _Optional[int] = ...) -> None: ...

class Waiver(_message.Message):
    __slots__ = ("partition", "end_ms")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    end_ms: int
    def __init__(self, partition: _Optional[int] = ..., end_ms: _Optional[int] = ...) -> None: ...
