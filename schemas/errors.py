"""Failures of bytes: what `schemas/` raises when its input isn't what it should be."""

from enum import StrEnum


class Reason(StrEnum):
    """Why bytes were refused: a closed set, since reasons are the values of a label of our own metrics."""

    ENVELOPE = "envelope"
    """Not a message of the expected protobuf type."""
    VERSION = "version"
    """A format version that this program doesn't know."""
    FIELD = "field"
    """A field is missing or out of its range."""
    COMPRESSION = "compression"
    """The compressed body doesn't decompress to the length it names."""
    CHECKSUM = "checksum"
    """The body isn't the one that the envelope was made for."""
    SCHEMA = "schema"
    """The body is no Arrow stream of the expected columns."""
    ROWS = "rows"
    """A row breaks a rule of its table."""
    LABELS = "labels"
    """Label bytes that `encode_labels` doesn't produce."""
    SIGNATURE = "signature"
    """Not signed with a key of ours."""


class Malformed(ValueError):  # noqa: N818 -- it says what the bytes are
    """Bytes that will never be accepted: a permanent failure, to be counted by `reason` and never tried again.

    `reason` is a short text out of a closed set (`Reason` here; other formats have sets of their own), `position` the
    byte at which reading stopped, where that is known.
    """

    def __init__(self, reason: str, detail: str = "", position: int | None = None) -> None:
        at = "" if position is None else f" at byte {position}"
        super().__init__(f"{reason}{at}: {detail}" if detail else f"{reason}{at}")
        self.reason = str(reason)
        self.detail = detail
        self.position = position
