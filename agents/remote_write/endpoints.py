"""All endpoints of a configuration."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from pydantic import SecretStr

from agents.own_metrics import OwnMetrics
from agents.remote_write.connection import new_session
from agents.remote_write.endpoint import RemoteWriteEndpoint
from schemas.config import Config


@contextlib.asynccontextmanager
async def remote_write_endpoints(
    current: Callable[[], Config], metrics: OwnMetrics
) -> AsyncIterator[list[RemoteWriteEndpoint]]:
    """The endpoints of the configuration, with their connections for the time of the context.

    Which there are is read once; tenants' headers are read from `current` at every request (Tempo ST-6).
    """
    config = current()
    storage = config.metrics_generator.storage

    def tenant_headers(tenant: str) -> Mapping[str, SecretStr]:
        return current().tenant_overrides(tenant).metrics_generator.remote_write_headers

    async with contextlib.AsyncExitStack() as sessions:
        yield [
            RemoteWriteEndpoint(
                each,
                config.spanmill.app_id,
                metrics,
                await sessions.enter_async_context(new_session()),
                org_id=storage.remote_write_add_org_id_header,
                tenant_headers=tenant_headers,
            )
            for each in storage.remote_write
        ]
