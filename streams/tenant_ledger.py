"""The ledger of one tenant in one shard: counters that are as exact as the series, and never go stale."""

from collections.abc import Iterator

from schemas.deltas import LedgerKey
from schemas.snapshot import LedgerTotal
from streams.label_set import Samples
from streams.series import Labels, Sample, ledger_series


class _Counter:
    """One counter."""

    __slots__ = ("fresh", "sample", "total")

    def __init__(self, total: int, sample: Sample, *, fresh: bool) -> None:
        self.total, self.sample, self.fresh = total, sample, fresh


class TenantLedger:
    """The counters of a tenant; those of the registry itself say which shard's they are."""

    def __init__(self, tenant: str, shard: int, external: Labels) -> None:
        self._tenant, self._shard, self._external = tenant, shard, external
        self._counters: dict[LedgerKey, _Counter] = {}

    def count(self, key: LedgerKey, increment: int) -> None:
        """Add to a counter."""
        counter = self._counters.get(key)
        if counter is None:
            self._put(key, increment, fresh=True)
        else:
            counter.total += increment
            counter.sample = counter.sample._replace(value=float(counter.total))

    def count_own(self, name: str, increment: int, labels: Labels = ()) -> None:
        """Add to a counter of the registry itself, which has these labels besides shard and tenant."""
        own = (*labels, ("shard", str(self._shard)), ("tenant", self._tenant))
        self.count(LedgerKey(name, tuple(sorted(own))), increment)

    def collect(self, samples: Samples) -> None:
        """Add the samples of a window that is written."""
        for _, counter in sorted(self._counters.items()):
            if counter.fresh:
                samples.zeros.append(counter.sample._replace(value=0.0))
                counter.fresh = False
            samples.values.append(counter.sample)

    def rename(self, external: Labels) -> None:
        """Write with other external labels from now on."""
        self._external = external
        for key, counter in self._counters.items():
            counter.sample = Sample(ledger_series(key, external), float(counter.total))

    def totals(self) -> Iterator[LedgerTotal]:
        """All counters, in order."""
        return (LedgerTotal(self._tenant, key, c.total, c.fresh) for key, c in sorted(self._counters.items()))

    def restore(self, entry: LedgerTotal) -> None:
        """Put back what `totals` gave."""
        self._put(entry.key, entry.total, fresh=entry.fresh)

    def _put(self, key: LedgerKey, total: int, *, fresh: bool) -> None:
        sample = Sample(ledger_series(key, self._external), float(total))
        self._counters[key] = _Counter(total, sample, fresh=fresh)
