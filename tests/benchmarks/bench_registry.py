"""What a window of 100,000 series costs a shard's registry: ms of CPU from merged rows to samples.

`python -m tests.benchmarks.bench_registry [label sets] [windows]`. A label set has a counter, a size and a histogram of
which four buckets are touched; `busy` windows update all of them, `quiet` ones a hundredth. Each figure is the median
of its windows, after the one in which the series begin, which is printed apart.
"""

import sys
import time
from dataclasses import replace
from statistics import median

import numpy as np
import pyarrow as pa

from schemas.config import LimitSettings
from schemas.deltas import NO_BUCKET, NO_LAYOUT, ROW, Batch, DeltaRows
from schemas.labels import encode_labels
from schemas.metrics import MetricId
from streams.merged_window import merge_batches
from streams.registry import Registry
from tests.streams.delta_rows import INTERVAL, Settings

LAYOUT = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.02, 2.05, 4.10, 8.20, 16.4)
SERIES_PER_SET = len(LAYOUT) + 5
BUCKETS = (3, 4, 5, 6)
WEIGHT = 1 << 32
OPTIONS = {
    "plain": LimitSettings(),
    "series limit": LimitSettings(max_active_series=10_000_000),
    "entity limit": LimitSettings(by_entity=True, max_active_entities=10_000_000),
    "label limit": LimitSettings(max_cardinality_per_label=1_000_000),
    "label limit bites": LimitSettings(max_cardinality_per_label=1_000),
    "dry run": LimitSettings(span_name_sanitization="dry_run"),
    "sanitised": LimitSettings(span_name_sanitization="enabled"),
}


def label_bytes(count: int) -> list[bytes]:
    """Label sets of span metrics, sorted; a quarter of the span names has a number in it."""
    sets = []
    for n in range(count):
        name = f"GET /api/users/{n}" if n % 4 == 0 else f"GET /api/users/list{'abcdefghij'[n % 10]}"
        pairs = (("path", f"/p{n}"), ("service", f"shop-{n % 50}"), ("span_kind", "SPAN_KIND_SERVER"))
        sets.append(encode_labels((*pairs, ("span_name", name), ("status_code", "STATUS_CODE_UNSET"))))
    return sorted(sets)


def batch_of(sets: list[bytes], end_ms: int) -> Batch:
    """A window of one partition that updates these label sets."""
    cells = [(int(MetricId.CALLS), NO_BUCKET, NO_LAYOUT)]
    cells += [(int(MetricId.LATENCY), bucket, 0) for bucket in BUCKETS]
    cells += [(int(MetricId.SIZE), NO_BUCKET, NO_LAYOUT)]
    rows = np.zeros(len(sets) * len(cells), ROW)
    for name, column in zip(("metric", "bucket", "layout"), zip(*cells, strict=True), strict=True):
        rows[name] = np.tile(np.array(column), len(sets))
    rows["labels"] = np.repeat(np.arange(len(sets)), len(cells))
    rows["value_lo"], rows["sum_lo"] = WEIGHT, 1 << 40
    deltas = DeltaRows(rows, ("acme",), sets, pa.array([b""] * len(rows), pa.binary()))
    return Batch(0, end_ms, end_ms - INTERVAL, 1, 0, 1, b"", 0, (LAYOUT,), {}, deltas)


def complete_ms(registry: Registry, batch: Batch, end_ms: int) -> float:
    """The CPU time of one window."""
    begun = time.process_time_ns()
    registry.complete(merge_batches(end_ms, [replace(batch, end_ms=end_ms)]))
    return (time.process_time_ns() - begun) / 1e6


def measure(limits: LimitSettings, sets: list[bytes], windows: int) -> tuple[float, float, float]:
    """The first window, busy ones and quiet ones."""
    settings = Settings(limits=limits)
    registry = Registry(0, lambda _: settings, INTERVAL)
    busy, quiet = batch_of(sets, INTERVAL), batch_of(sets[::100], INTERVAL)
    first = complete_ms(registry, busy, INTERVAL)
    times: dict[int, list[float]] = {0: [], 1: []}
    for n in range(2, 2 * windows + 2):
        times[n % 2].append(complete_ms(registry, (busy, quiet)[n % 2], n * INTERVAL))
    return first, median(times[0]), median(times[1])


def main() -> None:
    """Print a line per option."""
    count, windows = int(sys.argv[1]) if len(sys.argv) > 1 else 5_264, int(sys.argv[2]) if len(sys.argv) > 2 else 8
    sets = label_bytes(count)
    print(f"{count} label sets, {count * SERIES_PER_SET} series; ms of CPU a window")
    measure(LimitSettings(), sets[:100], 1)
    for name, limits in OPTIONS.items():
        first, busy, quiet = measure(limits, sets, windows)
        print(f"{name:20} first {first:8.1f}   busy {busy:8.1f}   quiet {quiet:8.1f}")


if __name__ == "__main__":
    main()
