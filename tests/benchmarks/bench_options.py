"""What each option costs: µs of CPU a span from records to samples, and the ratio to the plain run beside it.

`python -m tests.benchmarks.bench_options [seconds an option]`. A turn is two windows of 40,000 spans each through a
partition's fold, its batches' bytes and a shard; the plain run's turns and the option's alternate, and a figure is the
median of its turns. The generator's half is scan, fold, close and encoding; the sink's is decoding and the registry.
"""

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.config import (
    DimensionMappingSettings,
    FilterPolicySettings,
    HistogramSettings,
    HostInfoSettings,
    LimitSettings,
    MultiplierSettings,
    PolicyPartSettings,
    TenantSettings,
)
from schemas.deltas import decode_batch, encode_window
from schemas.otlp import Codec
from schemas.record import Record
from streams.partition import PartitionFold
from streams.shard import Shard
from tests.otlp_samples import START_NS, span_records
from tests.streams.log import settings, tick

SPANS, WINDOWS = 40_000, 2
INTERVAL_MS = 15_000
START_MS = START_NS // 1_000_000 // INTERVAL_MS * INTERVAL_MS

PLAIN = settings(span_metrics={}, service_graphs={"max_items": 100_000}, slack_ns=10**18)
TEN_DIMENSIONS = (
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "url.scheme",
    "server.address",
    "network.protocol.version",
    "db.system",
    "db.operation",
    "messaging.system",
    "deployment.environment",
)
FILTERS = (
    FilterPolicySettings(
        include=PolicyPartSettings(True, (("kind", "SPAN_KIND_.*"), ("resource.service.name", "^[a-z]+$"))),
        include_any=None,
        exclude=PolicyPartSettings(False, (("span.url.scheme", "gopher"), ("resource.host.name", "nowhere"))),
    ),
)
MAPPINGS = (
    DimensionMappingSettings("call", ("http.request.method", "http.route"), " "),
    DimensionMappingSettings("statement", ("db.system", "db.name", "db.operation"), "/"),
)


@dataclass(frozen=True)
class Option:
    """Settings and records that show what something costs, against plain settings on the same records."""

    name: str
    tenants: TenantSettings
    values: list[bytes]


def span_metrics(**changes: object) -> TenantSettings:
    """The plain settings with these of span metrics."""
    assert PLAIN.span_metrics is not None
    return replace(PLAIN, span_metrics=replace(PLAIN.span_metrics, **changes))  # type: ignore[arg-type]


def both(**changes: object) -> TenantSettings:
    """The plain settings with these of both processors."""
    made = span_metrics(**changes)
    assert made.service_graphs is not None
    return replace(made, service_graphs=replace(made.service_graphs, **changes))  # type: ignore[arg-type]


def renamed(values: list[bytes], name: Callable[[random.Random], str]) -> list[bytes]:
    """The records with other span names."""
    rng, out = random.Random(7), []
    for value in values:
        message = TracesData.FromString(value)
        for span in (s for r in message.resource_spans for scope in r.scope_spans for s in scope.spans):
            span.name = name(rng)
        out.append(message.SerializeToString())
    return out


def traced(values: list[bytes]) -> list[bytes]:
    """The records with a trace state of its own in every span, as a probability sampler writes it."""
    rng, out = random.Random(8), []
    for value in values:
        message = TracesData.FromString(value)
        for span in (s for r in message.resource_spans for scope in r.scope_spans for s in scope.spans):
            span.trace_state = f"ot=rv:{rng.getrandbits(56):014x};th:4"
        out.append(message.SerializeToString())
    return out


def options() -> list[Option]:
    """Everything that is measured."""
    values = span_records(1, SPANS // 200)
    # Of 8 services and kinds each: 5,000 label sets with 17 series of the histogram, calls and size, 95,000 in all.
    many = renamed(values, lambda rng: f"operation {rng.randrange(625)}")
    users = renamed(values, lambda rng: f"GET /api/users/{rng.randrange(625)}/orders")
    return [
        Option("plain, again", PLAIN, values),
        Option("two mappings", span_metrics(dimension_mappings=MAPPINGS), values),
        Option("filters", both(filter_policies=FILTERS), values),
        Option("multiplier by attribute", both(multiplier=MultiplierSettings("app.basket.total")), values),
        Option("multiplier by trace state", both(multiplier=MultiplierSettings(tracestate=True)), traced(values)),
        Option("10 dimensions", span_metrics(dimensions=TEN_DIMENSIONS), values),
        Option("target_info", span_metrics(enable_target_info=True), values),
        Option("host info", replace(PLAIN, host_info=HostInfoSettings(("host.name",), "traces_host_info")), values),
        Option("native", replace(PLAIN, histograms=HistogramSettings(classic=False, native=True)), values),
        Option("native and classic", replace(PLAIN, histograms=HistogramSettings(native=True)), values),
        Option("100,000 series", PLAIN, many),
        Option("DRAIN, 625 names", replace(PLAIN, limits=LimitSettings(span_name_sanitization="enabled")), users),
        Option("per-label limiter", replace(PLAIN, limits=LimitSettings(max_cardinality_per_label=200)), users),
    ]


def turn(tenants: TenantSettings, values: list[bytes]) -> tuple[float, float]:
    """µs a span of generator and sink."""
    fold = PartitionFold(lambda _: tenants, INTERVAL_MS, Codec.OTLP, max_frame_bytes=4 << 20)
    shard = Shard(0, lambda _: tenants, INTERVAL_MS)
    spent, offset, delta_offset = [0.0, 0.0], 0, 0
    for window in range(WINDOWS):
        start_ms = START_MS + window * INTERVAL_MS
        records = [Record(offset + i, start_ms, value) for i, value in enumerate(values)]
        offset += len(records) + 1
        closing = tick(offset - 1, 0)._replace(timestamp_ms=start_ms + INTERVAL_MS)
        started = time.process_time()
        fold.feed(records)
        closed = [window for closing in fold.feed([closing]).closings for window in closing.windows]
        parts = [part for window in closed for part in encode_window(window, 0, 1, 1)[0]]
        folded = time.process_time()
        for part in parts:
            shard.feed(delta_offset, decode_batch(part))
            delta_offset += 1
        spent[0] += folded - started
        spent[1] += time.process_time() - folded
    return spent[0] / SPANS / WINDOWS * 1e6, spent[1] / SPANS / WINDOWS * 1e6


def main(seconds: float = 6.0) -> None:
    """Print a line per option."""
    print("µs of CPU a span     generator   sink   | plain on the same spans | generator   sink")
    for option in options():
        turn(option.tenants, option.values[:10])  # compile
        plain: list[tuple[float, float]] = []
        own: list[tuple[float, float]] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            plain.append(turn(PLAIN, option.values))
            own.append(turn(option.tenants, option.values))
        (g0, s0), (g1, s1) = ([median(times) for times in zip(*turns, strict=True)] for turns in (plain, own))
        print(f"{option.name:25} {g1:5.2f} {s1:8.3f}   | {g0:9.2f} {s0:8.3f}      | {g1 / g0:8.2f}x {s1 / s0:6.2f}x")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
