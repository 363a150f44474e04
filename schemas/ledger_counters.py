"""The counters of the ledger: what the generator and the registry count of themselves, as exactly as the series.

Names are Tempo's where the thing is the same thing (its dashboards and alerts use them). The sink writes each as a
series too: `spanmill_ledger_`, the name without `tempo_metrics_generator_` or `spanmill_`, ending in `_total`.
"""

TEMPO = "tempo_metrics_generator_"
GRAPHS = f"{TEMPO}processor_service_graphs_"
REGISTRY = f"{TEMPO}registry_"

SPANS_RECEIVED = f"{TEMPO}spans_received_total"
BYTES_RECEIVED = f"{TEMPO}bytes_received_total"
SPANS_DISCARDED = f"{TEMPO}spans_discarded_total"
PUSHES_SKIPPED = f"{TEMPO}metrics_generation_skipped_processor_pushes_total"
EDGES = f"{GRAPHS}edges"
EDGE_SPANS_DROPPED = f"{GRAPHS}dropped_spans"
EDGES_DROPPED = f"{GRAPHS}dropped_edges_total"
DROPPED_SIDE_OVERFLOWS = f"{GRAPHS}dropped_span_side_cache_overflow_total"
EDGES_EXPIRED = f"{GRAPHS}expired_edges"
LATENCIES_CLAMPED = "spanmill_latencies_clamped_total"
WEIGHTS_CLAMPED = "spanmill_weights_clamped_total"

SPANS_MEASURED = "spanmill_spans_measured_total"
SPANS_PASSED_OVER = "spanmill_spans_passed_over_total"
SPANS_WITHOUT_TARGET_INFO = "spanmill_spans_without_target_info_total"
EDGE_SPANS_JOINED = "spanmill_edge_spans_joined_total"
EDGE_SPANS_ALONE = "spanmill_edge_spans_alone_total"
EDGES_MEASURED = "spanmill_edges_measured_total"
EDGES_OUTGROWN = "spanmill_edges_outgrown_total"
EDGES_FORGOTTEN = "spanmill_edges_forgotten_total"
RECORDS_UNREADABLE = "spanmill_records_unreadable_total"

ROWS = "spanmill_registry_rows_total"
ROWS_APPLIED = "spanmill_registry_rows_applied_total"
ROWS_OVERFLOWED = "spanmill_registry_rows_overflowed_total"
ROWS_MISFIT = "spanmill_registry_rows_misfit_total"

OUTSIDE_SLACK, INVALID_UTF8 = "outside_metrics_ingestion_slack", "invalid_utf8"
SPAN_METRICS_FILTERED, SERVICE_GRAPHS_FILTERED = "span_metrics_filtered", "service_graphs_filtered"
"""Reasons of `SPANS_DISCARDED` (Tempo INT-6)."""
NO_METRICS, DISABLED, OTHER_KIND, NO_SERVICE = "no_metrics", "disabled", "kind", "no_service"
"""Reasons of `SPANS_PASSED_OVER`."""
SPAN_METRICS, SERVICE_GRAPHS, ALL_PROCESSORS = "span-metrics", "service-graphs", "all"
"""Values of the label `processor`."""

RECORDS_LOST = "spanmill_records_lost_total"
LATE_BATCHES = "spanmill_late_batches_total"
WINDOWS_INCOMPLETE = "spanmill_windows_incomplete_total"
CHAIN_GAPS = "spanmill_chain_gaps_total"
GAP_WINDOWS = "spanmill_gap_windows_total"

LEDGER_COUNTERS: dict[str, str] = {
    SPANS_RECEIVED: "Spans received, before any filter.",
    BYTES_RECEIVED: "Bytes of ResourceSpans received, before any filter.",
    SPANS_DISCARDED: "Spans, or edges, that a processor doesn't measure, by reason.",
    PUSHES_SKIPPED: ("Requests marked to be stored and not measured, once for each active processor."),
    EDGES: "Edges begun, those completed at once included.",
    EDGES_EXPIRED: "Half-edges whose other half never came, and which no virtual node completed.",
    EDGE_SPANS_DROPPED: "Spans that found the store of half-edges full.",
    EDGES_DROPPED: "Half-edges whose other half was rejected by a filter.",
    DROPPED_SIDE_OVERFLOWS: "Rejected sides that weren't remembered: too many were already.",
    f"{REGISTRY}series_added_total": "Series that began.",
    f"{REGISTRY}series_removed_total": "Series that were dropped when they were stale.",
    f"{REGISTRY}series_limited_total": "Series that a limit kept from beginning, once per window.",
    f"{REGISTRY}entities_added_total": "Entities (label sets of any metric) that began.",
    f"{REGISTRY}entities_removed_total": "Label sets of a metric that were dropped when they were stale.",
    f"{REGISTRY}entities_limited_total": "Label sets that the limit of entities kept from beginning, once per window.",
    f"{REGISTRY}collections_total": "Windows that were written for a tenant.",
    f"{REGISTRY}label_values_limited_total": "Values replaced, as their label has too many; once per row of a window.",
    f"{REGISTRY}spans_sanitized_total": "Label sets whose span name became a pattern, or would in a dry run.",
    f"{REGISTRY}drain_patterns_detected_total": "Patterns of span names that were found.",
    f"{REGISTRY}drain_patterns_evicted_total": "Patterns that had to make room for others.",
    f"{REGISTRY}drain_patterns_expired_total": "Always 0: patterns don't expire.",
    f"{REGISTRY}drain_lines_skipped_total": "Span names with too few or too many tokens to be sanitised.",
    f"{REGISTRY}drain_tokens_per_line_count": "Span names that were looked at; a label set's once per window.",
    f"{REGISTRY}drain_tokens_per_line_sum": "Their tokens: Tempo's histogram, but for its buckets.",
    LATENCIES_CLAMPED: "Spans whose latency was cut to 2^53 ns, about 104 days.",
    WEIGHTS_CLAMPED: "Spans whose multiplier was outside 2^-32 to 2^31 and was brought within.",
    RECORDS_LOST: (
        "Records of the spans topic that retention took before a generator read them; of whichever tenants, they count "
        "for the default one."
    ),
    LATE_BATCHES: "Batches that came after a waiver had completed their window; they count in a later one.",
    WINDOWS_INCOMPLETE: "Windows that a waiver completed before all source partitions had delivered them.",
    CHAIN_GAPS: "Places where batches of a source partition were lost, by retention, or as an operator accepted it.",
    GAP_WINDOWS: "Windows of one source partition that those batches were of, at most.",
    SPANS_MEASURED: "Spans that are in the span metrics.",
    SPANS_PASSED_OVER: "Spans that a processor, or all of them, has nothing to do with, by reason.",
    SPANS_WITHOUT_TARGET_INFO: (
        "Spans that are in the span metrics and among the discarded ones: the labels of their target_info are invalid."
    ),
    EDGE_SPANS_JOINED: "Spans that completed, or added to, an edge that another span had begun.",
    EDGE_SPANS_ALONE: "Spans whose other half a filter had rejected; each is among the dropped edges.",
    EDGES_MEASURED: "Edges that are in the service graphs.",
    EDGES_OUTGROWN: "Half-edges dropped for want of room when they grew; each is among the dropped spans.",
    EDGES_FORGOTTEN: "Half-edges let go as their tenant has no service graphs any more.",
    RECORDS_UNREADABLE: "Records of the spans topic that can't be read, in part or whole: see the dead-letter topic.",
    ROWS: "Rows of deltas that came for series, those of all source partitions merged.",
    ROWS_APPLIED: "Of those: the ones that are in series of their own.",
    ROWS_OVERFLOWED: "Of those: the ones in an overflow series, as a limit kept theirs from beginning.",
    ROWS_MISFIT: "Of those: the ones of a kind of histogram that the tenant doesn't have; they came a window late.",
}

LEDGER_PREFIX = "spanmill_ledger_"
"""Begins the names of ledger series, so that they can't be taken for what a process says of itself."""


def ledger_series_name(counter: str) -> str:
    """The name of the series that a counter becomes."""
    name = counter.removeprefix(TEMPO).removeprefix("spanmill_").removesuffix("_total")
    return f"{LEDGER_PREFIX}{name}_total"
