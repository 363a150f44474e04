"""Intake: which spans are measured, and what is counted before and besides (Tempo §4)."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from schemas.deltas import Ledger, LedgerKey
from schemas.ledger_counters import (
    ALL_PROCESSORS,
    BYTES_RECEIVED,
    DISABLED,
    LATENCIES_CLAMPED,
    NO_METRICS,
    NO_SERVICE,
    OTHER_KIND,
    OUTSIDE_SLACK,
    PUSHES_SKIPPED,
    SERVICE_GRAPHS,
    SERVICE_GRAPHS_FILTERED,
    SPAN_METRICS,
    SPAN_METRICS_FILTERED,
    SPANS_DISCARDED,
    SPANS_PASSED_OVER,
    SPANS_RECEIVED,
    WEIGHTS_CLAMPED,
)
from schemas.otlp import SpanFrame
from streams.interner import ABSENT
from streams.plan import Plan
from streams.span_columns import KIND_CONSUMER, KIND_SERVER, SpanColumns

_NS_PER_MS = 1_000_000
_LAST_NS = (1 << 64) - 1


class LedgerCounts:
    """What a window counted so far."""

    def __init__(self) -> None:
        self._counts: Ledger = {}

    def add(self, counter: str, tenant: str, count: int, **labels: str) -> None:
        """Add to a counter of a tenant; a count of 0 makes it exist."""
        key = LedgerKey(counter, tuple(sorted({**labels, "tenant": tenant}.items())))
        self._counts[key] = self._counts.get(key, 0) + count

    def add_discarded(self, tenant: str, count: int, reason: str, processor: str) -> None:
        """Count spans that a processor, or all of them, won't measure."""
        self.add(SPANS_DISCARDED, tenant, count, reason=reason, processor=processor)

    def add_passed_over(self, tenant: str, count: int, reason: str, processor: str) -> None:
        """Count spans that a processor, or all of them, has nothing to do with."""
        self.add(SPANS_PASSED_OVER, tenant, count, reason=reason, processor=processor)

    def ledger(self) -> Ledger:
        """The counts, in the order of their keys."""
        return dict(sorted(self._counts.items()))


def within_slack(frame: SpanFrame, plan: Plan, tenant_of_record: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Per span: whether its end is no further from its record's timestamp than its tenant's slack (INT-3, INT-4)."""
    slack_ns = [settings.slack_ns for settings in plan.settings]
    times_ns = [timestamp * _NS_PER_MS for timestamp in frame.records.timestamp_ms.tolist()]
    slacks = [slack_ns[tenant] for tenant in tenant_of_record.tolist()]
    pairs = list(zip(times_ns, slacks, strict=True))
    # An end of 0 is none at all, whatever the record's time.
    first = _clamped((time - slack for time, slack in pairs), at_least=1)
    last = _clamped((time + slack for time, slack in pairs), at_least=0)
    record, end_ns = frame.spans.record, frame.spans.end_ns
    within: npt.NDArray[np.bool_] = (first[record] <= end_ns) & (end_ns <= last[record])
    return within


def count_intake(
    counts: LedgerCounts,
    frame: SpanFrame,
    plan: Plan,
    tenant_of_record: npt.NDArray[np.int32],
    within: npt.NDArray[np.bool_],
) -> None:
    """Count what came in, what is discarded and what skips the processors, by tenant (INT-2, INT-3, INT-7)."""
    tenants = len(plan.tenants)
    resources, spans = frame.resources, frame.spans
    by_resource = tenant_of_record[resources.record]
    by_span = tenant_of_record[spans.record]
    requests = tenant_of_record[frame.messages.record]
    skipped = requests[frame.records.no_metrics[frame.messages.record]]
    received = _totals(by_resource, resources.spans, tenants)
    received_bytes = _totals(by_resource, resources.size, tenants)
    discarded = np.bincount(by_span[~within], minlength=tenants).tolist()
    clamped = np.bincount(by_span[within & spans.clamped], minlength=tenants).tolist()
    skips = np.bincount(skipped, minlength=tenants).tolist()
    for number in np.unique(requests).tolist():
        tenant = plan.tenants[number]
        counts.add(SPANS_RECEIVED, tenant, received[number])
        counts.add(BYTES_RECEIVED, tenant, received_bytes[number])
        counts.add_discarded(tenant, discarded[number], OUTSIDE_SLACK, ALL_PROCESSORS)
        if clamped[number]:
            counts.add(LATENCIES_CLAMPED, tenant, clamped[number])
        if skips[number]:
            settings = plan.settings[number]
            every = (settings.span_metrics, settings.service_graphs, settings.host_info)
            processors = sum(part is not None for part in every)
            counts.add(PUSHES_SKIPPED, tenant, skips[number] * processors)


def count_choices(counts: LedgerCounts, plan: Plan, spans: SpanColumns, within: npt.NDArray[np.bool_]) -> None:
    """Count which spans processors pass over or their filter policies reject, and weights that were clamped, by tenant.

    Service graphs evaluate policies only for spans that may be halves of edges (SG-7, SG-8).
    """
    for tenant, count in _by_tenant(within & ~spans.measured, plan, spans):
        counts.add_passed_over(tenant, count, NO_METRICS, ALL_PROCESSORS)
    _count_disabled(counts, plan, spans)
    rejected = spans.measured & ~spans.for_span_metrics.accepted
    for tenant, count in _by_tenant(rejected, plan, spans):
        counts.add_discarded(tenant, count, SPAN_METRICS_FILTERED, SPAN_METRICS)
    if plan.service_graphs.active.any():
        _count_halves(counts, plan, spans)
    for tenant, count in _by_tenant(spans.clamped, plan, spans):
        counts.add(WEIGHTS_CLAMPED, tenant, count)


def _count_disabled(counts: LedgerCounts, plan: Plan, spans: SpanColumns) -> None:
    """Count the spans of tenants that don't have a processor."""
    for processor, active in ((SPAN_METRICS, plan.span_metrics.active), (SERVICE_GRAPHS, plan.service_graphs.active)):
        if not active.all():
            for tenant, count in _by_tenant(spans.measured & ~active[spans.tenant], plan, spans):
                counts.add_passed_over(tenant, count, DISABLED, processor)


def _count_halves(counts: LedgerCounts, plan: Plan, spans: SpanColumns) -> None:
    """Count which spans aren't halves of edges, and which halves the policies of service graphs reject."""
    active = plan.service_graphs.active
    looked_at = spans.measured if active.all() else spans.measured & active[spans.tenant]
    of_kind = looked_at & (spans.kind >= KIND_SERVER) & (spans.kind <= KIND_CONSUMER)
    for tenant, count in _by_tenant(looked_at & ~of_kind, plan, spans):
        counts.add_passed_over(tenant, count, OTHER_KIND, SERVICE_GRAPHS)
    nameless = spans.service == ABSENT
    if nameless.any():
        of_nameless = nameless[spans.resource]
        for tenant, count in _by_tenant(of_kind & of_nameless, plan, spans):
            counts.add_passed_over(tenant, count, NO_SERVICE, SERVICE_GRAPHS)
        of_kind &= ~of_nameless
    for tenant, count in _by_tenant(of_kind & ~spans.for_service_graphs.accepted, plan, spans):
        counts.add_discarded(tenant, count, SERVICE_GRAPHS_FILTERED, SERVICE_GRAPHS)


def _by_tenant(chosen: npt.NDArray[np.bool_], plan: Plan, spans: SpanColumns) -> Iterator[tuple[str, int]]:
    """How many spans of each tenant are chosen, of those of which any is."""
    if len(plan.tenants) == 1:
        if count := int(np.count_nonzero(chosen)):
            yield plan.tenants[0], count
    elif chosen.any():
        counts = np.bincount(spans.tenant[chosen], minlength=len(plan.tenants)).tolist()
        yield from ((tenant, count) for tenant, count in zip(plan.tenants, counts, strict=True) if count)


def _totals(
    groups: npt.NDArray[np.int32], amounts: npt.NDArray[np.int32] | npt.NDArray[np.int64], count: int
) -> list[int]:
    totals = np.zeros(count, np.int64)
    np.add.at(totals, groups, amounts)
    return [int(total) for total in totals]


def _clamped(times_ns: Iterable[int], at_least: int) -> npt.NDArray[np.uint64]:
    return np.array([min(max(time, at_least), _LAST_NS) for time in times_ns], np.uint64)
