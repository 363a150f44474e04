"""Answers to clients: one set of codes for gRPC and HTTP (Tempo §14.6)."""

import json
from enum import IntEnum

from schemas.varint import uvarint


class Code(IntEnum):
    """Those of google.rpc.Code, which are gRPC's, that a client may get from us."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


HTTP_STATUS = {
    Code.CANCELLED: 503,
    Code.INVALID_ARGUMENT: 400,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 404,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
}


class RefusedError(Exception):
    """A request that isn't taken. `code` tells the client whether to send it again: UNAVAILABLE means yes."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def status_protobuf(code: Code, message: str) -> bytes:
    """A google.rpc.Status: its first two fields are all that we use of it."""
    text = message.encode()
    return b"\x08" + uvarint(code) + b"\x12" + uvarint(len(text)) + text


def status_json(code: Code, message: str) -> bytes:
    """The same in protobuf's JSON."""
    return json.dumps({"code": int(code), "message": message}).encode()
