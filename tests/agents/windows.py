"""Windows for tests of what writes them."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from pydantic import SecretStr

from agents.own_metrics import OwnMetrics
from agents.remote_write.connection import connection_of, new_session
from agents.remote_write.credentials import credentials_of
from agents.remote_write.endpoint import RemoteWriteEndpoint
from schemas.config import RemoteWriteConfig
from schemas.record import DEFAULT_TENANT
from schemas.remote_write import Exemplar
from streams.series import Sample, Series
from streams.shard import TenantSamples, WindowSamples

END_MS = 1_700_000_010_000
APP = "app"


def window(
    count: int = 3, tenant: str = DEFAULT_TENANT, zeros: int = 1, end_ms: int = END_MS, shard: int = 3
) -> WindowSamples:
    """Series m0, m1 ... with values 1, 2 ...; the first have zeros, and m0 an exemplar."""
    series = [Series((("__name__", f"m{i}"), ("pod", f"pod-{i}"))) for i in range(count)]
    exemplar = Exemplar((("traceID", "0af7651916cd43dd8448eb211c80319c"),), 0.5, end_ms)
    samples = TenantSamples(
        tenant,
        end_ms - 5000,
        [Sample(each, 0.0) for each in series[:zeros]],
        [Sample(each, float(i + 1), None if i else exemplar) for i, each in enumerate(series)],
        count,
        0,
    )
    return WindowSamples(shard, end_ms - 5000, end_ms, (samples,), 0)


def read_config(**keys: Any) -> RemoteWriteConfig:
    """An endpoint's configuration as a file has it: lists are tuples there, durations texts."""
    return RemoteWriteConfig.model_validate(
        tupled({"name": "here", **keys}), by_name=False, by_alias=True, context={"file": True}
    )


def tupled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: tupled(item) for key, item in value.items()}
    return tuple(map(tupled, value)) if isinstance(value, list) else value


@contextlib.asynccontextmanager
async def endpoint(
    metrics: OwnMetrics,
    tenants: Mapping[str, Mapping[str, str]] | None = None,
    *,
    org_id: bool = True,
    **keys: Any,
) -> AsyncIterator[RemoteWriteEndpoint]:
    """An endpoint of a configuration with these keys; `tenants` have these headers."""

    def headers(tenant: str) -> dict[str, SecretStr]:
        return {name: SecretStr(value) for name, value in (tenants or {}).get(tenant, {}).items()}

    config = read_config(**keys)
    async with new_session() as session:
        way, shown = connection_of(config, session), credentials_of(config, session)
        yield RemoteWriteEndpoint(config, APP, metrics, way, shown, org_id=org_id, tenant_headers=headers)


def value_of(metrics: OwnMetrics, name: str, **labels: str) -> float:
    """A metric's value; 0 if it has none."""
    return metrics.registry.get_sample_value(name, labels) or 0.0
