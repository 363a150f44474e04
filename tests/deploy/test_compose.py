import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from agents.kafka import INSTANCE_ID_VARIABLE
from schemas.config import load_config
from tests.deploy.command_line import ROOT, assert_is_command, words

COMPOSE = ROOT / "docker-compose.kafka.yml"
EXAMPLE = ROOT / "examples" / "spanmill.yaml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def ours(services: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in services.items() if each["image"] == "spanmill"}


def faults(file: Path) -> str:
    """What the Compose specification's schema says about a file; empty if it is as it should be."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_file_is_what_compose_takes():
    assert faults(COMPOSE) == ""


def test_a_mistyped_key_would_be_found(tmp_path):
    mistyped = tmp_path / "docker-compose.yml"
    mistyped.write_text(COMPOSE.read_text().replace("    volumes:", "    volums:", 1))
    assert "'volums'" in faults(mistyped)


def test_every_stage_runs_and_generators_and_sinks_twice(services):
    stages = [" ".join(words(each["command"])) for each in ours(services).values()]
    assert sorted(stages) == [
        "distributor", "generator", "generator", "ingester", "sink", "sink", "topics create",
    ]  # fmt: skip


def test_each_command_is_one_of_ours(services):
    for service in ours(services).values():
        assert_is_command(service["command"])


def test_members_of_a_group_have_names_of_their_own(services):
    names = {
        name: service["environment"][INSTANCE_ID_VARIABLE]
        for name, service in ours(services).items()
        if INSTANCE_ID_VARIABLE in service.get("environment", {})
    }
    assert names == {name: name for name in ("generator-1", "generator-2", "sink-1", "sink-2")}


def test_mounted_files_exist_and_named_volumes_are_declared(services):
    declared = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).is_file() if source.startswith(".") else source in declared, volume


def test_services_wait_for_services_that_exist(services):
    for name, service in services.items():
        assert set(service.get("depends_on", [])) <= services.keys(), name


def test_ports_are_published_on_this_machine_only(services):
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port


def test_addresses_in_the_configuration_are_services_with_those_ports(services):
    config = load_config(EXAMPLE)
    prometheus = urlsplit(config.metrics_generator.storage.remote_write[0].url)
    tempo = urlsplit(config.spanmill.ingester.endpoint)
    kafka = urlsplit(f"//{config.ingest.kafka.address}")
    assert {prometheus.hostname, tempo.hostname, kafka.hostname} <= services.keys()
    assert f"127.0.0.1:{prometheus.port}:{prometheus.port}" in services["prometheus"]["ports"]
    assert f"PLAINTEXT://kafka:{kafka.port}" in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    receiver = yaml.safe_load((ROOT / "deploy" / "tempo.yaml").read_text())["distributor"]["receivers"]["otlp"]
    assert receiver["protocols"]["grpc"]["endpoint"] == f"0.0.0.0:{tempo.port}"


def test_published_otlp_ports_are_those_the_distributor_listens_on(services):
    protocols = load_config(EXAMPLE).distributor.receivers.otlp.protocols
    published = [port.split(":")[-1] for port in services["distributor"]["ports"]]
    assert [f"0.0.0.0:{port}" for port in published] == [protocols.grpc.endpoint, protocols.http.endpoint]


def test_prometheus_takes_late_samples_and_scrapes_stages_that_exist(services):
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    assert config["storage"]["tsdb"]["out_of_order_time_window"] == "24h"
    assert "--web.enable-remote-write-receiver" in services["prometheus"]["command"]
    port = load_config(EXAMPLE).server.http_listen_port
    (scraped,) = config["scrape_configs"][0]["static_configs"]
    always = {name for name, service in ours(services).items() if "profiles" not in service} - {"topics"}
    assert {f"{name}:{port}" for name in always} == set(scraped["targets"])


def test_grafana_draws_service_graphs_from_prometheus(services):
    sources = yaml.safe_load((ROOT / "deploy" / "grafana" / "datasources.yaml").read_text())["datasources"]
    by_id = {source["uid"]: source for source in sources}
    assert {urlsplit(source["url"]).hostname for source in sources} <= services.keys()
    assert by_id["tempo"]["jsonData"]["serviceMap"]["datasourceUid"] == "prometheus"
    assert json.dumps(by_id["prometheus"]).count('"tempo"') == 1  # exemplars lead to traces
