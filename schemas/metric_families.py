"""Type and help of every metric family that the sink writes: what remote write calls metadata."""

from dataclasses import dataclass
from functools import lru_cache

from schemas.ledger_counters import LEDGER_COUNTERS, ledger_series_name
from schemas.metrics import METRICS, Kind

WINDOW_MARKER = "spanmill_sink_window"
REPLAY_LABEL = "replay"
"""Tells series, and markers, of a replay that isn't live's from those of the live stages."""

_OF_HISTOGRAM = ("_bucket", "_sum", "_count")


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """A family. Its name is the series' name, but for a classic histogram's, which have a suffix."""

    name: str
    kind: Kind
    help: str


METRIC_FAMILIES: dict[str, MetricFamily] = {
    family.name: family
    for family in (
        *(MetricFamily(metric.name, metric.kind, metric.help) for metric in METRICS.values()),
        *(
            MetricFamily(ledger_series_name(counter), Kind.COUNTER, meaning)
            for counter, meaning in LEDGER_COUNTERS.items()
        ),
        MetricFamily(WINDOW_MARKER, Kind.GAUGE, "The end of the newest window that was written, in ms since 1970."),
    )
}
"""By name, in a fixed order. Host info's has its default name."""


@lru_cache(maxsize=1024)
def family_of(series_name: str) -> MetricFamily | None:
    """The family of a series by its `__name__`; None for a name of the operator's, by relabelling or configuration."""
    for suffix in _OF_HISTOGRAM:
        family = METRIC_FAMILIES.get(series_name.removesuffix(suffix))
        if family is not None and (family.kind is Kind.HISTOGRAM or family.name == series_name):
            return family
    return None
