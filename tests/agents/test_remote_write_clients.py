"""How an endpoint is reached: headers, credentials, TLS, proxies, redirects."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from agents.own_metrics import OwnMetrics
from agents.remote_write.proxies import bypasses, proxy_for
from schemas.config.http_client import HttpClient
from tests.agents.windows import endpoint, value_of, window
from tests.servers.certificates import Authority
from tests.servers.remote_write_receiver import Received, Receiver, Reply

QUIET = {"queue_config": {"min_backoff": "1ms", "max_backoff": "5ms"}, "metadata_config": {"send": False}}
Tenants = dict[str, dict[str, str]]


async def one_request(
    receiver: Receiver, tenant: str = "team-a", tenants: Tenants | None = None, org_id: bool = True, **keys: Any
) -> Received:
    """The first request of a window of this tenant."""
    async with endpoint(OwnMetrics(), tenants, url=keys.pop("url", receiver.url), org_id=org_id, **QUIET, **keys) as it:
        await it.write(window(tenant=tenant))
    return receiver.received[0]


async def headers_of(tenant: str = "team-a", **keys: Any) -> Received:
    """A request to a receiver of its own."""
    async with Receiver().serve() as receiver:
        return await one_request(receiver, tenant, **keys)


async def test_st_5_a_tenant_is_named_in_the_header() -> None:
    """ST-5."""
    assert (await headers_of("team-a")).header("X-Scope-OrgID") == "team-a"


async def test_st_5_the_single_tenant_is_not_named() -> None:
    """ST-5."""
    assert (await headers_of("single-tenant")).header("X-Scope-OrgID") is None


async def test_st_5_nobody_is_named_where_that_is_switched_off() -> None:
    """ST-5: remote_write_add_org_id_header."""
    assert (await headers_of("team-a", org_id=False)).header("X-Scope-OrgID") is None


@pytest.mark.parametrize("name", ["X-Scope-OrgID", "x-scope-orgid"])
async def test_st_5_an_entry_that_names_a_tenant_stays_and_is_told(name: str) -> None:
    """ST-5."""
    with capture_logs() as logs:
        assert (await headers_of("team-a", headers={name: "everyone"})).header("X-Scope-OrgID") == "everyone"
    assert [(each["log_level"], each["tenant"]) for each in logs] == [("info", "team-a")]


@pytest.mark.parametrize("name", ["X-Scope-OrgID", " x-scope-ORGID "])
async def test_st_5_a_tenant_that_names_itself_otherwise_stays(name: str) -> None:
    """ST-5: case-insensitive, trimmed."""
    assert (await headers_of("team-a", tenants={"team-a": {name: "other"}})).header("X-Scope-OrgID") == "other"


async def test_st_5_a_header_that_says_nothing_is_none() -> None:
    """ST-5."""
    assert (await headers_of("team-a", headers={"X-Scope-OrgID": ""})).header("X-Scope-OrgID") == "team-a"


async def test_st_5_a_tenants_headers_lie_over_the_entrys() -> None:
    """ST-5."""
    tenants = {"team-a": {"x-region": "east", "Authorization": "Bearer own"}}
    keys = {"headers": {"X-Region": "west", "X-Tier": "gold"}, "authorization": {"credentials": "general"}}
    own = await headers_of("team-a", tenants=tenants, **keys)
    assert (own.header("X-Region"), own.header("X-Tier"), own.header("Authorization")) == ("east", "gold", "Bearer own")
    other = await headers_of("team-b", tenants=tenants, **keys)
    assert (other.header("X-Region"), other.header("Authorization")) == ("west", "Bearer general")


async def test_st_6_a_tenants_headers_are_read_for_every_request() -> None:
    """ST-6: sooner than Tempo's 30 s."""
    tenants: Tenants = {"team-a": {"X-Key": "old"}}
    async with Receiver().serve() as receiver, endpoint(OwnMetrics(), tenants, url=receiver.url, **QUIET) as it:
        await it.write(window(tenant="team-a"))
        tenants["team-a"] = {"X-Key": "new"}
        await it.write(window(tenant="team-a"))
    assert [each.header("X-Key") for each in receiver.received] == ["old"] * 3 + ["new"] * 3


async def test_st_6_headers_that_cannot_be_read_are_counted_and_tried_again(tmp_path: Path) -> None:
    """ST-6."""
    file, metrics = tmp_path / "key", OwnMetrics()
    keys = {"http_headers": {"X-Key": {"files": [str(file)]}}}
    async with Receiver().serve() as receiver, endpoint(metrics, url=receiver.url, **QUIET, **keys) as it:
        writing = asyncio.create_task(it.write(window(tenant="team-a")))
        name = "tempo_metrics_generator_storage_remote_write_update_failed_total"
        while not value_of(metrics, name, tenant="team-a"):
            await asyncio.sleep(0.005)
        file.write_text("late\n")
        await asyncio.wait_for(writing, 10)
    assert receiver.received[0].header("X-Key") == "late"


async def test_http_headers_may_have_several_values(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(" c\n")
    header = {"values": ["a"], "secrets": ["b"], "files": [str(tmp_path / "file")]}
    assert (await headers_of(http_headers={"X-Several": header})).all("X-Several") == ["a", "b", "c"]


async def test_basic_authentication(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "name").write_text("who\n")
    expected = "Basic " + base64.b64encode(b"who:hunter2").decode()
    plain = await headers_of(basic_auth={"username": "who", "password": "hunter2"})
    files = {"username_file": str(tmp_path / "name"), "password_file": str(tmp_path / "password")}
    assert plain.header("Authorization") == (await headers_of(basic_auth=files)).header("Authorization") == expected


async def test_authorization_has_a_type_and_credentials(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    typed = await headers_of(authorization={"type": "Token", "credentials": "abc"})
    assert typed.header("Authorization") == "Token abc"
    bearer = await headers_of(authorization={"credentials_file": str(tmp_path / "token")})
    assert bearer.header("Authorization") == "Bearer from-file"
    assert (await headers_of(bearer_token="old")).header("Authorization") == "Bearer old"
    assert (await headers_of(authorization={})).header("Authorization") is None


class TokenServer:
    """Gives tokens token-1, token-2 ... to a client with ID and secret."""

    def __init__(self, *, in_body: bool = False, expires_in: object = 3600) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self._in_body, self._expires_in = in_body, expires_in

    async def handle(self, request: web.Request) -> web.Response:
        form = parse_qs((await request.read()).decode())
        if self._in_body:
            known = (form.get("client_id"), form.get("client_secret")) == (["me+"], ["s&cret"])
        else:
            basic = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
            known = [unquote_plus(part) for part in basic.split(":")] == ["me+", "s&cret"]
        if not known or request.content_type != "application/x-www-form-urlencoded":
            return web.json_response({"error": "invalid_client"}, status=401)
        self.asked.append(form)
        token = {"access_token": f"token-{len(self.asked)}", "token_type": "bearer", "expires_in": self._expires_in}
        return web.Response(text=json.dumps(token), content_type="application/json")

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[dict[str, Any]]:
        """The `oauth2` block of a client."""
        app = web.Application()
        app.router.add_post("/token", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield {
                "client_id": "me+",
                "client_secret": "s&cret",
                "token_url": f"http://127.0.0.1:{runner.addresses[0][1]}/token",
                "scopes": ["write", "more"],
                "endpoint_params": {"audience": "here"},
            }
        finally:
            await runner.cleanup()


@pytest.mark.parametrize("in_body", [False, True])
async def test_oauth2_fetches_a_token_once(in_body: bool) -> None:
    server = TokenServer(in_body=in_body)
    async with server.serve() as oauth2, Receiver().serve() as receiver:
        await one_request(receiver, oauth2=oauth2)
    assert {each.header("Authorization") for each in receiver.received} == {"Bearer token-1"}
    (asked,) = server.asked
    assert (asked["grant_type"], asked["scope"], asked["audience"]) == (
        ["client_credentials"],
        ["write more"],
        ["here"],
    )


async def test_oauth2_takes_a_new_token_when_one_is_refused() -> None:
    def rule(request: Received) -> Reply:
        return Reply(401) if request.header("Authorization") == "Bearer token-1" else Reply()

    async with TokenServer().serve() as oauth2, Receiver(rule).serve() as receiver:
        await one_request(receiver, oauth2=oauth2)
    assert [each.header("Authorization") for each in receiver.received] == ["Bearer token-1"] + ["Bearer token-2"] * 3


async def test_oauth2_takes_a_new_token_before_one_expires() -> None:
    server = TokenServer(expires_in="9")  # a text, as some servers have it; and within the 10 s that are kept free
    async with server.serve() as oauth2, Receiver().serve() as receiver:
        await one_request(receiver, oauth2=oauth2)
    assert len(server.asked) == len(receiver.received) == 3


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def test_tls_trusts_the_authority_that_is_named(authority: Authority) -> None:
    async with Receiver().serve(authority.server()) as receiver:
        await one_request(receiver, tls_config={"ca_file": str(authority.certificate), "min_version": "TLS12"})
        await one_request(receiver, tls_config={"ca": authority.certificate.read_text()})
        await one_request(receiver, tls_config={"insecure_skip_verify": True})
    assert len(receiver.received) == 9


async def refuses(receiver: Receiver, **keys: Any) -> bool:
    """Whether nothing gets through."""
    writing = asyncio.create_task(one_request(receiver, **keys))
    done, _ = await asyncio.wait({writing}, timeout=0.5)
    writing.cancel()
    await asyncio.wait({writing})
    return not done and not receiver.received


async def test_tls_trusts_nobody_else(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    async with Receiver().serve(authority.server()) as receiver:
        assert await refuses(receiver, tls_config={"ca_file": str(other.certificate)})
        assert await refuses(receiver)
        assert await refuses(
            receiver, tls_config={"ca_file": str(authority.certificate), "server_name": "another.example"}
        )


async def test_tls_server_name_is_the_certificates(authority: Authority) -> None:
    context = authority.server("named", "DNS:mimir.example")
    async with Receiver().serve(context) as receiver:
        assert await refuses(receiver, tls_config={"ca_file": str(authority.certificate)})
        await one_request(receiver, tls_config={"ca_file": str(authority.certificate), "server_name": "mimir.example"})


async def test_tls_shows_a_client_certificate_from_files_or_texts(authority: Authority) -> None:
    certificate, key = authority.certify("client")
    ca = {"ca_file": str(authority.certificate)}
    async with Receiver().serve(authority.server("strict", asks_clients=True)) as receiver:
        assert await refuses(receiver, tls_config=ca)
        await one_request(receiver, tls_config={**ca, "cert_file": str(certificate), "key_file": str(key)})
        await one_request(receiver, tls_config={**ca, "cert": certificate.read_text(), "key": key.read_text()})
    assert len(receiver.received) == 6


async def test_tls_files_may_be_renewed_in_place(authority: Authority, tmp_path: Path) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_text(Authority(tmp_path / "other").certificate.read_text())
    async with Receiver().serve(authority.server()) as receiver:
        writing = asyncio.create_task(one_request(receiver, tls_config={"ca_file": str(trusted)}))
        await asyncio.sleep(0.3)
        assert not writing.done()
        trusted.write_text(authority.certificate.read_text())
        await asyncio.wait_for(writing, 10)


class Proxy:
    """An HTTP proxy: tunnels on CONNECT, and forwards what has a whole URL to a receiver."""

    def __init__(self, forward_to: str = "") -> None:
        self.asked: list[list[str]] = []
        self._forward_to = forward_to

    async def serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.asked.append(head)
        method, target, _ = head[0].split(" ")
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            host, _, port = self._forward_to.removeprefix("http://").partition("/")[0].partition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        if method != "CONNECT":
            far_writer.write("\r\n".join(head).encode())
        await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """The proxy's URL."""
        server = await asyncio.start_server(self.serve_client, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()


async def test_a_proxy_forwards_http() -> None:
    async with Receiver().serve() as receiver:
        proxy = Proxy(receiver.url)
        async with proxy.serve() as url:
            request = await one_request(receiver, url="http://mimir.example/api/v1/write", proxy_url=url)
    assert request.header("Host") == "mimir.example"
    assert proxy.asked[0][0].startswith("POST http://mimir.example/api/v1/write ")


async def test_a_proxy_tunnels_https_and_gets_headers_of_its_own(authority: Authority) -> None:
    proxy = Proxy()
    async with Receiver().serve(authority.server()) as receiver, proxy.serve() as url:
        credentials = url.replace("http://", "http://user:hunter2@")
        request = await one_request(
            receiver,
            proxy_url=credentials,
            proxy_connect_header={"X-Proxy": ["a", "b"]},
            tls_config={"ca_file": str(authority.certificate)},
        )
    (head,) = proxy.asked
    assert head[0].startswith("CONNECT 127.0.0.1:")
    assert [line for line in head if line.startswith("X-Proxy")] == ["X-Proxy: a", "X-Proxy: b"]
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'user:hunter2').decode()}" in head
    assert request.header("X-Proxy") is None


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("http://example.com/", "", False),
        ("http://example.com/", "*", True),
        ("http://example.com/", "example.com", True),
        ("http://a.example.com/", "example.com", True),
        ("http://badexample.com/", "example.com", False),
        ("http://example.com/", ".example.com", False),
        ("http://a.example.com/", ".example.com", True),
        ("http://a.example.com/", "*.example.com", True),
        ("http://EXAMPLE.com./", "other, Example.Com", True),
        ("http://example.com:8080/", "example.com:8080", True),
        ("http://example.com/", "example.com:8080", False),
        ("https://example.com/", "example.com:443", True),
        ("http://10.1.2.3/", "10.0.0.0/8", True),
        ("http://11.1.2.3/", "10.0.0.0/8", False),
        ("http://10.1.2.3/", "10.1.2.3", True),
        ("http://[fd00::1]/", "fd00::/8", True),
        ("http://[fd00::1]:9090/", "[fd00::1]:9090", True),
        ("http://example.com/", "10.0.0.0/99", False),
        ("http://localhost:9090/", "", True),
        ("http://127.0.0.2/", "", True),
        ("http://[::1]/", "", True),
    ],
)
def test_exceptions_from_proxies(url: str, no_proxy: str, expected: bool) -> None:
    assert bypasses(url, no_proxy) is expected


def test_proxies_come_from_the_entry_or_the_environment() -> None:
    config = HttpClient.model_validate({"proxy_url": "http://proxy:3128"})
    assert proxy_for("http://localhost/", config, {}) == "http://proxy:3128", "for every server"
    some = HttpClient.model_validate({"proxy_url": "http://proxy:3128", "no_proxy": "example.com"})
    assert proxy_for("http://localhost/", some, {}) is None
    assert proxy_for("http://example.com/", some, {}) is None
    assert proxy_for("http://other.com/", some, {}) == "http://proxy:3128"
    environment = HttpClient.model_validate({"proxy_from_environment": True})
    variables = {"HTTP_PROXY": "plain:1", "https_proxy": "http://secure:2", "NO_PROXY": "none.example"}
    assert proxy_for("http://example.com/", environment, variables) == "http://plain:1"
    assert proxy_for("https://example.com/", environment, variables) == "http://secure:2"
    assert proxy_for("https://none.example/", environment, variables) is None
    assert proxy_for("http://example.com/", HttpClient(), variables) is None


async def test_redirects_are_followed_unless_that_is_switched_off() -> None:
    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(receiver.url)

    app = web.Application()
    app.router.add_post("/old", redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    old = f"http://127.0.0.1:{runner.addresses[0][1]}/old"
    try:
        async with Receiver().serve() as receiver:
            assert await refuses(receiver, url=old, follow_redirects=False)
            request = await one_request(receiver, url=old)
            assert request.names == ["spanmill_sink_window"]
    finally:
        await runner.cleanup()
