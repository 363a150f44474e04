"""All endpoints of a configuration."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from pydantic import SecretStr

from agents.own_metrics import OwnMetrics
from agents.remote_write.connection import connection_of, new_session
from agents.remote_write.credentials import credentials_of
from agents.remote_write.endpoint import RemoteWriteEndpoint
from schemas.config import Config, RemoteWriteConfig


@contextlib.asynccontextmanager
async def remote_write_endpoints(
    current: Callable[[], Config], metrics: OwnMetrics, *, replay_id: str = ""
) -> AsyncIterator[list[RemoteWriteEndpoint]]:
    """The endpoints of the configuration, with their connections for the time of the context.

    Which there are is read once; tenants' headers are read from `current` at every request (Tempo ST-6). `replay_id`
    tells the markers of a replay from those of the live stages.
    """
    config = current()
    storage = config.metrics_generator.storage

    def tenant_headers(tenant: str) -> Mapping[str, SecretStr]:
        return current().tenant_overrides(tenant).metrics_generator.remote_write_headers

    async with contextlib.AsyncExitStack() as sessions:
        endpoints = []
        for each, marked_as in zip(named_apart(storage.remote_write), marks(storage.remote_write), strict=True):
            session = await sessions.enter_async_context(new_session())
            endpoints.append(
                RemoteWriteEndpoint(
                    each,
                    config.spanmill.app_id,
                    metrics,
                    connection_of(each, session),
                    credentials_of(each, session),
                    org_id=storage.remote_write_add_org_id_header,
                    tenant_headers=tenant_headers,
                    marked_as=marked_as,
                    replay_id=replay_id,
                )
            )
        yield endpoints


def named_apart(entries: Sequence[RemoteWriteConfig]) -> list[RemoteWriteConfig]:
    """The entries; those without a name that have their URL in common are named by their numbers too."""
    urls = [each.url for each in entries if not each.name]
    return [
        each.replace(name=f"{each.url} ({number})") if not each.name and urls.count(each.url) > 1 else each
        for number, each in enumerate(entries, 1)
    ]


def marks(entries: Sequence[RemoteWriteConfig]) -> list[str]:
    """What tells the entries' markers apart: their names, or which one each is; nothing if there is only one."""
    if len(entries) < 2:
        return [""] * len(entries)
    return [each.name or str(number) for number, each in enumerate(entries, 1)]
