"""The columns of delta rows: their types, their order, and numbers that mean something else in them."""

import numpy as np
import polars as pl

from schemas.native_histogram import MIN_SCHEMA

NO_BUCKET = -1
"""The bucket of rows of counters and gauges."""

NO_LAYOUT = 0xFFFF
"""The layout of rows of counters and gauges."""

NATIVE_LAYOUTS = 0xFFF0
"""From here on a layout is a native histogram's, of schema -4 (`native_layout`); none of the window's layouts."""

ZERO_BUCKET = -0x8000
"""The bucket of a native histogram that holds zeros; the others have Prometheus' indices."""

DELTA_SCHEMA = pl.Schema(
    {
        "tenant": pl.String(),
        "metric": pl.UInt16(),
        "labels": pl.Binary(),
        "bucket": pl.Int16(),
        "layout": pl.UInt16(),
        "value_lo": pl.UInt64(),
        "value_hi": pl.Int64(),
        "sum_lo": pl.UInt64(),
        "sum_hi": pl.Int64(),
        "ex_trace": pl.Binary(),
        "ex_value_ns": pl.Int64(),
        "ex_timestamp_ms": pl.Int64(),
        "ex_offset": pl.Int64(),
        "ex_index": pl.Int32(),
    }
)
"""Delta rows: one per (tenant, labels, metric, bucket, layout), in that order, which is the canonical one.

`metric` is a MetricId and `labels` are label bytes. `bucket` and `layout` say in which bucket of which of the window's
layouts a histogram's weight fell (exactly in this one, not cumulative; the last is +Inf); other kinds have `NO_BUCKET`
and `NO_LAYOUT`. Rows of a `native_layout` hold the same observations by native bucket, with whole weights; of a tenant
that has native histograms only, they are all there is. `value` is the weight (histogram), the count in units of
`1 / per_unit` (counter) or the value (gauge, an integer), `sum` the weighted latency in 2^-16 ns (histogram; else 0),
both of 128 bits in two's complement.

The exemplar is that of the greatest (timestamp, partition, offset, index). If none was offered its columns are null; an
empty `ex_trace` was offered by a span without a trace ID, and erases (Tempo REG-12; not in native buckets, REG-20).
"""


def native_layout(schema: int) -> int:
    """The layout of rows of native histograms of a schema."""
    return NATIVE_LAYOUTS + schema - MIN_SCHEMA


def native_schema(layout: int) -> int:
    """The schema that such a layout says."""
    return layout - NATIVE_LAYOUTS + MIN_SCHEMA


CANONICAL_ORDER = ["tenant", "labels", "metric", "bucket", "layout"]
"""The key of a delta row, and the order of rows. Texts and bytes are ordered by their bytes."""

EXEMPLAR_COLUMNS = [name for name in DELTA_SCHEMA if name.startswith("ex_")]

ROW = np.dtype(
    [
        ("value_lo", np.uint64),
        ("value_hi", np.int64),
        ("sum_lo", np.uint64),
        ("sum_hi", np.int64),
        ("ex_value_ns", np.int64),
        ("ex_timestamp_ms", np.int64),
        ("ex_offset", np.int64),
        ("ex_index", np.int32),
        ("tenant", np.int32),
        ("labels", np.int32),
        ("metric", np.uint16),
        ("bucket", np.int16),
        ("layout", np.uint16),
        ("offered", np.bool_),
    ],
    align=True,
)
"""A delta row in memory: its texts are kept beside it, and `tenant` and `labels` are their numbers.

Where no exemplar was `offered`, its columns mean nothing.
"""
