"""Records that can't be read, as the dead-letter topic keeps them: their bytes, where they come from and why."""

from typing import NamedTuple

from agents.producer import Headers


class DeadLetter(NamedTuple):
    """A record of another topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    reason: str
    position: int
    """The byte at which reading stopped."""
    value: bytes

    @property
    def key(self) -> bytes:
        """Its place."""
        return f"{self.topic}-{self.partition}-{self.offset}".encode()

    @property
    def headers(self) -> Headers:
        """All but the value, as text."""
        return [
            ("reason", self.reason.encode()),
            ("position", str(self.position).encode()),
            ("topic", self.topic.encode()),
            ("partition", str(self.partition).encode()),
            ("offset", str(self.offset).encode()),
            ("timestamp", str(self.timestamp_ms).encode()),
        ]
