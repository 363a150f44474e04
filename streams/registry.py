"""The registry of a shard: cumulative series, their limits, staleness and samples.

What it writes is a pure function of the completed windows, in their order. Inside a window the canonical order
(tenant, label bytes, metric) decides, so that which series a limit admits depends on no order of arrival.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import cast

import polars as pl

from schemas.deltas import Ledger, LedgerKey
from schemas.record import DEFAULT_TENANT
from schemas.snapshot import LedgerTotal, SeriesKey, SeriesTotals
from streams.merged_window import MergedWindow
from streams.series import Sample
from streams.tenant_registry import SeriesSettings, TenantRegistry
from streams.totals import DeltaRow

SettingsOf = Callable[[str], SeriesSettings]
"""The settings of a tenant."""


@dataclass(frozen=True, slots=True)
class TenantSamples:
    """A tenant's samples of one window: zeros of new series, at `start_ms`, and values of all, at the window's end.

    `start_ms` is one interval of the tenant's before the window's end. Both lists are in canonical order, a label set's
    series in Tempo's (REG-11), the ledger's last. `_sum` and gauges have no zeros.
    """

    tenant: str
    start_ms: int
    zeros: list[Sample]
    values: list[Sample]
    active_series: int
    """What counts towards the limit (LIM-3)."""
    misfits: int
    """Rows of another bucket layout than their series', whose observations are in `+Inf` only."""


class Registry:
    """The series of one shard after the window `end_ms`, which is None before the first one."""

    def __init__(self, shard: int, settings_of: SettingsOf, interval_ms: int) -> None:
        self.end_ms: int | None = None
        self._shard, self._settings_of, self._interval_ms = shard, settings_of, interval_ms
        self._tenants: dict[str, TenantRegistry] = {}

    def complete(self, window: MergedWindow) -> tuple[TenantSamples, ...]:
        """Apply a window that is later than those before: updates and new series, then staleness, then samples."""
        for name, tenant in self._tenants.items():
            tenant.settings = self._settings_of(name)
            tenant.misfits = 0
        for key, rows in groupby(_delta_rows(window.rows), itemgetter(0, 1, 2)):
            self._tenant(key[0]).update(SeriesKey(*key), list(rows), window.layouts, window.end_ms)
        for ledger_key, count in window.ledger.items():
            self._tenant(_tenant_of(ledger_key)).count(ledger_key, count)
        previous_ms, self.end_ms = self.end_ms, window.end_ms
        return tuple(self._close(previous_ms))

    def ledger(self) -> Ledger:
        """The totals of all counters of the ledger."""
        return {entry.key: entry.total for entry in self.ledger_totals()}

    def totals(self) -> list[tuple[SeriesKey, SeriesTotals]]:
        """All totals, in canonical order; a list of immutable values, so it may be kept."""
        return [entry for name in sorted(self._tenants) for entry in self._tenants[name].totals()]

    def ledger_totals(self) -> list[LedgerTotal]:
        """The same of the ledger."""
        return [entry for name in sorted(self._tenants) for entry in self._tenants[name].ledger()]

    def restore(
        self, end_ms: int, totals: Sequence[tuple[SeriesKey, SeriesTotals]], ledger: Sequence[LedgerTotal]
    ) -> None:
        """Put what `totals` and `ledger_totals` gave after the window `end_ms` into an empty registry."""
        self.end_ms = end_ms
        for key, state in totals:
            self._tenant(key.tenant).restore_totals(key, state)
        for entry in ledger:
            self._tenant(entry.tenant).restore_counter(entry)

    def _close(self, previous_ms: int | None) -> Iterator[TenantSamples]:
        assert self.end_ms is not None
        for name in sorted(self._tenants):
            tenant = self._tenants[name]
            tenant.drop_stale(self.end_ms)
            interval_ms = self._tenant_interval_ms(tenant.settings)
            # Windows that nobody sent don't exist, so a tenant is written in the first one that reaches its time.
            before_ms = self.end_ms - self._interval_ms if previous_ms is None else previous_ms
            if self.end_ms // interval_ms > before_ms // interval_ms:
                zeros, values = tenant.collect(self.end_ms)
                start_ms = self.end_ms - interval_ms
                yield TenantSamples(name, start_ms, zeros, values, tenant.active_series, tenant.misfits)

    def _tenant_interval_ms(self, settings: SeriesSettings) -> int:
        return -(-settings.collection_interval_ms // self._interval_ms) * self._interval_ms

    def _tenant(self, name: str) -> TenantRegistry:
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = TenantRegistry(name, self._shard, self._settings_of(name))
        return tenant


def _delta_rows(rows: pl.DataFrame) -> Iterator[DeltaRow]:
    # Plain tuples: naming the fields of each would cost as much as all the rest.
    return cast("Iterator[DeltaRow]", rows.select(DeltaRow._fields).iter_rows())


def _tenant_of(key: LedgerKey) -> str:
    return dict(key.labels).get("tenant", DEFAULT_TENANT)
