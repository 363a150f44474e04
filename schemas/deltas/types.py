"""The tables and records of deltas."""

from dataclasses import dataclass
from typing import NamedTuple

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


class LedgerKey(NamedTuple):
    """A counter of the generator itself, by Tempo's full name, and its labels sorted by name, `tenant` among them."""

    counter: str
    labels: tuple[tuple[str, str], ...]


Ledger = dict[LedgerKey, int]
"""What a window adds to the counters of the generator itself; nothing is negative."""

Layout = tuple[float, ...]
"""Upper bounds of a histogram's buckets in seconds, ascending, without +Inf."""


@dataclass(frozen=True, slots=True)
class Window:
    """A closed window of one partition of `[spans]`.

    `rows` have the columns of `DELTA_SCHEMA` and `route` (Binary): the value of the label by which a series finds its
    owner. They may come in any order, but a key only once. `previous_end_ms` is the window that was sent before.
    """

    end_ms: int
    previous_end_ms: int | None
    rows: pl.DataFrame
    layouts: tuple[Layout, ...]
    ledger: Ledger
    revision: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One part of what a window of a partition has for one shard: some of its rows and some of its ledger's entries.

    `layouts` are those of all parts. The whole is the rows of parts 0 to `parts - 1` in turn, and their ledgers' union.
    """

    partition: int
    end_ms: int
    previous_end_ms: int | None
    partitions: int
    part: int
    parts: int
    digest: bytes
    revision: int
    layouts: tuple[Layout, ...]
    ledger: Ledger
    rows: pl.DataFrame
