"""Who can reach what listens, and as whom they can write."""

import ipaddress
import stat
from collections.abc import Iterator
from pathlib import Path

from agents.distributor.auth import Tokens
from agents.doctor.finding import Finding, error, ok, warning
from agents.server_tls import server_context
from schemas.config import Config
from schemas.config.distributor import GrpcSettings, HttpSettings


def listeners(config: Config) -> Iterator[Finding]:
    """Every address that a stage listens on."""
    tenants = config.spanmill.distributor.tenants
    shows_tokens = tenants is not None and tenants.tokens_file is not None
    for key, settings in config.distributor.receivers.servers.items():
        yield from _receiver(f"distributor.receivers.{key}", settings, shows_tokens=shows_tokens)
    host, port = config.server.http_listen_address, config.server.http_listen_port
    who = "this machine only" if is_local(host) else "whoever reaches it; it shows metrics, and takes nothing"
    yield ok("server", f"{host}:{port} answers {who}")


def _receiver(subject: str, settings: GrpcSettings | HttpSettings, *, shows_tokens: bool) -> Iterator[Finding]:
    endpoint, tls = settings.endpoint, settings.tls
    local = is_local(endpoint.rpartition(":")[0])
    if tls is not None:
        try:
            server_context(tls)
        except OSError as failure:
            yield error(f"{subject}.tls", f"can't be used: {failure}; check cert_file, key_file and client_ca_file")
            return
        asked = "with a certificate" if tls.client_ca_file is not None else "without one of their own"
        yield ok(subject, f"{endpoint} speaks TLS, to clients {asked}")
    elif local:
        yield ok(subject, f"{endpoint} is reached from this machine only")
    else:
        what = "spans and bearer tokens" if shows_tokens else "spans"
        text = f"{endpoint} takes {what} in plain text from other machines; set tls, unless a proxy in front has it"
        yield warning(subject, text)


def is_local(host: str) -> bool:
    """Whether only this machine reaches a listener; an empty host is every interface."""
    name = host.strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def tenants(config: Config) -> Iterator[Finding]:
    """Whether clients can write as somebody else."""
    subject, known = "spanmill.distributor.tenants", config.spanmill.distributor.tenants
    if not config.multitenancy_enabled:
        yield ok("multitenancy_enabled", "there is one tenant")
        return
    if known is None:
        text = (
            "X-Scope-OrgID is trusted, so a client can write as any tenant; set this, or see that a proxy in front "
            "sets the header"
        )
        yield warning(subject, text)
        return
    yield ok(subject, "a client writes as its own tenant only")
    if known.tokens_file is not None:
        try:
            Tokens(known.tokens_file)
        except OSError as failure:
            yield error(f"{subject}.tokens_file", f"{failure}")


def secret_files(files: dict[str, Path]) -> Iterator[Finding]:
    """Whether others on the machine can read what only we should."""
    for key, file in files.items():
        try:
            mode = file.stat().st_mode
        except OSError as failure:
            yield error(key, f"{file} can't be looked at: {failure.strerror}; check the path and its rights")
            continue
        if mode & stat.S_IROTH:
            yield warning(key, f"{file} can be read by every user of this machine; take that right away (chmod o-r)")
        else:
            yield ok(key, f"{file} can't be read by other users")
