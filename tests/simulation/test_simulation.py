"""The product's protocol in random schedules of faults: samples are what the logs say, and every rule is needed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.simulation.broken import VARIANTS, Variant
from tests.simulation.plan import FLAVOURS, plan
from tests.simulation.run import caught, quiet, run

SCHEDULES = 2_000
"""Of all kinds; `make simulate` runs more."""
AT_ONCE = 50


@pytest.fixture(autouse=True)
def no_log_lines() -> Iterator[None]:
    """A schedule's log would fill pages; the command that a failure names shows it."""
    before = structlog.get_config()
    quiet()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("first", range(0, SCHEDULES, AT_ONCE))
def test_whatever_happens_endpoints_hold_what_the_logs_say(first: int, tmp_path: Path) -> None:
    outcomes = [run(seed, tmp_path) for seed in range(first, first + AT_ONCE)]
    broken = [outcome for outcome in outcomes if outcome.problems]
    assert not broken, "\n".join(
        f"python -m tests.simulation --seed {outcome.seed}  ({outcome.flavour}): {outcome.problems[0]}"
        for outcome in broken
    )
    assert sum(outcome.requests for outcome in outcomes) > AT_ONCE, "somebody wrote something"


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.rule)
def test_without_a_rule_of_the_protocol_samples_are_wrong_or_missing(variant: Variant, tmp_path: Path) -> None:
    noticed = caught(variant, tmp_path)
    assert noticed is not None, f"not noticed in {variant.budget} schedules"


def test_a_seed_is_one_schedule(tmp_path: Path) -> None:
    """Whatever ran before in the process."""
    first, _, again = (run(seed, tmp_path / str(n)) for n, seed in enumerate((8, 9, 8)))
    assert first == again


def test_schedules_are_of_every_kind_and_have_every_fault() -> None:
    plans = [plan(seed) for seed in range(200)]
    assert {each.flavour for each in plans} == FLAVOURS.keys()
    assert {fault for each in plans for fault in each.faults} == set().union(*FLAVOURS.values())
