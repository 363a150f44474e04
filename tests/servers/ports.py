"""Free ports, and waiting until a server answers on one."""

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

POLL_S = 0.05
START_TIMEOUT_S = 180.0
"""A server that takes 4 s has been seen to take more than a minute beside others."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on. Whoever asks must bind it soon: nothing keeps it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, timeout_s: float = START_TIMEOUT_S
) -> None:
    """Wait until a server that was just started is ready; an AssertionError shows the end of its log."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"{process.args!r} ended with {process.returncode}:\n{_tail(log)}")
        if ready():
            return
        time.sleep(POLL_S)
    raise AssertionError(f"{process.args!r} isn't ready after {timeout_s} s:\n{_tail(log)}")


def stop_process(process: subprocess.Popen[bytes], timeout_s: float = 10.0) -> None:
    """SIGTERM, and SIGKILL if that doesn't end it in time."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
