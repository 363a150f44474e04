"""Names of OTLP over gRPC and HTTP that both ends use."""

EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
"""The gRPC method that takes spans."""

ORG_ID_HEADER = "x-scope-orgid"
"""The tenant, as HTTP header and as gRPC metadata: case-insensitive, in gRPC lower-case on the wire."""

NO_METRICS_HEADER = "no-generate-metrics"
"""Its presence asks for spans to be stored and not measured (Tempo INT-8)."""
