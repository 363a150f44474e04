"""What each tenant may send: token buckets over bytes (Tempo DIST-7, DIST-8)."""

import time
from collections.abc import Callable

from agents.distributor.status import Code, RefusedError
from schemas.config import Config
from schemas.config.ingestion import IngestionSettings, ingestion_settings

REREAD_S = 10.0
"""How long a tenant's settings and the number of distributors are taken for the same."""


class Bucket:
    """Bytes that a tenant may still send: `rate` are added a second, up to `burst`; full at first."""

    def __init__(self, burst: float, now_s: float) -> None:
        self._tokens, self._filled_at_s = burst, now_s

    def take(self, size: int, rate: float, burst: float, now_s: float) -> bool:
        """Take so many bytes if they are all there."""
        self._tokens = min(burst, self._tokens + rate * (now_s - self._filled_at_s))
        self._filled_at_s = now_s
        if size > self._tokens:
            return False
        self._tokens -= size
        return True


class Tenant:
    """A tenant's settings, as they were last read, and its bucket."""

    __slots__ = ("bucket", "rate", "read_at_s", "settings")

    def __init__(self, settings: IngestionSettings, rate: float, now_s: float) -> None:
        self.settings, self.rate, self.read_at_s = settings, rate, now_s
        self.bucket = Bucket(settings.burst_size_bytes, now_s)


class TenantLimits:
    """Settings and buckets of all tenants.

    `config` gives the configuration as it is now, `distributors` how many processes share the global rates.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        distributors: Callable[[], int] = lambda: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._distributors, self._clock = config, distributors, clock
        self._tenants: dict[str, Tenant] = {}

    def settings(self, tenant: str) -> IngestionSettings:
        """A tenant's settings, at most ten seconds old."""
        return self._tenant(tenant).settings

    def check(self, tenant: str, size: int) -> None:
        """Let a request of so many bytes in. Raises `RefusedError` if it is above the tenant's rate."""
        each = self._tenant(tenant)
        if each.bucket.take(size, each.rate, each.settings.burst_size_bytes, self._clock()):
            return
        raise RefusedError(Code.RESOURCE_EXHAUSTED, _refusal(tenant, size, each), each.settings.retry_after_s)

    def _tenant(self, name: str) -> Tenant:
        now_s = self._clock()
        tenant = self._tenants.get(name)
        if tenant is not None and now_s - tenant.read_at_s < REREAD_S:
            return tenant
        settings = ingestion_settings(self._config(), name)
        rate = settings.rate_limit_bytes / (max(self._distributors(), 1) if settings.shared else 1)
        if tenant is None:
            tenant = self._tenants[name] = Tenant(settings, rate, now_s)
        tenant.settings, tenant.rate, tenant.read_at_s = settings, rate, now_s
        return tenant


def _refusal(tenant: str, size: int, each: Tenant) -> str:
    """Tempo's text."""
    rate, burst = int(each.rate), each.settings.burst_size_bytes
    overall = each.settings.rate_limit_bytes if each.settings.shared else 0
    limits = f"(local: {rate} bytes/s, global: {overall} bytes/s, burst: {burst} bytes)"
    if size > rate and size > burst:
        return (
            f"RATE_LIMITED: batch size ({size} bytes) exceeds ingestion limit {limits} while adding {size} bytes for "
            f"user {tenant}. consider reducing batch size or increasing rate limit."
        )
    return (
        f"RATE_LIMITED: ingestion rate limit {limits} exceeded while adding {size} bytes for user {tenant}. consider "
        "increasing the limit or reducing ingestion rate."
    )
