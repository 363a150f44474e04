"""Which tenant a request is of (Tempo DIST-4)."""

from collections.abc import Sequence

from agents.distributor.status import Code, RefusedError
from schemas.record import DEFAULT_TENANT
from schemas.tenant_id import fault_of


def tenant_of(org_ids: Sequence[str], *, multitenancy: bool) -> str:
    """The tenant, given the values of `X-Scope-OrgID`. Raises `RefusedError`.

    Without multitenancy everybody is the default tenant, whatever the header says. With it, a missing header is
    UNAVAILABLE, as in Tempo: clients keep their data until somebody sets the header.
    """
    if not multitenancy:
        return DEFAULT_TENANT
    if len(org_ids) != 1 or not org_ids[0]:
        raise RefusedError(Code.UNAVAILABLE, "no org id")
    tenants = {each.partition(":")[0] for each in org_ids[0].split("|")}  # what follows the colon is metadata
    if len(tenants) > 1:
        raise RefusedError(Code.INVALID_ARGUMENT, "multiple org IDs present")
    return _checked(tenants.pop())


def _checked(tenant: str) -> str:
    if not tenant:
        raise RefusedError(Code.UNAVAILABLE, "no org id")
    fault = fault_of(tenant)
    if fault:
        raise RefusedError(Code.INVALID_ARGUMENT, fault)
    return tenant
