"""The body of a batch: delta rows as a compressed Arrow IPC stream, and the rules that rows keep.

The Arrow columns have no nulls, so that nothing undefined reaches the bytes; a column of its own says where an exemplar
was offered. Tenants and labels are dictionaries, since a histogram's rows share their label bytes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cramjam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.deltas.columns import EXEMPLAR_NUMBERS, NATIVE_LAYOUTS, NO_BUCKET, NO_LAYOUT, ROW, native_layout
from schemas.deltas.rows import NO_ROWS, DeltaRows, ascend, binary_lengths, sort_keys
from schemas.deltas.types import Layout
from schemas.errors import Malformed, Reason
from schemas.label_bytes import check_label_bytes
from schemas.labels import MAX_LABEL_SET_BYTES
from schemas.metrics import METRICS, WEIGHT_ONE, Kind
from schemas.native_histogram import MAX_SCHEMA

MAX_TRACE_BYTES = 64
"""A longer trace ID can't be an exemplar: Prometheus takes 128 characters of exemplar labels. It counts as empty."""

MAX_BODY_BYTES = 1 << 22
"""What a body unpacks to at most; the part limit keeps it well below."""

_ZSTD_LEVEL = 1
_OFFERED = "ex_offered"
_ARROW_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in {
            "tenant": pa.dictionary(pa.int32(), pa.string()),
            "metric": pa.uint16(),
            "labels": pa.dictionary(pa.int32(), pa.binary()),
            "bucket": pa.int16(),
            "layout": pa.uint16(),
            "value_lo": pa.uint64(),
            "value_hi": pa.int64(),
            "sum_lo": pa.uint64(),
            "sum_hi": pa.int64(),
            _OFFERED: pa.uint8(),
            "ex_trace": pa.binary(),
            "ex_value_ns": pa.int64(),
            "ex_timestamp_ms": pa.int64(),
            "ex_offset": pa.int64(),
            "ex_index": pa.int32(),
        }.items()
    ]
)
_WRITE_OPTIONS = pa.ipc.IpcWriteOptions(use_threads=False)
# Bytes of a row besides its texts: the fixed columns, two dictionary indices and an offset, rounded up.
_ROW_BYTES = 80
# Bytes of the dictionary entries of a row besides their texts.
_ENTRY_BYTES = 8

_UNKNOWN, _COUNTER, _GAUGE, _HISTOGRAM = range(4)
_KIND_NUMBERS = {Kind.COUNTER: _COUNTER, Kind.GAUGE: _GAUGE, Kind.HISTOGRAM: _HISTOGRAM}
_KINDS = np.full(1 << 16, _UNKNOWN, np.uint8)
"""By metric."""
for _metric in METRICS.values():
    _KINDS[int(_metric.id)] = _KIND_NUMBERS[_metric.kind]


class Dictionary(NamedTuple):
    """A column of texts: each once, in the order of first use, and per row its number."""

    indices: npt.NDArray[np.int32]
    texts: Sequence[bytes]


class Columns(NamedTuple):
    """Canonical rows as they are written. Where no exemplar was offered there are zeros and no trace ID."""

    tenant: Dictionary
    labels: Dictionary
    cells: npt.NDArray[Any]
    """Of `ROW`; its numbers of texts mean nothing."""
    traces: pa.Array


_NO_COLUMNS = Columns(
    Dictionary(np.empty(0, np.int32), ()), Dictionary(np.empty(0, np.int32), ()), NO_ROWS.cells, NO_ROWS.traces
)


def columns(rows: DeltaRows) -> Columns:
    """The columns of rows, which `tidied` gave or `decode_rows`."""
    if not len(rows):
        return _NO_COLUMNS
    tenants = [tenant.encode() for tenant in rows.tenants]
    tenant, labels = _dictionary(rows.cells["tenant"], tenants), _dictionary(rows.cells["labels"], rows.labels)
    return Columns(tenant, labels, rows.cells, rows.traces)


def tidied(rows: DeltaRows) -> DeltaRows:
    """The same rows with nothing beside an exemplar that wasn't offered, and without trace IDs that are too long."""
    cells, traces = rows.cells.copy(), rows.traces
    for name in EXEMPLAR_NUMBERS:
        cells[name] *= cells["offered"]
    lengths = binary_lengths(traces)
    unfit = (lengths > MAX_TRACE_BYTES) | ((lengths > 0) & ~cells["offered"])
    if unfit.any():
        kept = zip(traces.to_pylist(), unfit.tolist(), strict=True)
        traces = pa.array([b"" if wrong else trace for trace, wrong in kept], pa.binary())
    return DeltaRows(cells, rows.tenants, rows.labels, traces)


def check_rows(rows: DeltaRows, layouts: tuple[Layout, ...]) -> None:
    """Raises Malformed for rows that break a rule of `ROW`, or the canonical order."""
    if not len(rows):
        return
    cells, lengths = rows.cells, binary_lengths(rows.traces)
    bucket, layout, offered = cells["bucket"], cells["layout"], cells["offered"]
    kind = _KINDS[cells["metric"]]
    is_histogram = kind == _HISTOGRAM
    is_native = (layout >= NATIVE_LAYOUTS) & (layout <= native_layout(MAX_SCHEMA))
    last_bucket = np.array([*map(len, layouts), -1])[np.minimum(layout, len(layouts))]
    has_place = is_native | ((bucket >= 0) & (bucket <= last_bucket))
    has_none = (bucket == NO_BUCKET) & (layout == NO_LAYOUT)
    has_no_sum = (cells["sum_lo"] == 0) & (cells["sum_hi"] == 0)
    beside = lengths > 0
    for name in EXEMPLAR_NUMBERS:
        beside |= cells[name] != 0
    rules = {
        "an unknown metric": kind != _UNKNOWN,
        "a bucket or layout that isn't there": np.where(is_histogram, has_place, has_none),
        "a negative count": (cells["value_hi"] >= 0) | (kind == _GAUGE),
        "a part of a native count": ~is_native | (cells["value_lo"] % np.uint64(WEIGHT_ONE) == 0),
        "a sum where none may be": np.where(is_histogram, cells["sum_hi"] >= 0, has_no_sum),
        "half an exemplar": offered | ~beside,
        "a trace ID that is too long": lengths <= MAX_TRACE_BYTES,
        "rows out of order": ascend(*sort_keys(rows)),
    }
    broken = [name for name, holds in rules.items() if not holds.all()]
    if max(map(len, rows.labels)) > MAX_LABEL_SET_BYTES:
        broken.append("labels that are too long")
    if broken:
        raise Malformed(Reason.ROWS, "; ".join(broken))


_NO_COSTS = np.empty(0, np.int64), np.empty(0, np.int64)


def row_costs(columns: Columns) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Estimates of canonical rows' bytes in a body: of each after the one before it, and of each as the first."""
    if not len(columns.cells):
        return _NO_COSTS
    texts = _lengths_of_rows(columns.tenant) + _lengths_of_rows(columns.labels) + _ENTRY_BYTES
    new = np.ones(len(columns.cells), np.bool_)
    new[1:] = _changes(columns.labels.indices) | _changes(columns.tenant.indices)
    fixed = _ROW_BYTES + binary_lengths(columns.traces).astype(np.int64)
    return fixed + new * texts, fixed + texts


def encode_rows(columns: Columns) -> tuple[bytes, int]:
    """The body of canonical rows, and the bytes that it unpacks to."""
    batch = pa.RecordBatch.from_arrays(_arrow_arrays(columns), schema=_ARROW_SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _ARROW_SCHEMA, options=_WRITE_OPTIONS) as writer:
        writer.write_batch(batch)
    plain = sink.getvalue()
    return bytes(cramjam.zstd.compress(plain, level=_ZSTD_LEVEL)), plain.size


def decode_rows(body: bytes, size: int) -> DeltaRows:
    """The rows of a body that unpacks to `size` bytes; `check_rows` isn't done. Raises Malformed."""
    if not 0 < size <= MAX_BODY_BYTES:
        raise Malformed(Reason.COMPRESSION, f"a body of {size} bytes")
    plain = bytearray(size)
    try:
        unpacked = cramjam.zstd.decompress_into(body, plain)
    except cramjam.DecompressionError as error:
        raise Malformed(Reason.COMPRESSION, "not a zstd frame of this size") from error
    if unpacked != size:
        raise Malformed(Reason.COMPRESSION, f"{unpacked} bytes instead of {size}")
    try:
        return _rows(_read_batch(plain))
    except (pa.ArrowException, OSError) as error:
        raise Malformed(Reason.SCHEMA, f"not an Arrow stream: {error}") from error


def hash_rows(columns: Columns, update: Callable[[Any], None]) -> None:
    """Feeds the content of canonical rows to a digest: the same for equal rows, whatever parts they came in."""
    update(len(columns.cells).to_bytes(8, "little"))
    if not len(columns.cells):
        return
    for name in _ARROW_SCHEMA.names:
        if name in {"tenant", "labels"}:
            column: Dictionary = getattr(columns, name)
            update(len(column.texts).to_bytes(8, "little"))
            update(column.indices)
            update(np.array(list(map(len, column.texts)), np.int32))
            update(b"".join(column.texts))
        elif name == "ex_trace":
            lengths = binary_lengths(columns.traces)
            update(lengths)
            update(_text_bytes(columns.traces))
        else:
            update(_plain_column(columns, name))


def _dictionary(numbers: npt.NDArray[np.int32], texts: Sequence[bytes]) -> Dictionary:
    """A column of numbers of texts, which come in runs."""
    run = np.zeros(len(numbers), np.int64)
    changes = _changes(numbers)
    np.cumsum(changes, out=run[1:])
    firsts = [int(numbers[0]), *numbers[1:][changes].tolist()]
    used: dict[bytes, int] = {}
    of_runs = [used.setdefault(texts[number], len(used)) for number in firsts]
    return Dictionary(np.array(of_runs, np.int32)[run], list(used))


def _changes(numbers: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Per row but the first: whether its number is another than that of the row before."""
    changes: npt.NDArray[np.bool_] = numbers[1:] != numbers[:-1]
    return changes


def _lengths_of_rows(column: Dictionary) -> npt.NDArray[np.int64]:
    return np.array(list(map(len, column.texts)), np.int64)[column.indices]


def _plain_column(columns: Columns, name: str) -> npt.NDArray[Any]:
    if name == _OFFERED:
        return np.ascontiguousarray(columns.cells["offered"]).view(np.uint8)
    return np.ascontiguousarray(columns.cells[name])


def _text_bytes(texts: pa.Array) -> memoryview:
    _, offsets, data = texts.buffers()
    start, end = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset)[[0, -1]].tolist()
    return memoryview(b"" if data is None else data)[start:end]


def _arrow_arrays(columns: Columns) -> list[pa.Array]:
    arrays: list[pa.Array] = []
    for name, kind in zip(_ARROW_SCHEMA.names, _ARROW_SCHEMA.types, strict=True):
        if name in {"tenant", "labels"}:
            column: Dictionary = getattr(columns, name)
            texts = pa.array(column.texts, pa.binary()).view(kind.value_type)
            arrays.append(pa.DictionaryArray.from_arrays(pa.array(column.indices), texts, safe=False))
        else:
            arrays.append(_exact(columns.traces) if name == "ex_trace" else pa.array(_plain_column(columns, name)))
    return arrays


def _exact(texts: pa.Array) -> pa.Array:
    """The same texts in buffers of their own: of a slice, Arrow would write some of the bytes that follow."""
    offsets = np.zeros(len(texts) + 1, np.int32)
    np.cumsum(binary_lengths(texts), out=offsets[1:])
    return pa.Array.from_buffers(
        texts.type, len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(_text_bytes(texts))]
    )


def _read_batch(plain: bytearray) -> pa.RecordBatch:
    with pa.ipc.open_stream(pa.py_buffer(plain)) as reader:
        if not reader.schema.equals(_ARROW_SCHEMA):
            raise Malformed(Reason.SCHEMA, "other columns than ours")
        batches = list(reader)
    if len(batches) != 1:
        raise Malformed(Reason.SCHEMA, f"{len(batches)} record batches")
    batch = batches[0]
    # Reading checks little more than lengths: only this makes offsets, indices and UTF-8 safe to use.
    batch.validate(full=True)
    return batch


def _rows(batch: pa.RecordBatch) -> DeltaRows:
    arrays = dict(zip(_ARROW_SCHEMA.names, batch.columns, strict=True))
    if any(array.null_count for array in arrays.values()):
        raise Malformed(Reason.SCHEMA, "nulls")
    check_label_bytes(arrays["labels"].dictionary)
    cells = np.empty(batch.num_rows, ROW)
    for name in ("tenant", "labels"):
        cells[name] = _indices(arrays[name])
    for name in cells.dtype.names:
        if name in arrays and name not in {"tenant", "labels"}:
            cells[name] = arrays[name].to_numpy()
    cells["offered"] = arrays[_OFFERED].to_numpy() != 0
    tenants, labels = (arrays[name].dictionary.to_pylist() for name in ("tenant", "labels"))
    if len(set(tenants)) < len(tenants) or len(set(labels)) < len(labels):
        raise Malformed(Reason.SCHEMA, "a dictionary with a text twice")
    return DeltaRows(cells, tenants, labels, arrays["ex_trace"])


def _indices(column: pa.DictionaryArray) -> npt.NDArray[np.int32]:
    """The indices of a dictionary without nulls."""
    if column.dictionary.null_count:
        raise Malformed(Reason.SCHEMA, "nulls in a dictionary")
    indices: npt.NDArray[np.int32] = column.indices.to_numpy()
    return indices
