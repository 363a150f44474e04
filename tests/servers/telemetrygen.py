"""The OpenTelemetry project's load generator, which tools/fetch_telemetrygen.sh builds into .cache/bin."""

import os
import subprocess
from pathlib import Path

from tests.servers.missing import missing

BINARY = Path(__file__).resolve().parents[2] / ".cache" / "bin" / "telemetrygen"
INSTALL = "install Go 1.26 or newer (https://go.dev/dl/), then `make tools` (or tools/fetch_telemetrygen.sh)"


class Telemetrygen:
    """Runs telemetrygen to its end."""

    def __init__(self) -> None:
        if not BINARY.exists():
            missing("telemetrygen", INSTALL)

    def traces(
        self,
        endpoint: str,
        *arguments: str,
        authority: Path | None = None,
        gzip: bool = False,
        timeout_s: float = 60.0,
    ) -> str:
        """Send traces to HOST:PORT, with TLS if there is an authority; fails if telemetrygen does. Gives its log."""
        security = ["--ca-cert", str(authority)] if authority else ["--otlp-insecure"]
        done = subprocess.run(
            [BINARY, "traces", *security, "--otlp-endpoint", endpoint, "--rate", "0", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            # It has no flag for it, and its exporters are the SDK's.
            env={**os.environ, **({"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"} if gzip else {})},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr
