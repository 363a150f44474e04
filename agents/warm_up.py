"""Compile the kernels, or load them from numba's cache, before a stage says that it is ready."""

from functools import cache

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from schemas.checkpoint import decode_checkpoint, encode_checkpoint
from schemas.config import Config, TenantSettings, tenant_settings
from schemas.otlp import Codec
from schemas.record import Record
from schemas.varint import uvarint
from streams.partition import PartitionFold
from streams.pipeline import Pipeline
from streams.shard import WindowSamples
from streams.windows import window_end

TIME_MS = 1_700_000_000_000
NS_PER_MS = 1_000_000
SPANS = 100
"""Of each kind: more than the tables begin with."""

EVERY_KERNEL = (
    # What any tenant may switch on.
    """
metrics_generator:
  processor:
    span_metrics:
      enable_target_info: true
      span_multiplier_key: sampling.ratio
      enable_tracestate_span_multiplier: true
      filter_policies: [{exclude: {match_type: strict, attributes: [{key: span.number, value: 1}]}}]
overrides:
  defaults:
    metrics_generator:
      processors: [service-graphs, span-metrics, host-info]
      generate_native_histograms: both
      max_cardinality_per_label: 1000
""",
    # Sides of edges that are remembered because a filter dropped them, in Tempo's own records.
    """
metrics_generator:
  codec: push-bytes
  processor:
    service_graphs:
      filter_policies: [{exclude: {match_type: strict, attributes: [{key: kind, value: SPAN_KIND_SERVER}]}}]
overrides:
  defaults:
    metrics_generator:
      processors: [service-graphs]
""",
)
"""Configurations that need every kernel between them."""


def warm_up(config: Config) -> int:
    """Send a few spans through the whole path, as the configuration has it; gives the number of samples."""
    samples = 0

    def count(window: WindowSamples) -> None:
        nonlocal samples
        samples += sum(len(each.values) for each in window.tenants)

    @cache
    def settings_of(tenant: str) -> TenantSettings:
        return tenant_settings(config, tenant)

    codec = Codec(config.metrics_generator.codec)
    interval_ms = config.metrics_generator.registry.collection_interval_ms
    # At windows' last moments, when none of their half-edges is due yet.
    end_ms = window_end(TIME_MS, interval_ms)
    written = [_record(offset, end_ms + offset * interval_ms - 1, codec) for offset in range(2)]
    pipeline = Pipeline(settings_of, interval_ms, codec, count, shards=2)
    pipeline.feed(0, written)
    pipeline.close()
    # Columns that were read from a checkpoint are of other types to a kernel: they can't be written.
    (closing,) = PartitionFold(settings_of, interval_ms, codec).feed(written).closings
    checkpoint = decode_checkpoint(encode_checkpoint(closing.checkpoint))
    PartitionFold(settings_of, interval_ms, codec, checkpoint).feed(written[1:])
    return samples


def _record(offset: int, timestamp_ms: int, codec: Codec) -> Record:
    """Spans of a client and of a server: the first of each belong together, the others wait."""
    value = b"".join(
        _field(1, _resource_spans(f"service-{kind}", [_span(number, kind, timestamp_ms) for number in range(SPANS)]))
        for kind in (Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER)
    )
    return Record(offset, timestamp_ms, value if codec is Codec.OTLP else _field(2, value))


def _span(number: int, kind: Span.SpanKind.ValueType, end_ms: int) -> Span:
    return Span(
        trace_id=bytes([number + 1, kind if number else 0]) * 8,
        span_id=bytes([kind]) * 8,
        parent_span_id=bytes([Span.SPAN_KIND_CLIENT]) * 8 if kind == Span.SPAN_KIND_SERVER else b"",
        name="warm-up",
        kind=kind,
        start_time_unix_nano=(end_ms - 100) * NS_PER_MS,
        end_time_unix_nano=end_ms * NS_PER_MS,
    )


def _resource_spans(service: str, spans: list[Span]) -> bytes:
    """As no library writes it: another field stands between the resource's attributes."""
    attributes = (
        Resource(attributes=[KeyValue(key=key, value=AnyValue(string_value=service))])
        for key in ("service.name", "host.name")
    )
    between = Resource(dropped_attributes_count=1).SerializeToString()
    resource = between.join(map(Resource.SerializeToString, attributes))
    return _field(1, resource) + _field(2, ScopeSpans(spans=spans).SerializeToString())


def _field(number: int, value: bytes) -> bytes:
    """A field of a message that holds bytes."""
    return uvarint(number << 3 | 2) + uvarint(len(value)) + value
