"""What a window does with the spans of each of its tenants: their settings as arrays that kernels read."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.config import ServiceGraphsSettings, SpanMetricsSettings, TenantSettings
from schemas.deltas import Layout

SettingsOf = Callable[[str], TenantSettings]

SERVICE_NAME = "service.name"
PEER_SERVICE, SERVER_ADDRESS = "peer.service", "server.address"
PEER_HOST, PEER_PORT = "network.peer.address", "network.peer.port"
CALLEE = (PEER_SERVICE, SERVER_ADDRESS, PEER_HOST, PEER_PORT)
"""Where a database's name is looked for (Tempo SG-14)."""
VIRTUAL_NODE = "virtual_node"

CLIENT_SIDE, SERVER_SIDE, OTHER_SIDE = 1, 2, 4
"""Bits of the span kinds on which an attribute is read."""
ANY_SIDE = CLIENT_SIDE | SERVER_SIDE | OTHER_SIDE

INTRINSICS = ("service", "span_name", "span_kind", "status_code", "status_message")
"""In the order of Tempo SM-5, which is that of a group's key after the tenant."""

_FOREVER_NS = (1 << 63) - 1
_EXACT_NS = 1 << 53


class SpanMetricsPlan(NamedTuple):
    """Span metrics, one row per tenant."""

    active: npt.NDArray[np.bool_]
    latency: npt.NDArray[np.bool_]
    intrinsics: npt.NDArray[np.bool_]
    """Which of `INTRINSICS` are labels."""
    dimension_counts: npt.NDArray[np.int32]
    dimensions: npt.NDArray[np.int32]
    """Key rows."""
    limit_counts: npt.NDArray[np.int32]
    limits_ns: npt.NDArray[np.int64]
    """The longest latency of each bucket but +Inf."""


class ServiceGraphsPlan(NamedTuple):
    """Service graphs, one row per tenant; attributes are key rows, in the order in which they are tried."""

    active: npt.NDArray[np.bool_]
    latency: npt.NDArray[np.bool_]
    messaging: npt.NDArray[np.bool_]
    wait_ms: npt.NDArray[np.int64]
    max_items: npt.NDArray[np.int64]
    peer_counts: npt.NDArray[np.int32]
    peers: npt.NDArray[np.int32]
    database_counts: npt.NDArray[np.int32]
    databases: npt.NDArray[np.int32]
    callee: npt.NDArray[np.int32]
    """The key rows of `CALLEE`; -1 if no tenant needs them."""
    dimension_counts: npt.NDArray[np.int32]
    dimensions: npt.NDArray[np.int32]
    client_slots: npt.NDArray[np.int32]
    """Per dimension: where an edge keeps what its client's side says."""
    server_slots: npt.NDArray[np.int32]
    slot_counts: npt.NDArray[np.int32]
    virtual_slots: npt.NDArray[np.int32]
    """Where an edge keeps which of its nodes is virtual; -1: nowhere."""
    limit_counts: npt.NDArray[np.int32]
    limits_ns: npt.NDArray[np.int64]


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
        self.keys: tuple[str, ...] = ()
        """Attributes to look for; only ever added to, so that key rows hold for the whole window."""
        self._sides: list[int] = []
        self._rows: dict[str, int] = {}
        self._need(SERVICE_NAME, 0)
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
                self._include_span_metrics(settings.span_metrics)
            if settings.service_graphs is not None:
                self._include_service_graphs(settings.service_graphs)
        if new:
            self._rebuild()

    def row(self, key: str) -> int:
        """The row of an attribute in the tables of a frame that was scanned for `keys`; -1 if none is."""
        return self._rows.get(key, -1)

    @property
    def sides(self) -> npt.NDArray[np.uint8]:
        """Per key: on spans of which kinds it is read (bits)."""
        return np.array(self._sides, np.uint8)

    def layout(self, settings: SpanMetricsSettings | ServiceGraphsSettings) -> int:
        """The number of the layout of a processor's histograms."""
        return self.layouts.index(layout_of(settings.histogram_buckets))

    def _include_span_metrics(self, settings: SpanMetricsSettings) -> None:
        for key in settings.dimensions:
            self._need(key, ANY_SIDE)
        self._lay_out(settings.histogram_buckets)

    def _include_service_graphs(self, settings: ServiceGraphsSettings) -> None:
        for key in settings.peer_attributes:
            self._need(key, CLIENT_SIDE | SERVER_SIDE)
        for key in (*settings.database_name_attributes, *CALLEE):
            self._need(key, CLIENT_SIDE)
        for key in graph_dimensions(settings):
            self._need(key, CLIENT_SIDE | SERVER_SIDE)
        self._lay_out(settings.histogram_buckets)

    def _need(self, key: str, sides: int) -> None:
        if key not in self._rows:
            self._rows[key] = len(self.keys)
            self.keys = (*self.keys, key)
            self._sides.append(0)
        self._sides[self._rows[key]] |= sides

    def _lay_out(self, buckets: Sequence[float]) -> None:
        layout = layout_of(buckets)
        if layout not in self.layouts:
            self.layouts.append(layout)

    def _rebuild(self) -> None:
        self.span_metrics = self._span_metrics_plan()
        self.service_graphs = self._service_graphs_plan()

    def _span_metrics_plan(self) -> SpanMetricsPlan:
        all_settings = [settings.span_metrics for settings in self.settings]
        dimensions = [self._rows_of(s.dimensions) if s else [] for s in all_settings]
        limits = [limits_ns(layout_of(s.histogram_buckets)) if s else [] for s in all_settings]
        shown = [[getattr(s.intrinsic_dimensions, name) if s else False for name in INTRINSICS] for s in all_settings]
        return SpanMetricsPlan(
            active=np.array([s is not None for s in all_settings], np.bool_),
            latency=np.array([s is not None and s.latency for s in all_settings], np.bool_),
            intrinsics=np.array(shown, np.bool_).reshape(-1, len(INTRINSICS)),
            dimension_counts=_counts(dimensions),
            dimensions=_ragged(dimensions).astype(np.int32),
            limit_counts=_counts(limits),
            limits_ns=_ragged(limits),
        )

    def _service_graphs_plan(self) -> ServiceGraphsPlan:
        every = [settings.service_graphs for settings in self.settings]
        peers = [self._rows_of(s.peer_attributes) if s else [] for s in every]
        databases = [self._rows_of(s.database_name_attributes) if s else [] for s in every]
        dimensions = [self._rows_of(graph_dimensions(s)) if s else [] for s in every]
        slots = [edge_slots(s) if s else EdgeSlots((), (), (), -1) for s in every]
        limits = [limits_ns(layout_of(s.histogram_buckets)) if s else [] for s in every]
        return ServiceGraphsPlan(
            active=np.array([s is not None for s in every], np.bool_),
            latency=np.array([s is not None and s.latency for s in every], np.bool_),
            messaging=np.array([s is not None and _measures_queues(s) for s in every], np.bool_),
            wait_ms=np.array([s.wait_ms if s else 0 for s in every], np.int64),
            max_items=np.array([s.max_items if s else 0 for s in every], np.int64),
            peer_counts=_counts(peers),
            peers=_ragged(peers).astype(np.int32),
            database_counts=_counts(databases),
            databases=_ragged(databases).astype(np.int32),
            callee=np.array([self.row(key) for key in CALLEE], np.int32),
            dimension_counts=_counts(dimensions),
            dimensions=_ragged(dimensions).astype(np.int32),
            client_slots=_ragged([s.client for s in slots]).astype(np.int32),
            server_slots=_ragged([s.server for s in slots]).astype(np.int32),
            slot_counts=_counts([s.names for s in slots]),
            virtual_slots=np.array([s.virtual for s in slots], np.int32),
            limit_counts=_counts(limits),
            limits_ns=_ragged(limits),
        )

    def _rows_of(self, keys: Iterable[str]) -> list[int]:
        return [self._rows[key] for key in keys]


class EdgeSlots(NamedTuple):
    """Where an edge keeps the values of its dimensions, in the order in which they become labels (Tempo SG-12, SG-24).

    With prefixes a dimension has two slots, one for each side. `virtual_node` has one, the last, without a prefix.
    """

    names: tuple[str, ...]
    client: tuple[int, ...]
    server: tuple[int, ...]
    virtual: int


def edge_slots(settings: ServiceGraphsSettings) -> EdgeSlots:
    """The slots that a tenant's edges have."""
    names: list[str] = []
    client: list[int] = []
    server: list[int] = []
    for dimension in settings.dimensions:
        prefixes = ("client_", "server_") if settings.enable_client_server_prefix else ("",)
        client.append(len(names))
        server.append(len(names) + len(prefixes) - 1)
        names.extend(prefix + dimension for prefix in prefixes)
    virtual = -1
    if settings.enable_virtual_node_label:
        virtual = len(names)
        client.append(virtual)
        server.append(virtual)
        names.append(VIRTUAL_NODE)
    return EdgeSlots(tuple(names), tuple(client), tuple(server), virtual)


def graph_dimensions(settings: ServiceGraphsSettings) -> tuple[str, ...]:
    """The attributes that become labels of edges, one per pair of slots."""
    return (*settings.dimensions, VIRTUAL_NODE) if settings.enable_virtual_node_label else settings.dimensions


def layout_of(buckets: Sequence[float]) -> Layout:
    """Bounds as batches want them: ascending, each once, without +Inf, which is always there."""
    return tuple(sorted({bound for bound in buckets if bound < float("inf")}))


def limits_ns(layout: Layout) -> list[int]:
    """Per bound: the longest latency for which `latency_ns / 1e9 <= bound` holds in float64 (Tempo PRIM-10, REG-9)."""
    return [limit_ns(bound) for bound in layout]


def limit_ns(bound: float) -> int:
    """The greatest number of nanoseconds that is not more than a bound in seconds; -1 if none is."""
    if bound < 0:
        return -1
    if bound * 1e9 >= _EXACT_NS:
        return _FOREVER_NS  # latencies are clamped to 2^53
    limit = int(bound * 1e9)
    while limit / 1e9 > bound:
        limit -= 1
    while (limit + 1) / 1e9 <= bound:
        limit += 1
    return limit


def _counts(rows: Sequence[Sequence[object]]) -> npt.NDArray[np.int32]:
    return np.array([len(row) for row in rows], np.int32)


def _ragged(rows: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """The rows as one array, padded with -1 to the longest, and to one column at least."""
    table = np.full((len(rows), max((len(row) for row in rows), default=0) or 1), -1, np.int64)
    for row, numbers in enumerate(rows):
        table[row, : len(numbers)] = numbers
    return table


def _measures_queues(settings: ServiceGraphsSettings) -> bool:
    return settings.latency and settings.enable_messaging_system_latency_histogram
