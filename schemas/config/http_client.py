"""How an HTTP client shows who it is and reaches its server: Prometheus' own keys (Tempo ST-3).

Secrets are `SecretStr`, which print as stars. What is in a file is read at every use, so that it can be changed.
"""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from schemas.config.section import Section, Texts

File = Annotated[Path | None, Field(strict=False)]
TlsVersion = Literal["TLS10", "TLS11", "TLS12", "TLS13"]

SET_BY_THE_PROTOCOL = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "transfer-encoding",
        "user-agent",
        "www-authenticate",
        "x-prometheus-remote-read-version",
        "x-prometheus-remote-write-version",
    }
)
NOT_IN_A_HEADER_NAME = ' "(),/:;<=>?@[\\]{}'


def check_url(url: str) -> str:
    """An http(s) URL without credentials: it stands in logs and metrics."""
    try:
        parts = urlsplit(url)
        host, with_credentials, _ = parts.hostname, "@" in parts.netloc, parts.port
    except ValueError:
        host, with_credentials = None, False
    if with_credentials:
        raise ValueError("a URL with credentials would show in logs; write them in basic_auth")
    if not host or parts.scheme not in {"http", "https"}:
        raise ValueError("not an http or https URL; write one such as http://prometheus:9090/api/v1/write")
    return url


def check_proxy_url(url: SecretStr) -> SecretStr:
    """A proxy's URL may hold credentials: it is shown nowhere."""
    try:
        parts = urlsplit(url.get_secret_value())
        valid = bool(parts.hostname) and parts.scheme in {"http", "https"}
    except ValueError:
        valid = False
    if url.get_secret_value() and not valid:
        raise ValueError("not the URL of an HTTP proxy; write one such as http://proxy:3128")
    return url


def check_header_name(name: str) -> str:
    """A token of HTTP that the protocol doesn't set itself."""
    if not name or not name.isascii() or not name.isprintable() or any(c in NOT_IN_A_HEADER_NAME for c in name):
        raise ValueError(f"{name!r} is not a header name; use letters, digits and hyphens")
    if name.lower() in SET_BY_THE_PROTOCOL:
        raise ValueError(f"header {name} is set by the protocol; leave it out")
    return name


def check_header_value(value: SecretStr) -> SecretStr:
    """A line break would end the header."""
    if any(c in value.get_secret_value() for c in "\r\n\0"):
        raise ValueError("a header's value is one line; remove the line break")
    return value


def check_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Headers that the protocol sets can't be changed, and authorization has a block of its own."""
    for name in headers:
        check_header_name(name)
        if name.lower() == "authorization":
            raise ValueError(
                "authorization header must be changed via the basic_auth, authorization or oauth2 parameter; "
                "move it there"
            )
    return headers


def check_tenant_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """A tenant's may hold their own authorization; space around a name is ignored (Tempo ST-5)."""
    for name in headers:
        check_header_name(name.strip())
    return headers


HeaderValue = Annotated[SecretStr, AfterValidator(check_header_value)]
TenantHeaders = Annotated[dict[str, HeaderValue], AfterValidator(check_tenant_headers)]
Headers = Annotated[dict[str, HeaderValue], AfterValidator(check_headers)]


class BasicAuth(Section):
    """HTTP basic authentication; name and password here or in a file."""

    username: str = ""
    """Here or in a file."""
    username_file: File = None
    """The file that holds it."""
    password: SecretStr = SecretStr("")
    """Here or in a file."""
    password_file: File = None
    """The file that holds it."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if self.password.get_secret_value() and self.password_file:
            raise ValueError("password and password_file exclude each other; name one")
        if self.username and self.username_file:
            raise ValueError("username and username_file exclude each other; name one")
        if not self.username and not self.username_file:
            raise ValueError("username is missing; name it")
        return self


class Authorization(Section):
    """The header `Authorization: TYPE CREDENTIALS`."""

    type: str = "Bearer"
    """The word before the credentials."""
    credentials: SecretStr = SecretStr("")
    """Here or in a file."""
    credentials_file: File = None
    """The file that holds them."""

    @model_validator(mode="after")
    def _credentials_once(self) -> Self:
        if self.type.strip().lower() == "basic":
            raise ValueError('type cannot be set to "basic", use basic_auth instead')
        if self.credentials.get_secret_value() and self.credentials_file:
            raise ValueError("credentials and credentials_file exclude each other; name one")
        return self


class TlsConfig(Section):
    """TLS of a client: whom it trusts, its own certificate (mTLS), each as text or as a file of PEM."""

    ca: str = ""
    """Whose certificates are trusted. Empty: the system's."""
    ca_file: File = None
    """The file that holds them."""
    cert: str = ""
    """Our own certificate, if the server asks for one."""
    cert_file: File = None
    """The file that holds it."""
    key: SecretStr = SecretStr("")
    """Its key."""
    key_file: File = None
    """The file that holds it."""
    server_name: str = ""
    """What the server's certificate has to name. Empty: the host of the URL."""
    insecure_skip_verify: bool = False
    """Whether any certificate is trusted."""
    min_version: TlsVersion | None = None
    """The oldest version of TLS that is allowed."""
    max_version: TlsVersion | None = None
    """The newest."""

    @model_validator(mode="after")
    def _each_once_and_in_pairs(self) -> Self:
        given = {
            "ca": (self.ca, self.ca_file),
            "cert": (self.cert, self.cert_file),
            "key": (self.key.get_secret_value(), self.key_file),
        }
        for name, (text, file) in given.items():
            if text and file:
                raise ValueError(f"{name} and {name}_file exclude each other; name one")
        if any(given["cert"]) != any(given["key"]):
            raise ValueError("a certificate needs its key; name cert or cert_file, and key or key_file, or neither")
        versions = [version for version in (self.min_version, self.max_version) if version]
        if versions != sorted(versions):
            raise ValueError(f"min_version {versions[0]} is above max_version {versions[1]}; change one")
        return self


class HttpHeader(Section):
    """The values of one header: in the open, secret, or each in a file."""

    values: Texts = ()
    """In the open."""
    secrets: tuple[SecretStr, ...] = ()
    """Shown nowhere."""
    files: tuple[Annotated[Path, Field(strict=False)], ...] = ()
    """Each holds one."""


class HttpClient(Section):
    """The way to a server: TLS and proxies."""

    tls_config: TlsConfig = TlsConfig()
    proxy_url: Annotated[SecretStr, AfterValidator(check_proxy_url)] = SecretStr("")
    """The HTTP proxy to go through. It may have credentials: it is shown nowhere."""
    no_proxy: str = ""
    """Hosts, domains and networks that are reached without it, separated by commas; this machine always is, then."""
    proxy_from_environment: bool = False
    """Whether HTTP_PROXY, HTTPS_PROXY and NO_PROXY say which."""
    proxy_connect_header: dict[str, tuple[HeaderValue, ...]] = Field(default_factory=dict)
    """Headers for the proxy itself."""

    @model_validator(mode="after")
    def _one_source_of_proxies(self) -> Self:
        named = bool(self.proxy_url.get_secret_value())
        if self.proxy_from_environment and named:
            raise ValueError("if proxy_from_environment is configured, proxy_url must not be configured; leave one out")
        if self.proxy_from_environment and self.no_proxy:
            raise ValueError("if proxy_from_environment is configured, no_proxy must not be configured; leave one out")
        if self.no_proxy and not named:
            raise ValueError("if no_proxy is configured, proxy_url must also be configured; name it")
        if self.proxy_connect_header and not named and not self.proxy_from_environment:
            raise ValueError("if proxy_connect_header is configured, proxy_url must also be configured; name it")
        return self


class OAuth2(HttpClient):
    """OAuth 2 with client credentials (RFC 6749 §4.4): a token that is fetched when it is needed."""

    client_id: str = ""
    """Who we are."""
    client_secret: SecretStr = SecretStr("")
    """Here or in a file."""
    client_secret_file: File = None
    """The file that holds it."""
    scopes: Texts = ()
    """What the token is asked for."""
    token_url: str = ""
    """Where tokens are."""
    endpoint_params: dict[str, str] = Field(default_factory=dict)
    """Further parameters of the request for a token."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.client_id:
            raise ValueError("oauth2 client_id must be configured; name it")
        if not self.client_secret.get_secret_value() and not self.client_secret_file:
            raise ValueError("oauth2 client_secret or client_secret_file must be configured; name one")
        if self.client_secret.get_secret_value() and self.client_secret_file:
            raise ValueError("client_secret and client_secret_file exclude each other; name one")
        if not self.token_url:
            raise ValueError("oauth2 token_url must be configured; name it")
        check_url(self.token_url)
        return self
