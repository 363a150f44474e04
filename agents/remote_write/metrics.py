"""What is counted of remote writing, under Prometheus' own names where it is the same thing (Tempo ST-11).

So dashboards and alerts for Prometheus' remote write show the sink too. Each sample is counted once, when its answer is
final: what is tried again counts as retried meanwhile.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from agents.remote_write.answers import Written

PREFIX = "prometheus_remote_storage_"
QUEUE_LABELS = ("tenant", "remote_name", "url")
BATCH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)


class Fate(StrEnum):
    """What became of samples."""

    SENT = ""
    FAILED = "failed_"
    RETRIED = "retried_"


@dataclass(frozen=True, slots=True)
class Load:
    """What a request carries."""

    samples: int
    histograms: int
    exemplars: int

    @property
    def rows(self) -> int:
        """Samples of either kind."""
        return self.samples + self.histograms

    def less(self, stored: Written) -> "Load":
        """What of it wasn't stored."""
        return Load(
            max(self.samples - stored.samples, 0),
            max(self.histograms - stored.histograms, 0),
            max(self.exemplars - stored.exemplars, 0),
        )


class RemoteStorageMetrics:
    """The metrics of all endpoints of a process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.counted = {
            (fate, kind): self._counter(f"{kind}_{fate}total", f"{kind.capitalize()} {_MEANINGS[fate]}.")
            for fate in Fate
            for kind in ("samples", "histograms", "exemplars")
        }
        self.dropped = self._counter(
            "samples_dropped_total", "Samples that were not sent, on purpose: relabelled away, too old.", "reason"
        )
        self.metadata = {
            fate: self._counter(f"metadata_{fate}total", f"Metadata of metric families {_MEANINGS[fate]}.")
            for fate in (Fate.SENT, Fate.FAILED)
        }
        self.bytes = self._counter("bytes_total", "Bytes of requests with samples, compressed.")
        self.metadata_bytes = self._counter("metadata_bytes_total", "Bytes of requests with metadata, compressed.")
        self.pending = self._gauge("samples_pending", "Samples of the windows that are being sent.")
        self.newest = self._gauge(
            "highest_timestamp_in_seconds", "End of the newest completed window, in seconds since 1970.", ("tenant",)
        )
        self.newest_sent = self._gauge(
            "queue_highest_sent_timestamp_seconds", "End of the newest window that the endpoint has."
        )
        self.max_samples = self._gauge("max_samples_per_send", "Samples of a request, at most.")
        self.duration = Histogram(
            f"{PREFIX}sent_batch_duration_seconds",
            "Duration of requests.",
            QUEUE_LABELS,
            registry=registry,
            buckets=BATCH_SECONDS,
        )
        self.update_failed = Counter(
            "tempo_metrics_generator_storage_remote_write_update_failed_total",
            "Headers of a tenant that couldn't be made: a file of theirs can't be read.",
            ("tenant",),
            registry=registry,
        )

    def completed(self, tenant: str, end_ms: int) -> None:
        """A window was handed over to be written."""
        self.newest.labels(tenant).set(end_ms / 1000)

    def queue(self, tenant: str, name: str, url: str) -> "QueueMetrics":
        """The metrics of one endpoint and tenant."""
        return QueueMetrics(self, (tenant, name, url))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}{name}", text, (*QUEUE_LABELS, *labels), registry=self._registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = QUEUE_LABELS) -> Gauge:
        return Gauge(f"{PREFIX}{name}", text, labels, registry=self._registry)


_MEANINGS = {
    Fate.SENT: "sent and answered for good, refused ones too",
    Fate.FAILED: "that an endpoint refused for good",
    Fate.RETRIED: "sent once more, after an answer that says nothing about them",
}


class QueueMetrics:
    """The metrics of one endpoint and tenant."""

    def __init__(self, metrics: RemoteStorageMetrics, labels: tuple[str, str, str]) -> None:
        self._all, self._labels = metrics, labels
        self.bytes = metrics.bytes.labels(*labels)
        self.metadata_bytes = metrics.metadata_bytes.labels(*labels)
        self.pending = metrics.pending.labels(*labels)
        self.duration = metrics.duration.labels(*labels)
        self.newest_sent = metrics.newest_sent.labels(*labels)
        self.max_samples = metrics.max_samples.labels(*labels)
        self._counted = {key: counter.labels(*labels) for key, counter in metrics.counted.items()}
        self._metadata = {fate: counter.labels(*labels) for fate, counter in metrics.metadata.items()}

    def count(self, fate: Fate, load: Load) -> None:
        """Count what a request carried, or a part of it."""
        for kind in ("samples", "histograms", "exemplars"):
            amount = getattr(load, kind)
            if amount:
                self._counted[fate, kind].inc(amount)

    @contextlib.contextmanager
    def pending_of(self, samples: int) -> Iterator[Callable[[int], None]]:
        """Show samples as pending for the time of the context, less those that it is told are done."""
        left = samples

        def done(some: int) -> None:
            nonlocal left
            left -= some
            self.pending.dec(some)

        self.pending.inc(samples)
        try:
            yield done
        finally:
            self.pending.dec(left)

    def count_metadata(self, fate: Fate, families: int) -> None:
        """Count families whose metadata was sent."""
        self._metadata[fate].inc(families)

    def dropped(self, reason: str, samples: int) -> None:
        """Count samples that are not sent."""
        if samples:
            self._all.dropped.labels(*self._labels, reason).inc(samples)
