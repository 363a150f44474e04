"""Bookmarks: the checkpoints of all partitions and a snapshot of each shard, as one file.

They needn't be of one window: from a shard's snapshot on the deltas topic says what the shard had, and what a
partition's checkpoint is ahead of that, the topic holds too. Format: messages, each after its length in four bytes (big
endian); at the end a length of 0 and the SHA-256 of all before, so that a file that isn't whole is noticed.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from google.protobuf.message import DecodeError, Message

from schemas import bookmark_pb2 as pb
from schemas.checkpoint import Checkpoint, decode_checkpoint
from schemas.errors import Malformed, Reason
from schemas.snapshot import Cut, newest_snapshot, snapshot_name

MAGIC = b"spanmill bookmark\n"
FORMAT_VERSION = 1

_LENGTH_BYTES = 4
_DIGEST_BYTES = 32
_MAX_MESSAGE_BYTES = 1 << 26
"""A record of a changelog is 20 MB at most."""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Where a replay of an app's topics may begin; what has saved nothing yet is begun at its beginning.

    `checkpoints` are encoded ones, by partition; `snapshots` the records of a snapshot of each shard, by their keys.
    """

    app_id: str
    spans: str
    partitions: int
    deltas: str
    shards: int
    checkpoints: Mapping[int, bytes] = field(default_factory=dict)
    snapshots: Mapping[bytes, bytes] = field(default_factory=dict)

    def decoded_checkpoints(self) -> dict[int, Checkpoint]:
        """The checkpoints by partition; raises Malformed."""
        return {partition: decode_checkpoint(value) for partition, value in sorted(self.checkpoints.items())}

    def cuts(self) -> dict[int, Cut]:
        """The state of each shard that has saved one; raises Malformed."""
        found = ((shard, newest_snapshot(self.snapshots, shard)) for shard in range(self.shards))
        return {shard: snapshot.cut for shard, snapshot in found if snapshot is not None}


def newest_only(records: Mapping[bytes, bytes], shards: int) -> dict[bytes, bytes]:
    """Of all records of a snapshots table those of each shard's newest complete snapshot; raises Malformed."""
    names = {found.name for shard in range(shards) if (found := newest_snapshot(records, shard)) is not None}
    return {key: value for key, value in records.items() if snapshot_name(key) in names}


def encode_bookmark(bookmark: Bookmark) -> Iterator[bytes]:
    """The file, in pieces; the same for equal bookmarks."""
    digest = hashlib.sha256()
    for piece in _pieces(bookmark):
        digest.update(piece)
        yield piece
    yield digest.digest()


def decode_bookmark(file: BinaryIO) -> Bookmark:
    """What `encode_bookmark` encoded. Raises Malformed for anything else, newer formats included."""
    digest = hashlib.sha256(MAGIC)
    if file.read(len(MAGIC)) != MAGIC:
        raise Malformed(Reason.ENVELOPE, "not a bookmark")
    messages = list(_messages(file, digest.update))
    if file.read(_DIGEST_BYTES + 1) != digest.digest():
        raise Malformed(Reason.CHECKSUM, "a bookmark that isn't whole, or was changed")
    try:
        head = pb.BookmarkHead.FromString(messages[0] if messages else b"")
        entries = [pb.BookmarkEntry.FromString(each) for each in messages[1:]]
    except DecodeError as error:
        raise Malformed(Reason.ENVELOPE, "not a bookmark's messages") from error
    if head.format_version != FORMAT_VERSION:
        raise Malformed(Reason.VERSION, f"bookmark format {head.format_version}, known is {FORMAT_VERSION}")
    return _bookmark(head, entries)


def _pieces(bookmark: Bookmark) -> Iterator[bytes]:
    head = pb.BookmarkHead(
        format_version=FORMAT_VERSION,
        app_id=bookmark.app_id,
        spans=bookmark.spans,
        partitions=bookmark.partitions,
        deltas=bookmark.deltas,
        shards=bookmark.shards,
        entries=len(bookmark.checkpoints) + len(bookmark.snapshots),
    )
    checkpoints = (pb.SavedCheckpoint(partition=p, value=value) for p, value in sorted(bookmark.checkpoints.items()))
    records = (pb.SavedSnapshotRecord(key=key, value=value) for key, value in sorted(bookmark.snapshots.items()))
    yield MAGIC
    yield _delimited(head)
    yield from (_delimited(pb.BookmarkEntry(checkpoint=each)) for each in checkpoints)
    yield from (_delimited(pb.BookmarkEntry(snapshot=each)) for each in records)
    yield bytes(_LENGTH_BYTES)


def _delimited(message: Message) -> bytes:
    content = message.SerializeToString(deterministic=True)
    return len(content).to_bytes(_LENGTH_BYTES) + content


def _messages(file: BinaryIO, seen: Callable[[bytes], None]) -> Iterator[bytes]:
    while True:
        prefix = file.read(_LENGTH_BYTES)
        seen(prefix)
        length = int.from_bytes(prefix)
        if len(prefix) == _LENGTH_BYTES and not length:
            return
        content = file.read(length) if length <= _MAX_MESSAGE_BYTES else b""
        if len(prefix) < _LENGTH_BYTES or len(content) < length:
            raise Malformed(Reason.CHECKSUM, "a bookmark that isn't whole")
        seen(content)
        yield content


def _bookmark(head: pb.BookmarkHead, entries: Sequence[pb.BookmarkEntry]) -> Bookmark:
    checkpoints: dict[int, bytes] = {}
    snapshots: dict[bytes, bytes] = {}
    for entry in entries:
        match entry.WhichOneof("saved"):
            case "checkpoint":
                checkpoints[entry.checkpoint.partition] = entry.checkpoint.value
            case "snapshot":
                snapshots[entry.snapshot.key] = entry.snapshot.value
    if len(checkpoints) + len(snapshots) != head.entries or any(p >= head.partitions for p in checkpoints):
        raise Malformed(Reason.FIELD, "entries of a bookmark that aren't those which it names")
    return Bookmark(head.app_id, head.spans, head.partitions, head.deltas, head.shards, checkpoints, snapshots)
