"""OTLP's trace messages with bytes in the place of texts, for what looks at single spans.

Protobuf's parser refuses invalid UTF-8 in a text; a sender's may have some, and its spans are taken all the same.
"""

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2


def traces_data(body: bytes) -> Any:
    """A TracesData that a scan has accepted. Its texts are bytes; `anyvalue.value_text` takes its values."""
    return _traces_data().FromString(body)


@cache
def _traces_data() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for module in (common_pb2, resource_pb2, trace_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            _without_texts(message)
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("opentelemetry.proto.trace.v1.TracesData"))


def _without_texts(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        if field.type == field.TYPE_STRING:
            field.type = field.TYPE_BYTES
    for nested in message.nested_type:
        _without_texts(nested)
