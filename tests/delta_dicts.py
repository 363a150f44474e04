"""Delta rows as dicts, which tests write and read. An exemplar that wasn't offered is None in all of its columns."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.deltas import ROW, DeltaRows, RoutedRows

COLUMNS = (
    *("tenant", "metric", "labels", "bucket", "layout", "value_lo", "value_hi", "sum_lo", "sum_hi"),
    *("ex_trace", "ex_value_ns", "ex_timestamp_ms", "ex_offset", "ex_index"),
)
EXEMPLAR = COLUMNS[9:]

Row = Mapping[str, Any]


def delta_rows(rows: Iterable[Row]) -> DeltaRows:
    """The rows of dicts with `COLUMNS`, and maybe others; without `ex_trace` what is beside it counts for nothing."""
    given = list(rows)
    tenants: dict[str, int] = {}
    labels: dict[bytes, int] = {}
    cells = np.zeros(len(given), ROW)
    for cell, row in zip(cells, given, strict=True):
        for name in COLUMNS:
            if name not in {"tenant", "labels", "ex_trace"}:
                cell[name] = row[name] or 0
        cell["tenant"] = tenants.setdefault(row["tenant"], len(tenants))
        cell["labels"] = labels.setdefault(row["labels"], len(labels))
        cell["offered"] = row["ex_trace"] is not None
    return DeltaRows(
        cells, tuple(tenants), tuple(labels), pa.array([row["ex_trace"] or b"" for row in given], pa.binary())
    )


def routed_rows(rows: Iterable[Row]) -> RoutedRows:
    """The same of dicts that also have a `route`."""
    given = list(rows)
    return RoutedRows(delta_rows(given), [row["route"] for row in given], np.arange(len(given)))


def dicts(rows: DeltaRows | RoutedRows) -> list[dict[str, Any]]:
    """The rows as they were given."""
    if isinstance(rows, RoutedRows):
        routes = [rows.routes[number] for number in rows.route.tolist()]
        return [{**row, "route": route} for row, route in zip(dicts(rows.rows), routes, strict=True)]
    cells = {name: rows.cells[name].tolist() for name in ROW.names or ()}
    columns = {
        **cells,
        "tenant": [rows.tenants[number] for number in cells["tenant"]],
        "labels": [rows.labels[number] for number in cells["labels"]],
        "ex_trace": rows.traces.to_pylist(),
    }
    offered = cells["offered"]
    return [
        {name: None if name in EXEMPLAR and not offered[row] else columns[name][row] for name in COLUMNS}
        for row in range(len(rows))
    ]
