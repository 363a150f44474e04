"""The Kafka receiver (`distributor.receivers.kafka`), by the OpenTelemetry Collector's keys (Tempo DIST-1)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from schemas.config.durations import PositiveSeconds
from schemas.config.kafka import check_address
from schemas.config.section import KafkaName, Section

File = Annotated[Path | None, Field(strict=False)]
Encoding = Literal["otlp_proto", "otlp_json", "jaeger_proto", "zipkin_json", "push-bytes"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class ClientTls(Section):
    """How the brokers are known (the Collector's configtls keys)."""

    insecure: bool = False
    """No TLS."""
    ca_file: File = None
    """Whose certificates are trusted. None: the system's."""
    cert_file: File = None
    """Our own certificate, if the brokers ask for one."""
    key_file: File = None
    """Its key."""
    insecure_skip_verify: bool = False
    """Whether any certificate is trusted."""

    @model_validator(mode="after")
    def _come_in_pairs(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; name both or neither")
        return self


class PlainText(Section):
    """SASL PLAIN, by its older key."""

    username: str = ""
    """Who we are."""
    password: SecretStr = SecretStr("")
    """Goes with it."""


class Sasl(PlainText):
    """SASL."""

    mechanism: Mechanism = "PLAIN"
    """How the password is shown."""


class KafkaAuth(Section):
    """Who we are."""

    plain_text: PlainText | None = None
    """As `sasl` with PLAIN."""
    sasl: Sasl | None = None
    """A user and a password."""
    tls: ClientTls | None = None
    """The older place of the receiver's `tls`."""


class KafkaTraces(Section):
    """What is read."""

    topic: KafkaName = "otlp_spans"
    """Spans that others write."""
    encoding: Encoding = "otlp_proto"
    """What a record's value is. `push-bytes` is Tempo's own, which the Collector doesn't know; its tenant is the key.
    That of other records stands in one of `spanmill.tenant_headers`."""


class KafkaReceiver(Section):
    """Copies spans of another topic into ours, whatever its partitions and timestamps are: at least once.

    An offset is committed when the spans of all records before it are acknowledged by our topic.
    """

    brokers: tuple[Annotated[str, AfterValidator(check_address)], ...] = Field(("localhost:9092",), min_length=1)
    """Each `host:port`."""
    traces: KafkaTraces = KafkaTraces()
    topic: str = ""
    """The older place of `traces.topic`."""
    encoding: Literal["", "otlp_proto", "otlp_json", "jaeger_proto", "zipkin_json", "push-bytes"] = ""
    """The older place of `traces.encoding`."""
    group_id: str = "otel-collector"
    """The consumer group, in which distributors share the partitions."""
    client_id: str = "otel-collector"
    """A broker's logs and quotas name it."""
    initial_offset: Literal["latest", "earliest"] = "latest"
    """Where a group begins that has committed nothing yet. With `latest`, what is written before is passed over."""
    session_timeout_s: PositiveSeconds = Field(default=10.0, alias="session_timeout")
    """After so long without a heartbeat others take the partitions."""
    heartbeat_interval_s: PositiveSeconds = Field(default=3.0, alias="heartbeat_interval")
    """How often we say that we are there."""
    auth: KafkaAuth = KafkaAuth()
    """Who we are."""
    tls: ClientTls | None = None
    """How connections are encrypted. None: they aren't."""
    header_extraction: dict[str, Any] = Field(default_factory=dict)
    """Record headers as attributes."""
    protocol_version: str = ""
    """Has no effect: client and broker find that out."""
    autocommit: dict[str, Any] = Field(default_factory=dict)
    """Has no effect: offsets are committed once a second, when spans are acknowledged."""
    message_marking: dict[str, Any] = Field(default_factory=dict)
    """Has no effect, for the same reason."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Has no effect."""

    @property
    def addresses(self) -> frozenset[str]:
        """All brokers that are named."""
        return frozenset(each.strip() for brokers in self.brokers for each in brokers.split(","))

    @property
    def source(self) -> KafkaTraces:
        """What is read, wherever it is written."""
        named = {"topic": self.topic, "encoding": self.encoding}
        return self.traces.replace(**{key: value for key, value in named.items() if value})

    @property
    def encryption(self) -> ClientTls | None:
        """TLS, wherever it is written; None without."""
        tls = self.tls or self.auth.tls
        return None if tls is None or tls.insecure else tls

    @property
    def sasl(self) -> Sasl | None:
        """Credentials, wherever they are written; None without."""
        if self.auth.sasl is None and self.auth.plain_text is not None:
            return Sasl(username=self.auth.plain_text.username, password=self.auth.plain_text.password)
        return self.auth.sasl

    @model_validator(mode="after")
    def _topic_is_a_name(self) -> Self:
        if self.topic:
            KafkaTraces(topic=self.topic)
        return self
