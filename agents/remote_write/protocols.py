"""The versions of remote write: what a request's headers and body are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from schemas.remote_write import Row, encode_write_request
from schemas.remote_write_v2 import PROTOBUF_MESSAGE, encode_write_request_v2

VERSION_HEADER = "X-Prometheus-Remote-Write-Version"


@dataclass(frozen=True, slots=True)
class Protocol:
    """One version."""

    version: str
    headers: Mapping[str, str]
    encode: Callable[[Sequence[Row]], bytes]
    carries_metadata: bool
    """Whether type and help stand beside every series; otherwise they go in requests of their own."""
    confirms: bool
    """Whether a receiver says how much it has stored: one that doesn't knows the other version only."""


VERSION_1 = Protocol(
    "1.0",
    {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy", VERSION_HEADER: "0.1.0"},
    encode_write_request,
    carries_metadata=False,
    confirms=False,
)
VERSION_2 = Protocol(
    "2.0",
    {
        "Content-Type": f"application/x-protobuf;proto={PROTOBUF_MESSAGE}",
        "Content-Encoding": "snappy",
        VERSION_HEADER: "2.0.0",
    },
    encode_write_request_v2,
    carries_metadata=True,
    confirms=True,
)


def protocol_of(protobuf_message: str) -> Protocol:
    """The version that a configuration names by its message."""
    return VERSION_2 if protobuf_message == PROTOBUF_MESSAGE else VERSION_1
