"""What the C library does with freed memory."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt."""
_KEPT_BYTES = 256 << 20


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
