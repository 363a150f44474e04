"""Series of a replay with a label of their own, so that they can't be taken for those of the live stages."""

from collections.abc import Sequence
from dataclasses import replace

from schemas.metric_families import REPLAY_LABEL
from streams.shard import Sample, Series, TenantSamples, WindowSamples


class LabelTakenError(Exception):
    """A series has the label already, with which the replay's are to be told apart."""


class Labelled:
    """Adds `replay="<id>"` to the series of windows."""

    def __init__(self, replay_id: str) -> None:
        self._pair = (REPLAY_LABEL, replay_id)
        self._known: dict[Series, Series] = {}

    def window(self, window: WindowSamples) -> WindowSamples:
        """The window with labelled series; raises `LabelTakenError`."""
        return replace(window, tenants=tuple(map(self._tenant, window.tenants)))

    def _tenant(self, tenant: TenantSamples) -> TenantSamples:
        return replace(
            tenant,
            zeros=self._samples(tenant.zeros),
            restarts=self._samples(tenant.restarts),
            values=self._samples(tenant.values),
            stale=self._samples(tenant.stale),
        )

    def _samples(self, samples: Sequence[Sample]) -> list[Sample]:
        return [sample._replace(series=self._series(sample.series)) for sample in samples]

    def _series(self, series: Series) -> Series:
        labelled = self._known.get(series)
        if labelled is None:
            if any(name == REPLAY_LABEL for name, _ in series.labels):
                raise LabelTakenError(f"a series has a label {REPLAY_LABEL} of its own: {dict(series.labels)}")
            labelled = self._known[series] = Series(tuple(sorted((*series.labels, self._pair))))
        return labelled
