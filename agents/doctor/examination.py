"""All checks, in the order in which somebody would look."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from agents.control_keys import ControlKeyError, control_keys
from agents.doctor.brokers import brokers
from agents.doctor.certificates import validity
from agents.doctor.endpoints import endpoints
from agents.doctor.finding import Finding, error
from agents.doctor.listeners import listeners, secret_files, tenants
from schemas.config import Config


def examine(config: Config) -> Iterator[Finding]:
    """What is found, as soon as it is. Connects to Kafka and to the endpoints, and changes nothing."""
    yield from listeners(config)
    yield from tenants(config)
    yield from _certificates(config)
    yield from secret_files(secrets_of(config))
    try:
        control_keys(config)
    except ControlKeyError as failure:
        yield error("spanmill.control_key_file", f"{failure}")
    yield from brokers(config)
    yield from asyncio.run(endpoints(config))


def _certificates(config: Config) -> Iterator[Finding]:
    now = datetime.now(UTC)
    for key, file in certificates_of(config).items():
        yield from validity(key, file, now)


def certificates_of(config: Config) -> dict[str, Path]:
    """The files of certificates, by their keys."""
    found: dict[str, Path | None] = {}
    for key, server in config.distributor.receivers.servers.items():
        if server.tls is not None:
            found[f"distributor.receivers.{key}.tls.cert_file"] = server.tls.cert_file
            found[f"distributor.receivers.{key}.tls.client_ca_file"] = server.tls.client_ca_file
    kafka = config.ingest.kafka
    if kafka.tls_enabled:
        found["ingest.kafka.tls_ca_path"] = Path(kafka.tls_ca_path) if kafka.tls_ca_path else None
        found["ingest.kafka.tls_cert_path"] = Path(kafka.tls_cert_path) if kafka.tls_cert_path else None
    for i, endpoint in enumerate(config.metrics_generator.storage.remote_write):
        key = f"metrics_generator.storage.remote_write[{i}].tls_config"
        found[f"{key}.ca_file"] = endpoint.tls_config.ca_file
        found[f"{key}.cert_file"] = endpoint.tls_config.cert_file
    return {key: file for key, file in found.items() if file is not None}


def secrets_of(config: Config) -> dict[str, Path]:
    """The files that only we should read, by their keys."""
    found: dict[str, Path | None] = {"spanmill.control_key_file": config.spanmill.control_key_file}
    known = config.spanmill.distributor.tenants
    found["spanmill.distributor.tenants.tokens_file"] = None if known is None else known.tokens_file
    for key, server in config.distributor.receivers.servers.items():
        found[f"distributor.receivers.{key}.tls.key_file"] = None if server.tls is None else server.tls.key_file
    kafka = config.ingest.kafka
    found["ingest.kafka.sasl_password_file"] = kafka.sasl_password_file
    found["ingest.kafka.sasl_oauthbearer_file_path"] = kafka.sasl_oauthbearer_file_path
    found["ingest.kafka.tls_key_path"] = Path(kafka.tls_key_path) if kafka.tls_key_path else None
    for i, endpoint in enumerate(config.metrics_generator.storage.remote_write):
        key = f"metrics_generator.storage.remote_write[{i}]"
        found[f"{key}.tls_config.key_file"] = endpoint.tls_config.key_file
        found[f"{key}.bearer_token_file"] = endpoint.bearer_token_file
        basic, typed, oauth2 = endpoint.basic_auth, endpoint.authorization, endpoint.oauth2
        found[f"{key}.basic_auth.password_file"] = None if basic is None else basic.password_file
        found[f"{key}.authorization.credentials_file"] = None if typed is None else typed.credentials_file
        found[f"{key}.oauth2.client_secret_file"] = None if oauth2 is None else oauth2.client_secret_file
    return {key: file for key, file in found.items() if file is not None}
