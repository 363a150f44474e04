"""Overrides per tenant: the blocks of a file that may change while everything runs (Tempo OVR-1, OVR-2)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.config.overrides import TenantOverrides
from schemas.config.yaml_lines import Document

EVERY_OTHER = "*"
"""The block of the tenants that have none of their own."""


@dataclass(frozen=True, slots=True)
class RuntimeOverrides:
    """What a file says about tenants. Blocks are complete: what falls back to the defaults has done so (OVR-1)."""

    blocks: Mapping[str, TenantOverrides] = field(default_factory=dict)
    """By tenant, and `*`."""
    name: str = field(default="", compare=False)
    """The file's."""
    sha256: str = field(default="", compare=False)
    """Of the file's text, in hex; "" without a file."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was read and has no effect, one line each: `FILE:LINE: key: why`."""
    document: Document | None = field(default=None, compare=False, repr=False)
    """The file's values and their lines, secrets included."""

    def block_name(self, tenant: str) -> str | None:
        """Which block is a tenant's: its own, else `*`; None: the defaults."""
        return next((name for name in (tenant, EVERY_OTHER) if name in self.blocks), None)


def complete(block: TenantOverrides, defaults: TenantOverrides) -> TenantOverrides:
    """A block as it was read, with what falls back to the defaults: unset, or Go's zero for it (OVR-1)."""
    own, general = block.metrics_generator, defaults.metrics_generator
    unset = {
        key: getattr(general, key) for key in FALL_BACK if key not in own.model_fields_set or not getattr(own, key)
    }
    ingestion = block.ingestion.replace(rate_strategy=defaults.ingestion.rate_strategy)
    if "retry_info_enabled" not in ingestion.model_fields_set:
        ingestion = ingestion.replace(retry_info_enabled=defaults.ingestion.retry_info_enabled)
    return block.replace(metrics_generator=own.replace(**unset), ingestion=ingestion)


FALL_BACK = (
    "native_histogram_bucket_factor",
    "native_histogram_max_bucket_number",
    "native_histogram_min_reset_duration_ms",
    "span_name_sanitization",
)
"""Of `metrics_generator`; with `ingestion.retry_info_enabled`, whose false isn't "unset"."""
