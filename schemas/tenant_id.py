"""What a tenant's ID may be (Tempo DIST-4)."""

import re

MAX_TENANT_BYTES = 150
UNSUPPORTED = re.compile(r"[^a-zA-Z0-9!\-_.*'()]")


def fault_of(tenant: str) -> str:
    """What is wrong with an ID that isn't empty, in Tempo's words; empty: nothing."""
    if len(tenant.encode()) > MAX_TENANT_BYTES:
        return f"tenant ID is too long: max {MAX_TENANT_BYTES} characters"
    if tenant in {".", ".."}:
        return "tenant ID is '.' or '..'"
    unsupported = UNSUPPORTED.search(tenant)
    return f"tenant ID '{tenant}' contains unsupported character '{unsupported[0]}'" if unsupported else ""
