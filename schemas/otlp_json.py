"""OTLP JSON: a line of it, one TracesData, to the message's bytes.

OTLP JSON is protobuf's JSON with two differences: trace and span IDs are hexadecimal instead of base64, and unknown
fields are ignored (OTLP 1.x, "JSON Protobuf Encoding"). Enums may be numbers or names, 64-bit integers strings.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.errors import Malformed

ID_FIELDS = ("traceId", "trace_id", "spanId", "span_id", "parentSpanId", "parent_span_id")
"""The fields of spans and links that are hexadecimal; protobuf's JSON knows each field by both its names."""


class JsonReason(StrEnum):
    """Why a line was refused."""

    JSON = "json"
    """Not JSON, or no object."""
    OTLP_JSON = "otlp_json"
    """JSON, but no TracesData."""


def traces_data_bytes(line: bytes, number: int) -> bytes:
    """The protobuf bytes of a line's TracesData; `number` is the line's, from 1, for the error.

    Raises `Malformed` with the byte in the line, where that is known.
    """
    try:
        document = json.loads(line)
    except json.JSONDecodeError as error:
        position = len(error.doc[: error.pos].encode())
        raise Malformed(JsonReason.JSON, f"line {number}: {error.msg}", position) from error
    except UnicodeDecodeError as error:
        raise Malformed(JsonReason.JSON, f"line {number}: not UTF-8", error.start) from error
    except RecursionError as error:
        raise Malformed(JsonReason.JSON, f"line {number}: nested too deeply") from error
    if not isinstance(document, dict):
        raise Malformed(JsonReason.JSON, f"line {number}: {type(document).__name__} instead of an object")
    try:
        for owner in _id_owners(document):
            _hex_to_base64(owner)
        message = json_format.ParseDict(document, TracesData(), ignore_unknown_fields=True)
        return message.SerializeToString(deterministic=True)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise Malformed(JsonReason.OTLP_JSON, f"line {number}: {error}") from error


def _id_owners(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The spans of a document and their links."""
    for resource_spans in _objects(document, "resourceSpans", "resource_spans"):
        for scope_spans in _objects(resource_spans, "scopeSpans", "scope_spans"):
            for span in _objects(scope_spans, "spans"):
                yield span
                yield from _objects(span, "links")


def _objects(owner: dict[str, Any], *names: str) -> Iterator[dict[str, Any]]:
    """The objects in a list of `owner`; what isn't one is left to the parser, which refuses it."""
    for name in names:
        members = owner.get(name)
        if isinstance(members, list):
            yield from (member for member in members if isinstance(member, dict))


def _hex_to_base64(owner: dict[str, Any]) -> None:
    for name in ID_FIELDS:
        text = owner.get(name)
        if not isinstance(text, str):
            continue
        try:
            owner[name] = base64.b64encode(binascii.unhexlify(text)).decode()
        except ValueError:
            raise ValueError(f"{name} {text!r} is not hexadecimal") from None
