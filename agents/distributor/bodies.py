"""Bodies of HTTP requests: what their encoding hides."""

import zlib

import cramjam
import numpy as np

from agents.distributor.status import Code, RefusedError

UNENCODED = frozenset({"", "identity"})

WINDOW_BITS = {
    "gzip": 31,  # 16 + 15: with a gzip header
    "x-gzip": 31,
    "deflate": 15,
    "zlib": 15,
}
"""As zlib wants them, by encoding."""

MOST_MEMBERS = 1000
"""Streams, one after the other, in a body. Clients make one; a body of empty ones would cost minutes."""

FED_BYTES = 1 << 16
"""What zlib is given at a time: what it leaves for the next stream, it copies."""

NO_ROOM = "whole buffer"
"""What cramjam says if a body becomes longer than its room; a test holds it to that."""


class BodyTooLargeError(Exception):
    """A body is longer than the receiver takes; answered with 413."""


def decoded(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without its Content-Encoding, which may be empty. Never makes more than `max_bytes` of it.

    Raises `BodyTooLargeError`, and `RefusedError` for an encoding that isn't known or doesn't decode.
    """
    if encoding in UNENCODED:
        return body
    if encoding == "zstd":
        return _without_zstd(body, max_bytes)
    if encoding not in WINDOW_BITS:
        raise RefusedError(Code.INVALID_ARGUMENT, f"unsupported Content-Encoding: {encoding}; use gzip or zstd")
    try:
        return _inflated(body, WINDOW_BITS[encoding], max_bytes)
    except zlib.error as error:
        raise RefusedError(Code.INVALID_ARGUMENT, f"the body isn't {encoding}: {error}") from error


def _inflated(body: bytes, window_bits: int, max_bytes: int) -> bytes:
    """All streams of a body. Raises `zlib.error` too."""
    parts: list[bytes] = []
    room, at, members, rest = max_bytes, 0, 0, memoryview(body)
    while at < len(body):
        if members == MOST_MEMBERS:
            raise zlib.error(f"it has more than {MOST_MEMBERS} streams, one after the other; send one")
        members += 1
        decoder = zlib.decompressobj(window_bits)
        while not decoder.eof:
            if at == len(body):
                raise zlib.error("it ends too early")
            fed = rest[at : at + FED_BYTES]
            parts.append(decoder.decompress(fed, room + 1))
            at += len(fed)
            room -= len(parts[-1])
            if room < 0:
                raise BodyTooLargeError
        at -= len(decoder.unused_data)
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
