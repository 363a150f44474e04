"""Spanmill's stages as processes of their own, as an operator runs them."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.servers.ports import free_port

PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))
"""How many times as long as usual everything may take, on a machine that is busy with other things."""
WAIT_S = 90.0 * PATIENCE
STOP_S = 20.0 * PATIENCE


def configuration(app: str, address: str, write_url: str) -> dict[str, Any]:
    """Windows of 5 s, both processors, one endpoint; a slow machine makes no window wait in vain."""
    return {
        "ingest": {"kafka": {"address": address}},
        "metrics_generator": {
            "registry": {"collection_interval": "5s", "external_labels": {"app": app}},
            "storage": {"remote_write": [{"url": write_url}]},
        },
        "overrides": {"defaults": {"metrics_generator": {"processors": ["service-graphs", "span-metrics"]}}},
        "spanmill": {
            "app_id": app,
            "topics": {"spans": f"{app}-spans", "deltas": f"{app}-deltas", "dead_letters": f"{app}-dead"},
            "sink": {"hold_back": "10m", "snapshot_every_windows": 2},
        },
    }


class Stage:
    """One process of a stage; its log is a file, which a failing test prints."""

    def __init__(self, name: str, instance: str, port: int, config: Path, log: Path) -> None:
        self.name, self.instance, self.port, self.log = name, instance, port, log
        self._config = config
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "spanmill", self.name, "--config.file", str(self._config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "SPANMILL_INSTANCE_ID": self.instance},
            )

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, as the kernel's OOM killer does it."""
        assert self.process is not None
        self.send(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        if self.alive:
            self.send(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """The exit code of a process that was asked to stop."""
        assert self.process is not None
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            late = f"{self.name} {self.instance} didn't stop within {STOP_S:.0f} s"
            raise AssertionError(f"{late}:\n{self.tail()}") from None

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Cluster:
    """Starts stages with one configuration, each with its own ports, instance id and data directory."""

    def __init__(self, directory: Path, config: Mapping[str, Any], app: str) -> None:
        self.app = app
        self._directory = directory
        self._config = config
        self.stages: list[Stage] = []
        self.addresses: dict[str, str] = {}
        """Of Kafka, for instances that reach it by another way than the configuration's."""
        self.grpc, self.http = free_port(), free_port()

    def config_file(self, instance: str, port: int) -> Path:
        data_dir = {"data_dir": str(self._directory / "data" / instance)}
        ours = self._config["spanmill"]
        ours = {**ours, **{stage: {**ours.get(stage, {}), **data_dir} for stage in ("generator", "sink")}}
        address = self.addresses.get(instance, self._config["ingest"]["kafka"]["address"])
        config = {
            **self._config,
            "ingest": {"kafka": {**self._config["ingest"]["kafka"], "address": address}},
            "spanmill": ours,
            "server": {"http_listen_address": "127.0.0.1", "http_listen_port": port},
            "distributor": {
                "receivers": {
                    "otlp": {
                        "protocols": {
                            "grpc": {"endpoint": f"127.0.0.1:{self.grpc}"},
                            "http": {"endpoint": f"127.0.0.1:{self.http}"},
                        }
                    }
                }
            },
        }
        path = self._directory / f"{instance}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def run(self, *arguments: str, timeout_s: float = WAIT_S) -> str:
        """Run a command of ours to its end; gives what it writes."""
        done = self._command(arguments, timeout_s)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def fails(self, *arguments: str, timeout_s: float = WAIT_S) -> str:
        """Run a command of ours that must fail; gives what it writes."""
        done = self._command(arguments, timeout_s)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _command(self, arguments: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        config = self.config_file("command", free_port())
        return subprocess.run(
            [sys.executable, "-m", "spanmill", *arguments, "--config.file", str(config)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(self, name: str, instance: str, *, wait: bool = True) -> Stage:
        port = free_port()
        stage = Stage(name, instance, port, self.config_file(instance, port), self._directory / f"{instance}.log")
        stage.start()
        self.stages.append(stage)
        if wait:
            self.wait_ready(stage)
        return stage

    def wait_ready(self, stage: Stage) -> None:
        url = f"http://127.0.0.1:{stage.port}/readyz"
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            assert stage.alive, f"{stage.name} {stage.instance} has stopped:\n{stage.tail()}"
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise AssertionError(f"{stage.name} {stage.instance} isn't ready after {WAIT_S} s:\n{stage.tail()}")

    def close(self) -> None:
        for stage in self.stages:
            if stage.alive:
                stage.process.kill()  # type: ignore[union-attr]
                stage.process.wait()  # type: ignore[union-attr]

    def logs(self) -> str:
        return "\n".join(f"--- {s.name} {s.instance}\n{s.tail()}" for s in self.stages)
