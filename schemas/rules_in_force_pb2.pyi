# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RulesInForce(_message.Message):
    __slots__ = ("current", "coming", "seen", "counts")
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    COMING_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    current: Decided
    coming: _containers.RepeatedCompositeFieldContainer[Decided]
    seen: _containers.RepeatedCompositeFieldContainer[Seen]
    counts: _containers.RepeatedCompositeFieldContainer[Count]
    def __init__(self, current: _Optional[_Union[Decided, _Mapping]] = ..., coming: _Optional[_Iterable[_Union[Decided, _Mapping]]] = ..., seen: _Optional[_Iterable[_Union[Seen, _Mapping]]] = ..., counts: _Optional[_Iterable[_Union[Count, _Mapping]]] = ...) -> None: ...

class Count(_message.Message):
    __slots__ = ("from_end_ms", "spans_partitions")
    FROM_END_MS_FIELD_NUMBER: _ClassVar[int]
    SPANS_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    from_end_ms: int
    spans_partitions: int
    def __init__(self, from_end_ms: _Optional[int] = ..., spans_partitions: _Optional[int] = ...) -> None: ...

class Decided(_message.Message):
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

class Seen(_message.Message):
    __slots__ = ("digest", "revision")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    revision: int
    def __init__(self, digest: _Optional[bytes] = ..., revision: _Optional[int] = ...) -> None: ...
