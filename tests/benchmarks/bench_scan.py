"""Spans per CPU-second of the scan, beside protobuf's own parser (upb) on the same bytes in the same run.

`python -m tests.benchmarks.bench_scan [seconds]`. The two take turns, so that both see the same machine; the figures
are of process CPU time. `scan` is the kernel alone, `frame` all of `scan_records`.
"""

import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from agents.memory import keep_freed_memory
from schemas.otlp import Codec, scan_records
from schemas.otlp.scan import scan_values
from schemas.record import Record
from tests.otlp_samples import descending, reencode, span_records, trace_records

KEYS = (
    "service.name",
    "service.namespace",
    "service.instance.id",
    "peer.service",
    "server.address",
    "network.peer.address",
    "network.peer.port",
    "db.name",
    "db.system",
    "db.namespace",
    "db.system.name",
    "http.request.method",
    "http.response.status_code",
    "messaging.system",
    "messaging.destination.name",
)

SPANS = 40_000
CHUNK_BYTES = 4 << 20
"""Records are scanned in chunks of this size: the generator's default."""


def inputs() -> dict[str, list[bytes]]:
    """Records by what they are like; about as many spans in each."""
    large, small = span_records(1, SPANS // 200), trace_records(2, SPANS // 8)
    backwards = [reencode(TracesData.FromString(value), descending) for value in large]
    return {"200 spans": large, "one trace": small, "200 spans, descending": backwards}


def cpu_seconds(function: Callable[[], object]) -> float:
    """The CPU time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def parse(values: list[bytes]) -> None:
    """Protobuf's own parser on every value."""
    for value in values:
        TracesData.FromString(value)


def chunks(values: list[bytes]) -> Iterator[list[bytes]]:
    """The values in chunks of at most `CHUNK_BYTES`."""
    chunk: list[bytes] = []
    size = 0
    for value in values:
        if size + len(value) > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(value)
        size += len(value)
    yield chunk


def measure(values: list[bytes], seconds: float) -> dict[str, float]:
    """Spans per CPU-second of each, and the median of the ratios in each turn."""
    batches = [[Record(i, 0, value) for i, value in enumerate(chunk)] for chunk in chunks(values)]
    joined = [np.frombuffer(bytearray().join(chunk), np.uint8) for chunk in chunks(values)]
    bounds = [np.cumsum([0, *map(len, chunk)], dtype=np.int64) for chunk in chunks(values)]
    spans = sum(len(scan_records(batch, KEYS, Codec.OTLP).spans.kind) for batch in batches)

    def scan() -> None:
        for data, positions in zip(joined, bounds, strict=True):
            scan_values(data, positions, KEYS, Codec.OTLP)

    def frame() -> None:
        for batch in batches:
            scan_records(batch, KEYS, Codec.OTLP)

    turns: dict[str, list[float]] = {"scan": [], "frame": [], "FromString": []}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        turns["scan"].append(cpu_seconds(scan))
        turns["frame"].append(cpu_seconds(frame))
        turns["FromString"].append(cpu_seconds(lambda: parse(values)))
    rates = {name: spans / median(times) for name, times in turns.items()}
    for name in ("scan", "frame"):
        rates[f"{name} ratio"] = median(b / a for a, b in zip(turns[name], turns["FromString"], strict=True))
    return rates | {"bytes a span": sum(map(len, values)) / spans}


def main(seconds: float = 4.0) -> None:
    """Print a line per input."""
    keep_freed_memory()
    print(f"{'input':24}{'bytes/span':>11}{'scan':>12}{'frame':>12}{'FromString':>12}{'scan x':>8}{'frame x':>8}")
    for name, values in inputs().items():
        rates = measure(values, seconds)
        print(
            f"{name:24}{rates['bytes a span']:11.0f}{rates['scan']:12,.0f}{rates['frame']:12,.0f}"
            f"{rates['FromString']:12,.0f}{rates['scan ratio']:8.2f}{rates['frame ratio']:8.2f}"
        )


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
