"""TLS contexts of clients, made anew when a file that they were made of has changed."""

import os
import ssl
import tempfile
import warnings
from pathlib import Path

from schemas.config.http_client import TlsConfig

VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}

Stamp = tuple[tuple[int, int], ...]


class TlsContext:
    """The TLS context of a client; certificates may be renewed in place while it is used."""

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._files = [file for file in (config.ca_file, config.cert_file, config.key_file) if file]
        self._made: tuple[Stamp, ssl.SSLContext] | None = None

    @property
    def server_name(self) -> str | None:
        """The name that the server's certificate must have; None: the URL's."""
        return self._config.server_name or None

    def current(self) -> ssl.SSLContext:
        """The context. OSError (which ssl.SSLError is) if a file can't be read, or isn't what it should be."""
        stamp = tuple(map(_stamp, self._files))
        if self._made is None or self._made[0] != stamp:
            self._made = (stamp, tls_context(self._config))
        return self._made[1]


def tls_context(config: TlsConfig) -> ssl.SSLContext:
    """A client's context; raises OSError."""
    # With a CA of its own a client trusts no other, as in Go.
    context = ssl.create_default_context(cafile=config.ca_file, cadata=config.ca or None)
    if config.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # who asks for 1.0 knows its age
        if config.min_version:
            context.minimum_version = VERSIONS[config.min_version]
        if config.max_version:
            context.maximum_version = VERSIONS[config.max_version]
    if config.cert or config.cert_file:
        _load_own(context, config)
    return context


def _load_own(context: ssl.SSLContext, config: TlsConfig) -> None:
    """The client's certificate and key. OpenSSL takes files only, so texts are in files for that moment."""
    with tempfile.TemporaryDirectory(prefix="spanmill-tls-") as directory:
        cert = config.cert_file or _private_file(Path(directory) / "cert", config.cert)
        key = config.key_file or _private_file(Path(directory) / "key", config.key.get_secret_value())
        context.load_cert_chain(cert, key)


def _private_file(path: Path, text: str) -> Path:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_ino
