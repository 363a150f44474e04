"""TLS of our servers: certificates that are renewed on disk are used from the next connection on."""

import ssl
from pathlib import Path

import grpc
import structlog

from schemas.config.server_tls import ServerTls

log = structlog.get_logger(__name__)

Stamp = tuple[tuple[int, int], ...]


class CertificateFiles:
    """The files of a server's TLS, and whether they have changed since the last look."""

    def __init__(self, config: ServerTls) -> None:
        self.config = config
        self._files = [f for f in (config.cert_file, config.key_file, config.client_ca_file) if f is not None]
        self._seen = self._stamp()

    def changed(self) -> bool:
        """True once for each change; files that can't be looked at haven't changed."""
        try:
            stamp = self._stamp()
        except OSError:
            return False
        changed, self._seen = stamp != self._seen, stamp
        return changed

    def renewed(self, *, ok: bool, error: object = None) -> None:
        """Say that changed files are used, or why they can't be."""
        names = [str(file) for file in self._files]
        if ok:
            log.info("certificate renewed", files=names)
        else:
            log.error("changed certificate can't be used, the one before holds", files=names, error=str(error))

    def _stamp(self) -> Stamp:
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in map(Path.stat, self._files))


def server_context(config: ServerTls) -> ssl.SSLContext:
    """The context of an HTTP server. Raises OSError (which ssl.SSLError is) if the files can't be used."""
    files = CertificateFiles(config)
    context = _context(config)

    def look(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        """At each handshake: a connection may be given another context."""
        nonlocal context
        if files.changed():
            try:
                context = _context(config)
            except OSError as error:
                files.renewed(ok=False, error=error)
            else:
                files.renewed(ok=True)
        connection.context = context

    outer = _context(config)
    outer.sni_callback = look
    return outer


def _context(config: ServerTls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=config.client_ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if config.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    if config.client_ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    assert config.cert_file is not None, "the section checks it"
    context.load_cert_chain(config.cert_file, config.key_file)
    return context


def grpc_credentials(config: ServerTls) -> grpc.ServerCredentials:
    """The credentials of a gRPC server. Raises OSError if the files can't be used."""
    files = CertificateFiles(config)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """At each connection; None: nothing has changed."""
        if not files.changed():
            return None
        try:
            found = _certificate(config)
        except OSError as error:
            files.renewed(ok=False, error=error)
            return None
        files.renewed(ok=True)
        return found

    return grpc.dynamic_ssl_server_credentials(
        _certificate(config),
        renewed,  # type: ignore[arg-type]  # None is documented
        require_client_authentication=config.client_ca_file is not None,
    )


def _certificate(config: ServerTls) -> grpc.ServerCertificateConfiguration:
    _context(config)  # gRPC says nothing about a key that isn't the certificate's; this does
    assert config.cert_file is not None, "the section checks it"
    assert config.key_file is not None, "the section checks it"
    authority = None if config.client_ca_file is None else config.client_ca_file.read_bytes()
    pair = (config.key_file.read_bytes(), config.cert_file.read_bytes())
    return grpc.ssl_server_certificate_configuration([pair], authority)
