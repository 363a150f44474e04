"""Compile the kernels, or load them from numba's cache, before a stage says that it is ready."""

from functools import cache

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from schemas.config import Config, TenantSettings, tenant_settings
from schemas.otlp import Codec
from schemas.record import Record
from streams.pipeline import Pipeline
from streams.shard import WindowSamples

TIME_MS = 1_700_000_000_000
NS_PER_MS = 1_000_000


def warm_up(config: Config) -> int:
    """Send one trace through the whole path, as the configuration has it; gives the number of samples."""
    samples = 0

    def count(window: WindowSamples) -> None:
        nonlocal samples
        samples += sum(len(each.values) for each in window.tenants)

    @cache
    def settings_of(tenant: str) -> TenantSettings:
        return tenant_settings(config, tenant)

    interval_ms = config.metrics_generator.registry.collection_interval_ms
    pipeline = Pipeline(settings_of, interval_ms, Codec.OTLP, count, shards=2)
    pipeline.feed(0, [Record(0, TIME_MS, trace())])
    pipeline.close()
    return samples


def trace() -> bytes:
    """A client's span and a server's, of two services."""
    spans = [
        Span(
            trace_id=bytes(range(16)),
            span_id=bytes(range(side, side + 8)),
            parent_span_id=b"" if side == 1 else bytes(range(1, 9)),
            name="warm-up",
            kind=kind,
            start_time_unix_nano=(TIME_MS - 100) * NS_PER_MS,
            end_time_unix_nano=TIME_MS * NS_PER_MS,
        )
        for side, kind in ((1, Span.SPAN_KIND_CLIENT), (2, Span.SPAN_KIND_SERVER))
    ]
    return TracesData(
        resource_spans=[_resource_spans(f"service-{i}", span) for i, span in enumerate(spans)]
    ).SerializeToString()


def _resource_spans(service: str, span: Span) -> ResourceSpans:
    name = KeyValue(key="service.name", value=AnyValue(string_value=service))
    return ResourceSpans(resource=Resource(attributes=[name]), scope_spans=[ScopeSpans(spans=[span])])
