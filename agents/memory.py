"""What a process does with memory that it doesn't need any more."""

import ctypes
import gc
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt."""
_KEPT_BYTES = 256 << 20


_YOUNG, _MIDDLE, _OLD = 20_000, 20, 50
"""Python's own are 700, 10, 10, for programs of few objects: a request makes hundreds, which go by themselves."""


def collect_rarely() -> None:
    """Let the garbage collector pass over what is there, which is imported and compiled code, and come less often.

    It took a tenth of a distributor's CPU time, and of a generator's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def keep_freed_memory() -> None:
    """Keep what is freed for the next frame, where the C library is glibc.

    By default arrays of a few MB are given back to the system each time and faulted in again: up to a third of the
    time of decoding.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
                mallopt(option, _KEPT_BYTES)
