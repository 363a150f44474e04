"""Copies of requests to other endpoints (Tempo DIST-15): best effort, and never in the way of an answer.

A tenant has a queue for each of its forwarders, of 100 requests and 64 MiB, with two workers. What finds it full, or
can't be sent within ten seconds, is counted and lost.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import grpc
import grpc.aio
import structlog

from agents.distributor.metrics import DistributorMetrics
from agents.otlp_protocol import EXPORT_METHOD, ORG_ID_HEADER
from schemas import ottl
from schemas.config.forwarders import Forwarder, ForwarderTls
from schemas.config.ingestion import IngestionSettings
from schemas.otlp.byte_messages import traces_data

log = structlog.get_logger(__name__)

QUEUE_REQUESTS, WORKERS = 100, 2
QUEUE_BYTES = 64 << 20
"""Tempo bounds requests alone, which may be gigabytes."""
TIMEOUT_S = 10.0
COMPLAIN_EVERY_S = 10.0

Export = grpc.aio.UnaryUnaryMultiCallable


def without(body: bytes, conditions: Sequence[ottl.Condition]) -> bytes:
    """A TracesData without the spans that fulfil any condition; empty if none is left."""
    message = traces_data(body)
    for resource in message.resource_spans:
        for scope in resource.scope_spans:
            kept = [s for s in scope.spans if not any(each(s, resource.resource) for each in conditions)]
            if len(kept) < len(scope.spans):
                del scope.spans[:]
                scope.spans.extend(kept)
        kept_scopes = [scope for scope in resource.scope_spans if scope.spans]
        if len(kept_scopes) < len(resource.scope_spans):
            del resource.scope_spans[:]
            resource.scope_spans.extend(kept_scopes)
    kept_resources = [resource for resource in message.resource_spans if resource.scope_spans]
    if len(kept_resources) < len(message.resource_spans):
        del message.resource_spans[:]
        message.resource_spans.extend(kept_resources)
    found: bytes = message.SerializeToString()
    return found


class Target:
    """A forwarder's endpoints and filter. Raises OSError if the certificate can't be read."""

    def __init__(self, config: Forwarder, metrics: DistributorMetrics) -> None:
        self.name, self._metrics = config.name, metrics
        self._conditions = [ottl.condition(each) for each in config.filter.traces.span]
        self._channels = {endpoint: channel(endpoint, config.otlpgrpc.tls) for endpoint in config.otlpgrpc.endpoints}
        self._exports: dict[str, Export[bytes, bytes]] = {
            endpoint: each.unary_unary(EXPORT_METHOD, None, None) for endpoint, each in self._channels.items()
        }
        self._complained_s = -COMPLAIN_EVERY_S

    async def send(self, tenant: str, body: bytes) -> None:
        """Send what the filter leaves to every endpoint; failures are counted and said."""
        if self._conditions:
            try:
                body = await asyncio.to_thread(without, body, self._conditions)
            except Exception as error:
                self.failed(tenant, "FILTER", str(error))
                return
        if body:
            await asyncio.gather(*(self._send(tenant, body, endpoint) for endpoint in self._exports))

    async def close(self) -> None:
        """Hang up."""
        for each in self._channels.values():
            await each.close(None)

    def failed(self, tenant: str, code: str, detail: str) -> None:
        """Count a request that was lost; and say so, once in ten seconds."""
        self._metrics.forward_failures.labels(self.name, tenant, code).inc()
        if time.monotonic() - self._complained_s >= COMPLAIN_EVERY_S:
            self._complained_s = time.monotonic()
            log.warning("failed to forward spans", forwarder=self.name, tenant=tenant, code=code, details=detail)

    async def _send(self, tenant: str, body: bytes, endpoint: str) -> None:
        try:
            await self._exports[endpoint](body, timeout=TIMEOUT_S, metadata=[(ORG_ID_HEADER, tenant)])
        except grpc.aio.AioRpcError as error:
            self.failed(tenant, error.code().name, f"{endpoint}: {error.details()}")


class Queue:
    """A tenant's requests for one target."""

    def __init__(self, tenant: str, target: Target, metrics: DistributorMetrics) -> None:
        self._tenant, self._target = tenant, target
        labels = target.name, tenant
        self._pushes, self._failures = metrics.queue_pushes.labels(*labels), metrics.queue_failures.labels(*labels)
        self._length = metrics.queue_length.labels(*labels)
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(QUEUE_REQUESTS)
        self._size = 0
        loop = asyncio.get_running_loop()
        self._workers = [loop.create_task(self._work()) for _ in range(WORKERS)]

    def push(self, body: bytes) -> None:
        """Queue a request, or lose it if there is no room."""
        self._pushes.inc()
        if self._waiting.full() or self._size + len(body) > QUEUE_BYTES:
            self._failures.inc()
            self._target.failed(self._tenant, "QUEUE_FULL", "the queue is full")
            return
        self._waiting.put_nowait(body)
        self._size += len(body)
        self._length.inc()

    async def close(self) -> None:
        """Send what is queued, for as long as one request may take."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._waiting.join(), TIMEOUT_S)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._length.set(0)

    async def _work(self) -> None:
        while True:
            body = await self._waiting.get()
            self._length.dec()
            try:
                await self._target.send(self._tenant, body)
            finally:
                self._size -= len(body)
                self._waiting.task_done()


class TenantQueues(NamedTuple):
    """A tenant's queues, and the names that they are for."""

    names: tuple[str, ...]
    queues: dict[str, Queue]


class Forwarding:
    """Hands requests to the forwarders of their tenant. `settings` gives a tenant's, at most ten seconds old."""

    def __init__(
        self,
        config: Sequence[Forwarder],
        settings: Callable[[str], IngestionSettings],
        metrics: DistributorMetrics,
    ) -> None:
        """Raises OSError if a certificate can't be read."""
        self._targets = {each.name: Target(each, metrics) for each in config}
        self._settings, self._metrics = settings, metrics
        self._tenants: dict[str, TenantQueues] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def look(self, tenant: str, body: bytes, *, discarded: bool) -> None:
        """Queue a request that will be written; nothing is waited for."""
        if discarded:
            return
        for queue in self._queues(tenant).values():
            queue.push(body)

    async def close(self) -> None:
        """Send what is queued, within ten seconds, and hang up."""
        queues = [queue for tenant in self._tenants.values() for queue in tenant.queues.values()]
        self._tenants.clear()
        await asyncio.gather(*(queue.close() for queue in queues), *self._closing)
        for target in self._targets.values():
            await target.close()

    def _queues(self, tenant: str) -> dict[str, Queue]:
        """The tenant's, made and ended as its overrides change."""
        names = self._settings(tenant).forwarders
        known = self._tenants.get(tenant)
        if known is not None and known.names == names:
            return known.queues
        before = {} if known is None else known.queues
        found = {
            name: before.get(name) or Queue(tenant, self._targets[name], self._metrics)
            for name in names
            if name in self._targets
        }
        for name in before.keys() - found.keys():
            ending = asyncio.get_running_loop().create_task(before[name].close())
            self._closing.add(ending)
            ending.add_done_callback(self._closing.discard)
        self._tenants[tenant] = TenantQueues(names, found)
        return found


def channel(endpoint: str, tls: ForwarderTls) -> grpc.aio.Channel:
    """A connection that is made when it is needed. Raises OSError if the certificate can't be read."""
    if tls.cert_file is None or tls.insecure:
        return grpc.aio.insecure_channel(endpoint)
    return grpc.aio.secure_channel(endpoint, grpc.ssl_channel_credentials(tls.cert_file.read_bytes()))
