"""Kafka (`ingest.kafka`, Tempo §13.1)."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from schemas.config.durations import PositiveSeconds
from schemas.config.section import Int, Section, check_kafka_name

MIN_RECORD_BYTES = 65_536
MAX_RECORD_BYTES = 15_983_616
"""Tempo's own maximum: 16,000,000 bytes less 16 KiB for the batch around the record."""

COMPRESSIONS = ("", "none", "gzip", "snappy", "lz4", "zstd")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM")
OAUTHBEARER = "OAUTHBEARER"

CIPHER_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
}
"""Go's names of TLS 1.2's suites, which Tempo's files have, and OpenSSL's. RC4 and 3DES aren't in OpenSSL any more."""


def openssl_ciphers(names: str) -> str:
    """OpenSSL's list of Go's comma-separated names. Raises ValueError for one that it doesn't have."""
    return ":".join(CIPHER_SUITES[name] for name in _suites(names))


def _suites(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def check_cipher_suites(names: str) -> str:
    """Go's names; those of TLS 1.3 can't be chosen, there as here."""
    for name in _suites(names):
        if name not in CIPHER_SUITES:
            raise ValueError(
                f"{name!r} is none of TLS 1.2's suites (all of TLS 1.3's are always allowed); choose from "
                f"{', '.join(CIPHER_SUITES)}"
            )
    return names


def check_address(address: str) -> str:
    """One or several `host:port`, separated by commas."""
    for broker in address.split(","):
        host, colon, port = broker.strip().rpartition(":")
        if not host or not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535 or "//" in host:
            raise ValueError(
                "the Kafka address has not been configured; write host:port, such as kafka:9092"
                if not address
                else f"{address!r} is not an address; write host:port, such as kafka:9092"
            )
    return address


def check_topic(topic: str) -> str:
    """A name for Kafka, or none."""
    return check_kafka_name(topic) if topic else topic


def check_record_bytes(size: int) -> int:
    """Tempo's range, from our smaller minimum on (KFK-1)."""
    if not MIN_RECORD_BYTES <= size <= MAX_RECORD_BYTES:
        raise ValueError(
            "the configured producer max record size bytes must be a value between "
            f"{MIN_RECORD_BYTES} and {MAX_RECORD_BYTES}"
        )
    return size


def check_compression(name: str) -> str:
    """Tempo KFK-1."""
    if name not in COMPRESSIONS:
        raise ValueError("the configured producer compression must be one of: none, gzip, snappy, lz4, zstd")
    return name


def check_mechanism(name: str) -> str:
    """Tempo KFK-1."""
    if name not in MECHANISMS:
        raise ValueError(f"the configured SASL mechanism is invalid, must be one of: {', '.join(MECHANISMS)}")
    return name


File = Annotated[Path | None, Field(strict=False)]


class KafkaConfig(Section):
    """How to reach Kafka, and what records may weigh."""

    address: Annotated[str, AfterValidator(check_address)] = "localhost:9092"
    """One or several `host:port`, separated by commas."""
    topic: Annotated[str, AfterValidator(check_topic)] = ""
    """The spans topic; `spanmill.topics.spans` is the same setting, beside the other topics. Tempo has no default."""
    client_id: str = "spanmill"
    """Tempo has none; a broker's logs and quotas name it."""
    client_rack: str = ""
    """Where we are, so that the nearest replica is read. Empty: the leader is."""
    dial_timeout_s: PositiveSeconds = Field(default=2.0, alias="dial_timeout")
    """How long to wait for a connection."""
    write_timeout_s: PositiveSeconds = Field(default=10.0, alias="write_timeout")
    """How long to wait until a record is written."""

    producer_max_record_size_bytes: Annotated[Int, AfterValidator(check_record_bytes)] = 1_000_000
    """Larger requests are split. Below 1 MiB, unlike Tempo's 15,983,616: brokers take 1 MiB unless told otherwise, and
    their answer to a larger record would be the loss of a request."""
    producer_max_buffered_bytes: Annotated[Int, Field(ge=0)] = 1 << 30
    """Beyond it the distributor refuses requests for now."""
    producer_compression: Annotated[str, AfterValidator(check_compression)] = ""
    """none, gzip, snappy, lz4 or zstd. Empty: the client's default."""

    sasl_mechanism: Annotated[str, AfterValidator(check_mechanism)] = "PLAIN"
    """PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, if there is a username; or OAUTHBEARER, with a token."""
    sasl_username: str = ""
    """Empty: no authentication, unless it is by a token."""
    sasl_password: SecretStr = SecretStr("")
    """Goes with the username, here or in a file."""
    sasl_password_file: File = None
    """The file that holds it, read when a client is made. Tempo has no such key."""
    sasl_oauthbearer_token: SecretStr = SecretStr("")
    """The token, if it never changes."""
    sasl_oauthbearer_file_path: File = None
    """The file that holds it: the token alone, or JSON with `token` and `extensions`. Read anew before the token
    expires, and every 4 minutes if it doesn't say when."""
    sasl_oauthbearer_extensions: dict[str, str] = Field(default_factory=dict)
    """SASL extensions (KIP-342), such as a logical cluster's name."""
    sasl_oauthbearer_zid: str = ""
    """Whom to act for."""
    sasl_oauthbearer_http_socket_path: str = ""
    """A socket that tokens come from."""

    tls_enabled: bool = False
    """Whether connections are encrypted."""
    tls_ca_path: str = ""
    """Whose certificates are trusted. Empty: the system's."""
    tls_cert_path: str = ""
    """Our own certificate, if the broker asks for one."""
    tls_key_path: str = ""
    """Its key."""
    tls_server_name: str = ""
    """What the broker's certificate has to name."""
    tls_insecure_skip_verify: bool = False
    """Whether any certificate is trusted."""
    tls_cipher_suites: Annotated[str, AfterValidator(check_cipher_suites)] = ""
    """Which of TLS 1.2's are allowed, by Go's names (TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), separated by commas.
    Empty: OpenSSL's choice."""
    tls_min_version: Literal["", "VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"] = ""
    """The oldest version that is allowed. VersionTLS12 is the oldest that is spoken, whatever this says."""

    @property
    def authenticates(self) -> bool:
        """Whether clients show who they are by SASL."""
        return bool(self.sasl_username) or self.sasl_mechanism == OAUTHBEARER

    @model_validator(mode="after")
    def _password_once(self) -> Self:
        if self.sasl_password.get_secret_value() and self.sasl_password_file:
            raise ValueError("sasl_password and sasl_password_file exclude each other; name one")
        return self

    @model_validator(mode="after")
    def _one_token_for_its_mechanism(self) -> Self:
        token = bool(self.sasl_oauthbearer_token.get_secret_value())
        if token and self.sasl_oauthbearer_file_path:
            raise ValueError("sasl_oauthbearer_token and sasl_oauthbearer_file_path exclude each other; name one")
        given = token or bool(self.sasl_oauthbearer_file_path)
        if self.sasl_mechanism == OAUTHBEARER:
            if self.sasl_username:
                raise ValueError("OAUTHBEARER has a token, and no username; leave sasl_username out")
            if not given and not self.sasl_oauthbearer_http_socket_path:
                raise ValueError("OAUTHBEARER needs sasl_oauthbearer_token or sasl_oauthbearer_file_path; name one")
        elif given:
            raise ValueError(f"a token is of no use to {self.sasl_mechanism}; set sasl_mechanism: OAUTHBEARER")
        return self

    @model_validator(mode="after")
    def _credentials_come_in_pairs(self) -> Self:
        if bool(self.sasl_username) != bool(self.sasl_password.get_secret_value() or self.sasl_password_file):
            raise ValueError("the SASL username and password must be both configured to enable SASL authentication")
        if bool(self.tls_cert_path) != bool(self.tls_key_path):
            raise ValueError("tls_cert_path and tls_key_path belong together; name both or neither")
        return self


class IngestConfig(Section):
    """The log."""

    kafka: KafkaConfig = KafkaConfig()
