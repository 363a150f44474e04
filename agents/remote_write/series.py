"""Series as an endpoint gets them: relabelled, once in a series' life."""

from collections.abc import Iterable, Iterator

from schemas.remote_write import Row
from streams.relabel import Relabelling
from streams.series import Sample, Series

FORGET_EVERY_WINDOWS = 20
"""How often series that are no longer written are forgotten: each time costs as much as finding all of them once."""
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

    They are found by their labels' bytes, whose hash Python keeps: less than 1 us, where applying the rules costs 10 or
    more.
    """

    def __init__(self, relabelling: Relabelling) -> None:
        self._relabelling = relabelling
        self._kept: dict[bytes, Series | None] = {}
        self._used: dict[bytes, Series | None] = {}
        self._windows = 0
        self.dropped = 0
        """Samples of the window that are not written."""

    def begin(self) -> None:
        """Begin a window; once in a while, forget what wasn't used since the last time."""
        self.dropped = 0
        self._windows += 1
        if self._windows % FORGET_EVERY_WINDOWS == 0:
            self._kept, self._used = self._used, {}

    def rows(self, samples: Iterable[Sample], timestamp_ms: int) -> Iterator[Row]:
        """The samples that are written, as remote write takes them."""
        if not self._relabelling:
            yield from (sample.row(timestamp_ms) for sample in samples)
            return
        for original, value, exemplar in samples:
            series = self.of(original)
            if series is None:
                self.dropped += 1
            else:
                yield Row(series.labels_block, value, timestamp_ms, exemplar)

    def of(self, series: Series) -> Series | None:
        """What a series is to the endpoint; None if it is dropped."""
        if not self._relabelling:
            return series
        key = series.labels_block
        found = self._used.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            found = self._kept[key] if key in self._kept else self._relabelled(series)
            self._used[key] = found
        return found

    def _relabelled(self, series: Series) -> Series | None:
        labels = self._relabelling.apply(series.labels)
        if labels is None or labels == series.labels:
            return None if labels is None else series
        return Series(labels)


_UNKNOWN = Series(())
