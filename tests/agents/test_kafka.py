"""Client settings from `ingest.kafka`."""

import ssl

import pytest
from confluent_kafka import Consumer, Producer

from agents import kafka
from schemas.config import Config, load_config


def config(**settings: object) -> Config:
    lines = "".join(f", {key}: {value}" for key, value in settings.items())
    return load_config(None, f'ingest: {{kafka: {{address: "a:9092,b:9093"{lines}}}}}')


def test_plain_text_by_default() -> None:
    settings = kafka.client_settings(config())
    assert settings["bootstrap.servers"] == "a:9092,b:9093"
    assert settings["security.protocol"] == "PLAINTEXT"
    assert not any(key.startswith(("sasl", "ssl")) for key in settings)
    assert kafka.faust_settings(config(), {})["broker"] == "kafka://a:9092;kafka://b:9093"


def test_credentials_and_encryption_go_to_both_clients() -> None:
    safe = config(sasl_mechanism="SCRAM-SHA-512", sasl_username="u", sasl_password="p", tls_enabled="true")
    settings = kafka.client_settings(safe)
    assert settings["security.protocol"] == "SASL_SSL"
    assert (settings["sasl.mechanism"], settings["sasl.username"], settings["sasl.password"]) == (
        "SCRAM-SHA-512",
        "u",
        "p",
    )
    credentials = kafka.faust_settings(safe, {})["broker_credentials"]
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (credentials.username, credentials.password) == ("u", "p")
    assert credentials.ssl_context.verify_mode is ssl.CERT_REQUIRED


def test_encryption_without_credentials() -> None:
    encrypted = config(tls_enabled="true", tls_insecure_skip_verify="true")
    assert kafka.client_settings(encrypted)["security.protocol"] == "SSL"
    assert kafka.client_settings(encrypted)["enable.ssl.certificate.verification"] is False
    assert kafka.faust_settings(encrypted, {})["broker_credentials"].context.verify_mode is ssl.CERT_NONE


def test_a_producer_gives_up_only_if_it_is_told_to() -> None:
    assert kafka.producer_settings(config())["message.timeout.ms"] == 0
    assert kafka.producer_settings(config(), timeout_s=2.5)["message.timeout.ms"] == 2500


def test_librdkafka_accepts_the_settings() -> None:
    full = config(producer_compression="zstd", client_rack="r", producer_max_buffered_bytes=0)
    Producer({**kafka.producer_settings(full, 10.0), "enable.idempotence": True, "log_level": 0})
    consumer = Consumer({**kafka.consumer_settings(full, "g"), "log_level": 0})
    consumer.close()


def test_a_named_process_is_a_static_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kafka.INSTANCE_ID_VARIABLE, "pod-0")
    assert kafka.consumer_settings(config(), "g")["group.instance.id"] == "pod-0"
    assert (
        kafka.faust_settings(config(), {kafka.INSTANCE_ID_VARIABLE: "pod-0"})["consumer_group_instance_id"] == "pod-0"
    )
    assert "consumer_group_instance_id" not in kafka.faust_settings(config(), {})
