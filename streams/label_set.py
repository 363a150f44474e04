"""One label set of one metric: its totals, and the zeros and values that are written of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from schemas.config import HistogramSettings
from schemas.metrics import Metric
from schemas.native_histogram import NativeHistogram
from schemas.snapshot import SeriesTotals
from streams.native_totals import written
from streams.series import Naming, Sample, Series, exemplar, metric_series
from streams.totals import DeltaRow, UsedLayout, apply_rows, misfits, series_count, values, zeros


class Samples(NamedTuple):
    """Zeros of series that begin, or begin again, and values of all live series; each in canonical order."""

    zeros: list[Sample]
    restarts: list[Sample]
    values: list[Sample]


class LabelSet:
    """A label set of a metric, by its label bytes. Its series and samples are made when they are first written."""

    __slots__ = ("_samples", "_series", "labels", "metric", "totals")

    def __init__(self, metric: Metric, labels: bytes, totals: SeriesTotals) -> None:
        self.metric, self.labels, self.totals = metric, labels, totals
        self._series: tuple[Series, ...] = ()
        self._samples: tuple[Sample, ...] = ()

    @property
    def cost(self) -> int:
        """What it counts for in a limit of series (REG-13, REG-21)."""
        return series_count(self.metric, self.totals)

    def update(
        self, rows: Sequence[DeltaRow], layouts: Sequence[UsedLayout], histograms: HistogramSettings, end_ms: int
    ) -> int:
        """Apply a window's fitting rows, at least one; how many of them are in `+Inf` only, being of other buckets."""
        before = self.totals
        self.totals = apply_rows(self.metric, before, rows, layouts, histograms, end_ms)
        if _kinds(before) != _kinds(self.totals):
            self._series = ()
        self._samples = ()
        return misfits(self.totals, rows, layouts)

    def forget_names(self) -> None:
        """The naming changed: the series go on under others."""
        self._series = self._samples = ()

    def gone(self, naming: Naming, remaining: SeriesTotals | None = None) -> list[Series]:
        """The series that were written and are no more, but for those that go on with the remaining totals."""
        if self.totals.fresh:
            return []
        others = () if remaining is None else metric_series(self.metric, self.labels, naming, remaining)
        return [each for each in metric_series(self.metric, self.labels, naming, self.totals) if each not in others]

    def collect(self, naming: Naming, samples: Samples, end_ms: int) -> None:
        """Add what is written in a window."""
        if not self._samples:
            if not self._series:
                self._series = metric_series(self.metric, self.labels, naming, self.totals)
            self._samples = tuple(map(Sample, self._series, values(self.metric, self.totals)))
        totals = self.totals
        if totals.fresh or totals.exemplars or (totals.native is not None and totals.native.exemplars):
            self._collect_once(naming, samples, end_ms)
        else:
            samples.values.extend(self._samples)

    def _collect_once(self, naming: Naming, samples: Samples, end_ms: int) -> None:
        """Collect what is to be said only now: zeros (REG-6, REG-17) and exemplars (REG-12, REG-20)."""
        totals = self.totals
        if totals.fresh:
            begin = zip(self._series, zeros(self.metric, totals), strict=True)
            among = samples.restarts if totals.restarted else samples.zeros
            among.extend(Sample(series, zero) for series, zero in begin if zero is not None)
        now = list(self._samples)
        for bucket, trace, value_ns in totals.exemplars:
            # The buckets follow `_sum` and `_count`.
            given = exemplar(naming.trace_id, trace, value_ns, end_ms)
            now[bucket + 2] = now[bucket + 2]._replace(exemplar=given)
        native, value = totals.native, now[-1].value
        if native is not None and isinstance(value, NativeHistogram):
            shown, native = written(native, naming.trace_id)
            now[-1] = now[-1]._replace(value=replace(value, exemplars=shown))
        samples.values.extend(now)
        self.totals = totals._replace(fresh=False, restarted=False, exemplars=(), native=native)


def _kinds(totals: SeriesTotals) -> tuple[object, ...]:
    """What decides which series there are."""
    return totals.layout, bool(totals.counts), totals.native is None
