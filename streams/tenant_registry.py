"""The series of one tenant in one shard: admission, staleness, the ledger, and the samples of a window.

Only what a window updates costs more than a look: samples of unchanged label sets are written again as they are.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from schemas.config import HistogramSettings, LimitSettings
from schemas.deltas import LedgerKey
from schemas.metrics import METRICS, Metric
from schemas.snapshot import LedgerTotal, SeriesKey, SeriesTotals
from streams.label_set import LabelSet, Samples
from streams.series import Naming, Sample, ledger_series, overflow_labels
from streams.totals import DeltaRow, UsedLayout, apply_rows, fitting_rows

SERIES_ADDED = "tempo_metrics_generator_registry_series_added_total"
SERIES_REMOVED = "tempo_metrics_generator_registry_series_removed_total"
SERIES_LIMITED = "tempo_metrics_generator_registry_series_limited_total"
"""Ledger counters of the registry itself (LIM-2, REG-26): as exact as the series, one for each shard."""

_METRICS: dict[int, Metric] = {int(metric.id): metric for metric in METRICS.values()}


class SeriesSettings(Protocol):
    """What the registry follows of a tenant's settings (`TenantSettings` has more)."""

    @property
    def collection_interval_ms(self) -> int:
        """The time between a series' samples; rounded up to a multiple of the window's interval."""

    @property
    def stale_duration_ms(self) -> int:
        """How long a series goes on without updates."""

    @property
    def collects(self) -> bool:
        """Whether samples are written at all (REG-2)."""

    @property
    def limits(self) -> LimitSettings:
        """What bounds the series."""

    @property
    def histograms(self) -> HistogramSettings:
        """Classic ones, native ones or both."""

    @property
    def host_info_metric_name(self) -> str:
        """The name of `MetricId.HOST_INFO` (HI-2)."""

    @property
    def external_labels(self) -> tuple[tuple[str, str], ...]:
        """Labels of all series."""

    @property
    def trace_id_label_name(self) -> str:
        """The label of exemplars."""


class _Counter:
    """One counter of the ledger."""

    __slots__ = ("fresh", "sample", "total")

    def __init__(self, total: int, sample: Sample, *, fresh: bool) -> None:
        self.total, self.sample, self.fresh = total, sample, fresh


class TenantRegistry:
    """All series of a tenant. `settings` may be replaced between windows; labels of existing series stay."""

    def __init__(self, tenant: str, shard: int, settings: SeriesSettings) -> None:
        self.tenant, self.settings = tenant, settings
        self.active_series = 0
        """What counts towards the limit: neither overflow nor the ledger (LIM-3)."""
        self.misfits = 0
        """Rows of the open window with other buckets, or of another kind of histogram, than their series."""
        self._shard, self._overflow = shard, overflow_labels(shard)
        self._label_sets: dict[SeriesKey, LabelSet] = {}
        self._order: list[SeriesKey] | None = []
        self._ledger: dict[LedgerKey, _Counter] = {}
        for counter in (SERIES_ADDED, SERIES_REMOVED, SERIES_LIMITED):
            self._count_own(counter, 0)

    def update(self, key: SeriesKey, rows: Sequence[DeltaRow], layouts: Sequence[UsedLayout], end_ms: int) -> None:
        """Apply a window's rows of a label set, at least one. Keys come in canonical order, in which limits admit."""
        metric, histograms = _METRICS[key.metric], self.settings.histograms
        fitting = fitting_rows(metric, rows, histograms)
        self.misfits += len(rows) - len(fitting)
        if not fitting:
            return
        label_set = self._label_sets.get(key)
        if label_set is None:
            label_set = LabelSet(metric, key.labels, apply_rows(metric, None, fitting, layouts, histograms, end_ms))
            if key.labels == self._overflow or self._admit(label_set.cost):
                self._put(key, label_set)
                return
            key = key._replace(labels=self._overflow)
            overflow = self._label_sets.get(key)
            if overflow is None:
                self._put(key, LabelSet(metric, key.labels, label_set.totals))
                return
            label_set = overflow
        before = self._cost(label_set)
        self.misfits += label_set.update(fitting, layouts, histograms, end_ms)
        self.active_series += self._cost(label_set) - before

    def drop_stale(self, end_ms: int) -> None:
        """Drop what wasn't updated for longer than the stale duration (REG-23); it isn't written in this window."""
        oldest = end_ms - self.settings.stale_duration_ms
        stale = [key for key, label_set in self._label_sets.items() if label_set.totals.updated_ms < oldest]
        removed = sum(self._cost(self._label_sets.pop(key)) for key in stale)
        if stale:
            self._order = None
            self.active_series -= removed
            self._count_own(SERIES_REMOVED, removed)

    def count(self, key: LedgerKey, increment: int) -> None:
        """Add to a counter of the ledger."""
        counter = self._ledger.get(key)
        total = increment if counter is None else counter.total + increment
        series = ledger_series(key, self.settings.external_labels) if counter is None else counter.sample.series
        fresh = counter is None or counter.fresh
        self._ledger[key] = _Counter(total, Sample(series, float(total)), fresh=fresh)

    def collect(self, end_ms: int) -> Samples:
        """The samples of a window that is written. Exemplars are given out once (REG-12)."""
        samples, settings = Samples([], []), self.settings
        naming = Naming(
            self._shard, settings.external_labels, settings.host_info_metric_name, settings.trace_id_label_name
        )
        for key in self._sorted():
            self._label_sets[key].collect(naming, samples, end_ms)
        for _, counter in sorted(self._ledger.items()):
            if counter.fresh:
                samples.zeros.append(counter.sample._replace(value=0.0))
                counter.fresh = False
            samples.values.append(counter.sample)
        return samples

    def totals(self) -> Iterable[tuple[SeriesKey, SeriesTotals]]:
        """All totals, in canonical order."""
        return ((key, self._label_sets[key].totals) for key in self._sorted())

    def ledger(self) -> Iterable[LedgerTotal]:
        """All counters of the ledger, in order."""
        return (LedgerTotal(self.tenant, key, c.total, c.fresh) for key, c in sorted(self._ledger.items()))

    def restore_totals(self, key: SeriesKey, totals: SeriesTotals) -> None:
        """Put back what `totals` gave."""
        label_set = LabelSet(_METRICS[key.metric], key.labels, totals)
        self._put(key, label_set)
        self.active_series += self._cost(label_set)

    def restore_counter(self, entry: LedgerTotal) -> None:
        """Put back what `ledger` gave."""
        series = ledger_series(entry.key, self.settings.external_labels)
        self._ledger[entry.key] = _Counter(entry.total, Sample(series, float(entry.total)), fresh=entry.fresh)

    def _put(self, key: SeriesKey, label_set: LabelSet) -> None:
        self._label_sets[key] = label_set
        self._order = None

    def _admit(self, cost: int) -> bool:
        """Whether a new label set gets series of its own, decided once per window and label set (LIM-2)."""
        limit = self.settings.limits.max_active_series
        if limit and self.active_series + cost > limit:
            self._count_own(SERIES_LIMITED, cost)
            return False
        self._count_own(SERIES_ADDED, cost)
        self.active_series += cost
        return True

    def _cost(self, label_set: LabelSet) -> int:
        """What a label set counts for; overflow isn't counted (LIM-7)."""
        return 0 if label_set.labels == self._overflow else label_set.cost

    def _count_own(self, counter: str, increment: int) -> None:
        self.count(LedgerKey(counter, (("shard", str(self._shard)), ("tenant", self.tenant))), increment)

    def _sorted(self) -> list[SeriesKey]:
        if self._order is None:
            self._order = sorted(self._label_sets)
        return self._order
