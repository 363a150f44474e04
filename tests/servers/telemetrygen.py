"""The OpenTelemetry project's load generator, which tools/fetch_telemetrygen.sh builds into .cache/bin."""

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

    def traces(self, endpoint: str, *arguments: str, timeout_s: float = 60.0) -> str:
        """Send traces to HOST:PORT without TLS; fails if telemetrygen does. Gives its log."""
        done = subprocess.run(
            [BINARY, "traces", "--otlp-insecure", "--otlp-endpoint", endpoint, "--rate", "0", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr
