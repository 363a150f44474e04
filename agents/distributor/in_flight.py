"""Requests that aren't answered yet: how many there may be, in all and of one tenant."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager

from agents.distributor.metrics import DistributorMetrics
from agents.distributor.status import RETRY_AFTER_S, Code, RefusedError, unavailable

UNLIMITED = contextlib.nullcontext()


class InFlight:
    """Counts requests, in one event loop. `most` and `most_of_tenant` are the limits; 0: any number."""

    def __init__(self, metrics: DistributorMetrics, most: int = 0, most_of_tenant: int = 0) -> None:
        self._most, self._most_of_tenant = most, most_of_tenant
        self._count = 0
        self._of_tenant: Counter[str] = Counter()
        self._refused = metrics.requests_refused
        metrics.requests_in_flight.set_function(lambda: self._count)
        metrics.requests_in_flight_limit.set(most)

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """One more for the time of the context. Raises `RefusedError` if there are too many."""
        if self._most and self._count >= self._most:
            self._refused.labels("distributor").inc()
            raise unavailable(f"{self._count} requests wait for their answers, which is the limit of this distributor")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    def request_of(self, tenant: str) -> AbstractContextManager[None]:
        """The same among those of a tenant, which are counted only if they are limited."""
        return self._request_of(tenant) if self._most_of_tenant else UNLIMITED

    @contextlib.contextmanager
    def _request_of(self, tenant: str) -> Iterator[None]:
        if self._of_tenant[tenant] >= self._most_of_tenant:
            self._refused.labels("tenant").inc()
            message = f"{self._most_of_tenant} requests of tenant {tenant} wait for their answers, which is its limit"
            raise RefusedError(Code.RESOURCE_EXHAUSTED, message, RETRY_AFTER_S)
        self._of_tenant[tenant] += 1
        try:
            yield
        finally:
            self._of_tenant[tenant] -= 1
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]  # tenants that went away are none
