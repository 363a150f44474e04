"""What span metrics do with the spans of each tenant of a window, as arrays that kernels read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.config import SpanMetricsSettings
from streams.attribute_keys import ANY_SIDE
from streams.layouts import layout_of, limits_ns
from streams.ragged import counts, ragged

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
    """Key rows."""
    limit_counts: npt.NDArray[np.int32]
    limits_ns: npt.NDArray[np.int64]
    """The longest latency of each bucket but +Inf."""


def needs(settings: SpanMetricsSettings) -> Iterator[tuple[str, int]]:
    """The attributes to look for, and on which spans (bits of `streams.attribute_keys`)."""
    for key in settings.dimensions:
        yield key, ANY_SIDE


def span_metrics_plan(every: Sequence[SpanMetricsSettings | None], rows: Mapping[str, int]) -> SpanMetricsPlan:
    """The plan of tenants in their order; `rows` are the key rows of attributes."""
    dimensions = [[rows[key] for key in s.dimensions] if s else [] for s in every]
    limits = [limits_ns(layout_of(s.histogram_buckets)) if s else [] for s in every]
    shown = [[getattr(s.intrinsic_dimensions, name) if s else False for name in INTRINSICS] for s in every]
    return SpanMetricsPlan(
        active=np.array([s is not None for s in every], np.bool_),
        latency=np.array([s is not None and s.latency for s in every], np.bool_),
        intrinsics=np.array(shown, np.bool_).reshape(-1, len(INTRINSICS)),
        dimension_counts=counts(dimensions),
        dimensions=ragged(dimensions).astype(np.int32),
        limit_counts=counts(limits),
        limits_ns=ragged(limits),
    )
