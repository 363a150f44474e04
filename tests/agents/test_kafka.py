"""Client settings from `ingest.kafka`."""

import asyncio
import base64
import json
import socket
import ssl
import threading
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer

from agents import kafka
from agents.kafka_token import UNKNOWN_LIFE_S, KafkaToken, TokenError
from schemas.config import Config, ConfigError, load_config
from schemas.config.kafka import CIPHER_SUITES
from tests.servers.certificates import Authority


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


def test_a_password_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p\n")
    safe = config(sasl_username="u", sasl_password_file=file)
    assert kafka.client_settings(safe)["sasl.password"] == "p"
    assert kafka.faust_settings(safe, {})["broker_credentials"].password == "p"
    file.unlink()
    with pytest.raises(FileNotFoundError):
        kafka.client_settings(safe)


def jwt(**claims: object) -> str:
    parts = ({"alg": "none"}, claims)
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), ""])


def tokens(file: Path, text: str, clock: float = 1000.0) -> KafkaToken:
    file.write_text(text)
    settings = config(sasl_mechanism="OAUTHBEARER", sasl_oauthbearer_file_path=file)
    return KafkaToken(settings.ingest.kafka, lambda: clock)


def test_a_token_in_a_file_is_text_or_json(tmp_path: Path) -> None:
    plain = tokens(tmp_path / "a", "opaque\n")
    assert plain.for_librdkafka("") == ("opaque", 1000 + UNKNOWN_LIFE_S, "", {})
    expiring = jwt(exp=1060)
    from_json = tokens(tmp_path / "b", json.dumps({"token": expiring, "extensions": {"logicalCluster": "lkc-1"}}))
    assert from_json.for_librdkafka("") == (expiring, 1060, "", {"logicalCluster": "lkc-1"})
    assert asyncio.run(from_json.token()) == expiring
    assert from_json.extensions() == {"logicalCluster": "lkc-1"}


@pytest.mark.parametrize(
    "text",
    ["", "two words", "a\nb", "{", "{}", '{"token": 1}', '{"token": ""}', '{"token": "a\\u0001b"}', '{"token": "é"}'],
)
def test_what_is_no_token_is_said_without_showing_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(TokenError, match="token") as error:
        tokens(tmp_path / "file", text).read()
    assert not text or text not in str(error.value)


def test_a_token_is_read_anew_each_time(tmp_path: Path) -> None:
    token = tokens(tmp_path / "file", "first")
    assert token.read().value == "first"
    (tmp_path / "file").write_text(jwt(exp=999))
    with pytest.raises(TokenError, match=r"expired 1 s ago; renew it"):
        token.read()
    (tmp_path / "file").write_text("third")
    assert asyncio.run(token.token()) == "third"


def test_a_token_goes_to_both_clients() -> None:
    safe = config(sasl_mechanism="OAUTHBEARER", sasl_oauthbearer_token="t", tls_enabled="true")
    settings = kafka.client_settings(safe)
    assert (settings["security.protocol"], settings["sasl.mechanism"]) == ("SASL_SSL", "OAUTHBEARER")
    assert settings["oauth_cb"]("")[0] == "t"
    credentials = kafka.faust_settings(safe, {})["broker_credentials"]
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_SSL", "OAUTHBEARER")
    assert asyncio.run(credentials.oauth_cb.token()) == "t"


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"sasl_mechanism": "OAUTHBEARER"}, "needs sasl_oauthbearer_token or sasl_oauthbearer_file_path"),
        ({"sasl_oauthbearer_token": "t"}, "a token is of no use to PLAIN"),
        (
            {"sasl_mechanism": "OAUTHBEARER", "sasl_oauthbearer_token": "t", "sasl_oauthbearer_file_path": "/t"},
            "exclude each other",
        ),
        (
            {
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauthbearer_token": "t",
                "sasl_username": "u",
                "sasl_password": "p",
            },
            "leave sasl_username out",
        ),
        ({"sasl_username": "u", "sasl_password": "p", "sasl_password_file": "/p"}, "exclude each other"),
        (
            {"sasl_mechanism": "OAUTHBEARER", "sasl_oauthbearer_token": "t", "sasl_oauthbearer_zid": "z"},
            "not implemented yet: a zid, which our clients of Kafka can't send",
        ),
        ({"tls_server_name": "kafka"}, "another name than the broker's own"),
        ({"tls_min_version": "VersionTLS13"}, "TLS 1.3 as the oldest version"),
        ({"tls_cipher_suites": "TLS_RSA_WITH_RC4_128_SHA"}, "is none of TLS 1.2's suites"),
        ({"tls_cipher_suites": "TLS_AES_128_GCM_SHA256"}, "all of TLS 1.3's are always allowed"),
    ],
)
def test_what_can_not_be_done_is_refused(settings: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(**settings)
    assert what in str(error.value)


@pytest.mark.parametrize("name", CIPHER_SUITES)
def test_both_clients_know_each_cipher_suite(name: str) -> None:
    encrypted = config(tls_enabled="true", tls_cipher_suites=name)
    Producer({**kafka.producer_settings(encrypted, 1.0), "log_level": 0})
    context = kafka.faust_settings(encrypted, {})["broker_credentials"].context
    assert CIPHER_SUITES[name] in {cipher["name"] for cipher in context.get_ciphers()}


class TlsServer:
    """Shakes hands and says what was agreed on."""

    def __init__(self, authority: Authority, version: ssl.TLSVersion) -> None:
        context = authority.server()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.agreed: list[str | None] = []
        self._context = context
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            try:
                shaken = self._context.wrap_socket(connection, server_side=True)
            except OSError:
                self.agreed.append(None)
            else:
                cipher = shaken.cipher()
                self.agreed.append(cipher and cipher[0])
                shaken.close()

    def close(self) -> None:
        self._socket.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize(
    ("version", "agreed"),
    [(ssl.TLSVersion.TLSv1_1, None), (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256")],
)
def test_no_older_version_than_1_2_is_spoken_and_only_chosen_suites(
    tmp_path: Path, version: ssl.TLSVersion, agreed: str | None
) -> None:
    """That is what makes VersionTLS12 true for both."""
    authority = Authority(tmp_path)
    server = TlsServer(authority, version)
    safe = config(
        tls_enabled="true",
        tls_ca_path=authority.certificate,
        tls_min_version="VersionTLS12",
        tls_cipher_suites="TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    )
    producer = Producer(
        {**kafka.producer_settings(safe, 1.0), "bootstrap.servers": f"127.0.0.1:{server.port}", "log_level": 0}
    )
    with pytest.raises(KafkaException):
        producer.list_topics(timeout=1)
    context = kafka.faust_settings(safe, {})["broker_credentials"].context
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        try:
            shaken = context.wrap_socket(connection, server_hostname="127.0.0.1")
            assert shaken.cipher()[0] == agreed
            shaken.close()
        except OSError:
            assert agreed is None
    server.close()
    assert set(server.agreed) == {agreed}
