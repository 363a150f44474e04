"""How a stage's process ends that can't go on: with exit code 1 and a line that says why."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from agents.topics import TopicNames, create
from schemas.config import load_config
from tests.servers.kafka import KafkaBroker

pytestmark = pytest.mark.kafka


def test_a_generator_ends_that_cannot_read_its_checkpoint(kafka: KafkaBroker, tmp_path: Path) -> None:
    app = kafka.unique("exit").replace("-", "_")
    file = tmp_path / "spanmill.yaml"
    settings = {
        "server": {"http_listen_address": "127.0.0.1", "http_listen_port": 0},
        "ingest": {"kafka": {"address": kafka.address}},
        "spanmill": {
            "app_id": app,
            "topics": {"spans": f"{app}-spans", "deltas": f"{app}-deltas", "dead_letters": f"{app}-dead"},
            "generator": {"data_dir": str(tmp_path / "data")},
        },
    }
    file.write_text(yaml.safe_dump(settings))
    config = load_config(file)
    list(create(config, 2, None))
    changelog = TopicNames.of(config).checkpoints
    kafka.produce(changelog, b"not one of ours", key=b"checkpoint-1", partition=1)
    done = subprocess.run(
        [sys.executable, "-m", "spanmill", "generator", "--config.file", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,  # kernels may have to be compiled
    )
    assert done.returncode == 1
    reason = "envelope: not a checkpoint; if a newer Spanmill wrote it, run that one"
    said = f"{changelog}: the state of partition 1 can't be read: {reason}"
    assert done.stderr.splitlines()[-1] == f"spanmill: {said}"
    assert f'level=error event="worker stops" app={app}_generator error="{said}"' in done.stderr
    assert not any(line.startswith("Traceback") for line in done.stderr.splitlines())
