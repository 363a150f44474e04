"""What the distributor does for a tenant, resolved (Tempo DIST-7, DIST-9, DIST-10, DIST-15, DIST-17, DIST-19)."""

from dataclasses import dataclass

from schemas.config.config import Config


@dataclass(frozen=True, slots=True)
class IngestionSettings:
    """Everything about a tenant's requests that overrides decide."""

    rate_limit_bytes: int
    """A second, of all distributors if `shared`, else of each."""
    burst_size_bytes: int
    """At once; never divided."""
    shared: bool
    """The rate is divided by the number of distributors."""
    max_attribute_bytes: int
    """Longer keys and values of attributes are cut; 0: none."""
    retry_after_s: float
    """When a client that is above its rate is told to come again; 0: it isn't told, and gives its data up."""
    artificial_delay_s: float
    """How long an answer takes at least."""
    cost_dimensions: tuple[tuple[str, str], ...]
    """Attributes and labels that its bytes are told apart by (Tempo DIST-19)."""
    cost_max_cardinality: int
    """Combinations of these; 0: the static number."""
    forwarders: tuple[str, ...]
    """Names of those that get a copy of its spans (Tempo DIST-15)."""


def ingestion_settings(config: Config, tenant: str) -> IngestionSettings:
    """Those of a tenant. The strategy is the defaults' for everybody, as in Tempo."""
    overrides, static = config.tenant_overrides(tenant), config.distributor
    own, cost = overrides.ingestion, overrides.cost_attribution
    return IngestionSettings(
        rate_limit_bytes=own.rate_limit_bytes,
        burst_size_bytes=own.burst_size_bytes,
        shared=config.overrides.defaults.ingestion.rate_strategy == "global",
        max_attribute_bytes=own.max_attribute_bytes or static.max_attribute_bytes,
        retry_after_s=static.retry_after_on_resource_exhausted_s if own.retry_info_enabled else 0.0,
        artificial_delay_s=own.artificial_delay_s or static.artificial_delay_s,
        cost_dimensions=tuple(cost.dimensions.items()) if static.usage.cost_attribution.enabled else (),
        cost_max_cardinality=cost.max_cardinality,
        forwarders=overrides.forwarders,
    )
