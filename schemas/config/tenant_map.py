"""Who may write as whom: tenants by bearer token or by client certificate (`spanmill.distributor.tenants`)."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.config.section import Section
from schemas.tenant_id import fault_of

KINDS_OF_NAMES = ("CN:", "DNS:", "URI:", "email:")


def check_certificates(names: dict[str, str]) -> dict[str, str]:
    """Each name says of which kind it is, and names a tenant that there can be."""
    for name, tenant in names.items():
        if not any(name.startswith(kind) and name != kind for kind in KINDS_OF_NAMES):
            raise ValueError(
                f"{name!r} is no name in a certificate; write CN:agent for a subject, or DNS:agent.example, "
                "URI:spiffe://example/agent or email:agent@example for an alternative name"
            )
        fault = fault_of(tenant) if tenant else "it has no tenant"
        if fault:
            raise ValueError(f"{name}: {fault}; name a tenant")
    return names


class TenantMap(Section):
    """Clients are known by a bearer token or by a certificate, and write as their tenant only.

    X-Scope-OrgID may be left out then; one that names another tenant is refused (403, PERMISSION_DENIED), and so is a
    client that nothing is known of (401, UNAUTHENTICATED). A token counts before a certificate; if both are known, they
    have to be the same tenant's. The records of the Kafka receiver say themselves whose they are: whoever may write to
    that topic is trusted.
    """

    tokens_file: Annotated[Path | None, Field(strict=False)] = None
    """Bearer tokens, a line each: the tenant, a space, the token (16 characters or more). Empty lines and those that
    begin with # are passed over, and a tenant may have several, so that an old one and a new one hold side by side.
    Read anew within a second after it has changed; one that can't be used changes nothing, and is said."""
    certificates: Annotated[dict[str, str], AfterValidator(check_certificates)] = Field(default_factory=dict)
    """Tenants by a name in the client's certificate: `CN:` and the subject's common name, or `DNS:`, `URI:` or `email:`
    and an alternative name. The receiver's `tls.client_ca_file` says whose certificates are believed."""

    @model_validator(mode="after")
    def _knows_somebody(self) -> Self:
        if self.tokens_file is None and not self.certificates:
            raise ValueError("nobody could write; name tokens_file or certificates, or leave tenants out")
        return self
