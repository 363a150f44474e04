"""Windows of the log: named by their end, in stream time."""


def window_end(timestamp_ms: int, interval_ms: int) -> int:
    """The end of the window that a time belongs to: the first multiple of the interval that is after it."""
    return timestamp_ms // interval_ms * interval_ms + interval_ms
