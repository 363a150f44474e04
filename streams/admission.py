"""Which new label sets get series of their own: the limits of series and of entities (Tempo LIM-1 to LIM-6).

An entity is a label set, whatever the metric. Updates of what is there are never limited.
"""

from schemas.config import LimitSettings
from schemas.ledger_counters import REGISTRY
from streams.tenant_ledger import TenantLedger

SERIES_ADDED = f"{REGISTRY}series_added_total"
SERIES_REMOVED = f"{REGISTRY}series_removed_total"
SERIES_LIMITED = f"{REGISTRY}series_limited_total"
ENTITIES_ADDED = f"{REGISTRY}entities_added_total"
ENTITIES_REMOVED = f"{REGISTRY}entities_removed_total"
ENTITIES_LIMITED = f"{REGISTRY}entities_limited_total"


class Admission:
    """What of a tenant in a shard is active. Both is known whatever the limit is, which may change between windows."""

    def __init__(self, ledger: TenantLedger) -> None:
        self.active_series = 0
        """What counts towards the limit: neither overflow nor the ledger (LIM-3)."""
        self.limits = LimitSettings()
        self._ledger = ledger
        # Of how many metrics each label set has series.
        self._entities: dict[bytes, int] = {}
        self._refused: bytes | None = None

    @property
    def active_entities(self) -> int:
        """How many label sets have series."""
        return len(self._entities)

    def begin_window(self, limits: LimitSettings) -> None:
        """Go by these limits; each label set is decided on, and counted, once in a window."""
        self.limits, self._refused = limits, None

    def admit(self, labels: bytes, cost: int) -> bool:
        """Whether a label set that is new to a metric gets series; they come in canonical order."""
        if self.limits.by_entity:
            if not self._admit_entity(labels):
                return False
        elif 0 < self.limits.max_active_series < self.active_series + cost:
            self._ledger.count_own(SERIES_LIMITED, cost)
            return False
        self._ledger.count_own(SERIES_ADDED, cost)
        self.put(labels, cost)
        return True

    def put(self, labels: bytes, cost: int) -> None:
        """Count a label set of a metric that is active."""
        self.active_series += cost
        self._entities[labels] = self._entities.get(labels, 0) + 1

    def grow(self, series: int) -> None:
        """Count series that a label set has more than before."""
        self.active_series += series

    def remove(self, labels: bytes, cost: int) -> None:
        """Give back what a label set of a metric took (LIM-5, REG-26)."""
        self.active_series -= cost
        self._ledger.count_own(SERIES_REMOVED, cost)
        if self.limits.by_entity:
            self._ledger.count_own(ENTITIES_REMOVED, 1)
        self._entities[labels] -= 1
        if not self._entities[labels]:
            del self._entities[labels]

    def _admit_entity(self, labels: bytes) -> bool:
        if labels in self._entities:
            return True
        if 0 < self.limits.max_active_entities <= len(self._entities):
            if labels != self._refused:
                self._ledger.count_own(ENTITIES_LIMITED, 1)
                self._refused = labels
            return False
        self._ledger.count_own(ENTITIES_ADDED, 1)
        return True
