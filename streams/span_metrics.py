"""Span metrics: calls, latencies and sizes by the labels of spans (Tempo §6)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.config import SpanMetricsSettings
from schemas.labels import SPAN_METRICS_RESERVED, reserved_name
from schemas.metrics import MetricId
from streams.attribute_keys import SERVICE_INSTANCE
from streams.groups import (
    CellTable,
    GroupTable,
    Observation,
    bucket_of,
    find_group,
    new_cells,
    new_groups,
    observe,
    resized_cells,
    resized_groups,
)
from streams.interner import FULL, Interner
from streams.kernels import kernel, wide
from streams.layouts import NO_SCHEMA
from streams.limbs import added
from streams.native_cells import (
    NativeCells,
    grown_native_cells,
    native_rows,
    new_native_cells,
    observe_native,
    observed_weight,
)
from streams.plan import Plan
from streams.rows import Block, LabelCache, LabelSet, ProcessorRows, counter_rows, histogram_rows
from streams.span_columns import SpanColumns
from streams.span_metrics_plan import IDENTITY, INTRINSICS, SpanMetricsPlan
from streams.target_info import NOTHING, TargetInfoCache, identity_pairs, job_text

PROCESSOR = "span-metrics"

KIND_TEXTS = {
    number: f"SPAN_KIND_{name}".encode()
    for number, name in enumerate(("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"))
}
STATUS_TEXTS = {0: b"STATUS_CODE_UNSET", 1: b"STATUS_CODE_OK", 2: b"STATUS_CODE_ERROR"}
"""Unknown numbers are decimal (Tempo SM-5)."""

_TENANT, _SERVICE, _NAME, _KIND, _STATUS, _MESSAGE, _ATTRIBUTES = range(7)
"""Places in a group's key; after the attributes comes the resource's identity, if the tenant has target_info."""

_INSTANCE = IDENTITY.index(SERVICE_INSTANCE)
_RESOURCE, _GROUP = 1, 2
"""Places in the key of a pair of a resource and a group, after the tenant."""

_LATENCY = 0
"""The number of the only histogram."""

SPAN_TOTALS = np.dtype(
    [
        ("spans", np.int64),
        ("calls_lo", np.uint64),
        ("calls_hi", np.int64),
        ("size_lo", np.uint64),
        ("size_hi", np.int64),
    ]
)
"""What a group of spans adds up to: spans as they are, weighted calls, bytes."""


class SpanMetricsCaches(NamedTuple):
    """Label sets that were made lately, kept from window to window."""

    labels: LabelCache
    target_info: TargetInfoCache


class Closed(NamedTuple):
    """A closed window's rows, and by tenant the spans that are in them or aren't."""

    rows: list[ProcessorRows]
    measured: Counter[str]
    invalid: Counter[str]
    """Those whose labels, or whose resource's labels, are invalid (Tempo SM-15)."""
    without_target_info: Counter[str]
    """Of those the latter, which are measured all the same."""


class SpanTotals(NamedTuple):
    """Everything that a window adds up about spans."""

    groups: GroupTable
    totals: npt.NDArray[Any]
    """Per group, of `SPAN_TOTALS`."""
    cells: CellTable
    pairs: GroupTable
    """Resources and groups that have spans in common, where there is a target_info."""
    pair_spans: npt.NDArray[np.int64]
    """Per pair: how many."""
    native: NativeCells


class SpanMetrics:
    """The span metrics of one open window."""

    def __init__(self, plan: Plan, interner: Interner, caches: SpanMetricsCaches) -> None:
        self._plan, self._interner, self._caches = plan, interner, caches
        self._state = _new_state(64, _ATTRIBUTES, 1)

    def fold(self, spans: SpanColumns) -> None:
        """Add the spans of a frame, in log order."""
        plan = self._plan.span_metrics
        self._widen(_ATTRIBUTES + plan.dimensions.shape[1] + len(IDENTITY), plan.limits_ns.shape[1] + 1)
        row = 0
        while (row := _fold(spans, plan, self._state, row)) < len(spans.kind):
            self._grow()

    def close(self) -> Closed:
        """The window's rows, and what became of its spans."""
        count = int(self._state.groups.used[0])
        tenants = [self._plan.tenants[number] for number in self._state.groups.keys[:count, _TENANT].tolist()]
        label_sets = self._label_sets(count)
        measured: Counter[str] = Counter()
        invalid: Counter[str] = Counter()
        for tenant, made, spans in zip(tenants, label_sets, self._state.totals["spans"][:count].tolist(), strict=True):
            (invalid if made.labels is None else measured)[tenant] += spans
        rows = ProcessorRows(self._blocks(count), list(zip(tenants, label_sets, strict=True)))
        uninformed: Counter[str] = Counter()
        target_infos = self._target_infos(label_sets, uninformed)
        return Closed([rows, target_infos], measured, invalid + uninformed, uninformed)

    def _target_infos(self, label_sets: Sequence[LabelSet], invalid: Counter[str]) -> ProcessorRows:
        """A gauge for each resource with a span whose labels are valid (SM-15, SM-31, SM-33)."""
        used = int(self._state.pairs.used[0])
        found: dict[tuple[int, int], LabelSet] = {}
        spans = self._state.pair_spans[:used].tolist()
        for (tenant, resource, group), count in zip(self._state.pairs.keys[:used].tolist(), spans, strict=True):
            if label_sets[group].labels is None:
                continue
            made = self._caches.target_info.of(self._interner.raw(resource), self._plan.settings[tenant])
            if made.labels is None:
                invalid[self._plan.tenants[tenant]] += count
            elif made is not NOTHING:
                found[tenant, resource] = made
        one, none = np.ones(len(found), np.uint64), np.zeros(len(found), np.int64)
        rows = counter_rows(MetricId.TARGET_INFO, one, one, none)
        return ProcessorRows([rows], [(self._plan.tenants[tenant], made) for (tenant, _), made in found.items()])

    def _label_sets(self, count: int) -> list[LabelSet]:
        """The labels of each group, in the order of Tempo SM-5."""
        names = [_label_names(settings.span_metrics) for settings in self._plan.settings]
        return [self._label_set(key, names[key[_TENANT]]) for key in self._state.groups.keys[:count].tolist()]

    def _label_set(self, key: list[int], names: tuple[bytes, ...]) -> LabelSet:
        settings, text = self._plan.settings[key[_TENANT]], self._interner.text
        own, shown = settings.span_metrics, self._plan.span_metrics.intrinsics[key[_TENANT]]
        assert own is not None
        intrinsics = (
            text(key[_SERVICE]),
            text(key[_NAME]),
            KIND_TEXTS.get(key[_KIND]) or b"%d" % key[_KIND],
            STATUS_TEXTS.get(key[_STATUS]) or b"%d" % key[_STATUS],
            text(key[_MESSAGE]),
        )
        values = [value for value, wanted in zip(intrinsics, shown, strict=True) if wanted]
        at = _ATTRIBUTES
        values += map(text, key[at : at + len(own.dimensions)])
        at += len(own.dimensions)
        for mapping in own.dimension_mappings:
            sources = map(text, key[at : at + len(mapping.source_labels)])
            values.append(mapping.join.encode().join(filter(None, sources)))
            at += len(mapping.source_labels)
        if own.enable_target_info:
            name, namespace, instance = map(text, key[at : at + len(IDENTITY)])
            identity = identity_pairs(job_text(name, namespace), instance)
            names += tuple(name for name, _ in identity)
            values += [value for _, value in identity]
        lengths = settings.max_label_name_length, settings.max_label_value_length
        return self._caches.labels.of(names, tuple(values), *lengths)

    def _blocks(self, count: int) -> list[Block]:
        if not count:
            return []
        tenant = self._state.groups.keys[:count, _TENANT]
        totals, table = self._state.totals[:count], self._state.cells
        every = [settings.span_metrics for settings in self._plan.settings]
        counted = np.array([s is not None and s.count for s in every], np.bool_)[tenant]
        sized = np.array([s is not None and s.size for s in every], np.bool_)[tenant]
        layouts = np.array([self._plan.layout(s) if s else 0 for s in every], np.uint16)
        cells = table.cells[: table.used[0]]
        return [
            counter_rows(MetricId.CALLS, counted, totals["calls_lo"], totals["calls_hi"]),
            histogram_rows(
                MetricId.LATENCY, table, np.arange(len(cells)), cells["place"], layouts[tenant[cells["group"]]]
            ),
            native_rows(MetricId.LATENCY, self._state.native, _LATENCY, self._plan.span_metrics.kinds, tenant),
            counter_rows(MetricId.SIZE, sized, totals["size_lo"], totals["size_hi"]),
        ]

    def _widen(self, width: int, places: int) -> None:
        """Room for the keys and buckets of tenants that have just appeared."""
        self._state = self._state._replace(groups=resized_groups(self._state.groups, 0, width, places))

    def _grow(self) -> None:
        """Room for a group, a cell and a pair at least."""
        groups, totals, cells, pairs, pair_spans, native = self._state
        if groups.used[0] == len(totals):
            groups = resized_groups(groups, 2 * len(totals), 0, 0)
            totals = np.concatenate([totals, np.zeros_like(totals)])
        if cells.used[0] == len(cells.cells):
            cells = resized_cells(cells, 2 * len(cells.cells))
        if pairs.used[0] == len(pair_spans):
            pairs = resized_groups(pairs, 2 * len(pair_spans), 0, 0)
            pair_spans = np.concatenate([pair_spans, np.zeros_like(pair_spans)])
        self._state = SpanTotals(groups, totals, cells, pairs, pair_spans, grown_native_cells(native, 1))


def _label_names(settings: SpanMetricsSettings | None) -> tuple[bytes, ...]:
    if settings is None:
        return ()
    shown = [name.encode() for name in INTRINSICS if getattr(settings.intrinsic_dimensions, name)]
    own = (*settings.dimensions, *(mapping.name for mapping in settings.dimension_mappings))
    return (*shown, *(reserved_name(name, SPAN_METRICS_RESERVED) for name in own))


def _new_state(capacity: int, width: int, places: int) -> SpanTotals:
    return SpanTotals(
        groups=new_groups(capacity, width, places),
        totals=np.zeros(capacity, SPAN_TOTALS),
        cells=new_cells(2 * capacity),
        pairs=new_groups(capacity, _GROUP + 1, 1),
        pair_spans=np.zeros(capacity, np.int64),
        native=new_native_cells(capacity),
    )


@kernel
def _fold(spans: SpanColumns, plan: SpanMetricsPlan, state: SpanTotals, first: int) -> int:
    """Add the spans from row `first` on; the row at which there was no room, or their count."""
    for row in range(first, len(spans.kind)):
        tenant = wide(spans.tenant[row])
        if not spans.measured[row] or not plan.active[tenant] or not spans.for_span_metrics.accepted[row]:
            continue
        if state.cells.used[0] == len(state.cells.cells) or state.pairs.used[0] == len(state.pair_spans):
            return row
        if state.native.cells.used[0] == len(state.native.cells.cells):
            return row
        width = _group_key(spans, plan, row, tenant, state.groups.scratch)
        group = find_group(state.groups, width)
        if group == FULL:
            return row
        _add_span(spans, plan, state, row, tenant, group)
        if plan.informs[tenant]:
            _add_pair(spans, state, row, tenant, group)
    return len(spans.kind)


@kernel
def _group_key(spans: SpanColumns, plan: SpanMetricsPlan, row: int, tenant: int, key: Any) -> int:
    """Fill in a span's key; absent and empty are one (Tempo SM-9). Returns how many values it has."""
    shown = plan.intrinsics[tenant]
    resource = spans.resource[row]
    key[_TENANT] = tenant
    key[_SERVICE] = max(spans.service[resource], 0) if shown[0] else 0
    key[_NAME] = spans.name[row] if shown[1] else 0
    key[_KIND] = spans.kind[row] if shown[2] else 0
    key[_STATUS] = spans.status[row] if shown[3] else 0
    key[_MESSAGE] = max(spans.message[row], 0) if shown[4] else 0
    for i in range(plan.dimension_counts[tenant]):
        attribute = plan.dimensions[tenant, i]
        value = spans.resource_values[attribute, resource]  # the resource comes first (PRIM-2)
        if value < 0:
            value = spans.values[attribute, row]
        key[_ATTRIBUTES + i] = max(value, 0)
    width = wide(_ATTRIBUTES + plan.dimension_counts[tenant])
    if not plan.informs[tenant]:
        return width
    for i in range(len(plan.identity)):
        named = i < _INSTANCE or plan.names_instance[tenant]
        key[width + i] = max(spans.resource_values[plan.identity[i], resource], 0) if named else 0
    return wide(width + len(plan.identity))


@kernel
def _add_pair(spans: SpanColumns, state: SpanTotals, row: int, tenant: int, group: int) -> None:
    """Note that a resource has a span in a group."""
    key = state.pairs.scratch
    key[_TENANT], key[_RESOURCE], key[_GROUP] = tenant, spans.identity[spans.resource[row]], group
    state.pair_spans[find_group(state.pairs, wide(_GROUP + 1))] += 1


@kernel
def _add_span(spans: SpanColumns, plan: SpanMetricsPlan, state: SpanTotals, row: int, tenant: int, group: int) -> None:
    weight, nothing = spans.for_span_metrics.weight[row], np.int64(0)
    total = state.totals[group]
    total.spans += 1
    total.calls_lo, total.calls_hi = added(total.calls_lo, total.calls_hi, weight, nothing)
    total.size_lo, total.size_hi = added(total.size_lo, total.size_hi, np.uint64(spans.size[row]), nothing)
    if plan.latency[tenant]:
        latency_ns = spans.latency_ns[row]
        limits_ns = plan.limits_ns[tenant, : plan.limit_counts[tenant]]
        record = spans.record[row]
        seen = Observation(
            observed_weight(plan.kinds, tenant, weight),
            latency_ns,
            spans.stream_ms[record],
            spans.offset[record],
            spans.position[row],
            spans.data,
            np.int64(spans.trace_start[row]),
            np.int64(spans.trace_bytes[row]),
        )
        if plan.kinds.classic[tenant]:
            observe(state.groups, state.cells, group, bucket_of(limits_ns, latency_ns), seen)
        if plan.kinds.schema[tenant] != NO_SCHEMA:
            observe_native(state.native, plan.kinds, tenant, group, wide(_LATENCY), seen)
