"""The process's own HTTP server (`server`)."""

from schemas.config.section import Port, Section


class ServerConfig(Section):
    """Where `/metrics`, `/healthz` and `/readyz` are."""

    http_listen_address: str = "127.0.0.1"
    """Tempo listens everywhere. Ours has no authentication either, so as with the receivers (Tempo DIST-1) that is a
    choice to be made: write 0.0.0.0 in a container."""
    http_listen_port: Port = 3200
    """0 lets the system choose."""
