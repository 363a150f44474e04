"""The way to a server: TLS, proxies, and a session that keeps connections."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import aiohttp
from multidict import CIMultiDict

from agents.remote_write.proxies import proxy_for
from agents.remote_write.tls import TlsContext
from schemas.config import RemoteWriteConfig
from schemas.config.http_client import HttpClient

TOLD_BYTES = 4096
"""How much of an answer is read: enough to know why samples were refused."""


class HttpAnswer(NamedTuple):
    """An answer of a server; `body` is its beginning."""

    status: int
    headers: Mapping[str, str]
    body: str


class Poster(Protocol):
    """What an endpoint needs of a connection."""

    async def post(self, body: bytes, headers: CIMultiDict[str]) -> HttpAnswer:
        """Post a body. Raises aiohttp.ClientError, TimeoutError or OSError if there is no answer."""


class NoAnswerError(aiohttp.ClientError):
    """A proxy's refusal, or no HTTP. aiohttp's own error shows the proxy's password, and all headers of the request."""


class Connection:
    """Posts to one URL. `session` is the caller's, to be closed by them."""

    def __init__(
        self, url: str, config: HttpClient, session: aiohttp.ClientSession, timeout_s: float, *, redirects: bool
    ) -> None:
        self._url, self._config, self._session = url, config, session
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._redirects = redirects
        self._tls = TlsContext(config.tls_config)

    async def post(self, body: bytes, headers: CIMultiDict[str], most_bytes: int = TOLD_BYTES) -> HttpAnswer:
        """Post a body. Raises aiohttp.ClientError, TimeoutError or OSError if there is no answer."""
        return await self._ask("POST", body, headers, most_bytes)

    async def get(self, headers: CIMultiDict[str], most_bytes: int = TOLD_BYTES) -> HttpAnswer:
        """Look at what is there. Raises as `post` does."""
        return await self._ask("GET", None, headers, most_bytes)

    async def _ask(self, method: str, body: bytes | None, headers: CIMultiDict[str], most_bytes: int) -> HttpAnswer:
        try:
            async with self._session.request(
                method,
                self._url,
                data=body,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=self._redirects,
                **self._way(),
            ) as response:
                content = await response.content.read(most_bytes)
                return HttpAnswer(response.status, response.headers, content.decode(errors="replace").strip())
        except aiohttp.ClientResponseError as error:
            raise NoAnswerError(f"{error.status} {error.message}") from None

    def _way(self) -> dict[str, Any]:
        # Also for http: a redirect may lead to https.
        way: dict[str, Any] = {"ssl": self._tls.current(), "server_hostname": self._tls.server_name}
        proxy = proxy_for(self._url, self._config)
        if proxy is not None:
            connect = CIMultiDict[str]()
            for name, values in self._config.proxy_connect_header.items():
                for value in values:
                    connect.add(name, value.get_secret_value())
            way |= {"proxy": proxy, "proxy_headers": connect}
        return way


def connection_of(config: RemoteWriteConfig, session: aiohttp.ClientSession) -> Connection:
    """The way to a `remote_write` entry."""
    return Connection(config.url, config, session, config.remote_timeout_s, redirects=config.follow_redirects)


def new_session() -> aiohttp.ClientSession:
    """A session without cookies, as other clients of remote write are; to be made while a loop runs."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
