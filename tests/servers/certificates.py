"""Certificates for tests of TLS, made by openssl in a directory of the test's."""

import shutil
import ssl
import subprocess
from pathlib import Path

from tests.servers.missing import missing


class Authority:
    """A certificate authority; `certify` makes a key and a certificate that it signs."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            missing("openssl", "apt-get install openssl")
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self.certificate, self._key = directory / f"{name}.pem", directory / f"{name}.key"
        self._openssl(
            *("req", "-x509", "-nodes", "-subj", f"/CN={name}", "-days", "2", "-out", str(self.certificate)),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", str(self._key)),
        )

    def certify(self, name: str, host: str = "IP:127.0.0.1") -> tuple[Path, Path]:
        """A certificate for a host, and its key."""
        certificate, key = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        request, extensions = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={host}\n")
        self._openssl(
            *("req", "-new", "-nodes", "-subj", f"/CN={name}", "-out", str(request)),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", str(key)),
        )
        self._openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key)),
            *("-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", str(certificate)),
        )
        return certificate, key

    def server(self, name: str = "server", host: str = "IP:127.0.0.1", *, asks_clients: bool = False) -> ssl.SSLContext:
        """A server's context; with `asks_clients` it takes only clients that this authority has certified."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.certify(name, host))
        if asks_clients:
            context.load_verify_locations(self.certificate)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
