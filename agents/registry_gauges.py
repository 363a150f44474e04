"""Tempo's gauges of the registry, as the last completed window of each shard has left them (Tempo §15.3)."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from streams.tenant_limiters import ENTITY_DEMAND, LABEL_DEMAND, SANITIZED_DEMAND, SERIES_DEMAND, Gauges
from streams.tenant_registry import ACTIVE_ENTITIES, ACTIVE_SERIES, MAX_ACTIVE_ENTITIES, MAX_ACTIVE_SERIES

MEANINGS = {
    ACTIVE_SERIES: "Series that count towards the limit.",
    MAX_ACTIVE_SERIES: "How many there may be in a shard; 0: any number.",
    ACTIVE_ENTITIES: "Label sets that count towards the limit.",
    MAX_ACTIVE_ENTITIES: "How many there may be in a shard; 0: any number.",
    SERIES_DEMAND: "Estimate of the series there would be without a limit.",
    ENTITY_DEMAND: "Estimate of the label sets there would be without a limit.",
    SANITIZED_DEMAND: "The same of series, with sanitised span names.",
    LABEL_DEMAND: "Estimate of how many values a label has.",
}
FURTHER_LABELS = {LABEL_DEMAND: ("label_name",)}

Shown = tuple[str, tuple[str, ...]]
"""A gauge's name and the values of its labels."""


class RegistryGauges:
    """The gauges of the shards that this process owns."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauges = {
            name: Gauge(name, text, ("tenant", "shard", *FURTHER_LABELS.get(name, ())), registry=registry)
            for name, text in MEANINGS.items()
        }
        self._shown: dict[int, set[Shown]] = {}

    def show(self, shard: int, gauges: Mapping[str, Gauges]) -> None:
        """Show a window's gauges, by tenant, in place of those before."""
        before, now = self._shown.get(shard, set()), set()
        for tenant, own in gauges.items():
            for (name, labels), value in own.items():
                values = (tenant, str(shard), *(text for _, text in labels))
                self._gauges[name].labels(*values).set(value)
                now.add((name, values))
        self._remove(before - now)
        self._shown[shard] = now

    def forget(self, shard: int) -> None:
        """The shard is somebody else's now."""
        self._remove(self._shown.pop(shard, set()))

    def _remove(self, shown: set[Shown]) -> None:
        for name, values in shown:
            self._gauges[name].remove(*values)
