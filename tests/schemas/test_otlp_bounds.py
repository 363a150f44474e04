"""No read or write outside of what belongs to the scan, whatever the bytes are.

In a process of its own, because that is what a wrong one would kill: values end where readable memory ends, and the
kernels are compiled with numba's bounds checks, which the array accesses of a fast build lack.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects a page of memory with mprotect")
def test_mutated_messages_at_the_end_of_memory_are_scanned_within_bounds(tmp_path: Path) -> None:
    checked = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.otlp_guard", "7", "100"]
    run = subprocess.run(command, cwd=ROOT, env=checked, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    accepted, refused = map(int, run.stdout.split())
    assert accepted > 1000
    assert refused > 1000
