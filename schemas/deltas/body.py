"""The body of a batch: delta rows as a compressed Arrow IPC stream, and the rules that rows keep.

The Arrow columns have no nulls, so that nothing undefined reaches the bytes; a column of its own says where an exemplar
was offered. Tenants and labels are dictionaries, since a histogram's rows share their label bytes.
"""

from collections.abc import Callable
from typing import Any

import cramjam
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.deltas.types import (
    CANONICAL_ORDER,
    DELTA_SCHEMA,
    EXEMPLAR_COLUMNS,
    NATIVE_LAYOUTS,
    NO_BUCKET,
    NO_LAYOUT,
    Layout,
    native_layout,
)
from schemas.errors import Malformed, Reason
from schemas.label_bytes import binary_buffers, check_label_bytes
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
# Bytes of a row besides its texts: the fixed columns, two dictionary indices and an offset, rounded up.
_ROW_BYTES = 80
# Bytes of the dictionary entries of a row besides their texts.
_ENTRY_BYTES = 8

_HISTOGRAMS = [int(metric.id) for metric in METRICS.values() if metric.kind is Kind.HISTOGRAM]
_GAUGES = [int(metric.id) for metric in METRICS.values() if metric.kind is Kind.GAUGE]
_IS_HISTOGRAM = pl.col("metric").is_in(_HISTOGRAMS)
_IS_NATIVE = pl.col("layout").is_between(NATIVE_LAYOUTS, native_layout(MAX_SCHEMA))


def canonical_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """A window's rows, `route` included, in canonical order; what stands beside an absent exemplar becomes null."""
    trace = pl.col("ex_trace").cast(pl.Binary)
    fitting = pl.when(trace.bin.size() <= MAX_TRACE_BYTES).then(trace).when(trace.is_not_null()).then(pl.lit(b""))
    columns = {name: pl.col(name).cast(kind) for name, kind in DELTA_SCHEMA.items()}
    offered = {name: pl.when(trace.is_not_null()).then(columns[name]) for name in EXEMPLAR_COLUMNS}
    route = pl.col("route").cast(pl.Binary).fill_null(b"")
    return rows.select(**(columns | offered | {"ex_trace": fitting, "route": route})).sort(CANONICAL_ORDER)


def check_rows(rows: pl.DataFrame, layouts: tuple[Layout, ...]) -> None:
    """Raises Malformed for rows that break a rule of `DELTA_SCHEMA`, or the canonical order."""
    last_bucket = {number: len(layout) for number, layout in enumerate(layouts)}
    required = [name for name in DELTA_SCHEMA if name not in EXEMPLAR_COLUMNS]
    trace = pl.col("ex_trace")
    rules = {
        "a missing value": pl.all_horizontal(pl.col(required).is_not_null()),
        "an unknown metric": pl.col("metric").is_in([int(metric) for metric in METRICS]),
        "a bucket or layout that isn't there": pl.when(_IS_HISTOGRAM)
        .then(
            _IS_NATIVE
            | pl.col("bucket").is_between(
                0, pl.col("layout").replace_strict(last_bucket, default=-1, return_dtype=pl.Int32)
            )
        )
        .otherwise((pl.col("bucket") == NO_BUCKET) & (pl.col("layout") == NO_LAYOUT)),
        "a negative count": (pl.col("value_hi") >= 0) | pl.col("metric").is_in(_GAUGES),
        "a part of a native count": ~_IS_NATIVE | (pl.col("value_lo") % WEIGHT_ONE == 0),
        "a sum where none may be": pl.when(_IS_HISTOGRAM)
        .then(pl.col("sum_hi") >= 0)
        .otherwise((pl.col("sum_lo") == 0) & (pl.col("sum_hi") == 0)),
        "half an exemplar": pl.all_horizontal(pl.col(EXEMPLAR_COLUMNS).is_null() == trace.is_null()),
        "a trace ID that is too long": trace.is_null() | (trace.bin.size() <= MAX_TRACE_BYTES),
        "labels that are too long": pl.col("labels").bin.size() <= MAX_LABEL_SET_BYTES,
        "rows out of order": _ascending(CANONICAL_ORDER),
    }
    kept = rows.select(rule.fill_null(value=False).all().alias(name) for name, rule in rules.items()).row(0, named=True)
    broken = [name for name, holds in kept.items() if not holds]
    if broken:
        raise Malformed(Reason.ROWS, "; ".join(broken))


def row_costs(rows: pl.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Estimates of canonical rows' bytes in a body: of each after the one before it, and of each as the first."""
    if rows.is_empty():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    texts = (pl.col("tenant").str.len_bytes() + pl.col("labels").bin.size()).cast(pl.Int64) + _ENTRY_BYTES
    new = ((pl.col("labels") != pl.col("labels").shift(1)) | (pl.col("tenant") != pl.col("tenant").shift(1))).fill_null(
        value=True
    )
    fixed = _ROW_BYTES + pl.col("ex_trace").bin.size().fill_null(0).cast(pl.Int64)
    costs = rows.select(next=fixed + pl.when(new).then(texts).otherwise(0), first=fixed + texts)
    return costs["next"].to_numpy(), costs["first"].to_numpy()


def encode_rows(rows: pl.DataFrame) -> tuple[bytes, int]:
    """The body of canonical rows, and the bytes that it unpacks to."""
    arrays = _arrow_columns(rows)
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), schema=_ARROW_SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _ARROW_SCHEMA, options=pa.ipc.IpcWriteOptions(use_threads=False)) as writer:
        writer.write_batch(batch)
    plain = sink.getvalue()
    return bytes(cramjam.zstd.compress(plain, level=_ZSTD_LEVEL)), plain.size


def decode_rows(body: bytes, size: int) -> pl.DataFrame:
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
        return _frame(_read_batch(plain))
    except (pa.ArrowException, OSError) as error:
        raise Malformed(Reason.SCHEMA, f"not an Arrow stream: {error}") from error


def hash_rows(rows: pl.DataFrame, update: Callable[[Any], None]) -> None:
    """Feeds the content of canonical rows to a digest: the same for equal rows, whatever parts they came in."""
    update(rows.height.to_bytes(8, "little"))
    if rows.is_empty():
        return
    for column in _arrow_columns(rows).values():
        if pa.types.is_dictionary(column.type):
            update(len(column.dictionary).to_bytes(8, "little"))
            update(np.ascontiguousarray(column.indices.to_numpy()))
            _hash_texts(column.dictionary, update)
        elif pa.types.is_binary(column.type):
            _hash_texts(column, update)
        else:
            update(np.ascontiguousarray(column.to_numpy()))


def _arrow_columns(rows: pl.DataFrame) -> dict[str, pa.Array]:
    """Canonical rows as the columns of `_ARROW_SCHEMA`; where no exemplar was offered they hold 0 and empty bytes."""
    columns: dict[str, pa.Array] = {}
    for name, kind in zip(_ARROW_SCHEMA.names, _ARROW_SCHEMA.types, strict=True):
        if name == _OFFERED:
            columns[name] = pa.array(rows["ex_trace"].is_not_null().cast(pl.UInt8).to_numpy())
        elif pa.types.is_dictionary(kind):
            texts = rows[name].to_arrow(compat_level=pl.CompatLevel.oldest())
            columns[name] = texts.cast(kind.value_type).dictionary_encode()
        elif pa.types.is_binary(kind):
            columns[name] = rows[name].fill_null(b"").to_arrow(compat_level=pl.CompatLevel.oldest()).cast(kind)
        else:
            filled = rows[name].fill_null(0) if name in EXEMPLAR_COLUMNS else rows[name]
            columns[name] = pa.array(filled.to_numpy())
    return columns


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
    if any(column.null_count for column in batch.columns):
        raise Malformed(Reason.SCHEMA, "nulls")
    return batch


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    check_label_bytes(columns["labels"].dictionary)
    offered = pl.Series(columns[_OFFERED].to_numpy() != 0)
    series = [_series(name, columns[name]) for name in DELTA_SCHEMA]
    return pl.DataFrame(series).with_columns(pl.when(offered).then(pl.col(EXEMPLAR_COLUMNS)))


def _series(name: str, column: pa.Array) -> pl.Series:
    if not pa.types.is_dictionary(column.type):
        return pl.Series(name, column, DELTA_SCHEMA[name])
    if column.dictionary.null_count:
        raise Malformed(Reason.SCHEMA, "nulls in a dictionary")
    # Views of the dictionary's bytes: rows of one label set share them in memory too.
    return pl.Series(name, column.dictionary, DELTA_SCHEMA[name]).gather(column.indices.to_numpy())


def _hash_texts(texts: pa.Array, update: Callable[[Any], None]) -> None:
    data, offsets = binary_buffers(texts)
    update(np.diff(offsets))
    update(data[offsets[0] : offsets[-1]])


def _ascending(names: list[str]) -> pl.Expr:
    """True where a row's key is greater than that of the row before, by the first of the columns that differ."""
    if not names:
        return pl.lit(value=False)
    column, before = pl.col(names[0]), pl.col(names[0]).shift(1)
    return before.is_null() | (column > before) | ((column == before) & _ascending(names[1:]))
