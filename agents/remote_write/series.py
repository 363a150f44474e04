"""Series as an endpoint gets them: relabelled, once in a series' life."""

from collections.abc import Iterable, Iterator

from streams.relabel import Relabelling
from streams.series import Sample, Series

UNUSED_WINDOWS = 1000
"""What wasn't written for so many windows belongs to a shard or a tenant that is gone."""


class SeriesOfTenants:
    """The series of all tenants and shards that an endpoint is written."""

    def __init__(self, relabelling: Relabelling) -> None:
        self._relabelling = relabelling
        self._kept: dict[tuple[int, str], tuple[RelabelledSeries, int]] = {}
        self._windows = 0

    def of(self, shard: int, tenant: str) -> "RelabelledSeries":
        """Those of a window that begins."""
        self._windows += 1
        kept = self._kept.pop((shard, tenant), None)
        series = RelabelledSeries(self._relabelling) if kept is None else kept[0]
        self._kept[shard, tenant] = series, self._windows  # the last one: those before are in order of their use
        self._forget_unused()
        series.begin()
        return series

    def _forget_unused(self) -> None:
        oldest = next(iter(self._kept))
        if self._windows - self._kept[oldest][1] > UNUSED_WINDOWS * len(self._kept):
            del self._kept[oldest]


class RelabelledSeries:
    """Series after an endpoint's rules, kept as long as they are written, for one tenant and shard.

    They are found by their labels' bytes, whose hash Python keeps: 0.1 us, where applying the rules costs 10 or more.
    """

    def __init__(self, relabelling: Relabelling) -> None:
        self._relabelling = relabelling
        self._kept: dict[bytes, Series | None] = {}
        self._used: dict[bytes, Series | None] = {}
        self.dropped = 0
        """Samples of the window that are not written."""

    def begin(self) -> None:
        """Begin a window: what the one before didn't use is forgotten."""
        self._kept, self._used = self._used, {}
        self.dropped = 0

    def of(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples that are written, with their new series."""
        if not self._relabelling:
            yield from samples
            return
        for sample in samples:
            series = self._find(sample.series)
            if series is None:
                self.dropped += 1
            else:
                yield sample._replace(series=series)

    def _find(self, series: Series) -> Series | None:
        key = series.labels_block
        if key not in self._used:
            self._used[key] = self._kept[key] if key in self._kept else self._relabelled(series)
        return self._used[key]

    def _relabelled(self, series: Series) -> Series | None:
        labels = self._relabelling.apply(series.labels)
        if labels is None or labels == series.labels:
            return None if labels is None else series
        return Series(labels)
