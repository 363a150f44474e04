"""Control records: decisions that a process appends to the log and acts on only when it reads them back.

A control record of `[spans]` has a value of zero length (legal as OTLP and as push-bytes) and its message in the header
`CONTROL_HEADER`; one of `[deltas]` is told from a batch in the same way.
"""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from schemas import control_pb2 as pb
from schemas.errors import Malformed, Reason

CONTROL_HEADER = "spanmill-control"
"""The record header that holds an encoded control message."""

FORMAT_VERSION = 1

_INT32_MAX = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Tick:
    """In `[spans]`: the partition is idle, and its windows up to `end_ms` may close."""

    end_ms: int


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """In both topics: what decides values from the window that ends at `from_end_ms` on.

    `rules` are what `schemas.config.rules` packs, never endpoints, headers or secrets. `program` is the version of its
    writer, recorded only.
    """

    revision: int
    from_end_ms: int
    rules: bytes
    program: str
    spans_partitions: int


@dataclass(frozen=True, slots=True)
class Waiver:
    """In `[deltas]`: windows up to `end_ms` no longer wait for `partition` of `[spans]`."""

    partition: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class AcceptGap:
    """In `[deltas]`, by an operator: batches of `partition` are lost, its chain goes on without them.

    `after_end_ms` is the window of the last batch before the gap, None if none was delivered: the record concerns this
    gap and no other.
    """

    partition: int
    after_end_ms: int | None


@dataclass(frozen=True, slots=True)
class SkipRecord:
    """In `[deltas]`, by an operator: the record at `offset`, which can't be read, is passed over."""

    offset: int


Control = Tick | ConfigChange | Waiver | AcceptGap | SkipRecord


def encode_control(control: Control) -> bytes:
    """The header's value. Raises ValueError for a number outside its field's range."""
    message = pb.ControlRecord(format_version=FORMAT_VERSION)
    match control:
        case Tick(end_ms):
            message.tick.SetInParent()
            message.tick.end_ms = end_ms
        case ConfigChange():
            message.config_change.SetInParent()
            message.config_change.revision = control.revision
            message.config_change.from_end_ms = control.from_end_ms
            message.config_change.rules = control.rules
            message.config_change.program = control.program
            message.config_change.spans_partitions = control.spans_partitions
        case Waiver(partition, end_ms):
            message.waiver.SetInParent()
            message.waiver.partition = partition
            message.waiver.end_ms = end_ms
        case AcceptGap(partition, after_end_ms):
            message.accept_gap.SetInParent()
            message.accept_gap.partition = partition
            if after_end_ms is not None:
                message.accept_gap.after_end_ms = after_end_ms
        case SkipRecord(offset):
            message.skip_record.SetInParent()
            message.skip_record.offset = offset
    return message.SerializeToString(deterministic=True)


def decode_control(value: bytes) -> Control:
    """What `encode_control` encoded. Raises Malformed for anything else, controls of newer formats included."""
    try:
        message = pb.ControlRecord.FromString(value)
    except DecodeError as error:
        raise Malformed(Reason.ENVELOPE, "not a control record") from error
    if message.format_version != FORMAT_VERSION:
        raise Malformed(Reason.VERSION, f"control format {message.format_version}, known is {FORMAT_VERSION}")
    match message.WhichOneof("control"):
        case "tick":
            return Tick(_time(message.tick.end_ms))
        case "config_change":
            return _config_change(message.config_change)
        case "waiver":
            return Waiver(_partition(message.waiver.partition), _time(message.waiver.end_ms))
        case "accept_gap":
            return _accept_gap(message.accept_gap)
        case "skip_record":
            return SkipRecord(_offset(message.skip_record.offset))
        case _:
            raise Malformed(Reason.FIELD, "a control record without a known control")


def _config_change(change: pb.ConfigChange) -> ConfigChange:
    return ConfigChange(
        revision=change.revision,
        from_end_ms=_time(change.from_end_ms),
        rules=change.rules,
        program=change.program,
        spans_partitions=_partition(change.spans_partitions),
    )


def _accept_gap(accepted: pb.AcceptGap) -> AcceptGap:
    after_end_ms = _time(accepted.after_end_ms) if accepted.HasField("after_end_ms") else None
    return AcceptGap(_partition(accepted.partition), after_end_ms)


def _time(end_ms: int) -> int:
    if end_ms < 0:
        raise Malformed(Reason.FIELD, f"a window that ends at {end_ms} ms")
    return end_ms


def _offset(offset: int) -> int:
    if offset < 0:
        raise Malformed(Reason.FIELD, f"an offset {offset}")
    return offset


def _partition(number: int) -> int:
    if number > _INT32_MAX:
        raise Malformed(Reason.FIELD, f"partition number {number}")
    return number
