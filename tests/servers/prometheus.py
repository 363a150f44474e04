"""Prometheus with a remote-write receiver (Debian's 2.42 will do)."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.servers.missing import missing
from tests.servers.ports import free_port, stop_process, wait_until

INSTALL = "apt-get install prometheus"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "bin"

Labels = tuple[tuple[str, str], ...]


def binary(name: str) -> str:
    """Path of `prometheus` or `promtool`; a test without it is skipped, or fails in CI."""
    found = shutil.which(name) or shutil.which(name, path=str(CACHE))
    if found is None:
        missing(name, INSTALL)
    return found


def promtool(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run promtool to its end; what it writes is captured."""
    return subprocess.run([binary("promtool"), *arguments], check=False, capture_output=True, **options)


class Prometheus:
    """A running Prometheus that scrapes nothing and takes remote writes."""

    def __init__(
        self,
        directory: Path,
        out_of_order_window: str = "0s",
        port: int | None = None,
        program: str | None = None,
    ) -> None:
        self._binary = binary("prometheus") if program is None else program
        self._directory = directory
        self._window = out_of_order_window
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        self.write_url = f"{self.url}/api/v1/write"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; after `stop` again, on the same port and with the same data."""
        config = self._directory / "prometheus.yml"
        config.write_text(
            yaml.safe_dump(
                {
                    "storage": {
                        "tsdb": {"out_of_order_time_window": self._window},
                        "exemplars": {"max_exemplars": 100_000},
                    }
                }
            )
        )
        log = self._directory / "prometheus.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [
                    self._binary,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--web.enable-remote-write-receiver",
                    "--enable-feature=exemplar-storage,native-histograms",
                    "--log.level=warn",
                ],
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._ready, self._process, log)

    def stop(self) -> None:
        """Stop it by its process id."""
        if self._process is not None:
            stop_process(self._process)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def api(self, path: str, parameters: Mapping[str, str | list[str]]) -> Any:
        """The `data` of an answer of the HTTP API."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, promql: str, at: float | None = None) -> dict[Labels, float]:
        """An instant vector at a time in seconds (now if none is given): value by sorted labels."""
        data = self.api("query", {"query": promql, "time": repr(time.time() if at is None else at)})
        assert data["resultType"] == "vector", data
        return {tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in data["result"]}

    def range(self, promql: str, start: float, end: float, step_s: float) -> dict[Labels, list[tuple[float, float]]]:
        """A range query: (time, value) pairs by sorted labels."""
        parameters = {"query": promql, "start": repr(start), "end": repr(end), "step": repr(step_s)}
        data = self.api("query_range", parameters)
        return {
            tuple(sorted(each["metric"].items())): [(float(t), float(v)) for t, v in each["values"]]
            for each in data["result"]
        }

    def samples(self, selector: str, seconds: int, at: float | None = None) -> dict[Labels, list[tuple[float, float]]]:
        """The raw samples of the `seconds` before a time, exactly as they were written, by sorted labels."""
        when = time.time() if at is None else at
        data = self.api("query", {"query": f"{selector}[{seconds}s]", "time": repr(when)})
        return {
            tuple(sorted(each["metric"].items())): [(float(t), float(v)) for t, v in each["values"]]
            for each in data["result"]
        }

    def series(self, *matchers: str) -> list[dict[str, str]]:
        """Label sets of all series that match one of the selectors, whatever their time."""
        found: list[dict[str, str]] = self.api("series", {"match[]": list(matchers), "start": "0", "end": "9999999999"})
        return found

    def exemplars(self, promql: str) -> list[dict[str, Any]]:
        """All stored exemplars of the series in a query."""
        found: list[dict[str, Any]] = self.api("query_exemplars", {"query": promql, "start": "0", "end": "9999999999"})
        return found
