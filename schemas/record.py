"""Records of the spans topic, as every reader of the log sees them."""

from typing import NamedTuple

from schemas.control import Control

DEFAULT_TENANT = "single-tenant"
"""The tenant of everything that names none (Tempo ARCH-3)."""

TENANT_HEADER = "tenant"
"""The header in which our distributor writes the tenant."""

NO_METRICS_HEADER = "no-metrics"
"""A record with this header, whatever its value, is stored but not measured (Tempo INT-7)."""


class Record(NamedTuple):
    """One record of `[spans]`.

    `timestamp_ms` is the broker's (LogAppendTime). A control record has an empty value and its message in `control`.
    One of which not even the headers could be read is `unreadable`: it is empty, and tells the time.
    """

    offset: int
    timestamp_ms: int
    value: bytes
    tenant: str = DEFAULT_TENANT
    no_metrics: bool = False
    control: Control | None = None
    unreadable: bool = False
