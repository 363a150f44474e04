"""What the distributor makes of a request's headers and body, without a broker."""

import gzip
import json
import zlib
from collections.abc import Callable

import cramjam
import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from agents.distributor.bodies import BodyTooLargeError, decoded
from agents.distributor.status import HTTP_STATUS, Code, RefusedError, status_json, status_protobuf
from agents.distributor.tenants import tenant_of


@pytest.mark.parametrize("message", ["", "no org id", "ünï" * 100])
def test_failures_are_google_rpc_statuses(message: str) -> None:
    for code in Code:
        assert Status.FromString(status_protobuf(code, message)) == Status(code=code, message=message)
        assert json.loads(status_json(code, message)) == {"code": code, "message": message}
        assert HTTP_STATUS[code] >= 400


@pytest.mark.parametrize(
    ("org_id", "tenant"),
    [("a", "a"), ("a|a", "a"), ("a:key=value", "a"), ("team-1!_.*'()", "team-1!_.*'()"), ("x" * 150, "x" * 150)],
)
def test_the_tenant_is_the_org_id(org_id: str, tenant: str) -> None:
    """DIST-4."""
    assert tenant_of([org_id], multitenancy=True) == tenant


@pytest.mark.parametrize(
    ("org_ids", "code", "message"),
    [
        ([], Code.UNAVAILABLE, "no org id"),
        ([""], Code.UNAVAILABLE, "no org id"),
        (["a", "b"], Code.UNAVAILABLE, "no org id"),
        ([":key=value"], Code.UNAVAILABLE, "no org id"),
        (["a|b"], Code.INVALID_ARGUMENT, "multiple org IDs present"),
        (["."], Code.INVALID_ARGUMENT, "tenant ID is '.' or '..'"),
        (["a/b"], Code.INVALID_ARGUMENT, "tenant ID 'a/b' contains unsupported character '/'"),
        (["x" * 151], Code.INVALID_ARGUMENT, "tenant ID is too long: max 150 characters"),
    ],
)
def test_what_is_no_tenant_is_refused(org_ids: list[str], code: Code, message: str) -> None:
    """DIST-4."""
    with pytest.raises(RefusedError) as refused:
        tenant_of(org_ids, multitenancy=True)
    assert (refused.value.code, refused.value.message) == (code, message)


def zstd(plain: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(plain))


@pytest.mark.parametrize("org_ids", [[], ["a"], ["a", "b"], ["a/b"]])
def test_without_multitenancy_everybody_is_the_default_tenant(org_ids: list[str]) -> None:
    assert tenant_of(org_ids, multitenancy=False) == "single-tenant"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", b"spans"),
        ("identity", b"spans"),
        ("gzip", gzip.compress(b"spans", mtime=0)),
        ("gzip", gzip.compress(b"spa", mtime=0) + gzip.compress(b"ns", mtime=0)),
        ("deflate", zlib.compress(b"spans")),
        ("zstd", zstd(b"spans")),
        ("zstd", zstd(b"spa") + zstd(b"ns")),
        ("gzip", b""),
    ],
)
def test_bodies_are_decoded(encoding: str, body: bytes) -> None:
    assert decoded(body, encoding, 5) == (b"spans" if body else b"")


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstd)]
)
def test_no_body_becomes_longer_than_the_limit(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    plain = bytes(1000)
    body = compress(plain)
    assert decoded(body, encoding, 1000) == plain
    with pytest.raises(BodyTooLargeError):
        decoded(body, encoding, 999)
    with pytest.raises(BodyTooLargeError):
        decoded(gzip.compress(bytes(600)) + gzip.compress(bytes(600)), "gzip", 1000)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"spans"),
        ("gzip", gzip.compress(b"spans", mtime=0)[:-1]),
        ("zstd", b"spans"),
        ("zstd", zstd(b"spans")[:-1]),
        ("br", b""),
    ],
)
def test_bodies_that_do_not_decode_are_refused(encoding: str, body: bytes) -> None:
    with pytest.raises(RefusedError) as refused:
        decoded(body, encoding, 1000)
    assert refused.value.code is Code.INVALID_ARGUMENT
