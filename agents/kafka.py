"""How our clients reach Kafka: the settings of librdkafka and of Faust, from `ingest.kafka`.

What either of them can't do (`tls_server_name`, for one) is refused where the configuration is read.
"""

import os
import ssl
from collections.abc import Mapping
from typing import Any

from agents.kafka_token import KafkaToken
from schemas.config import Config
from schemas.config.kafka import OAUTHBEARER, KafkaConfig, openssl_ciphers

INSTANCE_ID_VARIABLE = "SPANMILL_INSTANCE_ID"
"""Names a process for static membership: its partitions wait for it through a restart (a pod's name)."""

MAX_REQUEST_BYTES = 100_000_000
"""The brokers' own limit of a request: how large a record may be is decided by the topic."""

MIN_SETUP_TIMEOUT_MS = 1000  # librdkafka's own lower bound
MAX_BUFFER_KIB = 2_147_483_647  # and its upper bound, which stands for Tempo's 0, unlimited


def client_settings(config: Config) -> dict[str, Any]:
    """What every librdkafka client needs: addresses, credentials, encryption.

    Raises OSError or `TokenError` if there is no password or token where it should be.
    """
    kafka = config.ingest.kafka
    return {
        "bootstrap.servers": kafka.address,
        "client.id": kafka.client_id,
        "socket.connection.setup.timeout.ms": max(round(kafka.dial_timeout_s * 1000), MIN_SETUP_TIMEOUT_MS),
        "security.protocol": _protocol(kafka),
        **(_sasl(kafka) if kafka.authenticates else {}),
        **(_tls(kafka) if kafka.tls_enabled else {}),
    }


def producer_settings(config: Config, timeout_s: float | None = None) -> dict[str, Any]:
    """A producer that gives a record up after `timeout_s`; by default never, for stages whose order is protocol.

    Acknowledgements and idempotence aren't settings: `agents.producer.Producer` always has them.
    """
    kafka = config.ingest.kafka
    buffer_kib = kafka.producer_max_buffered_bytes // 1024 or MAX_BUFFER_KIB
    return {
        **client_settings(config),
        "message.timeout.ms": 0 if timeout_s is None else max(round(timeout_s * 1000), 1),
        "message.max.bytes": MAX_REQUEST_BYTES,
        "queue.buffering.max.kbytes": buffer_kib,
        "queue.buffering.max.messages": 0,  # bytes are what counts
        **({"compression.type": kafka.producer_compression} if kafka.producer_compression else {}),
    }


def consumer_settings(config: Config, group: str) -> dict[str, Any]:
    """A consumer of a group: from the earliest record on, commits are the caller's, static if the process is named."""
    kafka = config.ingest.kafka
    return {
        **client_settings(config),
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 2_000,
        **({"client.rack": kafka.client_rack} if kafka.client_rack else {}),
        **_instance("group.instance.id", os.environ),
    }


def faust_settings(config: Config, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Faust's broker settings: addresses, credentials, encryption, instance id."""
    kafka = config.ingest.kafka
    brokers = ";".join(f"kafka://{address.strip()}" for address in kafka.address.split(","))
    return {
        "broker": brokers,
        "broker_client_id": kafka.client_id,
        **_faust_credentials(kafka),
        **_instance("consumer_group_instance_id", environ),
    }


def _instance(key: str, environ: Mapping[str, str]) -> dict[str, str]:
    name = environ.get(INSTANCE_ID_VARIABLE)
    return {key: name} if name else {}


def _protocol(kafka: KafkaConfig) -> str:
    if kafka.authenticates:
        return "SASL_SSL" if kafka.tls_enabled else "SASL_PLAINTEXT"
    return "SSL" if kafka.tls_enabled else "PLAINTEXT"


def _sasl(kafka: KafkaConfig) -> dict[str, Any]:
    if kafka.sasl_mechanism == OAUTHBEARER:
        token = KafkaToken(kafka)
        token.read()  # librdkafka would wait 10 s and not say what is wrong
        return {"sasl.mechanism": OAUTHBEARER, "oauth_cb": token.for_librdkafka}
    return {
        "sasl.mechanism": kafka.sasl_mechanism,
        "sasl.username": kafka.sasl_username,
        "sasl.password": password(kafka),
    }


def password(kafka: KafkaConfig) -> str:
    """The password, from its file if it is in one. Raises OSError."""
    file = kafka.sasl_password_file
    return kafka.sasl_password.get_secret_value() if file is None else file.read_text().strip()


def _tls(kafka: KafkaConfig) -> dict[str, Any]:
    paths = {
        "ssl.ca.location": kafka.tls_ca_path,
        "ssl.certificate.location": kafka.tls_cert_path,
        "ssl.key.location": kafka.tls_key_path,
    }
    return {
        **{key: path for key, path in paths.items() if path},
        **({"ssl.cipher.suites": openssl_ciphers(kafka.tls_cipher_suites)} if kafka.tls_cipher_suites else {}),
        "enable.ssl.certificate.verification": not kafka.tls_insecure_skip_verify,
    }


def _faust_credentials(kafka: KafkaConfig) -> dict[str, Any]:
    if not kafka.authenticates and not kafka.tls_enabled:
        return {}
    import faust  # noqa: PLC0415 -- the distributor and the ingester don't need it
    from aiokafka.abc import AbstractTokenProvider  # noqa: PLC0415 -- as above
    from faust.auth import OAuthCredentials  # noqa: PLC0415 -- as above

    context = _ssl_context(kafka) if kafka.tls_enabled else None
    if not kafka.authenticates:
        return {"broker_credentials": faust.SSLCredentials(context)}
    if kafka.sasl_mechanism == OAUTHBEARER:
        AbstractTokenProvider.register(KafkaToken)
        return {"broker_credentials": OAuthCredentials(oauth_cb=KafkaToken(kafka), ssl_context=context)}
    credentials = faust.SASLCredentials(
        username=kafka.sasl_username,
        password=password(kafka),
        ssl_context=context,
        mechanism=kafka.sasl_mechanism,
    )
    return {"broker_credentials": credentials}


def _ssl_context(kafka: KafkaConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=kafka.tls_ca_path or None)
    if kafka.tls_cipher_suites:
        context.set_ciphers(openssl_ciphers(kafka.tls_cipher_suites))
    if kafka.tls_cert_path:
        context.load_cert_chain(kafka.tls_cert_path, kafka.tls_key_path)
    if kafka.tls_insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
