"""What span metrics do with the spans of each tenant of a window, as arrays that kernels read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.config import SpanMetricsSettings
from streams.attribute_keys import ANY_SIDE, RESOURCE_ONLY, SERVICE_INSTANCE, SERVICE_NAME, SERVICE_NAMESPACE
from streams.layouts import HistogramKinds, layout_of, limits_ns
from streams.ragged import counts, ragged

IDENTITY = (SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE)
"""What job and instance are made of (SM-6), of the resource only."""
INTRINSICS = ("service", "span_name", "span_kind", "status_code", "status_message")
"""In the order of Tempo SM-5, which is that of a group's key after the tenant."""


class SpanMetricsPlan(NamedTuple):
    """Span metrics, one row per tenant."""

    active: npt.NDArray[np.bool_]
    latency: npt.NDArray[np.bool_]
    intrinsics: npt.NDArray[np.bool_]
    """Which of `INTRINSICS` are labels."""
    dimension_counts: npt.NDArray[np.int32]
    dimensions: npt.NDArray[np.int32]
    """Key rows: those of dimensions, then the sources of each mapping."""
    informs: npt.NDArray[np.bool_]
    """Whether there is a target_info: then what names the resource is part of a group's key (SM-36)."""
    names_instance: npt.NDArray[np.bool_]
    identity: npt.NDArray[np.int32]
    """The key rows of `IDENTITY`; -1 if no tenant needs them."""
    limit_counts: npt.NDArray[np.int32]
    limits_ns: npt.NDArray[np.int64]
    """The longest latency of each bucket but +Inf."""
    kinds: HistogramKinds


def needs(settings: SpanMetricsSettings) -> Iterator[tuple[str, int]]:
    """The attributes to look for, and on which spans (bits of `streams.attribute_keys`)."""
    for key in read_attributes(settings):
        yield key, ANY_SIDE
    if settings.enable_target_info:
        for key in IDENTITY:
            yield key, RESOURCE_ONLY


def read_attributes(settings: SpanMetricsSettings) -> tuple[str, ...]:
    """The attributes whose values are part of a group's key, in its order."""
    sources = (key for mapping in settings.dimension_mappings for key in mapping.source_labels)
    return (*settings.dimensions, *sources)


def span_metrics_plan(
    every: Sequence[SpanMetricsSettings | None], kinds: HistogramKinds, rows: Mapping[str, int]
) -> SpanMetricsPlan:
    """The plan of tenants in their order; `rows` are the key rows of attributes."""
    dimensions = [[rows[key] for key in read_attributes(s)] if s else [] for s in every]
    limits = [limits_ns(layout_of(s.histogram_buckets)) if s else [] for s in every]
    shown = [[getattr(s.intrinsic_dimensions, name) if s else False for name in INTRINSICS] for s in every]
    return SpanMetricsPlan(
        active=np.array([s is not None for s in every], np.bool_),
        latency=np.array([s is not None and s.latency for s in every], np.bool_),
        intrinsics=np.array(shown, np.bool_).reshape(-1, len(INTRINSICS)),
        dimension_counts=counts(dimensions),
        dimensions=ragged(dimensions).astype(np.int32),
        informs=np.array([s is not None and s.enable_target_info for s in every], np.bool_),
        names_instance=np.array([s is not None and s.enable_instance_label for s in every], np.bool_),
        identity=np.array([rows.get(key, -1) for key in IDENTITY], np.int32),
        limit_counts=counts(limits),
        limits_ns=ragged(limits),
        kinds=kinds,
    )
