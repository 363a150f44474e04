"""A place on local disk for what can be computed again: it is a process' own, and ends with it."""

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import structlog

log = structlog.get_logger(__name__)

FAILURES = (OSError, pa.ArrowException, OverflowError)
"""What a disk that is full, or otherwise out of order, makes of writing an Arrow file."""


class SpillDirectory:
    """The directory of one shard in `parent`, which shards and processes share; made when it is first needed.

    Its methods may be called from any thread.
    """

    def __init__(self, parent: Path, shard: int, consequence: str) -> None:
        """`consequence` is what is logged when something can't be written."""
        self.failed = False
        """Whether the last file couldn't be written."""
        self._parent, self._prefix, self._shard, self._consequence = parent, f"{shard}-", shard, consequence
        self._own: Path | None = None

    def open(self) -> None:
        """Remove what a process that crashed has left: nobody else can own the shard now."""
        for left in self._parent.glob(f"{self._prefix}*"):
            shutil.rmtree(left, ignore_errors=True)

    def close(self) -> None:
        """Remove all of it."""
        own, self._own = self._own, None
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)

    def file(self, name: str) -> Path:
        """The path of a file, in a directory that is there. Raises OSError."""
        if self._own is None:
            self._parent.mkdir(parents=True, exist_ok=True)
            self._own = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._parent))
        return self._own / name

    def wrote(self) -> None:
        """Note that a file was written."""
        if self.failed:
            log.info("the disk takes files again", directory=str(self._parent), shard=self._shard)
        self.failed = False

    def refused(self, error: Exception) -> None:
        """Note that a file couldn't be written, and say so the first time."""
        if not self.failed:
            log.error(self._consequence, directory=str(self._parent), shard=self._shard, error=str(error))
        self.failed = True
