"""Values of Tempo's own metrics on limits and on the file of tenants (§15.7)."""

from collections.abc import Iterator

from schemas.config.config import Config
from schemas.config.overrides import TenantOverrides


def limits(block: TenantOverrides) -> dict[str, float]:
    """By `limit_name`: those of Tempo's limits that have an effect here."""
    generator = block.metrics_generator
    return {
        "ingestion_burst_size_bytes": block.ingestion.burst_size_bytes,
        "ingestion_rate_limit_bytes": block.ingestion.rate_limit_bytes,
        "metrics_generator_dry_run_enabled": float(generator.disable_collection),
        "metrics_generator_max_active_series": generator.max_active_series,
    }


def limits_defaults(config: Config) -> dict[str, float]:
    """`tempo_limits_defaults`, by `limit_name`."""
    return limits(config.overrides.defaults)


def limits_overrides(config: Config) -> Iterator[tuple[str, str, float]]:
    """`tempo_limits_overrides`: (limit_name, user, value), of the tenants in the file."""
    for user, block in config.runtime.blocks.items():
        for name, value in limits(block).items():
            yield name, user, value
