"""Structured logs: one key=value line per event on standard error, the libraries' lines throttled.

Frequent things are counters (`agents/own_metrics.py`); lines are for starts, stops, assignments and failures.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

import structlog
from structlog.typing import Processor

REPEAT_AFTER_S = 10.0
"""A library says the same thing once in this time: aiokafka alone writes 120 lines a second while a broker is away."""

ALIKE_LETTERS = 40
MOST_LINES = 1000
"""So many different ones are remembered."""

QUIET = {
    "aiokafka": logging.ERROR,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.WARNING,
    "numba": logging.WARNING,
    "opentelemetry": logging.WARNING,
}
"""Lowest level that is shown of a library's loggers."""


class Throttle(logging.Filter):
    """Lets a line of a library through once in `REPEAT_AFTER_S`, with how many like it there were meanwhile.

    Lines are alike if they are of one logger and begin alike: Faust puts what is different each time into its messages.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._shown: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is shown; lines of our own always are."""
        lowest = next((level for name, level in QUIET.items() if record.name.startswith(name)), None)
        if lowest is None:
            return True
        if record.levelno < lowest:  # Faust gives loggers of its own a level, which beats that of their parent
            return False
        if len(self._shown) > MOST_LINES:
            self._shown.clear()
        key, now = (record.name, str(record.msg)[:ALIKE_LETTERS]), self._clock()
        shown_at, held_back = self._shown.get(key, (-REPEAT_AFTER_S, 0))
        if now - shown_at < REPEAT_AFTER_S:
            self._shown[key] = shown_at, held_back + 1
            return False
        self._shown[key] = now, 0
        if held_back:
            record.msg, record.args = f"{record.getMessage()} (and {held_back} more like it)", ()
        return True


class StandardError(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at the moment of writing: a live view on the terminal replaces it for its time."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self.stream = sys.stderr
        super().emit(record)


def configure(level: str = "info") -> None:
    """Set up structlog and the standard library's loggers (both write the same lines); may be called again."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = StandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.LogfmtRenderer(key_order=["ts", "level", "event"], bool_as_flag=False),
            ],
        )
    )
    handler.addFilter(Throttle())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, lowest in QUIET.items():
        logging.getLogger(name).setLevel(lowest)
