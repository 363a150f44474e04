"""Spans per CPU-second of each step from records to closed windows, on realistic spans.

`python -m tests.benchmarks.bench_processors [seconds]`. A window has 40,000 spans in frames of 4 MB. `columns` interns
the texts, `close` is everything at a window's end (labels, rows, half-edges), `fold` all of `PartitionFold.feed`, the
scan included, and `encode` what makes batches of the window. The figures are of process CPU time, medians of the turns.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from schemas.checkpoint import DROPPED_SIDE_SCHEMA, HALF_EDGE_SCHEMA
from schemas.config import TenantSettings
from schemas.deltas import encode_window
from schemas.otlp import Codec, SpanFrame, scan_records
from schemas.record import Record
from streams.intake import LedgerCounts, count_intake, within_slack
from streams.interner import Interner
from streams.partition import MAX_HALF_EDGE_BYTES, PartitionFold
from streams.plan import Plan
from streams.rows import LabelCache
from streams.service_graphs import ServiceGraphs, Waiting
from streams.span_columns import span_columns
from streams.span_metrics import SpanMetrics, SpanMetricsCaches
from streams.target_info import TargetInfoCache
from tests.otlp_samples import START_NS, span_records, trace_records
from tests.streams.log import settings, tick

SPANS = 40_000
FRAME_BYTES = 4 << 20
INTERVAL_MS = 15_000
START_MS = START_NS // 1_000_000

TENANTS = settings(span_metrics={}, service_graphs={"max_items": 100_000}, slack_ns=3600 * 10**9)
DIMENSIONS = settings(
    span_metrics={"dimensions": ("http.request.method", "http.response.status_code", "deployment.environment")},
    service_graphs={"max_items": 100_000, "dimensions": ("deployment.environment",)},
    slack_ns=3600 * 10**9,
)


class Clock:
    """The CPU time of steps by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        """Call, and add its time."""
        start = time.process_time()
        made = call()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start
        return made


def records_of(values: list[bytes]) -> list[Record]:
    """The values as records of one window."""
    return [Record(offset, START_MS, value) for offset, value in enumerate(values)]


def frames_of(records: list[Record], keys: tuple[str, ...]) -> Iterator[SpanFrame]:
    """The records as frames of about `FRAME_BYTES`."""
    sizes = np.cumsum([len(record.value) for record in records]) // FRAME_BYTES
    for number in range(int(sizes[-1]) + 1):
        first, last = np.searchsorted(sizes, number), np.searchsorted(sizes, number, side="right")
        yield scan_records(records[first:last], keys, Codec.OTLP)


def steps(tenants: TenantSettings, records: list[Record], turn: Clock) -> None:
    """One window, step by step."""
    plan, interner = Plan(lambda _: tenants), Interner()
    plan.include(["single-tenant"])
    spans = SpanMetrics(plan, interner, SpanMetricsCaches(LabelCache("service"), TargetInfoCache()))
    graphs = ServiceGraphs(
        plan,
        interner,
        LabelCache("server"),
        Waiting(HALF_EDGE_SCHEMA.to_frame(), DROPPED_SIDE_SCHEMA.to_frame()),
        MAX_HALF_EDGE_BYTES,
    )
    for frame in frames_of(records, plan.keys):
        tenant = np.zeros(len(frame.records.offset), np.int32)
        measured = np.ones(len(frame.spans.kind), np.bool_)
        turn("intake", partial(_intake, frame, plan, tenant))
        columns = turn(
            "columns", partial(span_columns, frame, plan, interner, tenant, frame.records.timestamp_ms, measured)
        )
        turn("span metrics", partial(spans.fold, columns))
        turn("service graphs", partial(graphs.fold, columns))


def whole(tenants: TenantSettings, records: list[Record], turn: Clock) -> None:
    """The same window through `PartitionFold`, and encoded."""
    fold = PartitionFold(lambda _: tenants, INTERVAL_MS, Codec.OTLP, max_frame_bytes=FRAME_BYTES)
    turn("fold", partial(fold.feed, records))
    after = tick(len(records), 0)._replace(timestamp_ms=START_MS + INTERVAL_MS)
    fed = turn("close", partial(fold.feed, [after]))
    turn("encode", partial(encode_window, fed.closings[0].windows[0], 0, 4, 4))


def measure(tenants: TenantSettings, values: list[bytes], seconds: float) -> dict[str, float]:
    """Spans per CPU-second of each step."""
    records = records_of(values)
    times: dict[str, list[float]] = {}
    spans = sum(len(frame.spans.kind) for frame in frames_of(records, ("service.name",)))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        clock = Clock()
        steps(tenants, records, clock)
        whole(tenants, records, clock)
        for name, spent in clock.seconds.items():
            times.setdefault(name, []).append(spent)
    return {name: spans / median(all_times) for name, all_times in times.items()}


def _intake(frame: SpanFrame, plan: Plan, tenant: np.ndarray) -> None:
    count_intake(LedgerCounts(), frame, plan, tenant, within_slack(frame, plan, tenant))


def main(seconds: float = 4.0) -> None:
    """Print a line per input."""
    inputs = {
        "200 spans a record": (TENANTS, span_records(1, SPANS // 200)),
        "200 spans a record, dimensions": (DIMENSIONS, span_records(1, SPANS // 200)),
        "one trace a record": (TENANTS, trace_records(2, SPANS // 8)),
    }
    measure(TENANTS, inputs["200 spans a record"][1][:10], 0.1)  # compile
    for name, (tenants, values) in inputs.items():
        rates = measure(tenants, values, seconds)
        shown = ", ".join(f"{step} {rate / 1e6:.2f} M" for step, rate in rates.items())
        print(f"{name}: {shown} spans per CPU-second")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
