"""Schedules from the command line: many in all processes, or one in full.

python -m tests.simulation --count 100000          all kinds of schedules
python -m tests.simulation --seed 52               one schedule, with what the product logs
python -m tests.simulation --broken                each rule of the protocol switched off, until that is noticed
"""

import argparse
import gc
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import structlog

from tests.simulation.broken import VARIANTS, Variant
from tests.simulation.plan import FLAVOURS, plan
from tests.simulation.schedule import Schedule, forget_scratch, scratch
from tests.simulation.verdict import problems


class Outcome(NamedTuple):
    """What came of a schedule."""

    seed: int
    flavour: str
    problems: tuple[str, ...]
    happened: Counter[str]
    requests: int


def run(seed: int, directory: Path, flavour: str | None = None) -> Outcome:
    """One schedule."""
    schedule = Schedule(plan(seed, flavour), directory)
    schedule.run()
    return Outcome(
        seed,
        schedule.plan.flavour,
        tuple(problems(schedule)),
        schedule.happened,
        sum(server.requests for server in schedule.servers),
    )


def caught(variant: Variant, directory: Path) -> Outcome | None:
    """The first schedule in which a rule is missed; None if it isn't within the variant's budget.

    The verdict is the intact product's.
    """
    for seed in (*variant.known, *range(variant.budget)):
        schedule = Schedule(plan(seed, variant.flavour, **variant.fixed), directory)
        schedule.trouble.reorders = variant.reorders
        with variant.switched_off():
            schedule.run()
        found = problems(schedule)
        if found:
            return Outcome(seed, schedule.plan.flavour, tuple(found), schedule.happened, 0)
    return None


def quiet() -> None:
    """Without the product's log lines."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def collect_rarely() -> None:
    """Let the garbage collector pass over what is imported and compiled: it cost 11 % of all CPU time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


_directory: Path | None = None


def _begin() -> None:
    global _directory  # noqa: PLW0603  of a worker process, which has one
    quiet()
    collect_rarely()
    _directory = scratch()


def _run_one(case: tuple[int, str | None]) -> Outcome:
    assert _directory is not None
    return run(case[0], _directory, case[1])


def run_many(seeds: Iterable[int], flavour: str | None, processes: int) -> Iterator[Outcome]:
    """Schedules in several processes, in the order in which they end."""
    with get_context("fork").Pool(processes, _begin) as pool:
        yield from pool.imap_unordered(_run_one, ((seed, flavour) for seed in seeds), chunksize=8)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--flavour", choices=sorted(FLAVOURS))
    parser.add_argument("--broken", action="store_true", help="switch off each rule, one after the other")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    if args.seed is not None:
        sys.exit(_one(args.seed, args.flavour))
    sys.exit(_all_broken(args.processes) if args.broken else _many(args))


def _one(seed: int, flavour: str | None) -> int:
    directory = scratch()
    try:
        outcome = run(seed, directory, flavour)
    finally:
        forget_scratch(directory)
    print(plan(seed, flavour))
    print(dict(outcome.happened))
    print("\n".join(outcome.problems) or "as the logs say")
    return bool(outcome.problems)


def _catch(number: int) -> tuple[int, Outcome | None]:
    assert _directory is not None
    return number, caught(VARIANTS[number], _directory)


def _all_broken(processes: int) -> int:
    """Switch off every rule; how many of them aren't missed."""
    missed = 0
    with get_context("fork").Pool(processes, _begin) as pool:
        for number, outcome in pool.imap_unordered(_catch, range(len(VARIANTS))):
            variant = VARIANTS[number]
            if outcome is None:
                missed += 1
                print(f"NOT NOTICED within {variant.budget} schedules: {variant.rule}", flush=True)
            else:
                print(f'seed {outcome.seed:3}: without "{variant.rule}"', flush=True)
                print(f"          {outcome.problems[0][:200]}", flush=True)
    return missed


def _many(args: argparse.Namespace) -> int:
    begun, broken, kinds, happened = time.monotonic(), 0, Counter[str](), Counter[str]()
    seeds = range(args.first, args.first + args.count)
    for done, outcome in enumerate(run_many(seeds, args.flavour, args.processes), 1):
        kinds[outcome.flavour] += 1
        happened.update(outcome.happened)
        if outcome.problems:
            broken += 1
            more = f" --flavour {outcome.flavour!r}" if args.flavour else ""
            print(f"python -m tests.simulation --seed {outcome.seed}{more}: {outcome.flavour}", flush=True)
            for problem in outcome.problems[:4]:
                print(f"    {problem[:600]}", flush=True)
        if done % 500 == 0:
            print(
                f"{done} schedules, {broken} broken, {(time.monotonic() - begun) / done * 1000:.0f} ms each", flush=True
            )
    print(f"{sum(kinds.values())} schedules in {time.monotonic() - begun:.0f} s, {broken} broken; {dict(kinds)}")
    print(f"faults: {dict(sorted(happened.items()))}")
    return bool(broken)
