"""What a window does with the spans of each of its tenants: their settings as arrays that kernels read."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from schemas.config import MultiplierSettings, ServiceGraphsSettings, SpanMetricsSettings, TenantSettings
from schemas.deltas import Layout
from schemas.otlp import Mode, WantedKey
from streams import multiplier, policies, service_graphs_plan, span_metrics_plan
from streams.attribute_keys import ANY_SIDE, CLIENT_SIDE, RESOURCE_ONLY, SERVER_SIDE, SERVICE_NAME
from streams.layouts import histogram_kinds, layout_of

SettingsOf = Callable[[str], TenantSettings]


class Plan:
    """The tenants of one window, numbered as they appear, and the attributes that any of them reads.

    Settings are asked for once per tenant, and hold until the window's end.
    """

    def __init__(self, settings_of: SettingsOf) -> None:
        self._settings_of = settings_of
        self.numbers: dict[str, int] = {}
        self.tenants: list[str] = []
        self.settings: list[TenantSettings] = []
        self.layouts: list[Layout] = []
        self.keys: tuple[WantedKey, ...] = ()
        """Attributes to look for; only ever added to, so that key rows hold for the whole window."""
        self._sides: list[int] = []
        self._rows: dict[WantedKey, int] = {}
        self._need(SERVICE_NAME, RESOURCE_ONLY)
        self._rebuild()

    def include(self, tenants: Iterable[str]) -> None:
        """Make sure that these tenants are numbered."""
        new = [tenant for tenant in dict.fromkeys(tenants) if tenant not in self.numbers]
        for tenant in new:
            settings = self._settings_of(tenant)
            self.numbers[tenant] = len(self.tenants)
            self.tenants.append(tenant)
            self.settings.append(settings)
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
        if new:
            self._rebuild()

    def row(self, key: str, mode: Mode = Mode.FIRST) -> int:
        """The row of an attribute in the tables of a frame that was scanned for `keys`; -1 if none is."""
        return self._rows.get(WantedKey(key, mode), -1)

    @property
    def sides(self) -> npt.NDArray[np.uint8]:
        """Per key: on spans of which kinds it is read (bits)."""
        return np.array(self._sides, np.uint8)

    def layout(self, settings: SpanMetricsSettings | ServiceGraphsSettings) -> int:
        """The number of the layout of a processor's histograms."""
        return self.layouts.index(layout_of(settings.histogram_buckets))

    def _include(self, needs: Iterable[tuple[str, int]], buckets: Sequence[float]) -> None:
        for key, sides in needs:
            self._need(key, sides)
        layout = layout_of(buckets)
        if layout not in self.layouts:
            self.layouts.append(layout)

    def _choose(self, settings: SpanMetricsSettings | ServiceGraphsSettings, sides: int) -> None:
        """What decides which spans a processor sees, and how much they count."""
        for key, read_on in policies.needs(settings.filter_policies, sides):
            self._need(key, read_on)
        for wanted in multiplier.needs(settings.multiplier):
            self._need(wanted.name, RESOURCE_ONLY, wanted.mode)

    def _need(self, key: str, sides: int, mode: Mode = Mode.FIRST) -> None:
        wanted = WantedKey(key, mode)
        if wanted not in self._rows:
            self._rows[wanted] = len(self.keys)
            self.keys = (*self.keys, wanted)
            self._sides.append(0)
        self._sides[self._rows[wanted]] |= sides

    def _rebuild(self) -> None:
        first = {key.name: row for key, row in self._rows.items() if key.mode is Mode.FIRST}
        unweighted = MultiplierSettings()
        self.span_weights = multiplier.multipliers(
            [s.span_metrics.multiplier if s.span_metrics else unweighted for s in self.settings]
        )
        self.graph_weights = multiplier.multipliers(
            [s.service_graphs.multiplier if s.service_graphs else unweighted for s in self.settings]
        )
        spans, graphs = [s.span_metrics for s in self.settings], [s.service_graphs for s in self.settings]
        kinds = histogram_kinds([s.histograms for s in self.settings])
        self.span_metrics = span_metrics_plan.span_metrics_plan(spans, kinds, first)
        self.service_graphs = service_graphs_plan.service_graphs_plan(graphs, kinds, first)
