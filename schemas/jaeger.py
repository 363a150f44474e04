"""Jaeger's spans as OTLP, the way the OpenTelemetry Collector's receiver turns them (Tempo DIST-2).

Clients send Thrift over HTTP, agents protobuf over gRPC: both are read into the same message.
"""

from collections.abc import Iterable, MutableMapping, Sequence
from enum import StrEnum
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.common.v1.common_pb2 import KeyValue as OtlpKeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Status, TracesData
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from schemas.errors import Malformed
from schemas.jaeger_pb2 import BINARY, BOOL, CHILD_OF, FLOAT64, INT64, Batch, KeyValue, Log, PostSpansRequest, Process
from schemas.jaeger_pb2 import Span as JaegerSpan
from schemas.thrift import Fields, ThriftReader

US = 1_000
"""Nanoseconds: times in Thrift are in microseconds."""

KINDS = {
    "client": OtlpSpan.SPAN_KIND_CLIENT,
    "server": OtlpSpan.SPAN_KIND_SERVER,
    "producer": OtlpSpan.SPAN_KIND_PRODUCER,
    "consumer": OtlpSpan.SPAN_KIND_CONSUMER,
    "internal": OtlpSpan.SPAN_KIND_INTERNAL,
}
STATUS_CODES = {"OK": Status.STATUS_CODE_OK, "ERROR": Status.STATUS_CODE_ERROR}

# Tags in which others keep what Jaeger has no field for.
SPAN_KIND, ERROR, TRACE_STATE, EVENT = "span.kind", "error", "w3c.tracestate", "event"
SCOPE_NAMES, SCOPE_VERSIONS = ("otel.scope.name", "otel.library.name"), ("otel.scope.version", "otel.library.version")
STATUS_CODE, STATUS_DESCRIPTION = "otel.status_code", "otel.status_description"
HTTP_STATUS_CODE, HTTP_STATUS_MESSAGE = "http.status_code", "http.status_message"
REFERENCE = "opentracing.ref_type"
NO_SERVICE_NAME = "OTLPResourceNoServiceName"


class JaegerReason(StrEnum):
    """Why a request was refused."""

    BATCH = "jaeger_batch"
    """Fields of other types than those of Jaeger's batch."""
    REQUEST = "jaeger_request"
    """No PostSpansRequest."""
    SPAN = "jaeger_span"
    """No Span."""


def batch_of_request(body: bytes) -> Batch:
    """The batch of a PostSpansRequest. Raises Malformed."""
    try:
        return PostSpansRequest.FromString(body).batch
    except DecodeError as error:
        raise Malformed(JaegerReason.REQUEST, "not a PostSpansRequest") from error


def batch_of_span(body: bytes) -> Batch:
    """A batch of one Span, which has its process with it. Raises Malformed."""
    try:
        return Batch(spans=[JaegerSpan.FromString(body)])
    except DecodeError as error:
        raise Malformed(JaegerReason.SPAN, "not a Span") from error


def batch_of_thrift(body: bytes) -> Batch:
    """A batch in Thrift's binary protocol. Raises Malformed."""
    fields = ThriftReader(body).struct()
    try:
        batch = Batch(spans=[_thrift_span(span) for span in fields.get(2, ())])
        if 1 in fields:
            batch.process.service_name = fields[1].get(1, b"").decode()
            batch.process.tags.extend(map(_thrift_tag, fields[1].get(2, ())))
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise Malformed(JaegerReason.BATCH, str(error)) from error
    return batch


def _thrift_span(fields: Fields) -> JaegerSpan:
    trace_id = _trace_id(fields)
    span = JaegerSpan(trace_id=trace_id, span_id=_eight(fields.get(3, 0)), flags=fields.get(7, 0) & 0xFFFFFFFF)
    span.operation_name = fields.get(5, b"").decode()
    parent = fields.get(4, 0)
    if parent:
        span.references.add(trace_id=trace_id, span_id=_eight(parent), ref_type=CHILD_OF)
    for each in fields.get(6, ()):
        # The parent is in a field of its own already.
        if not (parent and each.get(1, 0) == CHILD_OF and each.get(4, 0) == parent):
            span.references.add(
                trace_id=_eight(each.get(3, 0)) + _eight(each.get(2, 0)),
                span_id=_eight(each.get(4, 0)),
                ref_type=each.get(1, 0),
            )
    span.start_time.FromMicroseconds(fields.get(8, 0))
    span.duration.FromMicroseconds(fields.get(9, 0))
    span.tags.extend(map(_thrift_tag, fields.get(10, ())))
    for each in fields.get(11, ()):
        log = Log(fields=map(_thrift_tag, each.get(2, ())))
        log.timestamp.FromMicroseconds(each.get(1, 0))
        span.logs.append(log)
    return span


def _trace_id(fields: Fields) -> bytes:
    return _eight(fields.get(2, 0)) + _eight(fields.get(1, 0))


def _eight(number: int) -> bytes:
    return number.to_bytes(8, "big", signed=True)


def _thrift_tag(fields: Fields) -> KeyValue:
    """Thrift numbers the types of tags otherwise than protobuf."""
    tag = KeyValue(key=fields.get(1, b"").decode())
    kind = fields.get(2, 0)
    if kind == 0:
        tag.v_str = fields.get(3, b"").decode(errors="replace")
    elif kind == 1:
        tag.v_type, tag.v_float64 = FLOAT64, fields.get(4, 0.0)
    elif kind == 2:
        tag.v_type, tag.v_bool = BOOL, fields.get(5, False)
    elif kind == 3:
        tag.v_type, tag.v_int64 = INT64, fields.get(6, 0)
    else:
        tag.v_type, tag.v_binary = BINARY, fields.get(7, b"")
    return tag


def traces_data(batch: Batch) -> TracesData:
    """A batch's spans: those with a process of their own have a resource of their own."""
    message = TracesData()
    scopes: dict[tuple[bytes, str, str], ScopeSpans] = {}
    resources: dict[bytes, Any] = {}
    for jaeger in batch.spans:
        process = jaeger.process if jaeger.HasField("process") else batch.process
        key = process.SerializeToString(deterministic=True)
        if key not in resources:
            resources[key] = message.resource_spans.add()
            resources[key].resource.attributes.extend(_resource(process))
        tags = _attributes(jaeger.tags)
        scope = (key, _taken_text(tags, SCOPE_NAMES), _taken_text(tags, SCOPE_VERSIONS))
        if scope not in scopes:
            scopes[scope] = resources[key].scope_spans.add()
            scopes[scope].scope.name, scopes[scope].scope.version = scope[1:]
        _fill(scopes[scope].spans.add(), jaeger, tags)
    return message


def _resource(process: Process) -> Iterable[OtlpKeyValue]:
    attributes: dict[str, AnyValue] = {}
    if process.service_name not in {"", NO_SERVICE_NAME}:
        attributes["service.name"] = AnyValue(string_value=process.service_name)
    attributes |= _attributes(process.tags)
    if "hostname" in attributes and "host.name" not in attributes:
        attributes["host.name"] = attributes.pop("hostname")
    if "jaeger.version" in attributes and "opencensus.exporterversion" not in attributes:
        version = attributes.pop("jaeger.version").string_value
        attributes["opencensus.exporterversion"] = AnyValue(string_value=f"Jaeger-{version}")
    return _key_values(attributes)


def _fill(span: OtlpSpan, jaeger: JaegerSpan, tags: MutableMapping[str, AnyValue]) -> None:
    span.trace_id, span.span_id, span.name = jaeger.trace_id.rjust(16, b"\0"), jaeger.span_id, jaeger.operation_name
    start_ns = jaeger.start_time.ToNanoseconds()
    span.start_time_unix_nano = max(start_ns, 0)
    span.end_time_unix_nano = max(start_ns + jaeger.duration.ToNanoseconds(), 0)
    parent = next(
        (each.span_id for each in jaeger.references if each.ref_type == CHILD_OF and _same_trace(each, jaeger)), b""
    )
    if any(parent):
        span.parent_span_id = parent
    span.kind = KINDS.get(_taken_text(tags, (SPAN_KIND,)), OtlpSpan.SPAN_KIND_UNSPECIFIED)
    _set_status(span, tags)
    span.trace_state = _taken_text(tags, (TRACE_STATE,))
    span.attributes.extend(_key_values(tags))
    for log in jaeger.logs:
        fields = _attributes(log.fields)
        event = span.events.add(time_unix_nano=max(log.timestamp.ToNanoseconds(), 0))
        event.name = _taken_text(fields, (EVENT,))
        event.attributes.extend(_key_values(fields))
    for each in jaeger.references:
        if not (each.ref_type == CHILD_OF and each.span_id == parent):
            link = span.links.add(trace_id=each.trace_id.rjust(16, b"\0"), span_id=each.span_id)
            kind = "child_of" if each.ref_type == CHILD_OF else "follows_from"
            link.attributes.add(key=REFERENCE).value.string_value = kind


def _same_trace(reference: Any, span: JaegerSpan) -> bool:
    return bool(reference.trace_id.rjust(16, b"\0") == span.trace_id.rjust(16, b"\0"))


def _set_status(span: OtlpSpan, tags: MutableMapping[str, AnyValue]) -> None:
    """The status, whose truth is the tag `error`, then OpenTelemetry's own, then HTTP's."""
    code = tags.pop(STATUS_CODE, None)
    error = tags.get(ERROR)
    if error is not None and error.bool_value:
        del tags[ERROR]
        span.status.code = Status.STATUS_CODE_ERROR
        message = _taken_text(tags, (STATUS_DESCRIPTION,)) or _text(tags, HTTP_STATUS_MESSAGE)
        span.status.message = message
    elif code is not None:
        span.status.code = STATUS_CODES.get(code.string_value.upper(), Status.STATUS_CODE_UNSET)
        span.status.message = _taken_text(tags, (STATUS_DESCRIPTION,))
    elif _is_http_error(tags.get(HTTP_STATUS_CODE), span.kind):
        span.status.code = Status.STATUS_CODE_ERROR
        span.status.message = _text(tags, HTTP_STATUS_MESSAGE)


def _is_http_error(value: AnyValue | None, kind: "OtlpSpan.SpanKind.ValueType") -> bool:
    """Whether an HTTP status is one: a client's mistake is none of the server's."""
    if value is None:
        return False
    try:
        code = int(value.string_value) if value.HasField("string_value") else value.int_value
    except ValueError:
        return False
    if 400 <= code < 500:
        return kind != OtlpSpan.SPAN_KIND_SERVER
    return not 100 <= code < 400


def _attributes(tags: Sequence[KeyValue]) -> dict[str, AnyValue]:
    """By key; the last one counts."""
    return {tag.key: _any_value(tag) for tag in tags}


def _any_value(tag: KeyValue) -> AnyValue:
    if tag.v_type == BOOL:
        return AnyValue(bool_value=tag.v_bool)
    if tag.v_type == INT64:
        return AnyValue(int_value=tag.v_int64)
    if tag.v_type == FLOAT64:
        return AnyValue(double_value=tag.v_float64)
    if tag.v_type == BINARY:
        return AnyValue(bytes_value=tag.v_binary)
    return AnyValue(string_value=tag.v_str)


def _text(tags: MutableMapping[str, AnyValue], key: str) -> str:
    value = tags.get(key)
    return "" if value is None else value.string_value


def _taken_text(tags: MutableMapping[str, AnyValue], keys: Sequence[str]) -> str:
    """The text of the first of the keys that has one; all of them are taken out."""
    texts = [tags.pop(key, AnyValue()).string_value for key in keys]
    return next(filter(None, texts), "")


def _key_values(attributes: MutableMapping[str, AnyValue]) -> Iterable[OtlpKeyValue]:
    return (OtlpKeyValue(key=key, value=value) for key, value in attributes.items())
