"""Type and help of metric families, for endpoints of remote write 1.0, which Tempo has never sent (ST-8)."""

from collections.abc import Iterable

from schemas.metric_families import MetricFamily, family_of
from streams.series import NAME_LABEL, Series


class DueMetadata:
    """When a tenant's metadata was sent to an endpoint, by tenant and shard."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._sent_at: dict[tuple[str, int], float] = {}

    def is_due(self, tenant: str, shard: int, now: float) -> bool:
        """Whether it was never sent, or an interval ago."""
        sent_at = self._sent_at.get((tenant, shard))
        return sent_at is None or now - sent_at >= self._interval_s

    def sent(self, tenant: str, shard: int, now: float) -> None:
        """Note that it was."""
        self._sent_at[tenant, shard] = now


def families_of(series: Iterable[Series | None]) -> list[MetricFamily]:
    """The families that series belong to, by name; names that aren't ours have none."""
    names = {value for each in series if each is not None for name, value in each.labels if name == NAME_LABEL}
    found = {family.name: family for name in names if (family := family_of(name)) is not None}
    return [found[name] for name in sorted(found)]
