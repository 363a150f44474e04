"""Zipkin's spans (v2, JSON) as OTLP, the way the OpenTelemetry Collector's receiver turns them (Tempo DIST-2).

Spans of one service and one set of resource tags share a resource; the Collector takes such tags from a service's first
span only and drops them from the others.
"""

import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status, TracesData

from schemas.errors import Malformed
from schemas.json_elements import elements

US = 1_000
"""Nanoseconds: Zipkin's times are in microseconds."""

KINDS = {
    "CLIENT": Span.SPAN_KIND_CLIENT,
    "SERVER": Span.SPAN_KIND_SERVER,
    "PRODUCER": Span.SPAN_KIND_PRODUCER,
    "CONSUMER": Span.SPAN_KIND_CONSUMER,
}
STATUS_CODES = {name: getattr(Status, name) for name in ("STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR")}

# Tags in which OpenTelemetry's exporters keep what Zipkin has no field for.
SCOPE_NAMES, SCOPE_VERSIONS = ("otel.scope.name", "otel.library.name"), ("otel.scope.version", "otel.library.version")
STATUS_CODE, STATUS_DESCRIPTION, ERROR = "otel.status_code", "otel.status_description", "error"
TRACE_STATE, SPAN_KIND = "w3c.tracestate", "span.kind"
SERVICE_NAME_SOURCE, NO_SERVICE_NAME = "otlp.service.name.source", "OTLPResourceNoServiceName"
LINK = "otlp.link."
MOST_LINKS = 128
LONGEST_SPAN = 1 << 20
"""In bytes: about what a record can hold. It takes twenty times the memory before it is a span."""
START_ABSENT = "otel.zipkin.absentField.startTime"

RESOURCE_TAGS = (
    *("aws.ecs.", "aws.eks.", "aws.log.", "cloud.", "container.", "deployment.", "device.", "faas.instance"),
    *("faas.max_memory", "faas.name", "faas.version", "host.", "k8s.", "os.", "process.", "service.", "telemetry."),
    "webengine.",
)
"""How the names of resource attributes begin."""


class ZipkinReason(StrEnum):
    """Why a request was refused."""

    JSON = "json"
    """Not JSON, or no list of objects."""
    SPAN = "zipkin_span"
    """An object that is no span."""


class Group(NamedTuple):
    """What the spans of a ScopeSpans have in common."""

    resource: tuple[tuple[str, str], ...]
    scope: tuple[str, str]


def traces_data(body: bytes, *, parse_string_tags: bool = False) -> TracesData:
    """A request's spans, in the order of their groups' first ones. Raises Malformed.

    `parse_string_tags`: tags that look like numbers or booleans become such.
    """
    message = TracesData()
    groups: dict[Group, ScopeSpans] = {}
    resources: dict[tuple[tuple[str, str], ...], Any] = {}
    for number, zipkin in enumerate(_objects(body)):
        try:
            tags = {str(key): str(value) for key, value in (zipkin.get("tags") or {}).items()}
            group = _group(zipkin, tags)
            spans = groups.get(group)
            if spans is None:
                if group.resource not in resources:
                    resources[group.resource] = message.resource_spans.add()
                    attributes = resources[group.resource].resource.attributes
                    attributes.extend(KeyValue(key=key, value=_text(value)) for key, value in group.resource)
                spans = groups[group] = resources[group.resource].scope_spans.add()
                spans.scope.name, spans.scope.version = group.scope
            _fill(spans.spans.add(), zipkin, tags, parse_string_tags=parse_string_tags)
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
            raise Malformed(ZipkinReason.SPAN, f"span {number}: {error}") from error
    return message


def _objects(body: bytes) -> Iterator[Mapping[str, Any]]:
    for text in elements(body, LONGEST_SPAN):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Malformed(ZipkinReason.JSON, str(error)) from error
        if not isinstance(found, dict):
            raise Malformed(ZipkinReason.JSON, "not a list of spans")
        yield found


def _group(zipkin: Mapping[str, Any], tags: dict[str, str]) -> Group:
    """The group of a span; its tags lose what goes there."""
    service = str((zipkin.get("localEndpoint") or {}).get("serviceName") or NO_SERVICE_NAME)
    resource: list[tuple[str, str]] = []
    source = tags.pop(SERVICE_NAME_SOURCE, "")
    if service != NO_SERVICE_NAME:
        resource.append((source or "service.name", service))
    named = {name for name, _ in resource}
    for key in sorted(key for key in tags if key.startswith(RESOURCE_TAGS)):
        value = tags.pop(key)
        if key not in named:
            resource.append((key, value))
    return Group(tuple(resource), (_first(tags, SCOPE_NAMES), _first(tags, SCOPE_VERSIONS)))


def _first(tags: dict[str, str], names: Sequence[str]) -> str:
    """The value of the first of the names that is there; all of them are taken out."""
    values = [tags.pop(name, "") for name in names]
    return next(filter(None, values), "")


def _fill(span: Span, zipkin: Mapping[str, Any], tags: dict[str, str], *, parse_string_tags: bool) -> None:
    span.trace_id = _trace_id(str(zipkin["traceId"]))
    span.span_id = _span_id(str(zipkin["id"]))
    parent = str(zipkin.get("parentId") or "")
    if parent and _span_id(parent) != span.span_id:  # a shared span's own ID isn't its parent
        span.parent_span_id = _span_id(parent)
    span.trace_state = tags.pop(TRACE_STATE, "")
    span.name = str(zipkin.get("name") or "")
    span.kind = _kind(zipkin, tags)
    _set_status(span.status, tags)
    _add_links(span, tags)
    start_us, duration_us = int(zipkin.get("timestamp") or 0), int(zipkin.get("duration") or 0)
    span.start_time_unix_nano = start_us * US
    span.end_time_unix_nano = (start_us + duration_us) * US
    _add_attributes(span, zipkin, tags, parse_string_tags=parse_string_tags)
    if not start_us:
        span.attributes.add(key=START_ABSENT).value.bool_value = True
    for annotation in zipkin.get("annotations") or ():
        _add_event(span, int(annotation.get("timestamp") or 0), str(annotation.get("value") or ""))


def _trace_id(text: str) -> bytes:
    """16 bytes: Zipkin's older IDs have half of them."""
    if not 0 < len(text) <= 32:
        raise ValueError(f"traceId {text!r} isn't of up to 32 hexadecimal digits")
    return bytes.fromhex(text.rjust(32, "0"))


def _span_id(text: str) -> bytes:
    if not 0 < len(text) <= 16:
        raise ValueError(f"id {text!r} isn't of up to 16 hexadecimal digits")
    return bytes.fromhex(text.rjust(16, "0"))


def _kind(zipkin: Mapping[str, Any], tags: dict[str, str]) -> "Span.SpanKind.ValueType":
    kind = KINDS.get(str(zipkin.get("kind") or "").upper())
    if kind is not None:
        return kind
    internal = tags.pop(SPAN_KIND, "") == "internal"
    return Span.SPAN_KIND_INTERNAL if internal else Span.SPAN_KIND_UNSPECIFIED


def _set_status(status: Status, tags: dict[str, str]) -> None:
    code = tags.pop(STATUS_CODE, None)
    if code is not None:
        status.code = STATUS_CODES.get(code, STATUS_CODES.get(f"STATUS_CODE_{code}", Status.STATUS_CODE_UNSET))
        status.message = tags.pop(STATUS_DESCRIPTION, "")
    if tags.get(ERROR) == "true":
        status.code = Status.STATUS_CODE_ERROR
        del tags[ERROR]


def _add_links(span: Span, tags: dict[str, str]) -> None:
    """Links as OpenTelemetry's exporter writes them: `trace|span|state|attributes|dropped` in numbered tags."""
    for number in range(MOST_LINKS):
        value = tags.pop(f"{LINK}{number}", None)
        if value is None:
            return
        parts = value.split("|")
        if len(parts) < 5:
            continue
        link = span.links.add(trace_id=bytes.fromhex(parts[0].strip('"')), span_id=bytes.fromhex(parts[1].strip('"')))
        link.trace_state = parts[2]
        link.attributes.extend(_json_attributes("|".join(parts[3:-1])))
        link.dropped_attributes_count = int(parts[-1])


def _add_event(span: Span, at_us: int, text: str) -> None:
    """An annotation is a text, or `name|attributes|dropped` of OpenTelemetry's exporter."""
    event = span.events.add(time_unix_nano=at_us * US)
    parts = text.split("|")
    attributes: list[KeyValue] | None = None
    if len(parts) >= 3 and parts[-1].isdigit():
        with suppress(ValueError, TypeError):
            attributes = _json_attributes("|".join(parts[1:-1]))
    if attributes is None:
        event.name = text
        return
    event.name, event.dropped_attributes_count = parts[0], int(parts[-1])
    event.attributes.extend(attributes)


def _json_attributes(text: str) -> list[KeyValue]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("attributes that are no object")
    return [KeyValue(key=key, value=value) for key, each in found.items() if (value := _any_value(each)) is not None]


def _any_value(value: Any) -> AnyValue | None:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) < 2**63):
        return AnyValue(int_value=int(value))
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return _text(value) if isinstance(value, str) else None


def _add_attributes(span: Span, zipkin: Mapping[str, Any], tags: dict[str, str], *, parse_string_tags: bool) -> None:
    found = {key: _parsed(value) if parse_string_tags else _text(value) for key, value in tags.items()}
    local, remote = zipkin.get("localEndpoint") or {}, zipkin.get("remoteEndpoint") or {}
    if remote.get("serviceName"):
        found.setdefault("peer.service", _text(str(remote["serviceName"])))
    for prefix, endpoint in (("net.host", local), ("net.peer", remote)):
        for address in ("ipv4", "ipv6"):
            if endpoint.get(address):
                found.setdefault(f"{prefix}.ip", _text(str(ipaddress.ip_address(endpoint[address]))))
        if endpoint.get("port"):
            found[f"{prefix}.port"] = AnyValue(int_value=int(endpoint["port"]))
    span.attributes.extend(KeyValue(key=key, value=value) for key, value in found.items())


def _parsed(text: str) -> AnyValue:
    """A number or a boolean, if the text looks like one."""
    if text in {"true", "false"}:
        return AnyValue(bool_value=text == "true")
    with suppress(ValueError):
        return AnyValue(int_value=int(text))
    with suppress(ValueError):
        return AnyValue(double_value=float(text))
    return _text(text)


def _text(text: str) -> AnyValue:
    return AnyValue(string_value=text)
