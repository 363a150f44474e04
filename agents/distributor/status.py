"""Answers to clients: one set of codes for gRPC and HTTP (Tempo §14.6)."""

import json
from enum import IntEnum

from schemas.varint import uvarint


class Code(IntEnum):
    """Those of google.rpc.Code, which are gRPC's, that a client may get from us."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


HTTP_STATUS = {
    Code.CANCELLED: 503,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,  # not 408, after which clients of OTLP don't try again
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 404,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}


class RefusedError(Exception):
    """A request that isn't taken. `code` tells the client whether to send it again: UNAVAILABLE means yes.

    RESOURCE_EXHAUSTED means it only with a `retry_after_s` above 0, which says when (Tempo DIST-9).
    """

    def __init__(self, code: Code, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


RETRY_AFTER_S = 1.0
"""For how long clients are asked to keep away at least: their own backing off takes over then."""


def unavailable(message: str) -> RefusedError:
    """What a client is told while nothing of its request is at fault, and it may come again."""
    return RefusedError(Code.UNAVAILABLE, message, RETRY_AFTER_S)


RETRY_INFO = b"type.googleapis.com/google.rpc.RetryInfo"


def status_protobuf(code: Code, message: str, retry_after_s: float = 0.0) -> bytes:
    """A google.rpc.Status, with a google.rpc.RetryInfo among its details if there is a time to come again."""
    status = b"\x08" + uvarint(code) + _delimited(b"\x12", message.encode())
    if retry_after_s <= 0:
        return status
    detail = _delimited(b"\x0a", RETRY_INFO) + _delimited(b"\x12", retry_info_protobuf(retry_after_s))
    return status + _delimited(b"\x1a", detail)


def retry_info_protobuf(retry_after_s: float) -> bytes:
    """A google.rpc.RetryInfo."""
    seconds, nanos = divmod(round(retry_after_s * 1_000_000_000), 1_000_000_000)
    return _delimited(b"\x0a", b"\x08" + uvarint(seconds) + b"\x10" + uvarint(nanos))


def status_json(code: Code, message: str, retry_after_s: float = 0.0) -> bytes:
    """The same in protobuf's JSON."""
    status: dict[str, object] = {"code": int(code), "message": message}
    if retry_after_s > 0:
        status["details"] = [{"@type": RETRY_INFO.decode(), "retryDelay": f"{retry_after_s:.9g}s"}]
    return json.dumps(status).encode()


def _delimited(tag: bytes, value: bytes) -> bytes:
    return tag + uvarint(len(value)) + value
