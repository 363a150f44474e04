"""Whether this process is a pod that its StatefulSet still wants.

A pod that is told to stop can't see why. A rollout brings it back under the same name; after a scale-down it is gone
for good. The difference is its StatefulSet's number of replicas, which is lowered before the first pod is told to stop,
and which a pod may read if its service account may `get` it (the chart's does).
"""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp

from agents.kafka import INSTANCE_ID_VARIABLE

STATEFUL_SET_VARIABLE = "SPANMILL_STATEFULSET"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 3.0
NOT_FOUND = 404


class KubernetesError(Exception):
    """The API server doesn't tell."""


@dataclass(frozen=True, slots=True)
class StatefulSet:
    """The set that a pod belongs to, and where to ask for it."""

    name: str
    pod: str
    server: str
    account: Path
    """The directory of the pod's credentials."""

    @classmethod
    def of_this_pod(cls, environ: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> Self | None:
        """As the chart sets the environment; None outside a cluster, and in a pod that may not ask."""
        name, pod = environ.get(STATEFUL_SET_VARIABLE), environ.get(INSTANCE_ID_VARIABLE)
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not name or not pod or not host or not (account / "token").exists():
            return None
        return cls(name, pod, f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}", account)

    async def wants(self) -> bool:
        """Whether the set has a pod of this name, by what its specification says now. Raises `KubernetesError`."""
        try:
            found = await self._read()
            return found is not None and self._has(found)
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
            raise KubernetesError(f"can't read the StatefulSet {self.name}: {error!r}") from error

    def _has(self, found: Mapping[str, Any]) -> bool:
        first = found["spec"].get("ordinals", {}).get("start", 0)
        ordinal = int(self.pod.removeprefix(f"{self.name}-"))
        return "deletionTimestamp" not in found["metadata"] and first <= ordinal < first + found["spec"]["replicas"]

    async def _read(self) -> dict[str, Any] | None:
        namespace = (self.account / "namespace").read_text().strip()
        token = (self.account / "token").read_text().strip()
        trusted = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        url = f"{self.server}/apis/apps/v1/namespaces/{namespace}/statefulsets/{self.name}"
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session,
            session.get(url, ssl=trusted, headers={"Authorization": f"Bearer {token}"}) as answer,
        ):
            if answer.status == NOT_FOUND:
                return None
            answer.raise_for_status()
            found: dict[str, Any] = json.loads(await answer.read())
            return found
