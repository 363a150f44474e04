"""All stages reach a Kafka that asks who they are: by password, token or certificate, in the open and encrypted."""

import asyncio
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from agents import kafka as clients
from agents.doctor.brokers import brokers
from agents.kafka_token import TokenError
from agents.producer import Producer
from agents.topics import Admin, TopicsError
from schemas.config import Config, load_config
from tests.e2e.cluster import PATIENCE
from tests.servers.kafka_security import PASSWORD, USER, SecureKafka, token
from tests.servers.ports import free_port

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).resolve().parents[2]
READY_S, METRICS_S = 900 * PATIENCE, 120 * PATIENCE  # kernels may have to be compiled

Settings = dict[str, Any]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    server = SecureKafka(tmp_path_factory.mktemp("secure-kafka"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def by_plain(kafka: SecureKafka, directory: Path) -> Settings:
    return {"address": kafka.passwords, "sasl_username": USER, "sasl_password": PASSWORD}


def by_scram(kafka: SecureKafka, directory: Path) -> Settings:
    file = directory / "password"
    file.write_text(f"{PASSWORD}\n")
    return {
        "address": kafka.encrypted,
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": USER,
        "sasl_password_file": str(file),
        **trusting(kafka),
    }


def by_token_file(kafka: SecureKafka, directory: Path) -> Settings:
    file = directory / "token.json"
    file.write_text(f'{{"token": "{token()}", "extensions": {{"traceId": "1"}}}}')
    return {
        "address": kafka.encrypted,
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauthbearer_file_path": str(file),
        **trusting(kafka),
    }


def by_token(kafka: SecureKafka, directory: Path) -> Settings:
    return {"address": kafka.passwords, "sasl_mechanism": "OAUTHBEARER", "sasl_oauthbearer_token": token()}


def by_certificate(kafka: SecureKafka, directory: Path) -> Settings:
    certificate, key = kafka.authority.certify("client")
    return {
        "address": kafka.mutual,
        **trusting(kafka),
        "tls_cert_path": str(certificate),
        "tls_key_path": str(key),
        "tls_min_version": "VersionTLS12",
        "tls_cipher_suites": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    }


def trusting(kafka: SecureKafka) -> Settings:
    return {"tls_enabled": True, "tls_ca_path": str(kafka.authority.certificate)}


Way = Callable[[SecureKafka, Path], Settings]
WAYS: list[Way] = [by_plain, by_scram, by_token_file, by_token, by_certificate]


def config(settings: Settings) -> Config:
    return load_config(None, yaml.safe_dump({"ingest": {"kafka": settings}}))


@pytest.mark.parametrize("way", [by_plain, by_scram, by_token_file, by_certificate])
def test_spans_become_metrics(secure: SecureKafka, tmp_path: Path, way: Way) -> None:
    """The distributor's producer, the generator's and the sink's Faust apps, their producers, probes and admins."""
    port, receiver = free_port(), free_port()
    app = secure.broker.unique("secure").replace("-", "_")
    file = tmp_path / "spanmill.yaml"
    settings = way(secure, tmp_path)
    file.write_text(
        yaml.safe_dump(
            {
                "ingest": {"kafka": settings},
                "metrics_generator": {"registry": {"collection_interval": "5s"}},
                "overrides": {"defaults": {"metrics_generator": {"processors": ["span-metrics"]}}},
                "distributor": {
                    "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{receiver}"}}}},
                },
                "spanmill": {
                    "app_id": app,
                    "topics": {"spans": f"{app}-spans", "deltas": f"{app}-deltas", "dead_letters": f"{app}-dead"},
                },
            }
        )
    )
    arguments = ["--config.file", str(file), "--kafka", settings["address"], "--port", str(port)]
    with process("dev", *arguments, log=tmp_path / "log") as running:
        until(running, READY_S, lambda: get(port, "/readyz") is not None)
        send_span(f"http://127.0.0.1:{receiver}/v1/traces")
        until(running, METRICS_S, lambda: "traces_spanmetrics_calls_total{" in (get(port, "/generated") or ""))
    assert sum(secure.broker.ends(f"{app}-spans").values()) > 0
    for secret in (PASSWORD, settings.get("sasl_oauthbearer_token") or token()[:40]):
        assert secret not in (tmp_path / "log").read_text()


@contextmanager
def process(*arguments: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as out:
        running = subprocess.Popen([sys.executable, "spanmill.py", *arguments], cwd=ROOT, stdout=out, stderr=out)
        try:
            yield running
        except AssertionError:
            print(log.read_text()[-4000:])
            raise
        finally:
            running.kill()
            running.wait()


def get(port: int, path: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return None


def until(running: "subprocess.Popen[bytes]", seconds: float, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert running.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def send_span(url: str) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=url)))
    provider.get_tracer("t").start_span("secured").end()
    provider.shutdown()


@pytest.mark.parametrize("way", WAYS)
async def test_a_record_is_acknowledged(secure: SecureKafka, tmp_path: Path, way: Way) -> None:
    topic = secure.broker.new_topic("secured")
    producer = Producer(clients.producer_settings(config(way(secure, tmp_path)), 20))
    try:
        sent = await producer.send(topic, 0, b"x")
        assert await asyncio.wait_for(sent, 30) == 0
    finally:
        producer.close()


@pytest.mark.parametrize(
    ("way", "wrong"),
    [
        (by_plain, {"sasl_password": "wrong-0123456789"}),
        (by_scram, {"sasl_username": "nobody"}),
        (by_token, {"sasl_oauthbearer_token": "opaque-0123456789"}),
        (by_certificate, {"tls_ca_path": ""}),
        (by_plain, {"sasl_username": "", "sasl_password": ""}),
    ],
)
def test_strangers_are_refused(secure: SecureKafka, tmp_path: Path, way: Way, wrong: Settings) -> None:
    settings = {**way(secure, tmp_path), **wrong}
    with pytest.raises(TopicsError, match="doesn't answer"):
        Admin(config(settings), timeout_s=3).describe(["any"])


def test_the_doctor_says_why_a_stranger_is_refused(secure: SecureKafka, tmp_path: Path) -> None:
    wrong = config({**by_plain(secure, tmp_path), "sasl_password": "wrong-0123456789"})
    failed = [each.text for each in brokers(wrong) if each.level == "error"]
    assert len(failed) == 1
    assert "Authentication failed" in failed[0]
    assert "wrong-0123456789" not in failed[0]
    encrypted = config({**by_scram(secure, tmp_path), "tls_ca_path": ""})
    failed = [each.text for each in brokers(encrypted) if each.level == "error"]
    assert "certificate verify failed" in failed[0]


def test_a_renewed_token_is_used_by_the_next_client(secure: SecureKafka, tmp_path: Path) -> None:
    settings = by_token_file(secure, tmp_path)
    file = Path(settings["sasl_oauthbearer_file_path"])
    file.write_text(token(expires_in_s=-60))
    with pytest.raises(TokenError, match=r"token.json: the token for Kafka expired 6\d s ago; renew it"):
        Admin(config(settings))
    file.write_text(token())
    assert Admin(config(settings), timeout_s=20).describe(["any"]) == {}
