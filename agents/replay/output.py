"""What a replay leaves behind: samples as OpenMetrics text and the report of counters."""

import json
import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from schemas.deltas import LedgerKey
from schemas.native_histogram import NativeHistogram
from schemas.openmetrics import Exemplar, Labels, Point, metric_name, openmetrics, sample_line
from streams.shard import WindowSamples


class SeveralTenantsError(Exception):
    """Samples of two tenants can't be told apart in one OpenMetrics file."""


class NativeHistogramsError(Exception):
    """OpenMetrics text has no native histograms, and there is no classic part to write instead."""


class SeriesPoints:
    """The samples of a series, 16 bytes each."""

    __slots__ = ("_exemplars", "_times", "_values")

    def __init__(self) -> None:
        self._times = array("q")
        self._values = array("d")
        self._exemplars: dict[int, Exemplar] = {}

    def add(self, timestamp_ms: int, value: float, exemplar: Exemplar | None = None) -> None:
        """Add a sample; one that isn't newer than the last is left out, as a Prometheus would refuse it.

        That happens to the zero of a series that was dropped and is back in the next window.
        """
        if self._times and timestamp_ms <= self._times[-1]:
            return
        if exemplar is not None:
            self._exemplars[len(self._times)] = exemplar
        self._times.append(timestamp_ms)
        self._values.append(value)

    def clear(self) -> None:
        """Forget all samples."""
        del self._times[:]
        del self._values[:]
        self._exemplars.clear()

    def __iter__(self) -> Iterator[Point]:
        for i, (timestamp_ms, value) in enumerate(zip(self._times, self._values, strict=True)):
            yield Point(timestamp_ms, value, self._exemplars.get(i))


class Samples:
    """All samples of a replay, by series; with `last` only the last one of each."""

    def __init__(self, tenant: str | None = None, *, last: bool = False) -> None:
        self._tenant, self._last = tenant, last
        self._only_tenant = tenant is not None
        self._series: dict[Labels, SeriesPoints] = {}
        self._native: dict[Labels, None] = {}

    def add(self, window: WindowSamples) -> None:
        """Take over a window's samples; raises `SeveralTenantsError` if no tenant was chosen and there are two."""
        for samples in window.tenants:
            if not self._wanted(samples.tenant):
                continue
            if not self._last:
                for at_ms, zero in samples.timed_zeros():
                    if not isinstance(zero.value, NativeHistogram):
                        self._points(zero.series.labels).add(at_ms, zero.value)
            for sample in samples.values:
                if isinstance(sample.value, NativeHistogram):
                    self._native[sample.series.labels] = None
                    continue
                points = self._points(sample.series.labels)
                if self._last:
                    points.clear()
                points.add(window.end_ms, sample.value, sample.exemplar)

    def _wanted(self, tenant: str) -> bool:
        if self._tenant is None:
            self._tenant = tenant
        if tenant != self._tenant and not self._only_tenant:
            raise SeveralTenantsError(
                f"the input has spans of the tenants {self._tenant!r} and {tenant!r}: choose one with --tenant"
            )
        return tenant == self._tenant

    def _points(self, labels: Labels) -> SeriesPoints:
        return self._series.setdefault(labels, SeriesPoints())

    @property
    def series(self) -> Iterable[Labels]:
        """The labels of all series."""
        return self._series

    def points(self, labels: Labels) -> Iterable[Point]:
        """The samples of a series, by time."""
        return self._series.get(labels, ())

    def unlike(self, other: "Samples") -> Iterator[bytes]:
        """Lines of the samples that differ, by series and time: `-` before one of these, `+` before one of the other's.

        Exemplars are no difference.
        """
        for labels in sorted({*self.series, *other.series}):
            found = [
                {point.timestamp_ms: point._replace(exemplar=None) for point in samples.points(labels)}
                for samples in (self, other)
            ]
            for timestamp_ms in sorted(found[0].keys() | found[1].keys()):
                points = [each.get(timestamp_ms) for each in found]
                if points[0] != points[1]:
                    for sign, point in zip("-+", points, strict=True):
                        if point is not None:
                            yield f"{sign}{sample_line(labels, point)}".encode()

    def text(self) -> Iterator[bytes]:
        """OpenMetrics text, in chunks; raises `NativeHistogramsError` for a native histogram without a classic one."""
        for labels in self._native:
            name = metric_name(labels)
            if tuple((key, f"{name}_count" if key == "__name__" else text) for key, text in labels) not in self._series:
                raise NativeHistogramsError(
                    f"{name} is a native histogram only, which OpenMetrics text can't hold: set "
                    "generate_native_histograms to classic or both, or write to an endpoint (remote write holds all)"
                )
        return openmetrics(self._series.items())


def report(ledger: Mapping[LedgerKey, int]) -> dict[str, list[dict[str, Any]]]:
    """Counters by name, their series by labels."""
    counters: dict[str, list[dict[str, Any]]] = {}
    for key, count in sorted(ledger.items()):
        counters.setdefault(key.counter, []).append({"labels": dict(key.labels), "value": count})
    return counters


def write_files(contents: Mapping[str, Iterable[bytes]]) -> None:
    """Write files by name, `-` being standard output; each appears whole under its name, and only if all were written.

    What is there already and isn't a file (a pipe, a device) is written to as it is. Raises OSError.
    """
    written: list[tuple[Path, Path]] = []
    try:
        for name, chunks in contents.items():
            if _is_file(name):
                written.append((_write_beside(Path(name), chunks), Path(name)))
        for beside, target in written:
            beside.replace(target)
    finally:
        for beside, _ in written:
            beside.unlink(missing_ok=True)
    for name, chunks in contents.items():
        if name == "-":
            _write_to(sys.stdout.buffer, chunks)
        elif not _is_file(name):
            with Path(name).open("wb") as device:
                _write_to(device, chunks)


def _is_file(name: str) -> bool:
    return name != "-" and (Path(name).is_file() or not Path(name).exists())


def _write_to(file: BinaryIO, chunks: Iterable[bytes]) -> None:
    file.writelines(chunks)
    file.flush()


def _write_beside(target: Path, chunks: Iterable[bytes]) -> Path:
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            _write_to(file, chunks)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside


def report_text(counters: Mapping[str, Any]) -> bytes:
    """The report as JSON, one text for equal counts."""
    return (json.dumps(counters, indent=2, ensure_ascii=False) + "\n").encode()
