"""What a check has found."""

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How bad it is. Errors keep something from working, warnings may cost data or let strangers in."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """One line."""

    level: Level
    subject: str
    """What was looked at: a key of the configuration, a topic, a file."""
    text: str
    """What is the case and, unless it is right, what to do."""

    def __str__(self) -> str:
        return f"{self.level:<8} {self.subject}: {self.text}"


def ok(subject: str, text: str) -> Finding:
    """As it should be, or nothing that can be looked at."""
    return Finding(Level.OK, subject, text)


def warning(subject: str, text: str) -> Finding:
    """Works, but."""
    return Finding(Level.WARNING, subject, text)


def error(subject: str, text: str) -> Finding:
    """Can't work."""
    return Finding(Level.ERROR, subject, text)
