"""What a seed decides before a schedule begins: rules, sizes, and which faults there are how often."""

from dataclasses import dataclass, field
from random import Random

from tests.simulation.settings import FIRST, KINDS, Work

PROCESSES = frozenset({"crash", "zombie", "freeze", "move", "restart"})
BROKER = frozenset({"duplicate", "failed delivery", "clock step", "stale record", "lost fetch", "repeated fetch"})
ENDPOINT = frozenset({"down", "busy", "lost answers"})
BASE = PROCESSES | BROKER | ENDPOINT

FLAVOURS = {
    "plain": BASE,
    "rules": BASE | {"rules", "reload"},
    "waivers": BASE | {"silence"},
    "growth": BASE | {"growth"},
    "retention": BASE | {"retention"},
    "batches lost": BASE | {"deltas retention"},
    "replaced": BASE | {"replaced topic"},
    "too old": BASE | {"down"},
    "two endpoints": BASE,
}
"""Which faults each kind of schedule has."""

SHIFTING = frozenset({"waivers", "retention", "batches lost"})
"""In these counts may move from one window to another."""
LOSING = frozenset({"retention", "batches lost", "replaced"})
"""In these records are lost, and counted as such."""

WEIGHTS = {
    "plain": 30,
    "rules": 24,
    "waivers": 12,
    "growth": 6,
    "retention": 8,
    "batches lost": 4,
    "replaced": 6,
    "too old": 6,
    "two endpoints": 4,
}


@dataclass(frozen=True)
class Plan:
    """One schedule."""

    seed: int
    flavour: str
    first: str
    """The rules that it begins with."""
    faults: tuple[str, ...]
    shards: int
    processes: int
    """Of each stage at the beginning."""
    active_s: float
    """How long there are spans and faults."""
    fault_every_s: float
    spans_every_s: float
    slow: float
    """How often something takes seconds."""
    fetch_most: int
    part_limit: int
    """Estimated bytes of a part of a batch; 0: the product's."""
    kept_windows: int
    """How many windows stay in memory; 0: the product's number."""
    snapshot_limit: int
    """Bytes of a snapshot's records."""
    signed: bool
    age_ms: int
    endpoints: int
    remembers: bool
    """Whether what a batch's bytes say is computed once; one in twenty schedules computes it each time."""
    work: Work = field(default_factory=Work)


def plan(seed: int, flavour: str | None = None, **fixed: object) -> Plan:
    """The plan of a seed; `fixed` takes the place of what would have been drawn."""
    r = Random(f"plan {seed}")
    drawn = r.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    flavour = flavour or drawn
    faults = FLAVOURS[flavour]
    chosen = {fault for fault in sorted(faults) if r.random() < 0.75} | (faults - BASE)
    is_long = r.random() < 0.3
    values: dict[str, object] = {
        "first": r.choice(FIRST),
        "faults": tuple(sorted(chosen)),
        "shards": r.choice((1, 1, 2)),
        "processes": r.choice((1, 1, 2)),
        "active_s": r.uniform(16, 30) if is_long else r.uniform(7, 14),
        "fault_every_s": r.choice((0.8, 1.5, 3.0) if is_long else (0.4, 0.8, 2.0)),
        "spans_every_s": r.choice((1.5, 3.0) if is_long else (0.4, 0.8)),
        "slow": r.choice((0.0, 0.02, 0.1)),
        "fetch_most": r.choice((2, 8, 50)),
        "part_limit": r.choice((0, 700, 1500)),
        "kept_windows": r.choice((0, 1, 2)),
        "snapshot_limit": r.choice((600, 1_000_000)),
        "signed": r.random() < 0.3,
        "age_ms": 20_000 if flavour == "too old" else 0,
        "endpoints": 2 if flavour == "two endpoints" else 1,
        "remembers": seed % 20 != 0,
        "work": Work(
            hold_back_s=8 if flavour in SHIFTING else 600,
            snapshot_every=r.choice((1, 2)),
            stale_markers=r.random() < 0.2,
        ),
    }
    assert set(fixed) <= set(values), f"no such settings: {sorted(set(fixed) - set(values))}"
    return Plan(seed=seed, flavour=flavour, **(values | fixed))  # type: ignore[arg-type]


def other_kind(random: Random, now: str) -> str:
    """Rules that aren't those."""
    return random.choice([kind for kind in sorted(KINDS) if kind != now])
