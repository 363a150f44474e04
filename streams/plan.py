"""What a window does with the spans of each of its tenants: their settings as arrays that kernels read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.config import MultiplierSettings, ServiceGraphsSettings, SpanMetricsSettings, TenantSettings
from schemas.deltas import Layout
from schemas.otlp import Mode, WantedKey
from streams import multiplier, policies, service_graphs_plan, span_metrics_plan
from streams.attribute_keys import ANY_SIDE, CLIENT_SIDE, RESOURCE_ONLY, SERVER_SIDE, SERVICE_NAME
from streams.layouts import histogram_kinds, layout_of
from streams.multiplier import Multipliers
from streams.service_graphs_plan import ServiceGraphsPlan
from streams.span_metrics_plan import SpanMetricsPlan

SettingsOf = Callable[[str], TenantSettings]


class Planned(NamedTuple):
    """What the settings of some tenants come to; nothing in it changes."""

    keys: tuple[WantedKey, ...]
    """Attributes to look for."""
    sides: npt.NDArray[np.uint8]
    """Per key: on spans of which kinds it is read (bits)."""
    rows: Mapping[WantedKey, int]
    layouts: tuple[Layout, ...]
    span_weights: Multipliers
    graph_weights: Multipliers
    span_metrics: SpanMetricsPlan
    service_graphs: ServiceGraphsPlan


class Plan:
    """The tenants of one window, numbered as they appear, and the attributes that any of them reads.

    Settings are asked for once per tenant, and hold until the window's end. Attributes are only ever added, so that key
    rows hold for the whole window.
    """

    def __init__(self, settings_of: SettingsOf) -> None:
        self._settings_of = settings_of
        self.numbers: dict[str, int] = {}
        self.tenants: list[str] = []
        self.settings: list[TenantSettings] = []
        self._planned = _planned(_Same(()))

    def include(self, tenants: Iterable[str]) -> None:
        """Make sure that these tenants are numbered."""
        new = [tenant for tenant in dict.fromkeys(tenants) if tenant not in self.numbers]
        for tenant in new:
            self.settings.append(self._settings_of(tenant))
            self.numbers[tenant] = len(self.tenants)
            self.tenants.append(tenant)
        if new:
            self._planned = _planned(_Same(tuple(self.settings)))

    def row(self, key: str, mode: Mode = Mode.FIRST) -> int:
        """The row of an attribute in the tables of a frame that was scanned for `keys`; -1 if none is."""
        return self._planned.rows.get(WantedKey(key, mode), -1)

    def layout(self, settings: SpanMetricsSettings | ServiceGraphsSettings) -> int:
        """The number of the layout of a processor's histograms."""
        return self.layouts.index(layout_of(settings.histogram_buckets))

    @property
    def keys(self) -> tuple[WantedKey, ...]:
        """Attributes to look for."""
        return self._planned.keys

    @property
    def sides(self) -> npt.NDArray[np.uint8]:
        """Per key: on spans of which kinds it is read (bits)."""
        return self._planned.sides

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The bucket layouts of all tenants' histograms."""
        return self._planned.layouts

    @property
    def span_weights(self) -> Multipliers:
        """How much spans count for span metrics."""
        return self._planned.span_weights

    @property
    def graph_weights(self) -> Multipliers:
        """How much spans count for service graphs."""
        return self._planned.graph_weights

    @property
    def span_metrics(self) -> SpanMetricsPlan:
        """Span metrics, by tenant."""
        return self._planned.span_metrics

    @property
    def service_graphs(self) -> ServiceGraphsPlan:
        """Service graphs, by tenant."""
        return self._planned.service_graphs


class _Needs:
    """What settings need, as they come."""

    def __init__(self) -> None:
        self.sides: dict[WantedKey, int] = {}
        self.layouts: dict[Layout, None] = {}
        self._need(SERVICE_NAME, RESOURCE_ONLY)

    def include(self, settings: TenantSettings) -> None:
        """A tenant's."""
        if settings.span_metrics is not None:
            self._include(span_metrics_plan.needs(settings.span_metrics), settings.span_metrics.histogram_buckets)
            self._choose(settings.span_metrics, ANY_SIDE)
        if settings.service_graphs is not None:
            graphs = settings.service_graphs
            self._include(service_graphs_plan.needs(graphs), graphs.histogram_buckets)
            self._choose(graphs, CLIENT_SIDE | SERVER_SIDE)
        if settings.host_info is not None:
            for key in settings.host_info.host_identifiers:
                self._need(key, RESOURCE_ONLY, Mode.FIRST_NON_EMPTY_STRING)

    def _include(self, needs: Iterable[tuple[str, int]], buckets: Sequence[float]) -> None:
        for key, sides in needs:
            self._need(key, sides)
        self.layouts[layout_of(buckets)] = None

    def _choose(self, settings: SpanMetricsSettings | ServiceGraphsSettings, sides: int) -> None:
        """What decides which spans a processor sees, and how much they count."""
        for key, read_on in policies.needs(settings.filter_policies, sides):
            self._need(key, read_on)
        for wanted in multiplier.needs(settings.multiplier):
            self._need(wanted.name, RESOURCE_ONLY, wanted.mode)

    def _need(self, key: str, sides: int, mode: Mode = Mode.FIRST) -> None:
        wanted = WantedKey(key, mode)
        self.sides[wanted] = self.sides.get(wanted, 0) | sides


class _Same:
    """Settings of some tenants, equal only to the same objects: to compare what is in them costs more than a plan."""

    def __init__(self, settings: tuple[TenantSettings, ...]) -> None:
        self.settings = settings
        self._ids = tuple(map(id, settings))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._ids == other._ids

    def __hash__(self) -> int:
        return hash(self._ids)


@lru_cache(maxsize=16)
def _planned(same: _Same) -> Planned:
    """The plan for these settings, which mostly are those of the window before."""
    needs = _Needs()
    for settings in same.settings:
        needs.include(settings)
    rows = {wanted: row for row, wanted in enumerate(needs.sides)}
    first = {key.name: row for key, row in rows.items() if key.mode is Mode.FIRST}
    unweighted = MultiplierSettings()
    spans, graphs = [s.span_metrics for s in same.settings], [s.service_graphs for s in same.settings]
    kinds = histogram_kinds([s.histograms for s in same.settings])
    return Planned(
        keys=tuple(rows),
        sides=np.array(list(needs.sides.values()), np.uint8),
        rows=rows,
        layouts=tuple(needs.layouts),
        span_weights=multiplier.multipliers([s.multiplier if s else unweighted for s in spans]),
        graph_weights=multiplier.multipliers([s.multiplier if s else unweighted for s in graphs]),
        span_metrics=span_metrics_plan.span_metrics_plan(spans, kinds, first),
        service_graphs=service_graphs_plan.service_graphs_plan(graphs, kinds, first),
    )
