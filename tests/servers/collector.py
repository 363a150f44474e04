"""The OpenTelemetry Collector, built into .cache/bin by tools/fetch_collector.sh: OTLP in; Kafka, files, OTLP out."""

import subprocess
import time
from pathlib import Path
from typing import Any, Self

import yaml

from tests.servers.missing import missing
from tests.servers.ports import free_port

BINARY = Path(__file__).resolve().parents[2] / ".cache" / "bin" / "otelcol"
INSTALL = "install Go 1.26 or newer (https://go.dev/dl/), then `make peers` (or tools/fetch_collector.sh)"
START_WITHIN_S = 20.0


class Collector:
    """A Collector with the given exporters in one traces pipeline; `.grpc` is where it takes OTLP."""

    def __init__(self, directory: Path, exporters: dict[str, Any]) -> None:
        if not BINARY.exists():
            missing("the OpenTelemetry Collector", INSTALL)
        self.grpc = f"127.0.0.1:{free_port()}"
        self._log = directory / "collector.log"
        config = {
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": self.grpc}}}},
            "exporters": exporters,
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": list(exporters)}},
            },
        }
        self._config = directory / "collector.yaml"
        self._config.write_text(yaml.safe_dump(config))

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([BINARY, "--config", self._config], stdout=log, stderr=log)
        deadline = time.monotonic() + START_WITHIN_S
        while "Everything is ready" not in self.log():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)
        return self

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        """Stop it; what it has taken is exported before it ends."""
        self._process.terminate()
        self._process.wait(START_WITHIN_S)
