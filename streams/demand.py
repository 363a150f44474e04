"""How many series and label sets a tenant asks for, whatever its limits refuse: estimates (Tempo LIM-8)."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.limiters import DemandState
from streams.hyperloglog import Hashes, SlidingSketches

_ENTITIES, _SANITIZED = "entities", "sanitized"


class Estimates(NamedTuple):
    """Estimates of what is asked for."""

    series: int
    entities: int
    """Different label sets of any metric."""
    sanitized: int
    """Different label sets of spans and edges once span names are sanitised."""


class Demand:
    """The label sets of a tenant that were updated lately, by metric and in all."""

    def __init__(self) -> None:
        self._sketches = SlidingSketches()
        self._costs: dict[int, int] = {}

    def advance(self, period: int, periods: int) -> None:
        """Go to a period of the sketches."""
        self._sketches.advance(period, periods)

    def insert(self, metrics: npt.NDArray[np.uint16], hashes: Hashes) -> None:
        """Take note of label sets: for each its metric and the hash of its bytes."""
        used = np.unique(metrics)
        rows = np.array([self._sketches.row(str(metric)) for metric in used], np.int64)
        self._sketches.insert(rows[np.searchsorted(used, metrics)], hashes)
        self._insert_all(_ENTITIES, hashes)

    def insert_sanitized(self, hashes: Hashes) -> None:
        """Take note of what label sets become if span names are sanitised."""
        self._insert_all(_SANITIZED, hashes)

    def learn_cost(self, metric: int, cost: int) -> None:
        """How many series a label set of a metric is now."""
        self._costs[metric] = cost

    def estimates(self) -> Estimates:
        """What is asked for in all periods that count."""
        found = self._sketches.estimates()
        series = sum(cost * found.get(str(metric), 0) for metric, cost in self._costs.items())
        return Estimates(series, found.get(_ENTITIES, 0), found.get(_SANITIZED, 0))

    def state(self) -> DemandState:
        """All of it, immutable."""
        return DemandState(self._sketches.state(), tuple(sorted(self._costs.items())))

    def restore(self, state: DemandState) -> None:
        """Put back what `state` gave."""
        self._sketches.restore(state.sketches)
        self._costs = dict(state.costs)

    def _insert_all(self, key: str, hashes: Hashes) -> None:
        self._sketches.insert(np.full(len(hashes), self._sketches.row(key), np.int64), hashes)
