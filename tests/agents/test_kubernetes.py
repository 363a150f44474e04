"""Whether a pod that is told to stop will be back."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agents.kubernetes import KubernetesError, StatefulSet
from tests.servers.certificates import Authority

Answer = dict[str, Any] | int
Api = Callable[[Answer], AbstractAsyncContextManager[dict[str, str]]]


@pytest.fixture
def account(tmp_path: Path) -> Path:
    directory = tmp_path / "serviceaccount"
    directory.mkdir()
    (directory / "namespace").write_text("observability\n")
    (directory / "token").write_text("secret")
    return directory


@pytest.fixture
def api(tmp_path: Path, account: Path) -> Api:
    """An API server with one StatefulSet; gives the environment of the pod generator-1."""
    authority = Authority(tmp_path / "tls")
    context: ssl.SSLContext = authority.server()
    (account / "ca.crt").write_bytes(authority.certificate.read_bytes())

    @asynccontextmanager
    async def serve(answer: Answer) -> AsyncIterator[dict[str, str]]:
        async def read(request: web.Request) -> web.Response:
            assert request.headers["Authorization"] == "Bearer secret"
            return web.Response(status=answer) if isinstance(answer, int) else web.json_response(answer)

        app = web.Application()
        app.router.add_get("/apis/apps/v1/namespaces/observability/statefulsets/generator", read)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            yield {
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT": str(runner.addresses[0][1]),
                "SPANMILL_STATEFULSET": "generator",
                "SPANMILL_INSTANCE_ID": "generator-1",
            }
        finally:
            await runner.cleanup()

    return serve


def stateful_set(replicas: int, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "generator"}, "spec": {"replicas": replicas, **spec}}


async def wants(api: Api, account: Path, answer: Answer) -> bool:
    async with api(answer) as environ:
        pod = StatefulSet.of_this_pod(environ, account)
        assert pod is not None
        return await pod.wants()


async def test_a_pod_whose_ordinal_is_among_the_replicas_will_be_back(api: Api, account: Path) -> None:
    assert await wants(api, account, stateful_set(2))


async def test_a_pod_beyond_the_replicas_is_gone(api: Api, account: Path) -> None:
    assert not await wants(api, account, stateful_set(1))
    assert not await wants(api, account, stateful_set(0))


async def test_ordinals_may_begin_anywhere(api: Api, account: Path) -> None:
    assert await wants(api, account, stateful_set(1, ordinals={"start": 1}))
    assert not await wants(api, account, stateful_set(5, ordinals={"start": 2}))


async def test_with_its_set_a_pod_is_gone(api: Api, account: Path) -> None:
    assert not await wants(api, account, 404)
    deleted = stateful_set(2)
    deleted["metadata"]["deletionTimestamp"] = "2026-01-31T12:00:00Z"
    assert not await wants(api, account, deleted)


@pytest.mark.parametrize("answer", [403, 500, {"metadata": {}}, {"metadata": {}, "spec": {"replicas": "many"}}])
async def test_what_the_server_does_not_tell_is_an_error(api: Api, account: Path, answer: Answer) -> None:
    with pytest.raises(KubernetesError, match="can't read the StatefulSet generator"):
        await wants(api, account, answer)


async def test_a_server_that_is_not_there_is_an_error(account: Path, api: Api) -> None:
    async with api(404) as environ:
        pod = StatefulSet.of_this_pod(environ, account)
    assert pod is not None
    with pytest.raises(KubernetesError):
        await pod.wants()


async def test_a_server_of_another_authority_is_not_believed(api: Api, account: Path, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    (account / "ca.crt").write_bytes(other.certificate.read_bytes())
    with pytest.raises(KubernetesError):
        await wants(api, account, 404)


@pytest.mark.parametrize("missing", ["KUBERNETES_SERVICE_HOST", "SPANMILL_STATEFULSET", "SPANMILL_INSTANCE_ID"])
async def test_outside_a_cluster_nobody_is_asked(api: Api, account: Path, missing: str) -> None:
    async with api(404) as environ:
        del environ[missing]
        assert StatefulSet.of_this_pod(environ, account) is None


async def test_without_credentials_nobody_is_asked(api: Api, account: Path) -> None:
    (account / "token").unlink()
    async with api(404) as environ:
        assert StatefulSet.of_this_pod(environ, account) is None
