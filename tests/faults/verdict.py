"""What Prometheus holds after a scenario, held against the truth, against itself and against a replay of the log."""

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from agents.audit import Report as Audit
from tests.faults.orders import CALLS, LABELS, LATENCY, SPAN_LABELS, Truth
from tests.servers.prometheus import Labels, Prometheus

MARKER = "spanmill_sink_window"
Points = list[tuple[int, float]]
"""(time in ms, value), by time."""
Samples = Mapping[Labels, Points]

LINE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*?)\})? (\S+) (\S+)(?: # .*)?")
LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)",?')
NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Difference:
    """Something that isn't as it must be."""

    what: str
    count: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join((f"{self.what}: {self.count}", *self.examples))


def difference(what: str, found: Iterable[object]) -> Iterator[Difference]:
    """One difference of all that was found; nothing if nothing was."""
    every = [str(each) for each in found]
    if every:
        yield Difference(what, len(every), tuple(every[:NAMED_AT_MOST]))


def stored(prometheus: Prometheus, app: str, seconds: int) -> dict[Labels, Points]:
    """Every sample of an app that Prometheus holds, the markers among them."""
    names = prometheus.api("label/__name__/values", {"match[]": f'{{app="{app}"}}', "start": "0"})
    found: dict[Labels, Points] = {}
    for name in names:
        for labels, samples in prometheus.samples(f'{name}{{app="{app}"}}', seconds).items():
            found[labels] = [(round(at * 1000), value) for at, value in samples]
    return found


def replayed(path: Path) -> dict[Labels, Points]:
    """The samples of an OpenMetrics file, as `spanmill replay` writes it."""
    found: dict[Labels, Points] = {}
    names: dict[str, Labels] = {}
    with path.open() as lines:
        for line in lines:
            if line.startswith("#"):
                continue
            parsed = LINE.fullmatch(line.rstrip("\n"))
            assert parsed is not None, f"{path}: what is this? {line}"
            name, text, value, at = parsed.groups()
            series = f"{name}{{{text}}}"
            if series not in names:
                pairs = [(key, _unescaped(each)) for key, each in LABEL.findall(text or "")]
                names[series] = tuple(sorted([("__name__", name), *pairs]))
            found.setdefault(names[series], []).append((round(float(at) * 1000), float(value)))
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda escape: "\n" if escape[1] == "n" else escape[1], text)


def until(samples: Samples, end_ms: int) -> dict[Labels, Points]:
    """Samples up to a time, without markers."""
    return {
        labels: kept
        for labels, points in samples.items()
        if dict(labels)["__name__"] != MARKER and (kept := [point for point in points if point[0] <= end_ms])
    }


def after(samples: Samples, begin_ms: float) -> dict[Labels, Points]:
    """Samples after a time."""
    return {
        labels: kept
        for labels, points in samples.items()
        if (kept := [point for point in points if point[0] > begin_ms])
    }


def last_window_ms(samples: Samples) -> int:
    """The end of the newest window that every shard has written."""
    return min(points[-1][0] for labels, points in samples.items() if dict(labels)["__name__"] == MARKER)


def unlike_truth(samples: Samples, truth: Truth, dimensions: Sequence[str] = ()) -> Iterator[Difference]:
    """Totals that aren't the log's; two series with the same labels but for those that tell processes apart.

    Series are added up over `dimensions`.
    """
    counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
    sums: Counter[tuple[str, ...]] = Counter()
    twice, foreign = [], []
    seen: set[tuple[object, ...]] = set()
    for labels, points in samples.items():
        named = dict(labels)
        name = named.pop("__name__")
        named.pop("app")
        wanted = SPAN_LABELS if name == f"{LATENCY}_sum" else LABELS.get(name)
        if wanted is None:
            continue
        values = tuple(named.pop(label, "") for label in wanted)
        series = (name, values, *(named.pop(label, "") for label in dimensions))
        if named:
            foreign.append(f"{name} has {named}")
        if series in seen:
            twice.append(str(series))
        seen.add(series)
        if name == f"{LATENCY}_sum":
            sums[values] += points[-1][1]  # type: ignore[assignment]  # a Counter of floats
        else:
            counts[name, values] += int(points[-1][1])
    keys = sorted(counts.keys() | truth.counts.keys())
    wrong = [f"{key}: {counts[key]}, not {truth.counts[key]}" for key in keys if counts[key] != truth.counts[key]]
    yield from difference("totals that aren't the log's", wrong)
    close = {key: math.isclose(sums[key], ns / 1e9, rel_tol=1e-12) for key, ns in truth.latency_ns.items()}
    yield from difference("sums that aren't the log's", (key for key, equal in close.items() if not equal))
    yield from difference("label sets with two series", twice)
    yield from difference("labels that Tempo doesn't have", foreign)


def falls(samples: Samples) -> Iterator[Difference]:
    """Counters that fall: nothing is reset in the scenarios, so nothing may."""
    yield from difference(
        "samples lower than the one before",
        (
            f"{labels} at {at}: {later} after {earlier}"
            for labels, points in samples.items()
            for (_, earlier), (at, later) in pairwise(points)
            if later < earlier
        ),
    )


def holes(samples: Samples, windows: Iterable[int]) -> Iterator[Difference]:
    """Windows, of those in which the log took spans, that a series has no sample of, between its first and its last.

    Of those in which it took none some may be missing: a partition that gets its next record late jumps over them.
    """
    ordered = sorted(windows)
    missing = []
    for labels, points in samples.items():
        has = {at for at, _ in points}
        between = ordered[bisect_left(ordered, points[0][0]) : bisect_right(ordered, points[-1][0])]
        missing += [f"{labels} at {at}" for at in between if at not in has]
    yield from difference("holes", missing)


def misplaced(samples: Samples, spans_by_window: Mapping[int, int]) -> Iterator[Difference]:
    """Windows after which the sum of all calls isn't the number of spans that the log had by then."""
    calls: Counter[int] = Counter()
    for labels, points in samples.items():
        if dict(labels)["__name__"] == CALLS:
            for (_, earlier), (at, later) in pairwise([(0, 0.0), *points]):
                calls[at] += round(later - earlier)
    yield from difference(
        "windows that count other spans than the log took in them",
        (
            f"{at}: {calls[at]}, not {spans_by_window.get(at, 0)}"
            for at in sorted(calls.keys() | spans_by_window.keys())
            if calls[at] != spans_by_window.get(at, 0)
        ),
    )


def unbalanced(audit: Audit) -> Iterator[Difference]:
    """What of the ledger doesn't add up over log, batches, checkpoints and snapshots, with the reasons."""
    wrong = (each for each in audit.checks if not each.balances)
    yield from difference(
        "counts that don't balance",
        (
            " ".join((f"{each.stage}, {each.tenant}: {each.difference} {each.unit} of {each.came}", *each.notes))
            for each in wrong
        ),
    )
    if not audit.checks:
        yield Difference("an audit without anything to compare", 1, audit.notes)


def unlike(samples: Samples, wanted: Samples, whose: str) -> Iterator[Difference]:
    """Samples that differ, in either direction, from those that something else has computed."""
    yield from difference(f"series that only {whose} has", wanted.keys() - samples.keys())
    yield from difference(f"series that {whose} doesn't have", samples.keys() - wanted.keys())
    differing, missing, unwanted = [], [], []
    for labels in samples.keys() & wanted.keys():
        have, want = dict(samples[labels]), dict(wanted[labels])
        missing += [f"{labels} at {at}" for at in want.keys() - have.keys()]
        unwanted += [f"{labels} at {at}" for at in have.keys() - want.keys()]
        differing += [
            f"{labels} at {at}: {have[at]}, not {want[at]}" for at in have.keys() & want.keys() if want[at] != have[at]
        ]
    yield from difference(f"samples that only {whose} has", missing)
    yield from difference(f"samples that {whose} doesn't have", unwanted)
    yield from difference(f"samples other than those of {whose}", differing)
