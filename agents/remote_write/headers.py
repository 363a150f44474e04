"""The headers of a request: the protocol's, the entry's, the tenant's (Tempo ST-5)."""

from collections.abc import Mapping

import structlog
from multidict import CIMultiDict
from pydantic import SecretStr

from schemas.config import RemoteWriteConfig
from schemas.record import DEFAULT_TENANT

log = structlog.get_logger(__name__)

USER_AGENT = "spanmill"
TENANT_HEADER = "X-Scope-OrgID"


class RequestHeaders:
    """The headers of one entry's requests, but for `Authorization` of its own."""

    def __init__(self, config: RemoteWriteConfig, *, org_id: bool) -> None:
        self._config, self._org_id = config, org_id
        self._told: set[str] = set()

    def of(self, tenant: str, overrides: Mapping[str, SecretStr]) -> CIMultiDict[str]:
        """The headers for a tenant with these `remote_write_headers`; raises OSError if a file can't be read.

        Of two with one name, whatever its case, the tenant's counts.
        """
        headers = CIMultiDict[str]({"User-Agent": USER_AGENT})
        for name, value in (*self._config.headers.items(), *overrides.items()):
            headers[name.strip()] = value.get_secret_value()
        self._add_http_headers(headers)
        self._add_tenant(headers, tenant)
        return headers

    def _add_http_headers(self, headers: CIMultiDict[str]) -> None:
        for name, header in self._config.http_headers.items():
            for text in header.values:
                headers.add(name, text)
            for secret in header.secrets:
                headers.add(name, secret.get_secret_value())
            for file in header.files:
                headers.add(name, file.read_text().strip())

    def _add_tenant(self, headers: CIMultiDict[str], tenant: str) -> None:
        """`X-Scope-OrgID`, unless there is one that says something."""
        if not self._org_id or tenant == DEFAULT_TENANT:
            return
        if headers.get(TENANT_HEADER):
            if tenant not in self._told:
                self._told.add(tenant)
                log.info("a configured header names the tenant", header=TENANT_HEADER, tenant=tenant)
            return
        headers[TENANT_HEADER] = tenant
