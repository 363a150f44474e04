"""OTLP JSON for tests: a document with every kind of value, changes to it, and protobuf's own reader."""

import base64
import binascii
import json
import random
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

VALUES: list[dict[str, Any]] = [
    {"stringValue": 'ü\n"\\ 😀'},
    {"stringValue": ""},
    {"intValue": "-9223372036854775808"},
    {"intValue": 5},
    {"doubleValue": 1.5},
    {"doubleValue": "NaN"},
    {"doubleValue": "-Infinity"},
    {"boolValue": True},
    {"boolValue": False},
    {"bytesValue": "AAE="},
    {"kvlistValue": {"values": [{"key": "a", "value": {"arrayValue": {"values": [{}, {"intValue": "0"}]}}}]}},
    {},
]
SPAN: dict[str, Any] = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "EEE19B7EC3C1B174",
    "parentSpanId": "",
    "traceState": "a=b",
    "flags": 257,
    "name": "GET /cart",
    "kind": 2,
    "startTimeUnixNano": "1544712660000000000",
    "endTimeUnixNano": 18446744073709551615,
    "attributes": [{"key": str(n), "value": value} for n, value in enumerate(VALUES)],
    "droppedAttributesCount": 3,
    "events": [{"timeUnixNano": "5", "name": "e", "attributes": []}],
    "links": [{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174"}],
    "status": {"message": "no", "code": "STATUS_CODE_ERROR"},
    "invented": {"a": [1, -2.5e3, "\\u00e9", None, True, {}]},
}
DOCUMENT: dict[str, Any] = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "cart"}}]},
            "scope_spans": [{"scope": {"name": "s", "version": None}, "spans": [SPAN, {}], "schemaUrl": "u"}],
        }
    ]
}
PIECES = (
    *(b"null", b"true", b"false", b'"', b"{}", b"[]", b"[", b"]", b"{", b"}", b",", b":", b" ", b"\t", b"\xff"),
    *(b"0", b"-1", b"01", b"18446744073709551616", b"123456789012345678901234567890", b"4294967296", b"-2147483649"),
    *(b"\\u00e9", b"\\ud83d\\ude00", b"\\ud83d", b"\\udc00", b"\\n", b"\\x", b"\x00", "é".encode()),
    *(b'"NaN"', b'"Infinity"', b'"spans"', b'"trace_id"', b'"name":"x",', b'"abcd"', b'"kind":"SPAN_KIND_CLIENT",'),
)


def mutated(rng: random.Random) -> bytes:
    """The document, somehow written, with up to three changes."""
    indent = rng.choice((None, None, 1))
    text = bytearray(json.dumps(DOCUMENT, ensure_ascii=rng.random() < 0.5, indent=indent).encode())
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        at, kind = rng.randrange(len(text)), rng.random()
        if kind < 0.3:
            del text[at : at + rng.choice((1, 1, 2, 5, 20))]
        elif kind < 0.6:
            text[at:at] = rng.choice(PIECES)
        elif kind < 0.8:
            text[at : at + rng.choice((1, 2, 4))] = rng.choice(PIECES)
        elif kind < 0.9:
            text[at] = rng.randrange(256)
        else:
            start = rng.randrange(len(text))
            text[at:at] = text[start : start + rng.randrange(60)]
    return bytes(text)


def by_protobuf(text: bytes) -> TracesData:
    """What protobuf's own reader of JSON makes of it. Raises ValueError, TypeError, RecursionError, SystemError."""
    document = json.loads(text.decode())
    if not isinstance(document, dict):
        raise TypeError
    for owner in _objects(document):
        for name in ("traceId", "trace_id", "spanId", "span_id", "parentSpanId", "parent_span_id"):
            if isinstance(owner.get(name), str):
                owner[name] = base64.b64encode(binascii.unhexlify(owner[name])).decode()
    try:
        message = json_format.ParseDict(document, TracesData(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise ValueError from error
    return message


def in_json(message: TracesData, **options: bool) -> dict[str, Any]:
    """A message as a document; options of protobuf's writer."""
    document: dict[str, Any] = json_format.MessageToDict(message, **options)
    for owner in _objects(document):
        for name in ("traceId", "trace_id", "spanId", "span_id", "parentSpanId", "parent_span_id"):
            if name in owner:
                owner[name] = base64.b64decode(owner[name]).hex()
    return document


def _objects(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Spans and links."""
    for resource_spans in _members(document, "resourceSpans", "resource_spans"):
        for scope_spans in _members(resource_spans, "scopeSpans", "scope_spans"):
            for span in _members(scope_spans, "spans"):
                yield span
                yield from _members(span, "links")


def _members(owner: dict[str, Any], *names: str) -> Iterator[dict[str, Any]]:
    for name in names:
        members = owner.get(name)
        if isinstance(members, list):
            yield from (member for member in members if isinstance(member, dict))
