"""OTLP traces: records of `[spans]` into span frames."""

from schemas.otlp.anyvalue import attribute_text
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
from schemas.otlp.scan import scan_records

__all__ = [
    "Attributes",
    "Codec",
    "MessageTable",
    "RecordTable",
    "ResourceTable",
    "ScanError",
    "SpanFrame",
    "SpanTable",
    "Strings",
    "attribute_text",
    "scan_records",
]
