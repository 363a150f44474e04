"""Bytes by attributes (Tempo DIST-19): what each tenant's teams, or services, or whatever its spans name, send.

A request's ResourceSpans are shared out among their spans: each has its own bytes, with tag and length, and an equal
share of what they have in common; the first has what remains of that, so that the sum is exact.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.config.distributor import CostAttribution
from schemas.config.ingestion import IngestionSettings
from schemas.labels import sanitize_name
from schemas.otlp import Codec, Mode, SpanFrame, Strings, WantedKey, scan_records
from schemas.otlp.attributes import STRING
from schemas.otlp.frame import Attributes
from schemas.record import Record

NAME = "tempo_usage_tracker_bytes_received"
TRACKER = "cost-attribution"
MISSING, OVERFLOW = "__missing__", "__overflow__"
PURGE_EVERY_S = 60.0
VARINT_BOUNDS = np.array([1 << bits for bits in (7, 14, 21, 28)])

Values = tuple[str, ...]


class Dimension(NamedTuple):
    """Where a label's value stands."""

    key: str
    label: int
    """Its place among the labels."""
    in_resource: bool
    in_span: bool


class Dimensions(NamedTuple):
    """What a tenant's bytes are told apart by."""

    labels: tuple[str, ...]
    each: tuple[Dimension, ...]
    """Of several for one label the last with a value counts; Tempo's order is random there."""

    @property
    def keys(self) -> list[WantedKey]:
        """Only strings that aren't empty are values."""
        return [WantedKey(key, Mode.FIRST_NON_EMPTY_STRING) for key in dict.fromkeys(each.key for each in self.each)]


@lru_cache
def dimensions_of(configured: tuple[tuple[str, str], ...]) -> Dimensions:
    """From pairs of an attribute, whose scope may stand before it, and a label, which may be empty."""
    scoped = []
    for written, label in sorted(configured):
        scope, dot, rest = written.partition(".")
        only = scope if dot and scope in {"resource", "span"} else ""
        key = rest if only else written
        scoped.append((key, label_name(label or key), only))
    labels = tuple(sorted({label for _, label, _ in scoped}))
    return Dimensions(
        labels,
        tuple(Dimension(key, labels.index(label), only != "span", only != "resource") for key, label, only in scoped),
    )


def label_name(raw: str) -> str:
    """A label's name; unlike an attribute's, it can't begin with a digit."""
    name = sanitize_name(raw).decode()
    return f"_{name[1:]}" if name[:1].isdigit() else name


class Series:
    """Bytes of one combination of values."""

    __slots__ = ("size", "updated_s")

    def __init__(self) -> None:
        self.size, self.updated_s = 0, 0.0


class UsageTracker(Collector):
    """Adds up bytes; `settings` gives a tenant's dimensions. For one event loop."""

    def __init__(
        self,
        config: CostAttribution,
        settings: Callable[[str], IngestionSettings],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._settings, self._clock = config, settings, clock
        self._tenants: dict[str, dict[tuple[Values, Values], Series]] = {}
        self._purged_s = clock()

    async def look(self, tenant: str, body: bytes, *, discarded: bool) -> None:  # noqa: ARG002 -- bad IDs cost too
        """Add up a request that was within its limits; it is scanned in a thread."""
        settings = self._settings(tenant)
        if not settings.cost_dimensions:
            return
        dimensions = dimensions_of(settings.cost_dimensions)
        sizes = await asyncio.to_thread(attributed, body, dimensions)
        self._add(tenant, dimensions.labels, sizes, settings.cost_max_cardinality or self._config.max_cardinality)

    async def close(self) -> None:
        """Nothing is left to be done."""

    def _add(self, tenant: str, labels: Values, sizes: Mapping[Values, int], most: int) -> None:
        now_s = self._clock()
        if now_s - self._purged_s >= PURGE_EVERY_S:
            self._purge(now_s)
        known = self._tenants.setdefault(tenant, {})
        for values, size in sizes.items():
            key = labels, values
            if key not in known and len(known) >= most:
                key = labels, (OVERFLOW,) * len(labels)
            series = known.setdefault(key, Series())
            series.size += size
            series.updated_s = now_s

    def _purge(self, now_s: float) -> None:
        self._purged_s = now_s
        for tenant, known in list(self._tenants.items()):
            fresh = {key: each for key, each in known.items() if now_s - each.updated_s < self._config.stale_duration_s}
            if fresh:
                self._tenants[tenant] = fresh
            else:
                del self._tenants[tenant]

    def describe(self) -> Iterable[Metric]:
        """The family without samples."""
        yield CounterMetricFamily(NAME, "Bytes received with these attributes.")

    def collect(self) -> Iterator[Metric]:
        """All series that aren't stale; tenants have labels of their own."""
        self._purge(self._clock())
        (family,) = self.describe()
        for tenant, known in sorted(self._tenants.items()):
            for (labels, values), series in sorted(known.items()):
                own = {"tenant": tenant, "tracker": TRACKER, **dict(zip(labels, values, strict=True))}
                family.add_sample(f"{NAME}_total", own, series.size)
        yield family


def attributed(body: bytes, dimensions: Dimensions) -> dict[Values, int]:
    """The bytes of a TracesData by values; nothing for resources without spans."""
    frame = scan_records([Record(0, 0, body)], dimensions.keys, Codec.OTLP)
    sizes: dict[Values, int] = {}
    of_resource = values_of(frame, frame.resources.attributes, [d for d in dimensions.each if d.in_resource])
    of_span = values_of(frame, frame.spans.attributes, [d for d in dimensions.each if d.in_span])
    shares, nothing = shares_of(frame).tolist(), [MISSING] * len(dimensions.labels)
    for span, resource in enumerate(frame.spans.resource.tolist()):
        found = list(nothing)
        for label, value in (*of_resource.get(resource, ()), *of_span.get(span, ())):
            found[label] = value
        values = tuple(found)
        sizes[values] = sizes.get(values, 0) + shares[span]
    return sizes


def values_of(
    frame: SpanFrame, attributes: Attributes, dimensions: Sequence[Dimension]
) -> dict[int, list[tuple[int, str]]]:
    """The labels and values of those rows that have any, in the order of dimensions."""
    found: dict[int, list[tuple[int, str]]] = {}
    for dimension in dimensions:
        column = frame.key_index(dimension.key, Mode.FIRST_NON_EMPTY_STRING)
        texts = Strings(attributes.offset[column], attributes.length[column])
        for row in np.flatnonzero(attributes.kind[column] == STRING).tolist():
            value = frame.text(texts, row)
            if value:
                found.setdefault(row, []).append((dimension.label, value.decode(errors="replace")))
    return found


def shares_of(frame: SpanFrame) -> npt.NDArray[np.int64]:
    """The bytes of each span: its own, and its share of its resource's."""
    spans, resources = frame.spans, frame.resources
    own = spans.size + 1 + varint_sizes(spans.size)
    shared = resources.size.copy()
    np.subtract.at(shared, spans.resource, own)
    count = np.maximum(resources.spans, 1)
    share = np.rint(shared / count).astype(np.int64)
    sizes = own + share[spans.resource]
    firsts, of = np.unique(spans.resource, return_index=True)
    sizes[of] += (shared - share * count)[firsts]
    return sizes


def varint_sizes(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The bytes of numbers as varints, of lengths below 2^35."""
    return 1 + np.searchsorted(VARINT_BOUNDS, numbers, "right")
