"""Checkpoints: where a partition of `[spans]` is taken up again, and what it needs from before.

A checkpoint is always of a window boundary. It names the record that closed the window, which isn't applied yet, and
holds the half-edges that were waiting then, and the sides that filters had rejected. Any checkpoint of a partition is
right: what follows is computed again, with the same result.
"""

import hashlib
from dataclasses import dataclass, field, replace

import cramjam
import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError

from schemas import checkpoint_pb2 as pb
from schemas.config.rules import MAX_HALF_EDGE_BYTES
from schemas.errors import Malformed, Reason
from schemas.rules_in_force import MAX_RULES_BYTES, RulesInForce, decode_rules, encode_rules

FORMAT_VERSION = 1

HALF_EDGE_SCHEMA = pa.schema(
    {
        "tenant": pa.large_string(),
        "trace_id": pa.large_binary(),
        "span_id": pa.large_binary(),
        "kind": pa.int32(),
        "connection": pa.uint8(),
        "failed": pa.bool_(),
        "traced": pa.bool_(),
        "client": pa.large_binary(),
        "server": pa.large_binary(),
        "peer": pa.large_binary(),
        "client_ns": pa.int64(),
        "server_ns": pa.int64(),
        "client_end_ns": pa.uint64(),
        "server_start_ns": pa.uint64(),
        "weight": pa.uint64(),
        "arrival_ms": pa.int64(),
        "seen_ms": pa.int64(),
        "seen_offset": pa.int64(),
        "seen_index": pa.int32(),
        "dimensions": pa.large_list(pa.large_binary()),
    }
)
"""Half-edges, one a row: tenants sorted, a tenant's in the order in which they were made.

`trace_id` and `span_id` are the key (`span_id` is the parent's for a server's half), `kind` is that of the last span
and `seen_*` its stream time and position. `traced`: the trace ID is known as an exemplar's. `arrival_ms` is the stream
time of the first span, from which the wait counts. `weight` is in 2^-32. `dimensions` are names and values in turn, of
those that aren't empty. Nothing is null.
"""

DROPPED_SIDE_SCHEMA = pa.schema(
    {
        "tenant": pa.large_string(),
        "is_server": pa.bool_(),
        "trace_id": pa.large_binary(),
        "span_id": pa.large_binary(),
        "dropped_ms": pa.int64(),
    }
)
"""Sides of edges that filters rejected, one a row: tenants sorted, of each the clients' first, then by age.

`trace_id` and `span_id` are the key, `dropped_ms` is the stream time of the rejected span, from which the wait counts.
Nothing is null.
"""

NO_HALF_EDGES = pa.RecordBatch.from_pylist([], HALF_EDGE_SCHEMA)
NO_DROPPED_SIDES = pa.RecordBatch.from_pylist([], DROPPED_SIDE_SCHEMA)

MAX_CHECKPOINT_BYTES = MAX_HALF_EDGE_BYTES + MAX_RULES_BYTES + 100_000
"""The longest checkpoint, even if nothing of it compresses: a changelog's record must hold it.

All that waits, half-edges and rejected sides, is bounded by the rules' `max_half_edge_bytes`. What each costs of that
(streams/half_edges.py, streams/dropped_sides.py) is what its row takes in the tables below, or more. The rest is for
envelopes.
"""

MAX_UNPACKED_BYTES = 1 << 30
"""What rows unpack to at most; the limit of half-edges keeps it well below."""

_ZSTD_LEVEL = 1
_WRITE_OPTIONS = pa.ipc.IpcWriteOptions(use_threads=False)
_CHECKSUM_BYTES = 8


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a partition is taken up again.

    `next_offset` and `next_timestamp_ms` name the record to read first; a record with that offset and another timestamp
    means that the topic was replaced. `stream_time_ms` holds from that record on. Without any record before it, and so
    without a window, the times are None. `rules` is None where whoever reads the log knows its rules from elsewhere;
    only then `revision` counts. `shards` is how many partitions `[deltas]` has, 0 if that isn't known.
    """

    next_offset: int
    next_timestamp_ms: int | None = None
    stream_time_ms: int | None = None
    previous_end_ms: int | None = None
    revision: int = 0
    half_edges: pa.RecordBatch = field(default_factory=lambda: NO_HALF_EDGES)
    dropped_sides: pa.RecordBatch = field(default_factory=lambda: NO_DROPPED_SIDES)
    rules: RulesInForce | None = None
    shards: int = 0

    @classmethod
    def initial(cls, offset: int, rules: RulesInForce | None = None) -> "Checkpoint":
        """Of a partition of which nothing was read."""
        return cls(offset, rules=rules)

    def restarted(self, offset: int) -> "Checkpoint":
        """In a topic that replaced the one which this one speaks of: windows go on where they were, offsets don't."""
        return replace(self, next_offset=offset, next_timestamp_ms=None)


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """A record's value; the same for equal checkpoints."""
    message = pb.CheckpointRecord(
        format_version=FORMAT_VERSION,
        next_offset=checkpoint.next_offset,
        next_timestamp_ms=checkpoint.next_timestamp_ms,
        stream_time_ms=checkpoint.stream_time_ms,
        previous_end_ms=checkpoint.previous_end_ms,
        revision=checkpoint.revision,
        rules=b"" if checkpoint.rules is None else encode_rules(checkpoint.rules),
        shards=checkpoint.shards,
    )
    if checkpoint.half_edges.num_rows:
        pack_half_edges(message, checkpoint.half_edges)
    if checkpoint.dropped_sides.num_rows:
        message.dropped_sides.CopyFrom(_packed(checkpoint.dropped_sides))
    return message.SerializeToString(deterministic=True)


def pack_half_edges(message: pb.CheckpointRecord, rows: pa.RecordBatch) -> None:
    """Set the fields of a message that hold half-edges; the columns aren't checked."""
    packed = _packed(rows)
    message.half_edges, message.half_edges_size = packed.rows, packed.size
    message.half_edges_checksum = packed.checksum


def decode_checkpoint(value: bytes) -> Checkpoint:
    """What `encode_checkpoint` encoded. Raises Malformed for anything else, newer formats included."""
    try:
        message = pb.CheckpointRecord.FromString(value)
    except DecodeError as error:
        raise Malformed(Reason.ENVELOPE, "not a checkpoint") from error
    if message.format_version != FORMAT_VERSION:
        raise Malformed(Reason.VERSION, f"checkpoint format {message.format_version}, known is {FORMAT_VERSION}")
    if message.next_offset < 0:
        raise Malformed(Reason.FIELD, f"offset {message.next_offset}")
    return Checkpoint(
        next_offset=message.next_offset,
        next_timestamp_ms=message.next_timestamp_ms if message.HasField("next_timestamp_ms") else None,
        stream_time_ms=message.stream_time_ms if message.HasField("stream_time_ms") else None,
        previous_end_ms=message.previous_end_ms if message.HasField("previous_end_ms") else None,
        revision=message.revision,
        half_edges=_half_edges(message),
        dropped_sides=_dropped_sides(message.dropped_sides),
        rules=decode_rules(message.rules) if message.rules else None,
        shards=message.shards,
    )


def _half_edges(message: pb.CheckpointRecord) -> pa.RecordBatch:
    if not message.half_edges:
        return NO_HALF_EDGES
    packed = pb.PackedRows(rows=message.half_edges, size=message.half_edges_size, checksum=message.half_edges_checksum)
    rows = _unpacked(packed, HALF_EDGE_SCHEMA)
    dimensions = rows.column("dimensions")
    if dimensions.flatten().null_count or (np.diff(dimensions.offsets.to_numpy()) % 2 != 0).any():
        raise Malformed(Reason.ROWS, "half-edges that aren't whole")
    return rows


def _dropped_sides(packed: pb.PackedRows) -> pa.RecordBatch:
    return _unpacked(packed, DROPPED_SIDE_SCHEMA) if packed.rows else NO_DROPPED_SIDES


def _packed(rows: pa.RecordBatch) -> pb.PackedRows:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=_WRITE_OPTIONS) as writer:
        writer.write_batch(rows)
    plain = sink.getvalue()
    packed = bytes(cramjam.zstd.compress(plain, level=_ZSTD_LEVEL))
    return pb.PackedRows(rows=packed, size=plain.size, checksum=_checksum(packed))


def _unpacked(packed: pb.PackedRows, schema: pa.Schema) -> pa.RecordBatch:
    if packed.checksum != _checksum(packed.rows):
        raise Malformed(Reason.CHECKSUM, "the rows aren't what their checksum says")
    if not 0 < packed.size <= MAX_UNPACKED_BYTES:
        raise Malformed(Reason.COMPRESSION, f"rows of {packed.size} bytes")
    plain = bytearray(packed.size)
    try:
        unpacked = cramjam.zstd.decompress_into(packed.rows, plain)
    except cramjam.DecompressionError as error:
        raise Malformed(Reason.COMPRESSION, "not a zstd frame of this size") from error
    if unpacked != packed.size:
        raise Malformed(Reason.COMPRESSION, f"{unpacked} bytes instead of {packed.size}")
    try:
        with pa.ipc.open_stream(pa.py_buffer(plain)) as reader:
            batches = list(reader) if reader.schema.equals(schema) else None
        for batch in batches or ():
            batch.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise Malformed(Reason.SCHEMA, f"not an Arrow stream: {error}") from error
    if batches is None:
        raise Malformed(Reason.SCHEMA, f"other columns than {', '.join(schema.names)}")
    if len(batches) != 1:
        raise Malformed(Reason.SCHEMA, f"{len(batches)} record batches")
    if any(column.null_count for column in batches[0].columns):
        raise Malformed(Reason.ROWS, "nulls")
    return batches[0]


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()
