"""Deltas: what a window of one partition of `[spans]` adds to the series, as rows and as batches of `[deltas]`.

A window's rows go to the shards that own their series. What a shard gets is cut into parts that fit into records. The
same window always gives the same parts, so a batch that is computed and sent again is told by its place in the chain
(partition, end, previous end), and its parts by the digest of the whole.
"""

from schemas.deltas.batches import (
    MAX_BATCH_BYTES,
    PART_LIMIT_BYTES,
    decode_batch,
    encode_batch,
    encode_window,
    join_parts,
)
from schemas.deltas.columns import (
    NATIVE_LAYOUTS,
    NO_BUCKET,
    NO_LAYOUT,
    ROW,
    ZERO_BUCKET,
    native_layout,
    native_schema,
)
from schemas.deltas.merge import merge_rows
from schemas.deltas.rows import NO_ROUTED_ROWS, NO_ROWS, DeltaRows, RoutedRows, concatenated, sort_keys
from schemas.deltas.types import Batch, Layout, Ledger, LedgerKey, Window
from schemas.int128 import join, split

__all__ = [
    "MAX_BATCH_BYTES",
    "NATIVE_LAYOUTS",
    "NO_BUCKET",
    "NO_LAYOUT",
    "NO_ROUTED_ROWS",
    "NO_ROWS",
    "PART_LIMIT_BYTES",
    "ROW",
    "ZERO_BUCKET",
    "Batch",
    "DeltaRows",
    "Layout",
    "Ledger",
    "LedgerKey",
    "RoutedRows",
    "Window",
    "concatenated",
    "decode_batch",
    "encode_batch",
    "encode_window",
    "join",
    "join_parts",
    "merge_rows",
    "native_layout",
    "native_schema",
    "sort_keys",
    "split",
]
