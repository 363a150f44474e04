"""Remote-write endpoints (`metrics_generator.storage.remote_write`): Prometheus' own block (Tempo ST-3)."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from schemas.config.durations import PositiveSeconds, Seconds
from schemas.config.http_client import (
    Authorization,
    BasicAuth,
    File,
    Headers,
    HttpClient,
    HttpHeader,
    OAuth2,
    check_header_name,
    check_header_value,
    check_url,
)
from schemas.config.relabel import RelabelConfig
from schemas.config.section import Int, Section

AT_MOST_ONE = ("basic_auth", "authorization", "oauth2", "sigv4", "azuread", "google_iam", "bearer_token")


def check_http_headers(headers: dict[str, HttpHeader]) -> dict[str, HttpHeader]:
    """Unlike `headers` these may hold anything that the protocol doesn't set."""
    for name, header in headers.items():
        check_header_name(name)
        for value in (*map(SecretStr, header.values), *header.secrets):
            check_header_value(value)
    return headers


class QueueConfig(Section):
    """How samples are sent. Windows go one after the other, so what concerns queues and shards has no effect."""

    max_samples_per_send: Annotated[Int, Field(ge=1)] = 2000
    """Tempo's; a request is also cut where it gets too long."""
    min_backoff_s: PositiveSeconds = Field(default=0.03, alias="min_backoff")
    """The first pause after an endpoint was not there."""
    max_backoff_s: PositiveSeconds = Field(default=5.0, alias="max_backoff")
    """The longest."""
    sample_age_limit_s: Seconds = Field(default=0.0, alias="sample_age_limit")
    """Older samples are given up. 0: samples of any age are sent."""

    @model_validator(mode="after")
    def _backoff_grows(self) -> Self:
        if self.min_backoff_s > self.max_backoff_s:
            raise ValueError("min_backoff is longer than max_backoff; change one")
        return self


class MetadataConfig(Section):
    """Type and help of each metric family, for endpoints of remote write 1.0; 2.0 has them with every series."""

    send: bool = True
    """Whether to."""
    send_interval_s: PositiveSeconds = Field(default=60.0, alias="send_interval")
    """How often."""
    max_samples_per_send: Annotated[Int, Field(ge=1)] = 2000
    """Metric families in a request."""


class RemoteWriteConfig(HttpClient):
    """One endpoint. `url` is required."""

    url: Annotated[str, AfterValidator(check_url)]
    """Where requests go."""
    name: str = ""
    """What it is called in logs and metrics."""
    remote_timeout_s: PositiveSeconds = Field(default=30.0, alias="remote_timeout")
    """How long a request may take."""
    headers: Headers = Field(default_factory=dict)
    """Of every request; a tenant's `remote_write_headers` go over them."""
    http_headers: Annotated[dict[str, HttpHeader], AfterValidator(check_http_headers)] = Field(default_factory=dict)
    """Headers in the form that newer Prometheus has."""
    write_relabel_configs: tuple[RelabelConfig, ...] = ()
    """Rules that change or drop series on their way to this endpoint."""
    basic_auth: BasicAuth | None = None
    authorization: Authorization | None = None
    oauth2: OAuth2 | None = None
    bearer_token: SecretStr = SecretStr("")
    """The older way to write authorization."""
    bearer_token_file: File = None
    """The file that holds it."""
    follow_redirects: bool = True
    """Whether an endpoint may send us elsewhere."""
    queue_config: QueueConfig = QueueConfig()
    metadata_config: MetadataConfig = MetadataConfig()
    protobuf_message: Literal["prometheus.WriteRequest", "io.prometheus.write.v2.Request"] = "prometheus.WriteRequest"
    """Remote write 1.0 or 2.0, which is smaller and has metadata; an endpoint that doesn't know 2.0 gets 1.0."""

    # Read in their shape only: schemas/config/pending.py refuses what they would switch on.
    sigv4: dict[str, Any] | None = None
    """AWS's signatures."""
    azuread: dict[str, Any] | None = None
    """Azure's tokens."""
    google_iam: dict[str, Any] | None = None
    """Google's tokens."""

    @model_validator(mode="after")
    def _one_way_to_authorize(self) -> Self:
        if self.bearer_token.get_secret_value() and self.bearer_token_file:
            raise ValueError("bearer_token and bearer_token_file exclude each other; name one")
        used = [name for name in AT_MOST_ONE[:-1] if getattr(self, name) is not None]
        if self.bearer_token.get_secret_value() or self.bearer_token_file:
            used.append("bearer_token")
        if len(used) > 1:
            raise ValueError(
                f"at most one of {', '.join(AT_MOST_ONE)} may be configured; there are {' and '.join(used)}"
            )
        return self

    @property
    def bearer(self) -> Authorization | None:
        """`authorization`, or the older keys `bearer_token` and `bearer_token_file` as such."""
        if self.bearer_token.get_secret_value() or self.bearer_token_file:
            return Authorization(credentials=self.bearer_token, credentials_file=self.bearer_token_file)
        return self.authorization


def check_names(endpoints: tuple[RemoteWriteConfig, ...]) -> tuple[RemoteWriteConfig, ...]:
    """Each named endpoint has a name of its own, as Prometheus asks."""
    names = [endpoint.name for endpoint in endpoints if endpoint.name]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two endpoints are named {name!r}; give each its own name")
    return endpoints


RemoteWrites = Annotated[tuple[RemoteWriteConfig, ...], AfterValidator(check_names)]
