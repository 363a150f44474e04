"""`spanmill bookmark`: keeps what the stages have saved, so that a replay may begin there.

It reads both changelogs while the stages run. They save at different times, which is no matter: see `schemas.bookmark`.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from agents import kafka
from agents.generator import checkpoint_key
from agents.replay.files import InputError
from agents.replay.output import write_files
from agents.replay.topic import Range, Topic
from agents.topics import TopicNames
from schemas.bookmark import Bookmark, decode_bookmark, encode_bookmark, newest_only
from schemas.config import Config
from schemas.errors import Malformed
from schemas.snapshot import Cut


def take(config: Config, output: str) -> Iterator[str]:
    """Write a bookmark to a file (`-`: standard output); gives lines that say what it needs of the log.

    Raises InputError if a topic can't be read or holds what isn't ours, OSError if the file can't be written.
    """
    bookmark = current(config)
    try:
        checkpoints, cuts = bookmark.decoded_checkpoints(), bookmark.cuts()
    except Malformed as error:
        raise InputError(f"what the stages saved can't be read: {error}") from error
    write_files({output: encode_bookmark(bookmark)})
    for partition in range(bookmark.partitions):
        saved = checkpoints.get(partition)
        yield f"{bookmark.spans}/{partition}: needed from offset {0 if saved is None else saved.next_offset} on"
    for shard in range(bookmark.shards):
        yield f"{bookmark.deltas}/{shard}: {_about(cuts.get(shard))}"


def read(path: Path) -> Bookmark:
    """A bookmark from its file; raises InputError."""
    try:
        with path.open("rb") as file:
            return decode_bookmark(file)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except Malformed as error:
        raise InputError(f"{path}: {error}") from error


def _about(cut: Cut | None) -> str:
    if cut is None:
        return "needed from offset 0 on; no window was saved, so a replay begins at the first one"
    return f"needed from offset {cut.next_offset} on; a replay begins after the window that ends at {cut.end_ms}"


def current(config: Config) -> Bookmark:
    """What the stages have saved by now; raises InputError."""
    names, settings = TopicNames.of(config), kafka.client_settings(config)
    with closing(Topic(settings, names.checkpoints)) as topic:
        partitions = len(topic.ends)
        checkpoints = _newest(topic)
    with closing(Topic(settings, names.snapshots)) as topic:
        shards = len(topic.ends)
        snapshots = _newest(topic)
    own = {p: checkpoints[key] for p in range(partitions) if (key := checkpoint_key(p)) in checkpoints}
    try:
        found = newest_only(snapshots, shards)
    except Malformed as error:
        raise InputError(f"{names.snapshots}: {error}") from error
    if not own:
        raise InputError(f"{names.checkpoints}: no stage has saved anything yet: a replay may begin at the beginning")
    return Bookmark(config.spanmill.app_id, names.spans, partitions, names.deltas, shards, own, found)


def _newest(topic: Topic) -> dict[bytes, bytes]:
    """The newest value of each key, without those that were deleted."""
    values: dict[bytes, bytes] = {}
    for partition, ends in topic.ends.items():
        left = Range(ends.low, ends.high)
        while left.position < left.end:
            for record in topic.read(partition, left):
                if record.key is None:
                    continue
                if record.value is None:
                    values.pop(record.key, None)
                else:
                    values[record.key] = record.value
    return values
