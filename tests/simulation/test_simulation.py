"""The product's protocol in random schedules of faults: samples are what the logs say, and every rule is needed."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.simulation.broken import VARIANTS, Variant
from tests.simulation.plan import FLAVOURS, plan
from tests.simulation.run import caught, collect_rarely, quiet, run

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


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: it is part of configurations, each of which takes 40 ms to read."""
    return tmp_path_factory.mktemp("simulation")


@pytest.fixture(autouse=True, scope="module")
def seldom_collected() -> Iterator[None]:
    """Garbage, of which there is little beside what is imported."""
    before = gc.get_threshold()
    collect_rarely()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.parametrize("first", range(0, SCHEDULES, AT_ONCE))
def test_whatever_happens_endpoints_hold_what_the_logs_say(first: int, directory: Path) -> None:
    outcomes = [run(seed, directory) for seed in range(first, first + AT_ONCE)]
    broken = [outcome for outcome in outcomes if outcome.problems]
    assert not broken, "\n".join(
        f"python -m tests.simulation --seed {outcome.seed}  ({outcome.flavour}): {outcome.problems[0]}"
        for outcome in broken
    )
    assert sum(outcome.requests for outcome in outcomes) > AT_ONCE, "somebody wrote something"


@pytest.mark.parametrize(
    "seed",
    [
        20028,  # retention took all that a checkpoint hadn't, and nothing came after it: no tick, and restarts for ever
        38360,  # the window in which a tenant of a longer interval was due never came: dropped as stale, and not seen
        86847,  # a process began once more after retention, as its predecessor's first checkpoint was still on its way
        74895,  # an operator accepted a gap while its batch was still to come, from a generator that crashed for long
    ],
)
def test_schedules_that_once_went_wrong(seed: int, directory: Path) -> None:
    assert run(seed, directory).problems == ()


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.rule)
def test_without_a_rule_of_the_protocol_samples_are_wrong_or_missing(variant: Variant, directory: Path) -> None:
    noticed = caught(variant, directory)
    assert noticed is not None, f"not noticed in {variant.budget} schedules"


def test_a_seed_is_one_schedule(tmp_path: Path) -> None:
    """Whatever ran before in the process."""
    first, _, again = (run(seed, tmp_path / str(n)) for n, seed in enumerate((8, 9, 8)))
    assert first == again


def test_schedules_are_of_every_kind_and_have_every_fault() -> None:
    plans = [plan(seed) for seed in range(200)]
    assert {each.flavour for each in plans} == FLAVOURS.keys()
    assert {fault for each in plans for fault in each.faults} == set().union(*FLAVOURS.values())
