"""A client on the SDK for Go: tests/clients/go, which tools/build_go_client.sh builds into .cache/bin."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.servers.missing import missing

BINARY = Path(__file__).resolve().parents[2] / ".cache" / "bin" / "go_client"
INSTALL = "install Go 1.26 or newer (https://go.dev/dl/), then `make tools` (or tools/build_go_client.sh)"


class GoClient:
    """Runs the client to its end, once for each call; its files are in a directory of the test's."""

    def __init__(self, directory: Path) -> None:
        if not BINARY.exists():
            missing("the client in Go", INSTALL)
        self._directory = directory
        self._runs = 0

    def send(
        self,
        endpoint: str,
        protocol: str,
        *,
        gzip: bool = False,
        authority: Path | None = None,
        headers: Mapping[str, str] | None = None,
        traces: int = 1,
        timeout_s: float = 90.0,
    ) -> TracesData:
        """Send traces to HOST:PORT, with TLS if there is an authority; gives what was sent. Fails if not all was.

        `protocol` is grpc, http/protobuf or http/json.
        """
        self._runs += 1
        sent = self._directory / f"go-{self._runs}.bin"
        arguments = ["-endpoint", endpoint, "-protocol", protocol, "-sent", str(sent), "-traces", str(traces)]
        arguments += ["-gzip"] if gzip else []
        arguments += ["-ca", str(authority)] if authority else []
        arguments += [f"-header={name}={value}" for name, value in (headers or {}).items()]
        done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return TracesData.FromString(sent.read_bytes())
