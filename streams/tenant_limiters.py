"""What a tenant's label sets become before they are series, and estimates of how many there are (Tempo LIM-8 to DRN-9).

It is looked after at the ends of windows: labels with too many values every 15 seconds of stream time, periods of
sketches and the tree of span names every five minutes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from schemas.config import LimitSettings
from schemas.label_bytes import binary_buffers
from schemas.ledger_counters import REGISTRY
from schemas.limiters import LimiterState
from streams.demand import Demand
from streams.hyperloglog import Hashes, hash_all, period_of, periods_of
from streams.label_limiter import LOOK_MS, LabelLimiter
from streams.series import Labels
from streams.span_names import PATTERNS_DETECTED, PATTERNS_EVICTED, PATTERNS_EXPIRED, SPANS_SANITIZED, SpanNameSanitizer
from streams.tenant_ledger import TenantLedger

LABEL_VALUES_LIMITED = f"{REGISTRY}label_values_limited_total"

SERIES_DEMAND = f"{REGISTRY}active_series_demand_estimate"
ENTITY_DEMAND = f"{REGISTRY}entity_demand_estimate"
LABEL_DEMAND = f"{REGISTRY}label_cardinality_demand_estimate"
SANITIZED_DEMAND = f"{REGISTRY}post_sanitization_demand_estimate"

Gauges = Mapping[tuple[str, Labels], float]
"""Gauges of a tenant by their full names and their labels besides the tenant's."""


class TenantLimiters:
    """The sketches, labels over their limit and span names of one tenant in one shard."""

    def __init__(self, shard: int, ledger: TenantLedger) -> None:
        self.demand = Demand()
        self._labels, self._span_names = LabelLimiter(shard), SpanNameSanitizer()
        self._limits = LimitSettings()
        self._ledger = ledger
        for counter in (SPANS_SANITIZED, PATTERNS_DETECTED, PATTERNS_EVICTED, PATTERNS_EXPIRED):
            ledger.count_own(counter, 0)

    @property
    def renames(self) -> bool:
        """Whether label sets may become others, or are learnt."""
        return bool(self._limits.span_name_sanitization) or self._limits.max_cardinality_per_label > 0

    def begin_window(self, limits: LimitSettings, stale_ms: int, previous_ms: int | None, end_ms: int) -> None:
        """Go by these limits, and to the window that ends at `end_ms`."""
        self._limits = limits
        period, periods = period_of(end_ms), periods_of(stale_ms)
        self.demand.advance(period, periods)
        self._labels.advance(period, periods)
        if previous_ms is None or period_of(previous_ms) < period:
            self._span_names.prune()

    def rename(self, sets: Sequence[bytes], route_labels: Sequence[str], rows: Sequence[int]) -> list[bytes]:
        """What label sets in canonical order become, by the label whose value is their route.

        A set may come once for each such label. `rows` are how many rows of the window each has: by these replaced
        values are counted.
        """
        become = self._sanitized(sets)
        if not self._limits.max_cardinality_per_label:
            return become
        self._labels.insert(pa.array(become, pa.binary()))
        if not self._labels.over:
            return become
        limited = list(map(self._labels.limited, become, route_labels))
        values: Counter[str] = Counter()
        for (_, replaced), count in zip(limited, rows, strict=True):
            for name in replaced:
                values[name] += count
        for name, count in values.items():
            self._ledger.count_own(LABEL_VALUES_LIMITED, count, (("label_name", name),))
        return [each.labels for each in limited]

    def look(self, previous_ms: int | None, end_ms: int) -> None:
        """Decide by what was seen which labels are over their limit, if it is time."""
        limit = self._limits.max_cardinality_per_label
        if not limit or previous_ms is None or previous_ms // LOOK_MS < end_ms // LOOK_MS:
            self._labels.look(limit)

    def gauges(self) -> Gauges:
        """Estimates, after a window; those of labels are the last ones that were made (LIM-11)."""
        demand = self.demand.estimates()
        gauges: dict[tuple[str, Labels], float] = {
            (SERIES_DEMAND, ()): float(demand.series),
            (ENTITY_DEMAND, ()): float(demand.entities),
        }
        if self._limits.span_name_sanitization:
            gauges[SANITIZED_DEMAND, ()] = float(demand.sanitized)
        for name, estimate in self._labels.estimates.items():
            gauges[LABEL_DEMAND, (("label_name", name),)] = float(estimate)
        return gauges

    def state(self, tenant: str) -> LimiterState:
        """All of it, immutable."""
        return LimiterState(tenant, self.demand.state(), self._labels.state(), self._span_names.state())

    def restore(self, state: LimiterState) -> None:
        """Put back what `state` gave."""
        self.demand.restore(state.demand)
        self._labels.restore(state.labels)
        self._span_names.restore(state.span_names)

    def _sanitized(self, sets: Sequence[bytes]) -> list[bytes]:
        mode = self._limits.span_name_sanitization
        if not mode:
            return list(sets)
        different = list(dict.fromkeys(sets))
        sanitized, counts = self._span_names.sanitize(different)
        for (counter, labels), count in counts.items():
            self._ledger.count_own(counter, count, labels)
        self.demand.insert_sanitized(hashes(pa.array(sanitized, pa.binary())))
        if mode != "enabled":
            return list(sets)
        become = dict(zip(different, sanitized, strict=True))
        return [become[labels] for labels in sets]


def hashes(sets: pa.Array) -> Hashes:
    """The hashes of label bytes in a binary array without nulls."""
    data, offsets = binary_buffers(sets)
    return hash_all(data, offsets) if len(sets) else np.empty(0, np.uint64)
