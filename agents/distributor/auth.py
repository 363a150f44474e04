"""Who a client is, and whom it may write as (`spanmill.distributor.tenants`)."""

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from agents.distributor.status import Code, RefusedError
from agents.distributor.tenants import tenant_of
from schemas.config.tenant_map import TenantMap
from schemas.tenant_id import fault_of

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
"""So often a file of tokens is looked at while requests come in."""

MIN_TOKEN_CHARACTERS = 16
TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""RFC 6750 §2.1."""

SCHEME = "bearer"

Stamp = tuple[int, int]


class TokensError(OSError):
    """A file of tokens that can't be used; the message names its line, and never a token."""


class Client(NamedTuple):
    """What a request shows of its sender."""

    org_ids: Sequence[str]
    """The values of `X-Scope-OrgID`."""
    authorization: Sequence[str]
    """The values of `Authorization`."""
    certificate: Callable[[], Collection[str]]
    """The names in the certificate that TLS has checked, as in `TenantMap.certificates`; none without one."""


class Tokens:
    """The tenants of a file of tokens. Raises `TokensError` or another OSError if it can't be used at the start.

    Tokens are kept and looked up as digests with a key of this process: how long a look-up takes says nothing about
    any token.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._key = secrets.token_bytes(32)
        self._stamp = self._look()
        self._tenants = self._read()
        self._looked_at = clock()

    def tenant(self, token: str) -> str | None:
        """Whose token it is; None: nobody's."""
        now = self._clock()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._renew()
        return self._tenants.get(self._digest(token))

    def _renew(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tenants = self._read()
            log.info("tokens renewed", file=str(self._path), tokens=len(self._tenants))
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        log.error("changed tokens can't be used, those before hold", file=str(self._path), error=str(error))

    def _look(self) -> Stamp | None:
        """What differs once the file has been written, moved or given other rights; None if it isn't there."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ctime_ns, found.st_ino

    def _read(self) -> dict[bytes, str]:
        try:
            lines = self._path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            raise TokensError(f"{self._path}: not UTF-8; save it as such") from None
        tenants: dict[bytes, str] = {}
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.startswith("#"):
                tenant, token = _entry(f"{self._path}:{number}", line)
                if tenants.setdefault(self._digest(token), tenant) != tenant:
                    raise TokensError(f"{self._path}:{number}: another tenant has this token; give it one of its own")
        if not tenants:
            raise TokensError(f"{self._path}: has no token; write lines of a tenant, a space and a token")
        return tenants

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode(errors="replace"), digest_size=32, key=self._key).digest()


def _entry(place: str, line: str) -> tuple[str, str]:
    """A line's tenant and token."""
    words = line.split()
    if len(words) != 2:
        raise TokensError(f"{place}: must be a tenant, a space and a token")
    tenant, token = words
    if fault_of(tenant):
        raise TokensError(f"{place}: its first word is no tenant; begin with the tenant, then a space and the token")
    if len(token) < MIN_TOKEN_CHARACTERS or not TOKEN.fullmatch(token):
        raise TokensError(
            f"{place}: its token must have {MIN_TOKEN_CHARACTERS} characters or more, letters, digits and -._~+/"
        )
    return tenant, token


class Authentication:
    """Decides whom a request is written for. Without a map the header is trusted."""

    def __init__(self, config: TenantMap | None) -> None:
        """Raises OSError if the file of tokens can't be used."""
        self._config = config
        self._tokens = Tokens(config.tokens_file) if config is not None and config.tokens_file is not None else None

    def org_ids(self, client: Client) -> Sequence[str]:
        """Values of `X-Scope-OrgID` that can be trusted. Raises `RefusedError`."""
        if self._config is None:
            return client.org_ids
        tenant = self._known(self._config, client)
        for each in client.org_ids:
            if each and tenant_of([each], multitenancy=True) != tenant:
                raise RefusedError(Code.PERMISSION_DENIED, "X-Scope-OrgID names another tenant than the client's own")
        return [tenant]

    def _known(self, config: TenantMap, client: Client) -> str:
        by_token = self._by_token(client.authorization)
        by_name = {config.certificates[name] for name in client.certificate() if name in config.certificates}
        if len(by_name) > 1 or (by_token is not None and by_name and by_name != {by_token}):
            raise RefusedError(Code.PERMISSION_DENIED, "the client's token and names are of several tenants")
        if by_token is not None:
            return by_token
        if not by_name:
            raise RefusedError(Code.UNAUTHENTICATED, f"the client is unknown: it must show {self._wanted(config)}")
        return by_name.pop()

    def _by_token(self, authorization: Sequence[str]) -> str | None:
        """The tenant of a bearer token; None without one."""
        if self._tokens is None or not authorization:
            return None
        scheme, _, token = authorization[0].partition(" ")
        if len(authorization) > 1 or scheme.lower() != SCHEME:
            raise RefusedError(Code.UNAUTHENTICATED, "Authorization must be Bearer and a token, once")
        tenant = self._tokens.tenant(token.strip())
        if tenant is None:
            raise RefusedError(Code.UNAUTHENTICATED, "the bearer token is unknown")
        return tenant

    def _wanted(self, config: TenantMap) -> str:
        wanted = ["a bearer token"] if self._tokens is not None else []
        return " or ".join([*wanted, *(["a certificate of a tenant"] if config.certificates else [])])


def names_of_peer(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """The names in a certificate as Python's ssl gives it."""
    if not certificate:
        return frozenset()
    subject = (f"CN:{value}" for part in certificate.get("subject", ()) for key, value in part if key == "commonName")
    others = (f"{kind}:{value}" for kind, value in certificate.get("subjectAltName", ()))
    return frozenset([*subject, *others])


GRPC_KEYS = {"x509_common_name": "CN", "peer_dns": "DNS", "peer_uri": "URI", "peer_email": "email"}
"""Of gRPC's authentication context, and the kinds of names that they hold."""


def names_of_context(context: Mapping[str, Iterable[bytes]]) -> frozenset[str]:
    """The names in a certificate as gRPC gives them, which are those of a client that it has checked."""
    return frozenset(
        f"{kind}:{value.decode(errors='replace')}"
        for key, kind in GRPC_KEYS.items()
        for value in context.get(key) or ()
    )
