"""Batches on local disk, as Arrow files, that wait for a source partition that is far behind (streams/spill.py).

They are as they were on the wire, so what is read back is checked against the batch's own digest.
"""

import contextlib
from pathlib import Path

import pyarrow as pa

from agents.spill_directory import FAILURES, SpillDirectory
from schemas.deltas import Batch, decode_batch, encode_batch, join_parts

PARTS = pa.schema({"part": pa.binary()})
"""One row per part."""


class SpilledBatches:
    """The batches of one shard that are on disk, by the offset of their first part; a `streams.spill.BatchStore`."""

    def __init__(self, directory: Path, shard: int) -> None:
        self._directory = SpillDirectory(directory, shard, "batches can't be kept on disk: the shard isn't fed")

    def open(self) -> None:
        """Remove what a process that crashed has left."""
        self._directory.open()

    def close(self) -> None:
        """Remove all of it."""
        self._directory.close()

    def save(self, offset: int, batch: Batch) -> bool:
        """Write a batch; False, and a line in the log, if the disk doesn't take it."""
        try:
            _write(self._path(offset), batch)
        except FAILURES as error:
            self._directory.refused(error)
            return False
        self._directory.wrote()
        return True

    def load(self, offset: int) -> Batch:
        """A batch as it was. Raises OSError, pa.ArrowException or Malformed if its file is gone or broken."""
        with pa.memory_map(str(self._path(offset))) as file:
            parts = pa.ipc.open_file(file).read_all()["part"].to_pylist()
        return join_parts([decode_batch(part) for part in parts])

    def remove(self, offset: int) -> None:
        """Forget a batch."""
        self._path(offset).unlink(missing_ok=True)

    def _path(self, offset: int) -> Path:
        return self._directory.file(f"{offset}.arrow")


def _write(path: Path, batch: Batch) -> None:
    try:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, PARTS) as writer:
            writer.write_batch(pa.record_batch([pa.array(encode_batch(batch), pa.binary())], schema=PARTS))
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise
