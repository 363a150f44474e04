"""Remote-write endpoints (`metrics_generator.storage.remote_write`): Prometheus' own block (Tempo ST-3)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from schemas.config.durations import PositiveSeconds
from schemas.config.section import Section

RESERVED_HEADERS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "user-agent",
        "x-prometheus-remote-write-version",
    }
)


def check_url(url: str) -> str:
    """An http(s) URL without credentials: it stands in logs and metrics."""
    try:
        parts = urlsplit(url)
        host, with_credentials = parts.hostname, "@" in parts.netloc
    except ValueError:
        host, with_credentials = None, False
    if with_credentials:
        raise ValueError("a URL with credentials would show in logs; write them in basic_auth")
    if not host or parts.scheme not in {"http", "https"}:
        raise ValueError("not an http or https URL; write one such as http://prometheus:9090/api/v1/write")
    return url


def check_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Headers that the protocol itself sets can't be changed."""
    for name in headers:
        if name.lower() in RESERVED_HEADERS:
            raise ValueError(f"header {name} is set by the protocol; leave it out")
        if not name.isascii() or not name.isprintable() or any(c in ' ":,;()<>@[]{}/?=\\' for c in name) or not name:
            raise ValueError(f"{name!r} is not a header name; use letters, digits and hyphens")
    return headers


class BasicAuth(Section):
    """HTTP basic authentication; the password here or in a file, which is read at every use."""

    username: str = ""
    password: SecretStr = SecretStr("")
    password_file: Annotated[Path | None, Field(strict=False)] = None

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password.get_secret_value() and self.password_file:
            raise ValueError("password and password_file exclude each other; name one")
        if not self.username:
            raise ValueError("username is missing; name it")
        return self


class RemoteWriteConfig(Section):
    """One endpoint. `url` is required; secrets are `SecretStr`, which print as stars."""

    url: Annotated[str, AfterValidator(check_url)]
    name: str = ""
    remote_timeout_s: PositiveSeconds = Field(default=30.0, alias="remote_timeout")
    # Authorization may stand here, unlike in Prometheus, until the block of that name is implemented.
    headers: Annotated[dict[str, SecretStr], AfterValidator(check_headers)] = Field(default_factory=dict)
    basic_auth: BasicAuth | None = None

    # Read in their shape only: schemas/config/pending.py refuses what they would switch on.
    http_headers: dict[str, Any] = Field(default_factory=dict)
    write_relabel_configs: tuple[dict[str, Any], ...] = ()
    authorization: dict[str, Any] = Field(default_factory=dict)
    oauth2: dict[str, Any] = Field(default_factory=dict)
    sigv4: dict[str, Any] = Field(default_factory=dict)
    azuread: dict[str, Any] = Field(default_factory=dict)
    google_iam: dict[str, Any] = Field(default_factory=dict)
    tls_config: dict[str, Any] = Field(default_factory=dict)
    proxy_url: str = ""
    no_proxy: str = ""
    proxy_from_environment: bool = False
    proxy_connect_header: dict[str, Any] = Field(default_factory=dict)
    protobuf_message: Literal["prometheus.WriteRequest", "io.prometheus.write.v2.Request"] = "prometheus.WriteRequest"


def check_names(endpoints: tuple[RemoteWriteConfig, ...]) -> tuple[RemoteWriteConfig, ...]:
    """Each named endpoint has a name of its own, as Prometheus asks."""
    names = [endpoint.name for endpoint in endpoints if endpoint.name]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two endpoints are named {name!r}; give each its own name")
    return endpoints


RemoteWrites = Annotated[tuple[RemoteWriteConfig, ...], AfterValidator(check_names)]
