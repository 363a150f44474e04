"""What of the ledger must add up: each equation says into which counters everything goes that came to some place.

The equations are data, so that whoever audits, explains or tests a ledger means the same by it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from schemas.deltas import Ledger, LedgerKey
from schemas.ledger_counters import (
    ALL_PROCESSORS,
    DISABLED,
    EDGE_SPANS_ALONE,
    EDGE_SPANS_DROPPED,
    EDGE_SPANS_JOINED,
    EDGES,
    EDGES_DROPPED,
    EDGES_EXPIRED,
    EDGES_FORGOTTEN,
    EDGES_MEASURED,
    EDGES_OUTGROWN,
    INVALID_UTF8,
    NO_METRICS,
    NO_SERVICE,
    OTHER_KIND,
    OUTSIDE_SLACK,
    ROWS,
    ROWS_APPLIED,
    ROWS_MISFIT,
    ROWS_OVERFLOWED,
    SERVICE_GRAPHS,
    SERVICE_GRAPHS_FILTERED,
    SPAN_METRICS,
    SPAN_METRICS_FILTERED,
    SPANS_DISCARDED,
    SPANS_MEASURED,
    SPANS_PASSED_OVER,
    SPANS_RECEIVED,
    SPANS_WITHOUT_TARGET_INFO,
)


class Fate(StrEnum):
    """What became of something that came."""

    COUNTED = "counted"
    FILTERED = "filtered"
    """By policies, or since it was marked, or is nothing for this processor."""
    DISCARDED = "discarded"
    LIMITED = "limited"
    LOST = "lost"
    WAITING = "waiting"


class Term(NamedTuple):
    """Counters of one name that have these labels, whatever their others are; `sign` is -1 where some count twice."""

    fate: Fate
    counter: str
    labels: tuple[tuple[str, str], ...] = ()
    sign: int = 1

    def matches(self, key: LedgerKey) -> bool:
        """Whether a counter belongs to it."""
        return key.counter == self.counter and set(self.labels) <= set(key.labels)

    def __str__(self) -> str:
        return ("-" if self.sign < 0 else "") + " ".join([self.counter, *(value for _, value in self.labels)])


class Equation(NamedTuple):
    """Whatever `whole` counted is in exactly one of the parts, for each tenant.

    `waiting`: or it is among the half-edges that wait, which no counter knows.
    """

    name: str
    unit: str
    whole: str
    parts: tuple[Term, ...]
    waiting: bool = False


def _reasons(counter: str, processor: str, reason: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return counter, (("processor", processor), ("reason", reason))


_NOT_LOOKED_AT = (
    Term(Fate.DISCARDED, *_reasons(SPANS_DISCARDED, ALL_PROCESSORS, OUTSIDE_SLACK)),
    Term(Fate.FILTERED, *_reasons(SPANS_PASSED_OVER, ALL_PROCESSORS, NO_METRICS)),
)

SPAN_METRICS_SPANS = Equation(
    name=f"{SPAN_METRICS}: spans",
    unit="spans",
    whole=SPANS_RECEIVED,
    parts=(
        Term(Fate.COUNTED, SPANS_MEASURED),
        *_NOT_LOOKED_AT,
        Term(Fate.FILTERED, *_reasons(SPANS_PASSED_OVER, SPAN_METRICS, DISABLED)),
        Term(Fate.FILTERED, *_reasons(SPANS_DISCARDED, SPAN_METRICS, SPAN_METRICS_FILTERED)),
        Term(Fate.DISCARDED, *_reasons(SPANS_DISCARDED, SPAN_METRICS, INVALID_UTF8)),
        Term(Fate.DISCARDED, SPANS_WITHOUT_TARGET_INFO, sign=-1),
    ),
)

SERVICE_GRAPHS_SPANS = Equation(
    name=f"{SERVICE_GRAPHS}: spans",
    unit="spans",
    whole=SPANS_RECEIVED,
    parts=(
        Term(Fate.COUNTED, EDGES),
        Term(Fate.COUNTED, EDGE_SPANS_JOINED),
        *_NOT_LOOKED_AT,
        Term(Fate.FILTERED, *_reasons(SPANS_PASSED_OVER, SERVICE_GRAPHS, DISABLED)),
        Term(Fate.FILTERED, *_reasons(SPANS_PASSED_OVER, SERVICE_GRAPHS, OTHER_KIND)),
        Term(Fate.FILTERED, *_reasons(SPANS_PASSED_OVER, SERVICE_GRAPHS, NO_SERVICE)),
        Term(Fate.FILTERED, *_reasons(SPANS_DISCARDED, SERVICE_GRAPHS, SERVICE_GRAPHS_FILTERED)),
        Term(Fate.FILTERED, EDGE_SPANS_ALONE),
        Term(Fate.LIMITED, EDGE_SPANS_DROPPED),
        Term(Fate.LIMITED, EDGES_OUTGROWN, sign=-1),
    ),
)

SERVICE_GRAPHS_EDGES = Equation(
    name=f"{SERVICE_GRAPHS}: edges",
    unit="edges",
    whole=EDGES,
    parts=(
        Term(Fate.COUNTED, EDGES_MEASURED),
        Term(Fate.DISCARDED, *_reasons(SPANS_DISCARDED, SERVICE_GRAPHS, INVALID_UTF8)),
        Term(Fate.DISCARDED, EDGES_EXPIRED),
        Term(Fate.DISCARDED, EDGES_FORGOTTEN),
        Term(Fate.FILTERED, EDGES_DROPPED),
        Term(Fate.FILTERED, EDGE_SPANS_ALONE, sign=-1),
        Term(Fate.LIMITED, EDGES_OUTGROWN),
    ),
    waiting=True,
)

REGISTRY_ROWS = Equation(
    name="sink: rows",
    unit="rows",
    whole=ROWS,
    parts=(
        Term(Fate.COUNTED, ROWS_APPLIED),
        Term(Fate.LIMITED, ROWS_OVERFLOWED),
        Term(Fate.DISCARDED, ROWS_MISFIT),
    ),
)

GENERATOR_EQUATIONS = (SPAN_METRICS_SPANS, SERVICE_GRAPHS_SPANS, SERVICE_GRAPHS_EDGES)
"""Of the ledgers of batches, from a partition's first window on."""
EQUATIONS = (*GENERATOR_EQUATIONS, REGISTRY_ROWS)
"""Of the ledgers of shards."""


@dataclass(frozen=True, slots=True)
class Balance:
    """One equation for one tenant."""

    equation: Equation
    tenant: str
    whole: int
    parts: tuple[tuple[Term, int], ...]
    """With what each term counted, which its sign isn't applied to."""
    waiting: int

    @property
    def difference(self) -> int:
        """What came and is nowhere; negative if more is somewhere than came."""
        return self.whole - sum(term.sign * count for term, count in self.parts) - self.waiting

    @property
    def fates(self) -> dict[Fate, int]:
        """How much had which fate."""
        found = dict.fromkeys(Fate, 0)
        for term, count in self.parts:
            found[term.fate] += term.sign * count
        found[Fate.WAITING] += self.waiting
        return {fate: count for fate, count in found.items() if count}


def balances(
    ledger: Ledger, waiting: Mapping[str, int], equations: tuple[Equation, ...] = EQUATIONS
) -> Iterator[Balance]:
    """Every equation for every tenant of a ledger, sorted; `waiting` are half-edges that wait, by tenant."""
    of_tenant: dict[str, dict[str, list[tuple[LedgerKey, int]]]] = {}
    for key, count in ledger.items():
        counters = of_tenant.setdefault(tenant_of(key), {})
        counters.setdefault(key.counter, []).append((key, count))
    for tenant in sorted(of_tenant.keys() | waiting.keys()):
        counters = of_tenant.get(tenant, {})
        for equation in equations:
            yield Balance(
                equation,
                tenant,
                whole=sum(count for _, count in counters.get(equation.whole, ())),
                parts=tuple((term, _total(counters, term)) for term in equation.parts),
                waiting=waiting.get(tenant, 0) if equation.waiting else 0,
            )


def tenant_of(key: LedgerKey) -> str:
    """Whose counter it is; empty if it is nobody's."""
    return dict(key.labels).get("tenant", "")


def added(ledgers: Iterator[Ledger]) -> Ledger:
    """What ledgers amount to together."""
    total: Counter[LedgerKey] = Counter()
    for ledger in ledgers:
        total.update(ledger)
    return dict(total)


def _total(counters: Mapping[str, list[tuple[LedgerKey, int]]], term: Term) -> int:
    return sum(count for key, count in counters.get(term.counter, ()) if term.matches(key))
