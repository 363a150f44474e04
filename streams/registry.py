"""The registry of a shard: cumulative series, their limits, staleness and samples.

What it writes is a pure function of the completed windows, in their order. Inside a window the canonical order
(tenant, label bytes, metric) decides, so that which series a limit admits depends on no order of arrival.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import cast

import numpy as np
import pyarrow as pa

from schemas.deltas import DeltaRows, Ledger, LedgerKey, merge_rows
from schemas.limiters import LimiterState
from schemas.record import DEFAULT_TENANT
from schemas.snapshot import LedgerTotal, SeriesKey, SeriesTotals
from streams.label_set import Samples
from streams.merged_window import MergedWindow
from streams.renaming import renamed
from streams.series import Sample
from streams.tenant_limiters import Gauges, hashes
from streams.tenant_registry import SeriesSettings, TenantRegistry
from streams.totals import DeltaRow

SettingsOf = Callable[[str], SeriesSettings]
"""The settings of a tenant."""

NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TenantSamples:
    """A tenant's samples of one window: zeros of new series, at `start_ms`, and values of all, at the window's end.

    `start_ms` is one interval of the tenant's before the window's end, but not before its last samples: if the interval
    has grown, a zero there would be older than what its series may have had. Lists are in canonical order, a label
    set's series in Tempo's (REG-11), the ledger's last. `_sum` and gauges have no zeros. They are empty if the tenant
    isn't written: its interval isn't over, or it doesn't collect (REG-2).
    """

    tenant: str
    start_ms: int
    zeros: list[Sample]
    values: list[Sample]
    active_series: int
    """What counts towards the limit (LIM-3)."""
    misfits: int
    """Rows of another bucket layout than their series', whose observations are in `+Inf` only."""
    restarts: list[Sample] = field(default_factory=list)
    """Zeros of histograms whose buckets changed, at `restart_ms`: they have been written at `start_ms` already."""
    stale: list[Sample] = field(default_factory=list)
    """Stale markers, at the window's `stale_ms`, of series that ended in it; none unless they are asked for."""
    gauges: Gauges = field(default_factory=dict)
    """Tempo's gauges of the registry after the window, whether it is written or not."""

    @property
    def restart_ms(self) -> int:
        """The time of `restarts`: another value at `start_ms` would be refused, and the fall might not be seen."""
        return self.start_ms + 1

    def timed_zeros(self) -> Iterator[tuple[int, Sample]]:
        """All zeros, each with its time."""
        yield from ((self.start_ms, zero) for zero in self.zeros)
        yield from ((self.restart_ms, zero) for zero in self.restarts)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not any(self.lists)

    @property
    def lists(self) -> list[list[Sample]]:
        """All samples, in the order in which they are written."""
        return [self.zeros, self.restarts, self.values, self.stale]


class Registry:
    """The series of one shard after the window `end_ms`, which is None before the first one."""

    def __init__(self, shard: int, settings_of: SettingsOf, interval_ms: int, *, stale_markers: bool = False) -> None:
        self.end_ms: int | None = None
        self._shard, self._settings_of, self._interval_ms = shard, settings_of, interval_ms
        self._stale_markers = stale_markers
        self._tenants: dict[str, TenantRegistry] = {}

    def complete(self, window: MergedWindow, incidents: Mapping[str, int] = NONE) -> tuple[TenantSamples, ...]:
        """Apply a window that is later than those before: updates and new series, then staleness, then samples.

        `incidents` of the shard, by ledger counter, concern every tenant.
        """
        previous_ms, self.end_ms = self.end_ms, window.end_ms
        for name in _tenant_names(window):
            self._tenant(name)
        for name, tenant in self._tenants.items():
            tenant.begin_window(self._settings_of(name), previous_ms, window.end_ms)
        self._apply(window)
        for ledger_key, count in window.ledger.items():
            self._tenants[_tenant_of(ledger_key)].ledger.count(ledger_key, count)
        self._count(incidents)
        return tuple(self._close(name, self._tenants[name], previous_ms) for name in sorted(self._tenants))

    def ledger(self) -> Ledger:
        """The totals of all counters of the ledger."""
        return {entry.key: entry.total for entry in self.ledger_totals()}

    def totals(self) -> list[tuple[SeriesKey, SeriesTotals]]:
        """All totals, in canonical order; a list of immutable values, so it may be kept."""
        return [entry for name in sorted(self._tenants) for entry in self._tenants[name].totals()]

    def ledger_totals(self) -> list[LedgerTotal]:
        """The same of the ledger."""
        return [entry for name in sorted(self._tenants) for entry in self._tenants[name].ledger.totals()]

    def limiter_states(self) -> list[LimiterState]:
        """The same of limiters and estimates, by tenant."""
        return [self._tenants[name].limiter_state() for name in sorted(self._tenants)]

    def written(self) -> dict[str, int]:
        """By tenant, the last window in which its series were written; without those that never were."""
        ends = {name: self._tenants[name].written_ms for name in sorted(self._tenants)}
        return {name: end_ms for name, end_ms in ends.items() if end_ms is not None}

    def restore(
        self,
        end_ms: int,
        totals: Sequence[tuple[SeriesKey, SeriesTotals]],
        ledger: Sequence[LedgerTotal],
        limiters: Sequence[LimiterState] = (),
        written: Mapping[str, int] = NONE,
    ) -> None:
        """Put what these were after the window `end_ms` into an empty registry."""
        self.end_ms = end_ms
        for key, state in totals:
            self._tenant(key.tenant).restore_totals(key, state)
        for entry in ledger:
            self._tenant(entry.tenant).ledger.restore(entry)
        for each in limiters:
            self._tenant(each.tenant).limiters.restore(each)
        for name, written_ms in written.items():
            self._tenant(name).written_ms = written_ms

    def _count(self, incidents: Mapping[str, int]) -> None:
        for counter, count in incidents.items():
            if count:
                for tenant in self._tenants.values():
                    tenant.ledger.count_own(counter, count)

    def _apply(self, window: MergedWindow) -> None:
        """Updates and new series, in canonical order."""
        frames = renamed(window.frames, {name: tenant.limiters for name, tenant in self._tenants.items()})
        if not frames:
            return
        rows = merge_rows(frames)
        self._insert_demand(rows)
        cells = rows.cells
        begins = np.ones(len(rows), np.bool_)
        begins[1:] = np.logical_or.reduce([np.diff(cells[name]) != 0 for name in ("tenant", "labels", "metric")])
        bounds = [*np.flatnonzero(begins).tolist(), len(rows)]
        of_series = _delta_rows(rows)
        for start, end in pairwise(bounds):
            own = of_series[start:end]
            key = SeriesKey(*own[0][:3])
            self._tenants[key.tenant].update(key, own, window.layouts, window.end_ms)

    def _insert_demand(self, rows: DeltaRows) -> None:
        """Take note of who asks for which label sets, admitted or not (LIM-8)."""
        cells = rows.cells
        found = hashes(pa.array(rows.labels, pa.binary()))[cells["labels"]]
        bounds = [0, *(np.flatnonzero(np.diff(cells["tenant"])) + 1).tolist(), len(rows)]
        for first, last in pairwise(bounds):
            tenant = self._tenants[rows.tenants[cells["tenant"][first]]]
            tenant.limiters.demand.insert(cells["metric"][first:last], found[first:last])

    def _close(self, name: str, tenant: TenantRegistry, previous_ms: int | None) -> TenantSamples:
        assert self.end_ms is not None
        interval_ms = self._tenant_interval_ms(tenant.settings)
        tenant.count_rows()
        # Windows that nobody sent don't exist, so a tenant is written in the first one that reaches its time.
        before_ms = self.end_ms - self._interval_ms if previous_ms is None else previous_ms
        collects = tenant.settings.collects
        due = collects and self.end_ms // interval_ms > before_ms // interval_ms
        if due or not collects:
            # Not between: one that comes back at once would have its zero where it has had a sample.
            tenant.drop_stale(self.end_ms)
        tenant.limiters.look(previous_ms, self.end_ms)
        start_ms = max(self.end_ms - interval_ms, tenant.written_ms or 0)
        samples = tenant.collect(self.end_ms) if due else Samples([], [], [])
        return TenantSamples(
            tenant=name,
            start_ms=start_ms,
            zeros=samples.zeros,
            restarts=samples.restarts,
            values=samples.values,
            active_series=tenant.admission.active_series,
            misfits=tenant.misfits,
            stale=tenant.ended() if collects and self._stale_markers else [],
            gauges=tenant.gauges(),
        )

    def _tenant_interval_ms(self, settings: SeriesSettings) -> int:
        return -(-settings.collection_interval_ms // self._interval_ms) * self._interval_ms

    def _tenant(self, name: str) -> TenantRegistry:
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = TenantRegistry(name, self._shard, self._settings_of(name))
        return tenant


def _delta_rows(rows: DeltaRows) -> list[DeltaRow]:
    cells = rows.cells
    tenants = [rows.tenants[number] for number in cells["tenant"].tolist()]
    labels = [rows.labels[number] for number in cells["labels"].tolist()]
    numbers = [cells[name].tolist() for name in DeltaRow._fields[2:9]]
    traces: list[bytes | None] = [None] * len(rows)
    for row in np.flatnonzero(cells["offered"]).tolist():
        traces[row] = rows.traces[row].as_py()
    columns = (tenants, labels, *numbers, traces, cells["ex_value_ns"].tolist())
    # Plain tuples: naming the fields of each would cost as much as all the rest.
    return cast("list[DeltaRow]", list(zip(*columns, strict=True)))


def _tenant_names(window: MergedWindow) -> set[str]:
    """The tenants that have something in a window."""
    return {*(name for _, rows in window.frames for name in rows.tenants), *map(_tenant_of, window.ledger)}


def _tenant_of(key: LedgerKey) -> str:
    return dict(key.labels).get("tenant", DEFAULT_TENANT)
