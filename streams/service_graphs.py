"""Service graphs: edges between services, from the two halves that client and server report (Tempo §7)."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.config import ServiceGraphsSettings
from schemas.labels import sanitize_name
from schemas.metrics import MetricId
from streams.dropped_sides import SIDES
from streams.edges import (
    COUNTS,
    EDGE_CLIENT,
    EDGE_CONNECTION,
    EDGE_SERVER,
    EDGE_TENANT,
    EDGE_TOTALS,
    EDGE_VALUES,
    HISTOGRAMS,
    EdgeTotals,
    expire_half_edges,
    fold_edges,
)
from streams.groups import new_cells, new_groups, resized_cells, resized_groups
from streams.half_edge_table import (
    dropped_side_table,
    half_edge_table,
    restored_dropped_sides,
    restored_half_edges,
)
from streams.half_edges import grown_half_edges, half_count, resized_half_edges
from streams.interner import Interner
from streams.native_cells import grown_native_cells, native_rows, new_native_cells
from streams.plan import Plan
from streams.rows import Block, LabelCache, LabelSet, ProcessorRows, counter_rows, histogram_rows
from streams.service_graphs_plan import edge_slots
from streams.span_columns import SpanColumns

PROCESSOR = "service-graphs"

CONNECTION_TEXTS = (b"", b"messaging_system", b"database", b"virtual_node")
"""The values of the label `connection_type`, by number (Tempo SG-2)."""

_METRICS = (
    MetricId.REQUEST_SERVER_SECONDS,
    MetricId.REQUEST_CLIENT_SECONDS,
    MetricId.REQUEST_MESSAGING_SYSTEM_SECONDS,
)
"""By histogram."""


class Waiting(NamedTuple):
    """What is carried from window to window: half-edges (`HALF_EDGE_SCHEMA`), sides that filters rejected."""

    half_edges: pa.RecordBatch
    dropped_sides: pa.RecordBatch


class Edges(NamedTuple):
    """A closed window's rows, and the edges that are in them or aren't."""

    rows: ProcessorRows
    measured: Counter[tuple[str, str]]
    """By tenant and connection type, which is empty for a plain one."""
    invalid: Counter[str]
    """By tenant: those whose labels are invalid (Tempo SG-22)."""


class ServiceGraphs:
    """The edges of one open window, the half-edges that wait, and the sides that nobody need wait for."""

    def __init__(self, plan: Plan, interner: Interner, cache: LabelCache, waiting: Waiting, max_bytes: int) -> None:
        self._plan, self._interner, self._cache, self._max_bytes = plan, interner, cache, max_bytes
        for table in waiting:
            plan.include(table.column("tenant").to_pylist())
        values, places, tenants = self._sizes()
        groups, totals = new_groups(64, EDGE_VALUES + values, places), np.zeros(64, EDGE_TOTALS)
        counts = np.zeros((tenants, COUNTS), np.int64)
        self._state = EdgeTotals(groups, totals, new_cells(128), counts, new_native_cells(64))
        self._half_edges = restored_half_edges(waiting.half_edges, plan, interner)
        self.forgotten = _inactive(waiting.half_edges, plan)
        """By tenant: half-edges that don't wait any more, as it has no service graphs in this window (SG-32)."""
        self._dropped = restored_dropped_sides(waiting.dropped_sides, plan)

    def fold(self, spans: SpanColumns) -> None:
        """Take the spans of a frame, in log order."""
        self._widen()
        plan, row = self._plan.service_graphs, 0
        while row < len(spans.kind):
            texts = self._interner.starts
            tables = self._half_edges, self._dropped, self._state
            row = fold_edges(spans, plan, *tables, texts, self._max_bytes, row)
            if row < len(spans.kind):
                key_bytes = spans.trace_bytes[row] + max(spans.span_bytes[row], spans.parent_bytes[row])
                self._grow(int(key_bytes))

    def expire(self, end_ms: int) -> None:
        """Let half-edges go whose deadline isn't after the window's end (SG-19)."""
        while not expire_half_edges(self._plan.service_graphs, self._half_edges, self._dropped, self._state, end_ms):
            self._grow(0)

    @property
    def waiting(self) -> int:
        """How many half-edges wait."""
        return half_count(self._half_edges)

    def counts(self) -> npt.NDArray[np.int64]:
        """Per tenant of the plan, what was counted: columns as `streams.edges` names them."""
        return self._state.counts

    def rows(self) -> Edges:
        """The window's rows, and what became of its edges."""
        count = int(self._state.groups.used[0])
        keys = self._state.groups.keys[:count]
        tenants = [self._plan.tenants[number] for number in keys[:, EDGE_TENANT].tolist()]
        names = [_label_names(settings.service_graphs) for settings in self._plan.settings]
        label_sets = [self._label_set(key, names[key[EDGE_TENANT]]) for key in keys.tolist()]
        connections = [CONNECTION_TEXTS[number].decode() for number in keys[:, EDGE_CONNECTION].tolist()]
        every = self._state.totals["edges"][:count].tolist()
        measured: Counter[tuple[str, str]] = Counter()
        invalid: Counter[str] = Counter()
        for tenant, connection, made, edges in zip(tenants, connections, label_sets, every, strict=True):
            if made.labels is None:
                invalid[tenant] += edges
            else:
                measured[tenant, connection] += edges
        return Edges(ProcessorRows(self._blocks(count), list(zip(tenants, label_sets, strict=True))), measured, invalid)

    def left_waiting(self) -> Waiting:
        """What the next window begins with."""
        half_edges = half_edge_table(self._half_edges, self._plan, self._interner)
        return Waiting(half_edges, dropped_side_table(self._dropped, self._plan))

    def _label_set(self, key: Sequence[int], names: tuple[bytes, ...]) -> LabelSet:
        settings, text = self._plan.settings[key[EDGE_TENANT]], self._interner.text
        dimensions = key[EDGE_VALUES : EDGE_VALUES + len(names) - 3]
        values = (
            text(key[EDGE_CLIENT]),
            text(key[EDGE_SERVER]),
            CONNECTION_TEXTS[key[EDGE_CONNECTION]],
            *map(text, dimensions),
        )
        return self._cache.of(names, values, settings.max_label_name_length, settings.max_label_value_length)

    def _blocks(self, count: int) -> list[Block]:
        if not count:
            return []
        tenant = self._state.groups.keys[:count, EDGE_TENANT]
        totals, table = self._state.totals[:count], self._state.cells
        every = [settings.service_graphs for settings in self._plan.settings]
        requests = np.array([s is not None and s.request for s in every], np.bool_)[tenant]
        # No series until the first failure (SG-3).
        failures = requests & ((totals["failed_lo"] != 0) | (totals["failed_hi"] != 0))
        informs = np.array([s is not None and s.connection_info for s in every], np.bool_)[tenant]
        layouts = np.array([self._plan.layout(s) if s else 0 for s in every], np.uint16)
        one, none = np.ones(count, np.uint64), np.zeros(count, np.int64)
        blocks = [
            counter_rows(metric, chosen, lo, hi)
            for metric, chosen, lo, hi in (
                (MetricId.REQUEST_TOTAL, requests, totals["total_lo"], totals["total_hi"]),
                (MetricId.REQUEST_FAILED_TOTAL, failures, totals["failed_lo"], totals["failed_hi"]),
                (MetricId.CONNECTION_INFO, informs, one, none),
            )
        ]
        cells = table.cells[: table.used[0]]
        for histogram, metric in enumerate(_METRICS):
            chosen = np.flatnonzero(cells["place"] % HISTOGRAMS == histogram)
            buckets = cells["place"][chosen] // HISTOGRAMS
            blocks.append(histogram_rows(metric, table, chosen, buckets, layouts[tenant[cells["group"][chosen]]]))
            blocks.append(native_rows(metric, self._state.native, histogram, self._plan.service_graphs.kinds, tenant))
        return blocks

    def _widen(self) -> None:
        """Room for the dimensions, buckets and counts of tenants that have just appeared."""
        groups, totals, cells, counts, native = self._state
        values, places, tenants = self._sizes()
        if len(counts) < tenants:
            counts = np.concatenate([counts, np.zeros((tenants - len(counts), COUNTS), np.int64)])
        groups = resized_groups(groups, 0, EDGE_VALUES + values, places)
        self._state = EdgeTotals(groups, totals, cells, counts, native)
        self._half_edges = resized_half_edges(self._half_edges, 0, values, tenants, 0)
        self._dropped = resized_half_edges(self._dropped, 0, 1, SIDES * tenants, 0)

    def _sizes(self) -> tuple[int, int, int]:
        """The values and places of an edge that has most of them, and the tenants; at least one of each."""
        plan = self._plan.service_graphs
        values, places = max(int(plan.slot_counts.max(initial=0)), 1), (plan.limits_ns.shape[1] + 1) * HISTOGRAMS
        return values, places, max(len(plan.active), 1)

    def _grow(self, key_bytes: int) -> None:
        """Room for a group, its cells and a half-edge with a key of that length."""
        groups, totals, cells, counts, native = self._state
        if groups.used[0] == len(totals):
            groups = resized_groups(groups, 2 * len(totals), 0, 0)
            totals = np.concatenate([totals, np.zeros_like(totals)])
        if cells.used[0] + HISTOGRAMS > len(cells.cells):
            cells = resized_cells(cells, 2 * len(cells.cells))
        self._state = EdgeTotals(groups, totals, cells, counts, grown_native_cells(native, HISTOGRAMS))
        self._half_edges = grown_half_edges(self._half_edges, key_bytes)
        self._dropped = grown_half_edges(self._dropped, key_bytes)


def _inactive(half_edges: pa.RecordBatch, plan: Plan) -> Counter[str]:
    """How many half-edges are of tenants without service graphs."""
    if plan.service_graphs.active.all():
        return Counter()
    tenants: list[str] = half_edges.column("tenant").to_pylist()
    return Counter(tenant for tenant in tenants if not plan.service_graphs.active[plan.numbers[tenant]])


def _label_names(settings: ServiceGraphsSettings | None) -> tuple[bytes, ...]:
    """SG-1, SG-24: no name is reserved, so a dimension may overwrite one of the first three."""
    names = () if settings is None else edge_slots(settings).names
    return (b"client", b"server", b"connection_type", *(sanitize_name(name) for name in names))
