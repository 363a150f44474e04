"""Bodies of HTTP requests: what their encoding hides."""

import zlib

import cramjam
import numpy as np

from agents.distributor.status import Code, RefusedError

DECODERS = {
    "gzip": 31,  # zlib's window bits: 16 + 15, a gzip header
    "x-gzip": 31,
    "deflate": 15,
    "zlib": 15,
}


NO_ROOM = "whole buffer"
"""What cramjam says if a body becomes longer than its room; a test holds it to that."""


class BodyTooLargeError(Exception):
    """A body is longer than the receiver takes; answered with 413."""


def decoded(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without its Content-Encoding, which may be empty. Never makes more than `max_bytes` of it.

    Raises `BodyTooLargeError`, and `RefusedError` for an encoding that isn't known or doesn't decode.
    """
    if encoding in {"", "identity"}:
        return body
    if encoding == "zstd":
        return _without_zstd(body, max_bytes)
    if encoding not in DECODERS:
        raise RefusedError(Code.INVALID_ARGUMENT, f"unsupported Content-Encoding: {encoding}; use gzip or zstd")
    parts: list[bytes] = []
    room = max_bytes
    while body:  # a gzip stream may have several members
        decoder = zlib.decompressobj(DECODERS[encoding])
        try:
            parts.append(decoder.decompress(body, room + 1))
        except zlib.error as error:
            raise RefusedError(Code.INVALID_ARGUMENT, f"the body isn't {encoding}: {error}") from error
        room -= len(parts[-1])
        if room < 0:
            raise BodyTooLargeError
        if not decoder.eof:
            raise RefusedError(Code.INVALID_ARGUMENT, f"the body isn't {encoding}: it ends too early")
        body = decoder.unused_data
    return b"".join(parts)


def _without_zstd(body: bytes, max_bytes: int) -> bytes:
    room = np.empty(max_bytes, np.uint8)  # pages that aren't written cost nothing
    try:
        size = cramjam.zstd.decompress_into(body, room.data)
    except cramjam.DecompressionError as error:
        if NO_ROOM in str(error):
            raise BodyTooLargeError from error
        raise RefusedError(Code.INVALID_ARGUMENT, f"the body isn't zstd: {error}") from error
    return room[:size].tobytes()
