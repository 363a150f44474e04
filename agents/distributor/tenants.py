"""Which tenant a request is of (Tempo DIST-4)."""

import re
from collections.abc import Sequence

from agents.distributor.status import Code, RefusedError
from schemas.record import DEFAULT_TENANT

MAX_TENANT_BYTES = 150
UNSUPPORTED = re.compile(r"[^a-zA-Z0-9!\-_.*'()]")


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
    if len(tenant.encode()) > MAX_TENANT_BYTES:
        raise RefusedError(Code.INVALID_ARGUMENT, f"tenant ID is too long: max {MAX_TENANT_BYTES} characters")
    if tenant in {".", ".."}:
        raise RefusedError(Code.INVALID_ARGUMENT, "tenant ID is '.' or '..'")
    unsupported = UNSUPPORTED.search(tenant)
    if unsupported:
        text = f"tenant ID '{tenant}' contains unsupported character '{unsupported[0]}'"
        raise RefusedError(Code.INVALID_ARGUMENT, text)
    return tenant
