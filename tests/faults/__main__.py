"""`python -m tests.faults NAME ...`: run scenarios, print their reports; exit code 1 if anything differs."""

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults.scenarios import SCENARIOS
from tests.faults.trial import ImpossibleError, Options


def main() -> None:
    """Run what is named; everything by default."""
    known = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    known.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(SCENARIOS)}")
    known.add_argument("--seed", type=int, default=1)
    known.add_argument("--kills", type=int, default=5, help="random faults of a scenario")
    known.add_argument("--down", type=float, default=30.0, metavar="SECONDS", help="how long something stays away")
    known.add_argument("--backlog", type=int, default=200_000, metavar="SPANS", help="what waits for stopped stages")
    known.add_argument("--keep", action="store_true", help="keep logs and data of a scenario without differences too")
    given = known.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended all the same
    options = Options(given.seed, given.kills, given.down, given.backlog)
    unknown = sorted(set(given.names) - SCENARIOS.keys())
    if unknown:
        known.error(f"no such scenario: {', '.join(unknown)}")
    failed = [name for name in given.names or SCENARIOS if not run(name, options, keep=given.keep)]
    if failed:
        sys.exit(f"differences, or an end before the end, in: {', '.join(failed)}")


def run(name: str, options: Options, *, keep: bool) -> bool:
    """Run a scenario in a directory of its own, which stays where something is wrong."""
    directory = Path(tempfile.mkdtemp(prefix=f"spanmill-{name}-"))
    try:
        report = SCENARIOS[name].run(directory, options)
    except ImpossibleError as error:
        sys.stdout.write(f"scenario     {name}: not run: {error}\n")
        return True
    except AssertionError as error:
        sys.stdout.write(f"scenario     {name}: {error}\nkept         {directory}\n")
        return False
    sys.stdout.write(f"{report}\n")
    if report.differences or keep:
        sys.stdout.write(f"kept         {directory}\n")
    else:
        shutil.rmtree(directory)
    sys.stdout.flush()
    return not report.differences


if __name__ == "__main__":
    main()
