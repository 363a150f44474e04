"""A window's rows under the label sets that they become (Tempo DRN-8, LIM-10), before series are made of them.

Rows of different partitions, or of different label sets, may become rows of one label set: so labels change before rows
are merged, and an exemplar is that of the greatest position whatever its labels were. Metrics about targets and hosts
keep their labels (PRIM-7).
"""

from collections.abc import Mapping, Sequence

import polars as pl

from schemas.deltas import DELTA_SCHEMA
from schemas.metrics import MetricId
from streams.series import ROUTE_LABELS
from streams.tenant_limiters import TenantLimiters

Frames = Sequence[tuple[int, pl.DataFrame]]
"""Partitions and their delta rows."""

_KEY = ["tenant", "labels", "block"]
_ROW = ["tenant", "labels", "metric", "bucket", "layout"]
_KEPT = [int(MetricId.TARGET_INFO), int(MetricId.HOST_INFO)]
_ROUTES = dict(zip((int(MetricId.CALLS) // 10, int(MetricId.REQUEST_TOTAL) // 10), ROUTE_LABELS, strict=True))
"""Route labels by block of metrics."""


def renamed(frames: Frames, tenants: Mapping[str, TenantLimiters]) -> Frames:
    """The frames with the labels that these tenants' label sets become; the same ones if none becomes another."""
    learning = [name for name, limiters in tenants.items() if limiters.renames]
    if not learning or not frames:
        return frames
    counted = any(tenants[name].limits_labels for name in learning)
    changes = [
        _changes(sets, tenants[sets["tenant"][0]])
        for sets in _label_sets(frames, learning, counted=counted).partition_by("tenant", maintain_order=True)
    ]
    changed = pl.concat(changes) if changes else pl.DataFrame()
    return frames if changed.is_empty() else [(partition, _applied(rows, changed)) for partition, rows in frames]


def _label_sets(frames: Frames, tenants: Sequence[str], *, counted: bool) -> pl.DataFrame:
    """The different label sets of these tenants in canonical order, by block of metrics, and how many rows they have.

    Rows that several partitions have count once. They are counted only where it matters.
    """
    block = pl.col("metric") // 10
    rows = pl.concat([frame.select(_ROW) for _, frame in frames])
    rows = rows.filter(pl.col("tenant").is_in(tenants) & ~pl.col("metric").is_in(_KEPT))
    rows = (rows.unique() if counted else rows).with_columns(block.alias("block"))
    return rows.group_by(_KEY).agg(pl.len().alias("rows")).sort(_KEY)


def _changes(sets: pl.DataFrame, limiters: TenantLimiters) -> pl.DataFrame:
    """The label sets of a tenant that become others, and what they become."""
    routes = [_ROUTES[block] for block in sets["block"]]
    become = limiters.rename(sets["labels"].to_list(), routes, sets["rows"].to_list())
    columns = sets.select(*_KEY, pl.Series("become", become, pl.Binary()))
    return columns.filter(pl.col("labels") != pl.col("become"))


def _applied(rows: pl.DataFrame, changed: pl.DataFrame) -> pl.DataFrame:
    block = pl.when(pl.col("metric").is_in(_KEPT)).then(None).otherwise(pl.col("metric") // 10)
    joined = rows.with_columns(block.alias("block")).join(changed, on=_KEY, how="left")
    return joined.with_columns(labels=pl.coalesce("become", "labels")).select(DELTA_SCHEMA.names())
