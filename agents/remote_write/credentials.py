"""What goes into the header `Authorization`: basic, bearer and their like, OAuth 2. Files are read at every use."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import quote_plus, urlencode

import aiohttp
from multidict import CIMultiDict

from agents.remote_write.connection import Connection, HttpAnswer
from schemas.config import RemoteWriteConfig
from schemas.config.http_client import Authorization, BasicAuth, OAuth2

EARLY_S = 10.0
"""A token isn't used in its last seconds: it may expire on the way."""
MAX_TOKEN_BYTES = 1 << 20
TOKEN_TYPES = {"bearer": "Bearer", "mac": "MAC", "basic": "Basic", "": "Bearer"}


class Credentials(Protocol):
    """Who a client says it is."""

    async def authorization(self) -> str | None:
        """The header's value, None for none. Raises aiohttp.ClientError, TimeoutError or OSError."""

    def refused(self) -> None:
        """The server answered 401."""


class NoCredentials:
    """Nothing to show."""

    async def authorization(self) -> str | None:
        """No header."""
        return None

    def refused(self) -> None:
        """There is nothing else to show."""


class BasicCredentials:
    """Name and password."""

    def __init__(self, config: BasicAuth) -> None:
        self._config = config

    async def authorization(self) -> str | None:
        """Basic, RFC 7617."""
        name = _text(self._config.username, self._config.username_file)
        return aiohttp.encode_basic_auth(
            name, _text(self._config.password.get_secret_value(), self._config.password_file)
        )

    def refused(self) -> None:
        """Files are read anew anyway."""


class TypedCredentials:
    """A type and what follows it, `Bearer` for the most part."""

    def __init__(self, config: Authorization) -> None:
        self._config = config

    async def authorization(self) -> str | None:
        """Type and credentials; without credentials no header, as in Prometheus."""
        text = _text(self._config.credentials.get_secret_value(), self._config.credentials_file)
        return f"{self._config.type.strip() or 'Bearer'} {text}" if text else None

    def refused(self) -> None:
        """Files are read anew anyway."""


class TokenError(aiohttp.ClientError):
    """The token server gave no token."""


class OAuth2Credentials:
    """A token of a token server, kept until it expires or is refused."""

    def __init__(self, config: OAuth2, connection: Connection, clock: Callable[[], float]) -> None:
        self._config, self._connection, self._clock = config, connection, clock
        self._lock = asyncio.Lock()
        self._token: tuple[str, float] | None = None
        self._in_body = False
        """Whether the server wants ID and secret among the parameters: most take the header (RFC 6749 §2.3.1)."""

    async def authorization(self) -> str | None:
        """The token's type and the token, fetched if there is none that is still valid."""
        async with self._lock:
            if self._token is None or self._clock() >= self._token[1]:
                self._token = await self._fetch()
            return self._token[0]

    def refused(self) -> None:
        """Forget the token: the next one may be taken."""
        self._token = None

    async def _fetch(self) -> tuple[str, float]:
        at = self._clock()
        answer = await self._ask()
        if answer.status in {400, 401} and not self._in_body:
            self._in_body = True
            answer = await self._ask()
            self._in_body = answer.status == 200
        if answer.status != 200:
            raise TokenError(f"token server: {answer.status} {answer.body[:200]}")
        return _read_token(answer.body, at)

    async def _ask(self) -> HttpAnswer:
        config = self._config
        secret = _text(config.client_secret.get_secret_value(), config.client_secret_file)
        parameters = {"grant_type": "client_credentials", **config.endpoint_params}
        if config.scopes:
            parameters["scope"] = " ".join(config.scopes)
        headers = CIMultiDict({"Content-Type": "application/x-www-form-urlencoded"})
        if self._in_body:
            parameters |= {"client_id": config.client_id, "client_secret": secret}
        else:
            basic = aiohttp.encode_basic_auth(quote_plus(config.client_id), quote_plus(secret))
            headers["Authorization"] = basic
        return await self._connection.post(urlencode(parameters).encode(), headers, MAX_TOKEN_BYTES)


def _read_token(body: str, at: float) -> tuple[str, float]:
    """The header's value and until when it is to be used, by the clock that said `at` when it was asked for."""
    try:
        answer = json.loads(body)
        token, kind = str(answer["access_token"]), str(answer.get("token_type") or "")
        lives_s = float(answer.get("expires_in") or 0)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TokenError("token server: its answer has no access_token") from error
    if not token:
        raise TokenError("token server: its answer has an empty access_token")
    until = at + lives_s - EARLY_S if lives_s else float("inf")
    return f"{TOKEN_TYPES.get(kind.lower(), kind)} {token}", until


def credentials_of(config: RemoteWriteConfig, session: aiohttp.ClientSession) -> Credentials:
    """What an endpoint's configuration asks for; at most one thing, the models have seen to it."""
    if config.basic_auth is not None:
        return BasicCredentials(config.basic_auth)
    if config.oauth2 is not None:
        connection = Connection(
            config.oauth2.token_url, config.oauth2, session, config.remote_timeout_s, redirects=config.follow_redirects
        )
        return OAuth2Credentials(config.oauth2, connection, asyncio.get_running_loop().time)
    return NoCredentials() if config.bearer is None else TypedCredentials(config.bearer)


def _text(text: str, file: Path | None) -> str:
    return text if file is None else file.read_text().strip()
