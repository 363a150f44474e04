"""Tempo's gauges of the registry, as the last completed window of each shard has left them."""

import threading
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Labels = tuple[tuple[str, str], ...]
Gauges = Mapping[tuple[str, Labels], float]
"""By name and labels; all of one name have the same label names."""


class RegistryGauges(Collector):
    """The gauges of the shards that this process owns, each with its tenant and shard."""

    def __init__(self) -> None:
        self._shards: dict[int, dict[str, Gauges]] = {}
        self._lock = threading.Lock()

    def show(self, shard: int, gauges: Mapping[str, Gauges]) -> None:
        """Show a window's gauges, by tenant, in place of those before; any thread may."""
        with self._lock:
            self._shards[shard] = dict(gauges)

    def forget(self, shard: int) -> None:
        """The shard is somebody else's now."""
        with self._lock:
            self._shards.pop(shard, None)

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the first window."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families in order of their names."""
        with self._lock:
            shards = sorted(self._shards.items())
        families: dict[str, GaugeMetricFamily] = {}
        for shard, tenants in shards:
            for tenant, gauges in sorted(tenants.items()):
                for (name, labels), value in sorted(gauges.items()):
                    family = families.get(name)
                    if family is None:
                        names = ["tenant", "shard", *(label for label, _ in labels)]
                        family = families[name] = GaugeMetricFamily(name, "Tempo's gauge of this name.", labels=names)
                    family.add_metric([tenant, str(shard), *(text for _, text in labels)], value)
        yield from (families[name] for name in sorted(families))
