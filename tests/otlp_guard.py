"""Scan mutated messages that end where readable memory ends; any read behind a message's end kills the process.

`python -m tests.otlp_guard SEED BATCHES`. Run it with NUMBA_BOUNDSCHECK=1, so that accesses to arrays are checked too.
"""

import ctypes
import mmap
import random
import sys

import numpy as np
import numpy.typing as npt

from schemas.otlp import Codec, resource_attributes
from schemas.otlp.columns import ERRORS
from schemas.otlp.scan import resource_table, scan_values
from tests.otlp_fuzz import KEYS, message, mutate
from tests.otlp_samples import descending, reencode, trace, traces_data

PAGES = 64
NO_ACCESS = 0


class GuardedMemory:
    """Memory whose last page can't be read."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, (PAGES + 1) * mmap.PAGESIZE)
        self._end = PAGES * mmap.PAGESIZE
        last_page = ctypes.addressof(ctypes.c_char.from_buffer(self._map, self._end))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(last_page), mmap.PAGESIZE, NO_ACCESS) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, value: bytes) -> npt.NDArray[np.uint8]:
        """The value, its end at the end of what can be read."""
        start = self._end - len(value)
        self._map[start : self._end] = value
        return np.frombuffer(self._map, np.uint8, len(value), start)


def main(seed: int, batches: int) -> None:
    """Print how many messages were accepted, and how many refused."""
    memory, rng = GuardedMemory(), random.Random(seed)
    verdicts = [0, 0]
    for _ in range(batches):
        sample = traces_data(trace(rng)[:1])
        corpus = [sample.SerializeToString(), reencode(sample, descending), *(message(rng) for _ in range(6))]
        for value in [*corpus, *(mutate(rng, rng.choice(corpus), corpus) for _ in range(40))]:
            for codec in Codec:
                if len(value) <= PAGES * mmap.PAGESIZE:
                    bounds = np.array([0, len(value)], np.int64)
                    data, out, parts = scan_values(memory.place(value), bounds, KEYS, codec)
                    resources = resource_table(out)
                    resource_attributes(data, resources, np.ones(len(resources.size), np.bool_))
                    verdicts[int(bool(parts.errors) or out.counters[ERRORS] > 0)] += 1
    print(*verdicts)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
