"""A disk that takes no more in the middle of a file: here a limit of files' sizes, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

PROLOGUE = """
import resource, sys
from pathlib import Path

directory = Path(sys.argv[1])

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def files():
    return sorted(each.name for each in directory.glob("*/*"))
"""
BATCHES = """
from agents.spilled_batches import SpilledBatches
from schemas.deltas import encode_batch
from tests.streams.delta_rows import batch, calls, window

spilled = SpilledBatches(directory, 3)
rows = [calls("a", n, labels=(("service", "a"), ("span_name", f"{n * 7919:x}" * 20))) for n in range(2000)]
small, large = batch(window(15_000, None, rows[:1])), batch(window(30_000, 15_000, rows))
def content(batch):
    return list(encode_batch(batch))
"""
WINDOWS = """
from agents.spilled_windows import SpilledWindows
from tests.agents.windows import window

spilled = SpilledWindows(directory, 3)
small, large = window(1), window(5000)
def content(window):
    return window
"""
DISK_FULL = """
spilled.open()
assert spilled.save(1, small)
limit(16_384)
assert not spilled.save(2, large)
assert not spilled.save(2, large), "it stays so"
assert files() == ["1.arrow"], "nothing half written is left"
assert spilled.save(3, small), "what fits is still taken"
limit(resource.RLIM_INFINITY)
assert spilled.save(2, large)
for number, whole in ((1, small), (2, large), (3, small)):
    assert content(spilled.load(number)) == content(whole)
for number in (1, 2, 3):
    spilled.remove(number)
assert files() == []
spilled.close()
print("held")
"""


@pytest.mark.parametrize("what", [BATCHES, WINDOWS], ids=["batches", "windows"])
def test_a_file_that_the_disk_doesn_t_take_is_said_once_and_may_be_written_later(tmp_path: Path, what: str) -> None:
    script = PROLOGUE + what + DISK_FULL
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "spilled")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "held"), done.stderr
    assert (done.stdout + done.stderr).count("can't be kept on disk") == 1
