"""Span metrics and target_info (Tempo §6), and host info (§8)."""

from typing import Any

from schemas.config import SpanMetricsSettings, TenantSettings
from tests.reference import filters
from tests.reference.multiplier import weight_of
from tests.reference.primitives import (
    INTRINSICS,
    Attributes,
    Labels,
    Seen,
    build,
    kind_text,
    latency_of,
    lookup,
    reserved,
    status_text,
    text,
)
from tests.reference.sums import Series, Sums


def measure_resource(
    sums: Sums, tenant: str, settings: TenantSettings, spans: list[Seen], resource: Attributes
) -> None:
    """SM-15: the spans of one ResourceSpans that are within the slack."""
    own = settings.span_metrics
    if own is None:
        return
    info = target_info(settings, own, resource)
    for seen in spans:
        if not filters.accepts(own.filter_policies, seen):
            sums.count("spans_discarded_total", tenant, processor="span-metrics", reason="span_metrics_filtered")
            continue
        labels = span_labels(settings, own, seen)
        if labels is None:
            sums.count("spans_discarded_total", tenant, processor="span-metrics", reason="invalid_utf8")
            continue
        measure_span(sums, tenant, settings, own, seen, labels)
        sums.count("spanmill_spans_measured_total", tenant, processor="span-metrics")
        if own.enable_target_info and info is None:
            sums.count("spanmill_spans_without_target_info_total", tenant)
            sums.count("spans_discarded_total", tenant, processor="span-metrics", reason="invalid_utf8")
        elif own.enable_target_info and informs(info):
            assert info is not None
            sums.gauges[Series(tenant, "traces_target_info", info)] = 1


def measure_span(
    sums: Sums, tenant: str, settings: TenantSettings, own: SpanMetricsSettings, seen: Seen, labels: Labels
) -> None:
    """Calls, latency, size."""
    weight = weight_of(seen, own.multiplier).units
    if own.count:
        sums.counters[Series(tenant, "traces_spanmetrics_calls_total", labels)] += weight
    if own.latency:
        series = Series(tenant, "traces_spanmetrics_latency", labels)
        sums.observe(
            series,
            own.histogram_buckets,
            settings.histograms,
            weight,
            latency_of(seen.span),
            seen.position,
            seen.span.trace_id,
        )
    if own.size:
        sums.counters[Series(tenant, "traces_spanmetrics_size_total", labels)] += seen.span.ByteSize()


def span_labels(settings: TenantSettings, own: SpanMetricsSettings, seen: Seen) -> Labels | None:
    """SM-5."""
    shown, span = own.intrinsic_dimensions, seen.span
    pairs: list[tuple[bytes, bytes]] = []
    for name, wanted, value in (
        (b"service", shown.service, lookup("service.name", seen.resource) or b""),
        (b"span_name", shown.span_name, span.name),
        (b"span_kind", shown.span_kind, kind_text(span.kind).encode()),
        (b"status_code", shown.status_code, status_text(span.status.code).encode()),
        (b"status_message", shown.status_message, span.status.message),
    ):
        if wanted:
            pairs.append((name, value))
    pairs += [(reserved(key, INTRINSICS), lookup(key, seen.resource, seen.attributes) or b"") for key in own.dimensions]
    for mapping in own.dimension_mappings:
        values = [lookup(key, seen.resource, seen.attributes) for key in mapping.source_labels]
        pairs.append((reserved(mapping.name, INTRINSICS), mapping.join.encode().join(v for v in values if v)))
    if own.enable_target_info:
        # A job or instance that is empty isn't added, so a dimension of that name stays (SM-10).
        job, instance = job_of(seen.resource), lookup("service.instance.id", seen.resource) or b""
        if job:
            pairs.append((b"job", job))
        if own.enable_instance_label and instance:
            pairs.append((b"instance", instance))
    return build(pairs, settings.max_label_name_length, settings.max_label_value_length)


def job_of(resource: Attributes) -> bytes:
    """SM-6."""
    name, namespace = lookup("service.name", resource) or b"", lookup("service.namespace", resource) or b""
    return namespace + b"/" + name if name and namespace else name


def target_info(settings: TenantSettings, own: SpanMetricsSettings, resource: Attributes) -> Labels | None:
    """SM-30; None if invalid."""
    apart = {"service.name", "service.namespace", "service.instance.id", *own.target_info_excluded_dimensions}
    pairs = [
        (reserved(key, INTRINSICS | {b"job", b"instance"}), text(value))
        for key, value in resource
        if key and not b"0" <= key[:1] <= b"9" and key not in {name.encode() for name in apart}
    ]
    job, instance = job_of(resource), lookup("service.instance.id", resource) or b""
    if job:
        pairs.append((b"job", job))
    if instance and own.enable_instance_label:
        pairs.append((b"instance", instance))
    return build(pairs, settings.max_label_name_length, settings.max_label_value_length)


def informs(labels: Any) -> bool:
    """SM-31."""
    names = {name for name, _ in labels or ()}
    return bool(names & {b"job", b"instance"}) and bool(names - {b"job", b"instance"})


def measure_host(sums: Sums, tenant: str, settings: TenantSettings, resource: Attributes) -> None:
    """HI-1, HI-2, INT-6."""
    if settings.host_info is None:
        return
    for identifier in settings.host_info.host_identifiers:
        for key, value in resource:
            if key == identifier.encode() and value.string_value:
                pairs = [(b"grafana_host_id", value.string_value), (b"host_source", key)]
                labels = build(pairs, settings.max_label_name_length, settings.max_label_value_length)
                if labels is None:
                    sums.count("spans_discarded_total", tenant, processor="host-info", reason="invalid_utf8")
                else:
                    sums.gauges[Series(tenant, "traces_host_info", labels)] = 1
                return
