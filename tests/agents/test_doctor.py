"""`spanmill doctor`: what it finds in configurations, certificates, endpoints and on real Kafka."""

import json
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from agents import cli, topics
from agents.doctor.brokers import brokers, compared
from agents.doctor.certificates import not_after, validity
from agents.doctor.endpoints import endpoints
from agents.doctor.examination import certificates_of, secrets_of
from agents.doctor.finding import Finding, Level
from agents.doctor.listeners import is_local, listeners, secret_files, tenants
from agents.topics import TopicNames
from schemas.config import Config, load_config
from tests.servers.certificates import Authority
from tests.servers.kafka import KafkaBroker

CANARY = "Canary0123456789"


def levels(found: list[Finding]) -> list[tuple[str, str]]:
    return [(each.level.value, each.subject) for each in found]


def receivers(text: str) -> Config:
    return load_config(None, f"distributor: {{receivers: {text}}}")


def test_a_listener_for_others_without_tls_is_a_warning() -> None:
    found = list(listeners(receivers("{otlp: {protocols: {grpc: {endpoint: '0.0.0.0:4317'}, http: }}, zipkin: }")))
    assert levels(found) == [
        ("warning", "distributor.receivers.otlp.protocols.grpc"),
        ("ok", "distributor.receivers.otlp.protocols.http"),
        ("ok", "distributor.receivers.zipkin"),
        ("ok", "server"),
    ]
    assert "in plain text from other machines; set tls" in found[0].text


def test_tls_that_can_not_be_used_is_an_error(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path / "ca").certify("server")
    _, other = Authority(tmp_path / "other").certify("server")
    for its_key, level in ((key, "ok"), (other, "error"), (tmp_path / "none", "error")):
        tls = f"{{cert_file: {cert}, key_file: {its_key}}}"
        config = receivers(f"{{otlp: {{protocols: {{grpc: {{endpoint: '0.0.0.0:4317', tls: {tls}}}}}}}}}")
        assert next(iter(listeners(config))).level == level


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("[::1]", True), ("", False), ("0.0.0.0", False), ("kafka", False)],
)
def test_who_reaches_a_listener(host: str, local: bool) -> None:
    assert is_local(host) is local


def test_a_trusted_header_is_a_warning(tmp_path: Path) -> None:
    (one,) = tenants(load_config(None, ""))
    assert one.level is Level.OK
    (trusted,) = tenants(load_config(None, "multitenancy_enabled: true"))
    assert (trusted.level, "a client can write as any tenant" in trusted.text) == (Level.WARNING, True)
    file = tmp_path / "tokens"
    text = f"multitenancy_enabled: true\nspanmill: {{distributor: {{tenants: {{tokens_file: {file}}}}}}}"
    assert [each.level.value for each in tenants(load_config(None, text))] == ["ok", "error"]
    file.write_text("shop token-0123456789\n")
    assert [each.level.value for each in tenants(load_config(None, text))] == ["ok"]


def test_a_secret_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("x")
    for mode, level in ((0o640, Level.OK), (0o644, Level.WARNING)):
        file.chmod(mode)
        assert [each.level for each in secret_files({"key": file})] == [level]
    assert [each.level for each in secret_files({"key": tmp_path / "none"})] == [Level.ERROR]


def test_every_file_of_a_configuration_is_looked_at() -> None:
    config = load_config(
        None,
        """
multitenancy_enabled: true
ingest: {kafka: {tls_enabled: true, tls_ca_path: /1, tls_cert_path: /2, tls_key_path: /3, sasl_username: u,
                 sasl_password_file: /4}}
distributor: {receivers: {otlp: {protocols: {grpc: {tls: {cert_file: /5, key_file: /6, client_ca_file: /7}}}}}}
metrics_generator: {storage: {remote_write: [
  {url: "http://a/", tls_config: {ca_file: /8, cert_file: /9, key_file: /10}, bearer_token_file: /11},
  {url: "http://a/", basic_auth: {username: u, password_file: /12}},
  {url: "http://a/", authorization: {credentials_file: /13}},
  {url: "http://a/", oauth2: {client_id: c, client_secret_file: /14, token_url: "http://t/"}}]}}
spanmill: {control_key_file: /15, distributor: {tenants: {tokens_file: /16}}}
""",
    )
    found = {*certificates_of(config).values(), *secrets_of(config).values()}
    assert found == {Path(f"/{i}") for i in range(1, 17)}


@pytest.mark.parametrize(("days", "level"), [(0, "warning"), (13, "warning"), (15, "ok"), (10_000, "ok")])
def test_certificates_expire(tmp_path: Path, days: int, level: str) -> None:
    file = tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=x", "-days", str(days + 1), "-out", file, "-newkey", "ec",
         "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", tmp_path / "key.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    now = datetime.now(UTC)
    (found,) = validity("key", file, now + timedelta(hours=1))
    assert found.level == level
    shown = subprocess.run(
        ["openssl", "x509", "-enddate", "-noout", "-in", file], check=True, capture_output=True, text=True
    )
    end = datetime.strptime(shown.stdout.strip(), "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    assert not_after(ssl.PEM_cert_to_DER_cert(file.read_text())) == end
    (found,) = validity("key", file, end + timedelta(seconds=1))
    assert (found.level, "has expired" in found.text) == ("error", True)


def test_what_is_no_certificate_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    for text in ("", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        file.write_text(text)
        (found,) = validity("key", file, datetime.now(UTC))
        assert found.level == "error"
    (found,) = validity("key", tmp_path / "none", datetime.now(UTC))
    assert "can't be read" in found.text


@given(st.binary(max_size=60))
def test_bytes_that_are_no_certificate_are_refused(der: bytes) -> None:
    with pytest.raises((ValueError, IndexError)) as error:
        not_after(der)
    assert isinstance(error.value, ValueError)


@asynccontextmanager
async def prometheus(status: int, shown: object = None) -> AsyncIterator[str]:
    """What takes remote write and may show its configuration."""
    app = web.Application()

    async def write(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {CANARY}"
        return web.Response(status=status, text="" if status < 300 else "said so")

    async def show(_: web.Request) -> web.Response:
        return web.json_response(shown) if shown is not None else web.Response(status=404)

    app.router.add_post("/api/v1/write", write)
    app.router.add_get("/api/v1/status/config", show)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1/write"
    finally:
        await runner.cleanup()


async def found_at(url: str, extra: str = "") -> list[Finding]:
    write = f"[{{url: '{url}', authorization: {{credentials: {CANARY}}}{extra}}}]"
    found = await endpoints(load_config(None, f"metrics_generator: {{storage: {{remote_write: {write}}}}}"))
    assert CANARY not in str(found)
    return found


@pytest.mark.parametrize(
    ("status", "level"), [(204, "ok"), (400, "ok"), (401, "error"), (403, "error"), (404, "error"), (500, "warning")]
)
async def test_an_endpoint_is_asked_with_nothing(status: int, level: str) -> None:
    async with prometheus(status) as url:
        assert (await found_at(url))[0].level == level


@pytest.mark.parametrize(
    ("shown", "level", "text"),
    [
        ({"data": {"yaml": "storage: {tsdb: {out_of_order_time_window: 1d}}"}}, "ok", "window is 1d"),
        ({"data": {"yaml": "global: {scrape_interval: 15s}"}}, "warning", "about an hour; set storage.tsdb"),
        ({"data": {}}, "ok", "doesn't show"),
        ({"data": {"yaml": "a: [b"}}, "ok", "doesn't show"),
        (None, "ok", "doesn't show"),
    ],
)
async def test_how_old_samples_are_taken_is_said_where_it_shows(shown: object, level: str, text: str) -> None:
    async with prometheus(204, shown) as url:
        found = await found_at(url)
    assert (found[1].level, text in found[1].text) == (level, True)


async def test_an_endpoint_that_is_not_there_is_an_error() -> None:
    async with prometheus(204) as url:
        pass
    (found,) = await found_at(url)
    assert (found.level, found.text.startswith("no answer: ")) == ("error", True)
    (found,) = await endpoints(load_config(None, ""))
    assert found.level == "warning"


@pytest.mark.parametrize(
    ("kind", "ahead_s", "level"),
    [(2, 0.5, "ok"), (2, -3, "warning"), (2, 3, "warning"), (2, 61, "error"), (2, -61, "error"), (1, 500, "ok")],
)
def test_a_clock_that_is_off_is_said(kind: int, ahead_s: float, level: str) -> None:
    (found,) = compared("clock", (kind, 1_000_000 + ahead_s * 1000), 1000.0)
    assert found.level == level


def config_of(kafka: KafkaBroker, more: str = "") -> tuple[Config, TopicNames]:
    app = kafka.unique("doctor").replace("-", "_")
    names = f"{{spans: {app}-spans, deltas: {app}-deltas, dead_letters: {app}-dead}}"
    text = f"ingest: {{kafka: {{address: '{kafka.address}'}}}}\nspanmill: {{app_id: {app}, topics: {names}{more}}}"
    config = load_config(None, text)
    return config, TopicNames.of(config)


@pytest.mark.kafka
def test_topics_are_as_they_should_be_or_it_says_what_to_do(kafka: KafkaBroker) -> None:
    config, names = config_of(kafka)
    missing = list(brokers(config))
    assert {each.subject for each in missing if each.level == "error"} == set(names.all)
    assert all("spanmill topics create" in each.text for each in missing if each.level == "error")
    list(topics.create(config, 2, 1))
    created = list(brokers(config))
    assert [each for each in created if each.level == "error"] == []
    assert {each.subject for each in created if "there is one replica" in each.text} == set(names.all)
    assert ("ok", "clock") in levels(created)
    change(config, names.deltas, {"retention.ms": "60000", "min.insync.replicas": "2"})
    change(config, names.spans, {"message.timestamp.type": "CreateTime"})
    broken = [str(each) for each in brokers(config) if each.level == "error"]
    assert [text for text in broken if names.deltas in text and "less than hold_back and endpoint_max_lag" in text]
    assert [text for text in broken if names.deltas in text and "nothing can be written" in text]
    assert [text for text in broken if names.spans in text and "it must be LogAppendTime" in text]


def change(config: Config, topic: str, settings: dict[str, str]) -> None:
    topics.Admin(config).change(topic, settings)


@pytest.mark.kafka
def test_the_brokers_clock_is_compared_by_what_is_written_meanwhile(kafka: KafkaBroker) -> None:
    config, names = config_of(kafka)
    list(topics.create(config, 2, 1))
    writing = threading.Event()

    def write() -> None:
        while not writing.wait(0.2):
            kafka.produce(names.spans, b"")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        (found,) = (each for each in brokers(config) if each.subject == "clock")
    finally:
        writing.set()
        writer.join()
    assert "the brokers' clock is 0." in found.text


def test_the_command_says_each_finding_and_ends_with_one_for_errors(tmp_path: Path) -> None:
    file = tmp_path / "spanmill.yaml"
    file.write_text(
        f"""
multitenancy_enabled: true
ingest: {{kafka: {{address: "127.0.0.1:1", sasl_username: u, sasl_password: {CANARY}}}}}
metrics_generator: {{storage: {{remote_write: [{{url: "http://127.0.0.1:1/", bearer_token: {CANARY},
  proxy_url: "http://u:{CANARY}@127.0.0.1:1"}}]}}}}
"""
    )
    done = CliRunner().invoke(cli.cli, ["doctor", "--config.file", str(file), "--json"])
    assert done.exit_code == 1
    found = [Finding(Level(each["level"]), each["subject"], each["text"]) for each in json.loads(done.stdout)]
    assert [each.subject for each in found if each.level is Level.ERROR] == [
        "ingest.kafka",
        "remote_write http://127.0.0.1:1/",
    ]
    lines = CliRunner().invoke(cli.cli, ["doctor", "--config.file", str(file)])
    assert [line.split()[0] for line in lines.stdout.splitlines()] == [each.level.value for each in found]
    assert CANARY not in done.output + lines.output


def test_a_configuration_that_is_not_valid_is_no_finding(tmp_path: Path) -> None:
    file = tmp_path / "spanmill.yaml"
    file.write_text("server: {nothing: 1}")
    assert CliRunner().invoke(cli.cli, ["doctor", "--config.file", str(file)]).exit_code == 2
