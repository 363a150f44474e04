"""`spanmill dev --demo`, as a user runs it."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents.dev import dev_config
from agents.options import with_kafka, with_remote_write
from tests.servers.ports import free_port

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
metrics_generator:
  registry:
    collection_interval: 5s
  processor:
    service_graphs:
      wait: 5s
overrides:
  defaults:
    metrics_generator:
      processors: [service-graphs, span-metrics]
distributor:
  receivers:
    otlp:
      protocols:
        grpc:
          endpoint: 127.0.0.1:{grpc}
        http:
          endpoint: 127.0.0.1:{http}
"""

EDGES = {
    ("user", "frontend", "virtual_node"),
    ("frontend", "checkout", ""),
    ("frontend", "catalog", ""),
    ("checkout", "cart", ""),
    ("checkout", "payment", ""),
    ("checkout", "shipping", "messaging_system"),
    ("checkout", "email", "messaging_system"),
    ("checkout", "orders", "database"),
    ("payment", "bank", "virtual_node"),
}


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def edges(exposition: str) -> set[tuple[str, str, str]]:
    found = set()
    for line in exposition.splitlines():
        if line.startswith("traces_service_graph_request_total{"):
            labels = dict(
                pair.split("=") for pair in line[line.index("{") + 1 : line.index("}")].replace('"', "").split(",")
            )
            found.add((labels["client"], labels["server"], labels.get("connection_type", "")))
    return found


@contextmanager
def dev(directory: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A running `spanmill dev` on free ports, and its port."""
    file, port = directory / "dev.yaml", free_port()
    file.write_text(CONFIG.format(grpc=free_port(), http=free_port()))
    with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "spanmill.py", "dev", "--config.file", str(file), "--port", str(port), *arguments],
            cwd=ROOT, stdout=out, stderr=err, env={**os.environ, "TMPDIR": str(directory)},
        )  # fmt: skip
        try:
            yield process, port
        finally:
            process.kill()
            process.wait()


def wait_for(process: subprocess.Popen[bytes], seconds: float, true) -> None:
    deadline = time.monotonic() + seconds
    while True:
        assert process.poll() is None, "spanmill dev ended by itself"
        try:
            if true():
                return
        except (ConnectionError, http.client.HTTPException):
            pass
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


def test_the_demo_shows_its_service_graph_and_stops_within_five_seconds(tmp_path: Path) -> None:
    with dev(tmp_path, "--demo") as (process, port):
        wait_for(process, 180, lambda: get(port, "/healthz")[0] == 200)
        wait_for(process, 180, lambda: get(port, "/readyz")[0] == 200)
        ready_at = time.monotonic()
        wait_for(process, 60, lambda: edges(get(port, "/generated")[1]) >= EDGES)
        assert time.monotonic() - ready_at < 45
        assert "spanmill_generator_records_total" in get(port, "/metrics")[1]
        asked_at = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert time.monotonic() - asked_at < 5
    shown = (tmp_path / "out").read_text()
    assert "edge payment -> bank [virtual_node]" in shown
    assert "operation checkout 'PlaceOrder' [server]" in shown
    assert "--remote-write" in shown
    assert (tmp_path / "err").read_text() == ""
    assert not list(tmp_path.glob("spanmill-dev-*"))


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path) -> None:
    with dev(tmp_path) as (process, port):
        wait_for(process, 180, lambda: get(port, "/healthz")[0] == 200)
        second = subprocess.run(
            [sys.executable, "spanmill.py", "dev", "--port", str(port)],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert line.startswith("spanmill: ")
    assert str(port) in line


def test_dev_has_windows_of_five_seconds_and_names_of_its_own() -> None:
    config = dev_config(None)
    assert config.metrics_generator.registry.collection_interval_ms == 5_000
    assert config.overrides.defaults.metrics_generator.processors == ("service-graphs", "span-metrics")
    assert config.spanmill.app_id != "spanmill"
    assert "spanmill-spans" not in (config.spanmill.topics.spans, config.ingest.kafka.topic)


def test_options_change_the_configuration_and_nothing_else() -> None:
    config = dev_config(None)
    changed = with_remote_write(with_kafka(config, "127.0.0.1:9999"), "http://127.0.0.1:9090/api/v1/write")
    assert changed.ingest.kafka.address == "127.0.0.1:9999"
    assert [each.url for each in changed.metrics_generator.storage.remote_write] == [
        "http://127.0.0.1:9090/api/v1/write"
    ]
    assert changed.overrides == config.overrides
    for wrong in (lambda: with_kafka(config, "nowhere"), lambda: with_remote_write(config, "prometheus:9090")):
        with pytest.raises(ValueError, match=r"address|URL"):
            wrong()
