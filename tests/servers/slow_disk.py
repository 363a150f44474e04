"""A disk that is slow: strace holds a process up whenever it asks for what it has written to be on the disk."""

import contextlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Self

from tests.servers.missing import missing
from tests.servers.ports import stop_process, wait_until

ATTACH_S = 20.0
FLUSH = re.compile(r"\bf(?:data)?sync\(")
"""A call's begin: where another comes between, its end has a line of its own."""


class SlowDisk:
    """While entered, each fsync and fdatasync of a process takes `delay_s` longer; then those that wait go on at once.

    A Kafka waits for one with each append to a topic of `flush.messages=1`, and with each of its metadata.
    """

    def __init__(self, pid: int, directory: Path, delay_s: float) -> None:
        strace = shutil.which("strace")
        if strace is None:
            missing("strace", "apt-get install strace")
        self._pid = pid
        self._calls, self._log = directory / "slow_disk.calls", directory / "slow_disk.log"
        inject = f"inject=fsync,fdatasync:delay_enter={round(delay_s * 1_000_000)}"
        self._command = [strace, "-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", inject]
        self._command += ["-o", str(self._calls), "-p", str(pid)]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        try:
            wait_until(self._holds, self._process, self._log, ATTACH_S)
        except AssertionError:
            stop_process(self._process)
            if "Operation not permitted" in self._log.read_text():
                missing("leave to trace processes", "be root, or sysctl kernel.yama.ptrace_scope=0")
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop_process(self._process)

    @property
    def flushes(self) -> int:
        """How many calls it has held up so far: a test without any shows nothing."""
        return len(FLUSH.findall(self._calls.read_text()))

    def _holds(self) -> bool:
        """Whether strace has every thread; it follows those that begin later."""
        wanted = f"TracerPid:\t{self._process.pid}\n"
        for thread in Path(f"/proc/{self._pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it has ended
                if wanted not in (thread / "status").read_text():
                    return False
        return True
