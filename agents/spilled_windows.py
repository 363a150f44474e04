"""Windows on local disk, as Arrow files, for endpoints that are far behind: memory isn't the log's second copy.

The files are this process's own and end with it: who comes after computes the windows again from the log.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from agents.spill_directory import FAILURES, SpillDirectory
from schemas import remote_write_pb2 as pb
from schemas.native_histogram import BucketExemplar, NativeHistogram
from schemas.remote_write import Exemplar
from streams.series import Sample, Series
from streams.shard import TenantSamples, WindowSamples

EXEMPLAR = pa.struct(
    {"names": pa.list_(pa.string()), "values": pa.list_(pa.string()), "value": pa.float64(), "timestamp_ms": pa.int64()}
)
NATIVE = pa.struct(
    {
        "schema": pa.int8(),
        "count": pa.int64(),
        "sum": pa.float64(),
        "zero_count": pa.int64(),
        "buckets": pa.list_(pa.int32()),
        "counts": pa.list_(pa.int64()),
        "exemplars": pa.list_(EXEMPLAR),
    }
)
SAMPLES = pa.schema({"labels": pa.binary(), "value": pa.float64(), "native": NATIVE, "exemplar": EXEMPLAR})
"""One row per sample, in its list's order: the labels as remote write has them; a float or a native histogram."""


@dataclass(frozen=True, slots=True)
class _Spilled:
    """Everything of a window but its samples; each tenant's lists of them follow in the file, in order of fields."""

    path: Path
    rest: WindowSamples


class SpilledWindows:
    """The windows of one shard that are on disk, by their numbers. Its methods may be called from any thread."""

    def __init__(self, directory: Path, shard: int) -> None:
        consequence = "windows can't be kept on disk: endpoints wait for the slowest one"
        self._directory = SpillDirectory(directory, shard, consequence)
        self._spilled: dict[int, _Spilled] = {}
        self._known: dict[bytes, Series] = {}

    @property
    def failed(self) -> bool:
        """Whether the last window couldn't be written."""
        return self._directory.failed

    def open(self) -> None:
        """Remove what a process that crashed has left."""
        self._directory.open()

    def close(self) -> None:
        """Remove all of it."""
        self._spilled.clear()
        self._known.clear()
        self._directory.close()

    def save(self, number: int, window: WindowSamples) -> bool:
        """Write a window; False, and a line in the log, if the disk doesn't take it."""
        try:
            path = self._directory.file(f"{number}.arrow")
            rest = replace(window, tenants=tuple(_without_samples(tenant) for tenant in window.tenants))
            _write(path, [samples for tenant in window.tenants for samples in _sample_lists(tenant)])
        except FAILURES as error:
            self._directory.refused(error)
            return False
        self._directory.wrote()
        self._spilled[number] = _Spilled(path, rest)
        return True

    def load(self, number: int) -> WindowSamples:
        """A window as it was; raises OSError or pa.ArrowException if its file is gone or broken."""
        spilled = self._spilled[number]
        known = _KnownSeries(self._known)
        lists = _read(spilled.path, known)
        tenants = [
            replace(tenant, zeros=next(lists), restarts=next(lists), values=next(lists), stale=next(lists))
            for tenant in spilled.rest.tenants
        ]
        self._known = known.all()
        return replace(spilled.rest, tenants=tuple(tenants))

    def remove(self, number: int) -> None:
        """Forget a window."""
        spilled = self._spilled.pop(number, None)
        if spilled is not None:
            spilled.path.unlink(missing_ok=True)


def _sample_lists(tenant: TenantSamples) -> Sequence[Sequence[Sample]]:
    return tenant.lists


def _without_samples(tenant: TenantSamples) -> TenantSamples:
    return replace(tenant, zeros=[], restarts=[], values=[], stale=[])


def _write(path: Path, lists: Sequence[Sequence[Sample]]) -> None:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    try:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SAMPLES, options=options) as writer:
            for samples in lists:
                writer.write_batch(_batch(samples))
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def _read(path: Path, known: Mapping[bytes, Series]) -> Iterator[list[Sample]]:
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for i in range(reader.num_record_batches):
            yield _samples(reader.get_batch(i), known)


def _batch(samples: Sequence[Sample]) -> pa.RecordBatch:
    is_float = [isinstance(sample.value, float) for sample in samples]
    return pa.record_batch(
        [
            pa.array([sample.series.labels_block for sample in samples], pa.binary()),
            pa.array([s.value if plain else None for s, plain in zip(samples, is_float, strict=True)], pa.float64()),
            pa.array([None if p else _native_row(s) for s, p in zip(samples, is_float, strict=True)], NATIVE),
            pa.array([None if s.exemplar is None else _exemplar_row(s.exemplar) for s in samples], EXEMPLAR),
        ],
        schema=SAMPLES,
    )


def _samples(batch: pa.RecordBatch, known: Mapping[bytes, Series]) -> list[Sample]:
    values = batch.column("value").to_pylist()
    natives, exemplars = _sparse(batch.column("native")), _sparse(batch.column("exemplar"))
    return [
        Sample(
            known[labels],
            _native(natives[i]) if value is None else value,
            _exemplar(exemplars[i]) if i in exemplars else None,
        )
        for i, (labels, value) in enumerate(zip(batch.column("labels").to_pylist(), values, strict=True))
    ]


def _sparse(column: pa.Array) -> dict[int, dict[str, Any]]:
    """The rows of a column that aren't null, by their numbers: most are, and a row costs 10 us."""
    numbers = column.is_valid().to_numpy(zero_copy_only=False).nonzero()[0].tolist()
    return dict(zip(numbers, column.drop_null().to_pylist(), strict=True))


class _KnownSeries(dict[bytes, Series]):
    """The series of a window by their labels' bytes, made where the window before doesn't have them."""

    def __init__(self, before: dict[bytes, Series]) -> None:
        super().__init__()
        self._before = before

    def __missing__(self, block: bytes) -> Series:
        series = self._before.get(block)
        if series is None:
            found = pb.TimeSeries.FromString(block).labels
            series = Series(tuple((label.name, label.value) for label in found))
        self[block] = series
        return series

    def all(self) -> dict[bytes, Series]:
        """Those that were asked for."""
        return dict(self)


def _native_row(sample: Sample) -> dict[str, Any]:
    value = sample.value
    assert isinstance(value, NativeHistogram)
    return {
        "schema": value.schema,
        "count": value.count,
        "sum": value.sum,
        "zero_count": value.zero_count,
        "buckets": [index for index, _ in value.buckets],
        "counts": [count for _, count in value.buckets],
        "exemplars": [_exemplar_row(Exemplar(each.labels, each.value, 0)) for each in value.exemplars],
    }


def _native(row: dict[str, Any]) -> NativeHistogram:
    return NativeHistogram(
        row["schema"],
        row["count"],
        row["sum"],
        row["zero_count"],
        tuple(zip(row["buckets"], row["counts"], strict=True)),
        tuple(BucketExemplar(_labels(each), each["value"]) for each in row["exemplars"]),
    )


def _exemplar_row(exemplar: Exemplar) -> dict[str, Any]:
    return {
        "names": [name for name, _ in exemplar.labels],
        "values": [value for _, value in exemplar.labels],
        "value": exemplar.value,
        "timestamp_ms": exemplar.timestamp_ms,
    }


def _exemplar(row: dict[str, Any]) -> Exemplar:
    return Exemplar(_labels(row), row["value"], row["timestamp_ms"])


def _labels(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(zip(row["names"], row["values"], strict=True))
