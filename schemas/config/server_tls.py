"""TLS of a server (the Collector's configtls keys): its certificate, and whether clients need one."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.config.durations import Seconds
from schemas.config.section import Section

File = Annotated[Path | None, Field(strict=False)]
Version = Literal["", "1.2", "1.3"]


class ServerTls(Section):
    """A server's certificate and key; with `client_ca_file` it takes only clients with a certificate of that CA.

    Renewed files are used from the next connection on.
    """

    cert_file: File = None
    """The certificate, with those between it and its CA."""
    key_file: File = None
    """Its key."""
    client_ca_file: File = None
    """The CA of the clients' certificates. None: clients need none."""
    min_version: Version = ""
    """The oldest version of TLS. Empty: 1.2; older ones aren't offered."""
    reload_interval_s: Seconds = Field(default=0.0, alias="reload_interval")
    """Has no effect: whether files have changed is looked up at each connection."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.cert_file is None or self.key_file is None:
            raise ValueError("cert_file and key_file are both needed; without TLS leave tls out")
        return self
