"""The columns of delta rows: their types, their order, and numbers that mean something else in them."""

import numpy as np

from schemas.native_histogram import MIN_SCHEMA

NO_BUCKET = -1
"""The bucket of rows of counters and gauges."""

NO_LAYOUT = 0xFFFF
"""The layout of rows of counters and gauges."""

NATIVE_LAYOUTS = 0xFFF0
"""From here on a layout is a native histogram's, of schema -4 (`native_layout`); none of the window's layouts."""

ZERO_BUCKET = -0x8000
"""The bucket of a native histogram that holds zeros; the others have Prometheus' indices."""

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
"""Delta rows: one per (tenant, labels, metric, bucket, layout), in that order, which is the canonical one.

`tenant` and `labels` are the numbers of texts that are kept beside the rows: names, and label bytes. Texts are ordered
by their bytes. `metric` is a MetricId. `bucket` and `layout` say in which bucket of which of the window's layouts a
histogram's weight fell (exactly in this one, not cumulative; the last is +Inf); other kinds have `NO_BUCKET` and
`NO_LAYOUT`. Rows of a `native_layout` hold the same observations by native bucket, with whole weights; of a tenant
that has native histograms only, they are all there is. `value` is the weight (histogram), the count in units of
`1 / per_unit` (counter) or the value (gauge, an integer), `sum` the weighted latency in 2^-16 ns (histogram; else 0),
both of 128 bits in two's complement.

The exemplar is that of the greatest (timestamp, partition, offset, index); its trace ID is kept beside the rows too.
Unless one was `offered` its columns mean nothing. An empty trace ID was offered by a span without one, and erases
(Tempo REG-12; not in native buckets, REG-20).
"""

EXEMPLAR_NUMBERS = ("ex_value_ns", "ex_timestamp_ms", "ex_offset", "ex_index")
"""What is known of an exemplar besides its trace ID."""


def native_layout(schema: int) -> int:
    """The layout of rows of native histograms of a schema."""
    return NATIVE_LAYOUTS + schema - MIN_SCHEMA


def native_schema(layout: int) -> int:
    """The schema that such a layout says."""
    return layout - NATIVE_LAYOUTS + MIN_SCHEMA
