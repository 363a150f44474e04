"""The counters of the ledger: what the generator and the registry count of themselves, as exactly as the series.

Names are Tempo's where the thing is the same thing (its dashboards and alerts use them). The sink writes each as a
series too: `spanmill_ledger_`, the name without `tempo_metrics_generator_` or `spanmill_`, ending in `_total`.
"""

TEMPO = "tempo_metrics_generator_"
GRAPHS = f"{TEMPO}processor_service_graphs_"
REGISTRY = f"{TEMPO}registry_"

RECORDS_LOST = "spanmill_records_lost_total"
LATE_BATCHES = "spanmill_late_batches_total"
WINDOWS_INCOMPLETE = "spanmill_windows_incomplete_total"
CHAIN_GAPS = "spanmill_chain_gaps_total"
GAP_WINDOWS = "spanmill_gap_windows_total"

LEDGER_COUNTERS: dict[str, str] = {
    f"{TEMPO}spans_received_total": "Spans received, before any filter.",
    f"{TEMPO}bytes_received_total": "Bytes of ResourceSpans received, before any filter.",
    f"{TEMPO}spans_discarded_total": "Spans, or edges, that a processor doesn't measure, by reason.",
    f"{TEMPO}metrics_generation_skipped_processor_pushes_total": (
        "Requests marked to be stored and not measured, once for each active processor."
    ),
    f"{GRAPHS}edges": "Edges begun, those completed at once included.",
    f"{GRAPHS}expired_edges": "Half-edges whose other half never came, and which no virtual node completed.",
    f"{GRAPHS}dropped_spans": "Spans that found the store of half-edges full.",
    f"{GRAPHS}dropped_edges_total": "Half-edges whose other half was rejected by a filter.",
    f"{GRAPHS}dropped_span_side_cache_overflow_total": "Rejected sides that weren't remembered: too many were already.",
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
    "spanmill_latencies_clamped_total": "Spans whose latency was cut to 2^53 ns, about 104 days.",
    "spanmill_weights_clamped_total": "Spans whose multiplier was outside 2^-32 to 2^31 and was brought within.",
    RECORDS_LOST: (
        "Records of the spans topic that retention took before a generator read them; of whichever tenants, they count "
        "for the default one."
    ),
    LATE_BATCHES: "Batches that came after a waiver had completed their window; they count in a later one.",
    WINDOWS_INCOMPLETE: "Windows that a waiver completed before all source partitions had delivered them.",
    CHAIN_GAPS: "Places where batches of a source partition were lost, by retention, or as an operator accepted it.",
    GAP_WINDOWS: "Windows of one source partition that those batches were of, at most.",
}

LEDGER_PREFIX = "spanmill_ledger_"
"""Begins the names of ledger series, so that they can't be taken for what a process says of itself."""


def ledger_series_name(counter: str) -> str:
    """The name of the series that a counter becomes."""
    name = counter.removeprefix(TEMPO).removeprefix("spanmill_").removesuffix("_total")
    return f"{LEDGER_PREFIX}{name}_total"
