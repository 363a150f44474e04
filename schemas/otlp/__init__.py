"""OTLP traces: records of `[spans]` into span frames."""

from schemas.otlp.anyvalue import attribute_pairs, attribute_text
from schemas.otlp.attributes import Mode, WantedKey
from schemas.otlp.codecs import Codec
from schemas.otlp.frame import (
    Attributes,
    MessageTable,
    RecordTable,
    ResourceTable,
    ScanError,
    SpanFrame,
    SpanTable,
    Strings,
)
from schemas.otlp.resource_attributes import resource_attributes
from schemas.otlp.scan import scan_records

__all__ = [
    "Attributes",
    "Codec",
    "MessageTable",
    "Mode",
    "RecordTable",
    "ResourceTable",
    "ScanError",
    "SpanFrame",
    "SpanTable",
    "Strings",
    "WantedKey",
    "attribute_pairs",
    "attribute_text",
    "resource_attributes",
    "scan_records",
]
