"""Records of the spans topic, as every reader of the log sees them."""

from typing import NamedTuple

from schemas.control import Control

DEFAULT_TENANT = "single-tenant"
"""The tenant of everything that names none (Tempo ARCH-3)."""


class Record(NamedTuple):
    """One record of `[spans]`.

    `timestamp_ms` is the broker's (LogAppendTime). A control record has an empty value and its message in `control`.
    """

    offset: int
    timestamp_ms: int
    value: bytes
    tenant: str = DEFAULT_TENANT
    no_metrics: bool = False
    control: Control | None = None
