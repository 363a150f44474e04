"""Intake: which spans are measured, and what is counted before and besides (Tempo §4)."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from schemas.deltas import Ledger, LedgerKey
from schemas.otlp import SpanFrame
from streams import service_graphs, span_metrics
from streams.interner import ABSENT
from streams.plan import Plan
from streams.span_columns import KIND_CONSUMER, KIND_SERVER, SpanColumns

SPANS_RECEIVED = "tempo_metrics_generator_spans_received_total"
BYTES_RECEIVED = "tempo_metrics_generator_bytes_received_total"
SPANS_DISCARDED = "tempo_metrics_generator_spans_discarded_total"
PUSHES_SKIPPED = "tempo_metrics_generator_metrics_generation_skipped_processor_pushes_total"
EDGES = "tempo_metrics_generator_processor_service_graphs_edges"
EDGE_SPANS_DROPPED = "tempo_metrics_generator_processor_service_graphs_dropped_spans"
EDGES_DROPPED = "tempo_metrics_generator_processor_service_graphs_dropped_edges_total"
DROPPED_SIDE_OVERFLOWS = "tempo_metrics_generator_processor_service_graphs_dropped_span_side_cache_overflow_total"
EDGES_EXPIRED = "tempo_metrics_generator_processor_service_graphs_expired_edges"
LATENCIES_CLAMPED = "spanmill_latencies_clamped_total"
"""Ours: spans whose latency was too long for exact sums and was cut to 2^53 ns."""
WEIGHTS_CLAMPED = "spanmill_weights_clamped_total"
"""Ours: spans of which a multiplier was outside 2^-32 to 2^31 and was brought within."""

OUTSIDE_SLACK, INVALID_UTF8 = "outside_metrics_ingestion_slack", "invalid_utf8"
SPAN_METRICS_FILTERED, SERVICE_GRAPHS_FILTERED = "span_metrics_filtered", "service_graphs_filtered"
"""Reasons of `SPANS_DISCARDED` (Tempo INT-6)."""
ALL_PROCESSORS = "all"

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


def count_choices(counts: LedgerCounts, plan: Plan, spans: SpanColumns) -> None:
    """Count what processors' filter policies rejected, and weights that were clamped, by tenant.

    Service graphs evaluate policies only for spans that may be halves of edges (SG-7, SG-8).
    """
    rejected = spans.measured & ~spans.for_span_metrics.accepted
    for tenant, count in _by_tenant(rejected, plan, spans):
        counts.add_discarded(tenant, count, SPAN_METRICS_FILTERED, span_metrics.PROCESSOR)
    rejected = spans.measured & ~spans.for_service_graphs.accepted
    if rejected.any():
        rejected &= (spans.kind >= KIND_SERVER) & (spans.kind <= KIND_CONSUMER)
        rejected &= spans.service[spans.resource] != ABSENT
    for tenant, count in _by_tenant(rejected, plan, spans):
        counts.add_discarded(tenant, count, SERVICE_GRAPHS_FILTERED, service_graphs.PROCESSOR)
    for tenant, count in _by_tenant(spans.clamped, plan, spans):
        counts.add(WEIGHTS_CLAMPED, tenant, count)


def _by_tenant(chosen: npt.NDArray[np.bool_], plan: Plan, spans: SpanColumns) -> Iterator[tuple[str, int]]:
    """How many spans of each tenant are chosen, of those of which any is."""
    if chosen.any():
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
