"""OpenMetrics text: samples with timestamps in one canonical order, and the exposition of newest samples.

The text is what `promtool tsdb create-blocks-from openmetrics` reads: a family's lines stand together, the samples of
a series in order of time. Order: families by name; in a family the label sets (without `le`) by their text; in a label
set by time; at one time the buckets ascending, then `_sum`, `_count`. Equal samples give equal bytes. Neither text has
native histograms: whoever calls leaves them out, or refuses where nothing else would be left.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from schemas.metrics import METRICS, Kind

Labels = tuple[tuple[str, str], ...]
"""Label names and values of a series, sorted by name, `__name__` and `le` among them."""

EXPOSITION_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

CHUNK_LINES = 4096
HISTOGRAMS = frozenset(metric.name for metric in METRICS.values() if metric.kind is Kind.HISTOGRAM)
GAUGES = frozenset(metric.name for metric in METRICS.values() if metric.kind is Kind.GAUGE)
HISTOGRAM_SUFFIXES = ("_bucket", "_sum", "_count")

LEGACY_METRIC_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*", re.ASCII)
LEGACY_LABEL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Exemplar(Protocol):
    """A trace that stands for a bucket: one label, the observation in the metric's unit, the time in ms."""

    @property
    def labels(self) -> Labels:
        """Usually `traceID` alone."""

    @property
    def value(self) -> float:
        """The raw observation, in seconds for latencies."""

    @property
    def timestamp_ms(self) -> int:
        """When it was seen."""


class Point(NamedTuple):
    """A sample of a series that is known from elsewhere."""

    timestamp_ms: int
    value: float
    exemplar: Exemplar | None = None


@dataclass(frozen=True, slots=True, order=True)
class Family:
    """A metric family: its name in OpenMetrics (without a counter's `_total`) and its type."""

    name: str
    type: str


def family_of(metric_name: str) -> Family:
    """The family of a series' `__name__`. Names that don't tell are of the type `unknown`."""
    for suffix in HISTOGRAM_SUFFIXES:
        if metric_name.endswith(suffix) and metric_name.removesuffix(suffix) in HISTOGRAMS:
            return Family(metric_name.removesuffix(suffix), "histogram")
    if metric_name in GAUGES:
        return Family(metric_name, "gauge")
    if metric_name.endswith("_total"):
        return Family(metric_name.removesuffix("_total"), "counter")
    return Family(metric_name, "unknown")


def openmetrics(series: Iterable[tuple[Labels, Iterable[Point]]]) -> Iterator[bytes]:
    """The text in chunks. Each series comes once, with its points in order of time."""
    lines: list[str] = []
    for family, label_sets in _by_family(series):
        lines.append(f"# TYPE {_metric_name(family.name)} {family.type}\n")
        for members in label_sets:
            for line in _label_set_lines(members):
                lines.append(line)
                if len(lines) >= CHUNK_LINES:
                    yield "".join(lines).encode()
                    lines.clear()
    lines.append("# EOF\n")
    yield "".join(lines).encode()


def exposition(samples: Iterable[tuple[Labels, int, float]]) -> bytes:
    """Text format 0.0.4 of one (labels, timestamp in ms, value) per series, timestamps included."""
    lines = []
    for family, label_sets in _by_family((labels, (Point(ms, value),)) for labels, ms, value in samples):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        kind = "untyped" if family.type == "unknown" else family.type
        lines.append(f"# TYPE {_metric_name(name)} {kind}\n")
        for members in label_sets:
            for labels, points in members:
                selector = _selector(labels)
                lines.extend(f"{selector} {value_text(point.value)} {point.timestamp_ms}\n" for point in points)
    return "".join(lines).encode()


def sample_line(labels: Labels, point: Point) -> str:
    """One sample with its time and exemplar, as it stands in the text."""
    return _line(_selector(labels), point)


class _Member(NamedTuple):
    """A series of a label set: one for a counter or a gauge, the buckets, sum and count for a histogram."""

    labels: Labels
    points: Iterable[Point]


def _by_family(
    series: Iterable[tuple[Labels, Iterable[Point]]],
) -> Iterator[tuple[Family, list[Sequence[_Member]]]]:
    families: dict[Family, dict[Labels, list[_Member]]] = {}
    for labels, points in series:
        family = family_of(metric_name(labels))
        key = tuple(pair for pair in labels if pair[0] != "__name__" and not _is_bound(pair, family))
        families.setdefault(family, {}).setdefault(key, []).append(_Member(labels, points))
    for family in sorted(families):
        label_sets = families[family]
        yield family, [sorted(label_sets[key], key=_rank) for key in sorted(label_sets)]


def metric_name(labels: Labels) -> str:
    """The `__name__` of a series; raises KeyError without one."""
    for name, value in labels:
        if name == "__name__":
            return value
    raise KeyError("__name__")


def _is_bound(pair: tuple[str, str], family: Family) -> bool:
    return pair[0] == "le" and family.type == "histogram"


def _rank(member: _Member) -> tuple[int, float]:
    """Place in a point: the buckets by their bounds, the sum, the count."""
    name = metric_name(member.labels)
    if name.endswith("_sum"):
        return (1, 0.0)
    if name.endswith("_count"):
        return (1, 1.0)
    bound = next((value for label, value in member.labels if label == "le"), "+Inf")
    return (0, float(bound))


def _label_set_lines(members: Sequence[_Member]) -> Iterator[str]:
    """The lines of one label set, by time, its members being in order already."""
    if len(members) == 1:
        selector = _selector(members[0].labels)
        return (_line(selector, point) for point in members[0].points)
    selectors = [_selector(member.labels) for member in members]
    points = [(point.timestamp_ms, i, point) for i, member in enumerate(members) for point in member.points]
    points.sort(key=lambda at: at[:2])
    return (_line(selectors[i], point) for _, i, point in points)


def _line(selector: str, point: Point) -> str:
    line = f"{selector} {value_text(point.value)} {seconds_text(point.timestamp_ms)}"
    if point.exemplar is not None:
        line += f" # {_exemplar_text(point.exemplar)}"
    return f"{line}\n"


def _exemplar_text(exemplar: Exemplar) -> str:
    labels = ",".join(_pair(name, value) for name, value in exemplar.labels)
    return f"{{{labels}}} {value_text(exemplar.value)} {seconds_text(exemplar.timestamp_ms)}"


def _selector(labels: Labels) -> str:
    """`name{label="value"}`; a metric name that isn't a legacy one goes, quoted, into the braces."""
    name = metric_name(labels)
    pairs = [_pair(label, value) for label, value in labels if label != "__name__"]
    if not LEGACY_METRIC_NAME.fullmatch(name):
        return "{" + ",".join([_metric_name(name), *pairs]) + "}"
    return f"{name}{{{','.join(pairs)}}}" if pairs else name


def _pair(name: str, value: str) -> str:
    if not LEGACY_LABEL_NAME.fullmatch(name):  # a leading digit is legal in Tempo (PRIM-4), here only in quotes
        name = f'"{name.translate(ESCAPES)}"'
    return f'{name}="{value.translate(ESCAPES)}"'


def _metric_name(name: str) -> str:
    return name if LEGACY_METRIC_NAME.fullmatch(name) else f'"{name.translate(ESCAPES)}"'


def value_text(value: float) -> str:
    """The shortest text that reads back as the same number; integers without a fraction."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value)).removesuffix(".0")


def seconds_text(timestamp_ms: int) -> str:
    """A timestamp in seconds that Prometheus reads back as the same millisecond.

    Prometheus multiplies the float by 1000 and truncates, which takes a millisecond from some of them: those get half
    a microsecond more.
    """
    seconds, rest = divmod(timestamp_ms, 1000)
    if not rest:
        return str(seconds)
    text = f"{seconds}.{rest:03d}"
    return text if int(float(text) * 1000) == timestamp_ms else f"{text}0005"
