"""The series of one tenant in one shard: updates, staleness, and the samples and gauges of a window.

Only what a window updates costs more than a look: samples of unchanged label sets are written again as they are.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Protocol

from schemas.config import HistogramSettings, LimitSettings
from schemas.ledger_counters import REGISTRY, ROWS, ROWS_APPLIED, ROWS_MISFIT, ROWS_OVERFLOWED
from schemas.limiters import LimiterState
from schemas.metrics import METRICS, Metric
from schemas.snapshot import SeriesKey, SeriesTotals
from streams.admission import SERIES_ADDED, SERIES_LIMITED, SERIES_REMOVED, Admission
from streams.label_set import LabelSet, Samples
from streams.series import Naming, Sample, Series, overflow_labels
from streams.tenant_ledger import TenantLedger
from streams.tenant_limiters import Gauges, TenantLimiters
from streams.totals import DeltaRow, UsedLayout, apply_rows, fitting_rows

COLLECTIONS = f"{REGISTRY}collections_total"

ACTIVE_SERIES, MAX_ACTIVE_SERIES = f"{REGISTRY}active_series", f"{REGISTRY}max_active_series"
ACTIVE_ENTITIES, MAX_ACTIVE_ENTITIES = f"{REGISTRY}active_entities", f"{REGISTRY}max_active_entities"

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""What Prometheus takes for the end of a series: a not-a-number of these bits."""

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


class TenantRegistry:
    """All series of a tenant, as of a window; `settings` may be others in each."""

    def __init__(self, tenant: str, shard: int, settings: SeriesSettings) -> None:
        self.settings = settings
        self.misfits = 0
        """Rows of the window with other buckets, or of another kind of histogram, than their series."""
        self._rows = self._rows_applied = self._rows_overflowed = self._rows_misfit = 0
        self.written_ms: int | None = None
        """The last window in which the series were written."""
        self._tenant, self._shard, self._overflow = tenant, shard, overflow_labels(shard)
        self._naming = _naming(shard, settings)
        self.ledger = TenantLedger(tenant, shard, settings.external_labels)
        self.admission = Admission(self.ledger)
        self.limiters = TenantLimiters(shard, self.ledger)
        self._label_sets: dict[SeriesKey, LabelSet] = {}
        # Keys in canonical order, and those that came since it was made.
        self._order: list[SeriesKey] = []
        self._new: list[SeriesKey] = []
        self._ended: list[Series] = []
        for counter in (SERIES_ADDED, SERIES_REMOVED, SERIES_LIMITED, COLLECTIONS):
            self.ledger.count_own(counter, 0)

    def begin_window(self, settings: SeriesSettings, previous_ms: int | None, end_ms: int) -> None:
        """Go by these settings in the window that ends at `end_ms`; series go on, whatever their names are then."""
        self.settings, self.misfits, self._ended = settings, 0, []
        self.admission.begin_window(settings.limits)
        self.limiters.begin_window(settings.limits, settings.stale_duration_ms, previous_ms, end_ms)
        naming = _naming(self._shard, settings)
        if naming != self._naming:
            self._naming = naming
            self.ledger.rename(naming.external)
            for label_set in self._label_sets.values():
                label_set.forget_names()

    def update(self, key: SeriesKey, rows: Sequence[DeltaRow], layouts: Sequence[UsedLayout], end_ms: int) -> None:
        """Apply a window's rows of a label set, at least one. Keys come in canonical order, in which limits admit."""
        metric, histograms = _METRICS[key.metric], self.settings.histograms
        fitting = fitting_rows(metric, rows, histograms)
        self._rows += len(rows)
        self._rows_misfit += len(rows) - len(fitting)
        self.misfits += len(rows) - len(fitting)
        if not fitting:
            return
        label_set = self._label_sets.get(key)
        if label_set is None:
            label_set = LabelSet(metric, key.labels, apply_rows(metric, None, fitting, layouts, histograms, end_ms))
            self.limiters.demand.learn_cost(key.metric, label_set.cost)
            if key.labels == self._overflow or self.admission.admit(key.labels, label_set.cost):
                self._rows_applied += len(fitting)
                self._put(key, label_set)
                return
            self._rows_overflowed += len(fitting)
            key = key._replace(labels=self._overflow)
            overflow = self._label_sets.get(key)
            if overflow is None:
                self._put(key, LabelSet(metric, key.labels, label_set.totals))
                return
            label_set = overflow
        else:
            self._rows_applied += len(fitting)
        before, totals = label_set.cost, label_set.totals
        self.misfits += label_set.update(fitting, layouts, histograms, end_ms)
        if label_set.cost != before or label_set.totals.layout != totals.layout:
            self._restart(label_set, before, totals)

    def count_rows(self) -> None:
        """Put what became of the window's rows into the ledger (`schemas.ledger_balance`)."""
        counts = (
            (ROWS, self._rows),
            (ROWS_APPLIED, self._rows_applied),
            (ROWS_OVERFLOWED, self._rows_overflowed),
            (ROWS_MISFIT, self._rows_misfit),
        )
        for counter, rows in counts:
            if rows:
                self.ledger.count_own(counter, rows)
        self._rows = self._rows_applied = self._rows_overflowed = self._rows_misfit = 0

    def drop_stale(self, end_ms: int) -> None:
        """Drop what wasn't updated for longer than the stale duration (REG-23); it isn't written in this window.

        What was updated since the series were written last stays for this time: nobody has seen it yet, and the window
        that it waited for may not have come while there were no spans.
        """
        oldest_ms = end_ms - self.settings.stale_duration_ms
        written_ms = (self.written_ms or 0) if self.settings.collects else end_ms
        dropped_ms = min(oldest_ms - 1, written_ms)
        stale = [key for key, label_set in self._label_sets.items() if label_set.totals.updated_ms <= dropped_ms]
        for key in sorted(stale):
            label_set = self._label_sets.pop(key)
            self._ended += label_set.gone(self._naming)
            if key.labels != self._overflow:
                self.admission.remove(key.labels, label_set.cost)
        if stale:
            self._order = [key for key in self._sorted() if key in self._label_sets]

    def collect(self, end_ms: int) -> Samples:
        """The samples of a window that is written. Exemplars are given out once (REG-12)."""
        samples = Samples([], [], [])
        for key in self._sorted():
            self._label_sets[key].collect(self._naming, samples, end_ms)
        self.ledger.count_own(COLLECTIONS, 1)
        self.ledger.collect(samples)
        self.written_ms = end_ms
        return samples

    def ended(self) -> list[Sample]:
        """A last sample of each series that ended in this window: dropped, or of buckets that are no more."""
        return [Sample(series, STALE) for series in self._ended]

    def gauges(self) -> Gauges:
        """What is active, what the limit in force allows (0: any number), and what is asked for."""
        admission, limits = self.admission, self.settings.limits
        if limits.by_entity:
            most = {ACTIVE_ENTITIES: admission.active_entities, MAX_ACTIVE_ENTITIES: limits.max_active_entities}
        else:
            most = {MAX_ACTIVE_SERIES: limits.max_active_series}
        own = {ACTIVE_SERIES: admission.active_series, **most}
        return {(name, ()): float(value) for name, value in own.items()} | dict(self.limiters.gauges())

    def totals(self) -> Iterator[tuple[SeriesKey, SeriesTotals]]:
        """All totals, in canonical order."""
        return ((key, self._label_sets[key].totals) for key in self._sorted())

    def limiter_state(self) -> LimiterState:
        """What limiters and estimates know."""
        return self.limiters.state(self._tenant)

    def restore_totals(self, key: SeriesKey, totals: SeriesTotals) -> None:
        """Put back what `totals` gave."""
        label_set = LabelSet(_METRICS[key.metric], key.labels, totals)
        self._put(key, label_set)
        if key.labels != self._overflow:
            self.admission.put(key.labels, label_set.cost)

    def _restart(self, label_set: LabelSet, cost: int, totals: SeriesTotals) -> None:
        """Account for other buckets, or another kind of histogram, than these totals have."""
        self.limiters.demand.learn_cost(int(label_set.metric.id), label_set.cost)
        if label_set.labels != self._overflow:
            self.admission.grow(label_set.cost - cost)
        former = LabelSet(label_set.metric, label_set.labels, totals)
        self._ended += former.gone(self._naming, remaining=label_set.totals)

    def _put(self, key: SeriesKey, label_set: LabelSet) -> None:
        self._label_sets[key] = label_set
        self._new.append(key)

    def _sorted(self) -> list[SeriesKey]:
        if self._new:
            # Two sorted runs, or nearly so, merge in linear time.
            self._order = sorted([*self._order, *self._new])
            self._new = []
        return self._order


def _naming(shard: int, settings: SeriesSettings) -> Naming:
    return Naming(shard, settings.external_labels, settings.host_info_metric_name, settings.trace_id_label_name)
