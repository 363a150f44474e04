"""Who may write as whom, over gRPC and HTTP, by bearer token and by certificate; and which pages may send."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import aiohttp
import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from agents.distributor.auth import Authentication, Client, Tokens, TokensError
from agents.distributor.in_flight import InFlight
from agents.distributor.intake import Intake
from agents.distributor.metrics import DistributorMetrics
from agents.distributor.receiver_grpc import GrpcReceiver
from agents.distributor.receiver_http import HttpReceiver, OtlpForm
from agents.distributor.reception import OTLP_GRPC, OTLP_HTTP, Arrival, Origin, Reception
from agents.distributor.status import Code, RefusedError
from agents.otlp_protocol import EXPORT_METHOD
from schemas.config import ConfigError, load_config
from schemas.config.cors import CorsSettings
from schemas.config.distributor import GrpcSettings, HttpSettings
from schemas.config.server_tls import ServerTls
from schemas.config.tenant_map import TenantMap
from tests.servers.certificates import Authority

SHOP, BANK = "shop-token-0123456789", "bank-token-0123456789"
PATH = "/v1/traces"
PROTOBUF = "application/x-protobuf"


def reception(origin: Origin) -> Reception:
    metrics = DistributorMetrics(CollectorRegistry())
    return Reception(origin, metrics, InFlight(metrics), access_log=False)


class RecordedIntake:
    """Where requests arrive that were let in: whose they were taken for."""

    def __init__(self) -> None:
        self.tenants: list[str] = []

    async def push(self, arrival: Arrival, body: bytes, org_ids: Sequence[str], *, no_metrics: bool) -> None:
        (tenant,) = org_ids
        self.tenants.append(tenant)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"# ours\nshop {SHOP}\nbank {BANK}\n\nshop shop-second-0123456789\n")
    return file


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


class Receivers:
    """Both receivers in front of one recording intake."""

    def __init__(self, config: TenantMap, tls: ServerTls | None) -> None:
        self.intake = RecordedIntake()
        authentication, intake = Authentication(config), cast("Intake", self.intake)
        settings_of_grpc = GrpcSettings(endpoint="127.0.0.1:0", tls=tls)
        self.grpc = GrpcReceiver(settings_of_grpc, "OTLP", intake, authentication, reception(OTLP_GRPC))
        settings = HttpSettings(endpoint="127.0.0.1:0", tls=tls)
        self.http = HttpReceiver(settings, PATH, OtlpForm(), intake, authentication, reception(OTLP_HTTP))

    async def over_grpc(self, client: "Identity", headers: Sequence[tuple[str, str]]) -> str:
        address, credentials = self.grpc.address, client.credentials
        channel = (
            grpc.aio.insecure_channel(address) if credentials is None else grpc.aio.secure_channel(address, credentials)
        )
        async with channel:
            try:
                await channel.unary_unary(EXPORT_METHOD, None, None)(b"", metadata=[(k.lower(), v) for k, v in headers])
            except grpc.aio.AioRpcError as error:
                return error.code().name
        return "OK"

    async def over_http(self, client: "Identity", headers: Sequence[tuple[str, str]]) -> int:
        scheme = "http" if client.context is None else "https"
        url = f"{scheme}://{self.http.address}{PATH}"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, headers=[("Content-Type", PROTOBUF), *headers], ssl=client.context or True) as answer,
        ):
            return answer.status


class Identity:
    """A client's side of TLS."""

    def __init__(self, authority: Authority | None = None, names: str = "", common_name: str = "client") -> None:
        self.credentials: grpc.ChannelCredentials | None = None
        self.context: ssl.SSLContext | None = None
        if authority is not None:
            cert, key = authority.certify(common_name, names)
            trusted = authority.certificate.read_bytes()
            self.credentials = grpc.ssl_channel_credentials(trusted, key.read_bytes(), cert.read_bytes())
            self.context = ssl.create_default_context(cafile=authority.certificate)
            self.context.load_cert_chain(cert, key)


Start = Callable[..., Awaitable[Receivers]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    started: list[Receivers] = []

    async def begin(config: TenantMap, tls: ServerTls | None = None) -> Receivers:
        receivers = Receivers(config, tls)
        started.append(receivers)
        await receivers.grpc.start()
        await receivers.http.start()
        return receivers

    yield begin
    for receivers in started:
        await receivers.grpc.stop()
        await receivers.http.stop()


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


ORG = "X-Scope-OrgID"


@pytest.mark.parametrize(
    ("headers", "status", "code", "tenant"),
    [
        ([bearer(SHOP)], 200, "OK", "shop"),
        ([("authorization", f"bearer {BANK}")], 200, "OK", "bank"),
        ([bearer("shop-second-0123456789")], 200, "OK", "shop"),
        ([bearer(SHOP), (ORG, "shop")], 200, "OK", "shop"),
        ([bearer(SHOP), (ORG, "shop:label=x")], 200, "OK", "shop"),
        ([bearer(SHOP), (ORG, "bank")], 403, "PERMISSION_DENIED", None),
        ([bearer(SHOP), (ORG, "shop"), (ORG, "bank")], 403, "PERMISSION_DENIED", None),
        ([bearer(SHOP), (ORG, "shop|bank")], 400, "INVALID_ARGUMENT", None),
        ([(ORG, "shop")], 401, "UNAUTHENTICATED", None),
        ([], 401, "UNAUTHENTICATED", None),
        ([bearer(SHOP + "x")], 401, "UNAUTHENTICATED", None),
        ([bearer(SHOP[:-1])], 401, "UNAUTHENTICATED", None),
        ([bearer("")], 401, "UNAUTHENTICATED", None),
        ([bearer(SHOP), bearer(BANK)], 401, "UNAUTHENTICATED", None),
        ([("Authorization", f"Basic {SHOP}")], 401, "UNAUTHENTICATED", None),
    ],
)
async def test_a_token_decides_the_tenant(
    start, tokens: Path, headers: list[tuple[str, str]], status: int, code: str, tenant: str | None
) -> None:
    receivers = await start(TenantMap(tokens_file=tokens))
    assert await receivers.over_http(Identity(), headers) == status
    assert await receivers.over_grpc(Identity(), headers) == code
    assert receivers.intake.tenants == ([] if tenant is None else [tenant, tenant])


CERTIFICATES = {
    "CN:agent": "shop",
    "DNS:agent.bank.example": "bank",
    "URI:spiffe://example/ns/shop": "shop",
    "email:ops@bank.example": "bank",
}


@pytest.mark.parametrize(
    ("common_name", "names", "headers", "status", "code", "tenant"),
    [
        ("agent", "DNS:elsewhere", [], 200, "OK", "shop"),
        ("x", "DNS:agent.bank.example", [(ORG, "bank")], 200, "OK", "bank"),
        ("x", "URI:spiffe://example/ns/shop", [], 200, "OK", "shop"),
        ("x", "email:ops@bank.example", [], 200, "OK", "bank"),
        ("x", "DNS:agent", [], 401, "UNAUTHENTICATED", None),
        ("agent.bank.example", "DNS:x", [], 401, "UNAUTHENTICATED", None),
        ("agent", "DNS:x", [(ORG, "bank")], 403, "PERMISSION_DENIED", None),
        ("agent", "DNS:agent.bank.example", [], 403, "PERMISSION_DENIED", None),
        ("agent", "DNS:x", [bearer(SHOP)], 200, "OK", "shop"),
        ("agent", "DNS:x", [bearer(BANK)], 403, "PERMISSION_DENIED", None),
        ("proxy", "DNS:x", [bearer(BANK)], 200, "OK", "bank"),
    ],
)
async def test_a_certificate_decides_the_tenant(
    start: Start,
    authority: Authority,
    tokens: Path,
    common_name: str,
    names: str,
    headers: list[tuple[str, str]],
    status: int,
    code: str,
    tenant: str | None,
) -> None:
    cert, key = authority.certify("server")
    tls = ServerTls(cert_file=cert, key_file=key, client_ca_file=authority.certificate)
    receivers = await start(TenantMap(tokens_file=tokens, certificates=CERTIFICATES), tls)
    client = Identity(authority, names, common_name)
    assert await receivers.over_http(client, headers) == status
    assert await receivers.over_grpc(client, headers) == code
    assert receivers.intake.tenants == ([] if tenant is None else [tenant, tenant])


async def test_an_unknown_client_is_told_so_before_it_has_sent_its_body(start: Start, tokens: Path) -> None:
    receivers = await start(TenantMap(tokens_file=tokens))
    host, _, port = receivers.http.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n"
    writer.write(f"{head}Authorization: Bearer {'x' * 20}\r\n\r\n".encode())
    answer = (await reader.readuntil(b"}")).decode()
    writer.close()
    assert answer.startswith("HTTP/1.1 401 Unauthorized\r\n")
    assert "WWW-Authenticate: Bearer\r\n" in answer
    assert answer.endswith('{"code": 16, "message": "the bearer token is unknown"}')


def test_without_a_map_the_header_is_trusted() -> None:
    client = Client(["a", "b"], ["Basic x"], lambda: ())
    assert Authentication(None).org_ids(client) == ["a", "b"]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_changed_tokens_hold_after_a_second(tokens: Path) -> None:
    clock = Clock()
    known = Tokens(tokens, clock)
    replaced = tokens.with_suffix(".new")
    replaced.write_text("shop another-0123456789\n")
    replaced.replace(tokens)
    assert known.tenant(SHOP) == "shop"
    clock.now = 1.0
    assert (known.tenant(SHOP), known.tenant("another-0123456789")) == (None, "shop")


@pytest.mark.parametrize("broken", [b"shop", b"", b"\xff\xfe", f"shop {SHOP}\nbank {SHOP}\n".encode(), None])
def test_tokens_that_can_not_be_used_change_nothing_and_are_said_once(tokens: Path, broken: bytes | None) -> None:
    clock = Clock()
    known = Tokens(tokens, clock)
    if broken is None:
        tokens.unlink()
    else:
        tokens.write_bytes(broken)
    with capture_logs() as logs:
        for clock.now in (1.0, 2.0, 3.0):
            assert known.tenant(SHOP) == "shop"
    assert [line["log_level"] for line in logs] == ["error"]
    assert SHOP not in str(logs)
    tokens.write_text("shop another-0123456789\n")
    clock.now = 4.0
    assert known.tenant("another-0123456789") == "shop"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("shop\n", r":1: must be a tenant, a space and a token"),
        (f"\nshop {SHOP} more", r":2: must be a tenant, a space and a token"),
        ("shop short", r":1: its token must have 16 characters or more"),
        ("shop ümläut-0123456789", r":1: its token must have 16 characters or more, letters, digits"),
        (f"{SHOP}/x shop", r":1: its first word is no tenant; begin with the tenant"),
        (f"shop {SHOP}\nbank {SHOP}", r":2: another tenant has this token"),
        ("# none\n", r"has no token"),
    ],
)
def test_a_file_of_tokens_says_what_is_wrong_and_no_token(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(TokensError, match=what) as error:
        Tokens(file)
    assert SHOP not in str(error.value)


def test_a_file_of_tokens_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Authentication(TenantMap(tokens_file=tmp_path / "none"))


def test_names_of_two_tenants_are_refused_without_an_answer_which() -> None:
    authentication = Authentication(TenantMap(certificates=CERTIFICATES))
    with pytest.raises(RefusedError) as refused:
        authentication.org_ids(Client([], [], lambda: ["CN:agent", "email:ops@bank.example"]))
    assert refused.value.code is Code.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("tenants", "what"),
    [
        ("{}", "nobody could write"),
        ("{certificates: {agent: shop}}", "'agent' is no name in a certificate"),
        ("{certificates: {'CN:': shop}}", "is no name in a certificate"),
        ("{certificates: {'CN:a': 'a/b'}}", "contains unsupported character '/'"),
        ("{certificates: {'CN:a': ''}}", "it has no tenant"),
        ("{certificates: {'CN:a': shop}}", "no receiver asks for their certificates"),
    ],
)
def test_a_map_that_lets_nobody_in_is_an_error(tenants: str, what: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, f"multitenancy_enabled: true\nspanmill: {{distributor: {{tenants: {tenants}}}}}")
    assert what in str(error.value)


def test_a_map_needs_tenants() -> None:
    with pytest.raises(ConfigError, match="there is only one; set multitenancy_enabled"):
        load_config(None, "spanmill: {distributor: {tenants: {tokens_file: /tokens}}}")


PAGE = "https://www.shop.example"


async def preflight(settings: CorsSettings, origin: str = PAGE, method: str = "POST", headers: str = "content-type"):
    async with serving(settings) as url, aiohttp.ClientSession() as session:
        asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
        async with session.options(url, headers=asked) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items() if "control" in k.lower()}


@asynccontextmanager
async def serving(settings: CorsSettings) -> AsyncIterator[str]:
    """An HTTP receiver with `cors`; gives its URL."""
    receiver = HttpReceiver(
        HttpSettings(endpoint="127.0.0.1:0", cors=settings),
        PATH,
        OtlpForm(),
        cast("Intake", RecordedIntake()),
        Authentication(None),
        reception(OTLP_HTTP),
    )
    await receiver.start()
    try:
        yield f"http://{receiver.address}{PATH}"
    finally:
        await receiver.stop()


ALLOWED = {
    "access-control-allow-origin": PAGE,
    "access-control-allow-credentials": "true",
    "access-control-allow-methods": "POST",
    "access-control-allow-headers": "content-type",
}


@pytest.mark.parametrize(
    "origins", [(PAGE,), ("https://*.shop.example",), ("https://*",), ("HTTPS://WWW.shop.example",)]
)
async def test_pages_of_allowed_origins_may_send(origins: tuple[str, ...]) -> None:
    assert await preflight(CorsSettings(allowed_origins=origins)) == (204, ALLOWED)


@pytest.mark.parametrize(
    "origins",
    [("https://shop.example",), ("http://*",), ("https://www.shop.example*.org",), ("https://www*www.shop.example",)],
)
async def test_pages_of_other_origins_may_not(origins: tuple[str, ...]) -> None:
    assert await preflight(CorsSettings(allowed_origins=origins)) == (204, {})


async def test_a_preflight_names_what_else_a_page_wants() -> None:
    settings = CorsSettings(allowed_origins=("*",), allowed_headers=("Authorization", "X-Scope-OrgID"), max_age=600)
    status, found = await preflight(settings, headers="authorization, x-scope-orgid,content-type")
    assert (status, found["access-control-allow-origin"], found["access-control-max-age"]) == (204, "*", "600")
    assert found["access-control-allow-headers"] == "authorization, x-scope-orgid, content-type"
    _, refused = await preflight(settings, headers="x-requested-with")
    assert "access-control-allow-methods" not in refused
    _, refused = await preflight(settings, method="DELETE")
    assert "access-control-allow-methods" not in refused
    _, found = await preflight(CorsSettings(allowed_origins=("*",)), headers="x-requested-with")
    assert found["access-control-allow-headers"] == "x-requested-with"
    _, found = await preflight(CorsSettings(allowed_origins=("*",), allowed_headers=("*",)), headers="x-any")
    assert found["access-control-allow-headers"] == "x-any"


async def test_answers_to_allowed_pages_are_marked_whatever_they_are() -> None:
    settings = CorsSettings(allowed_origins=(PAGE,), exposed_headers=("Retry-After",))
    marked = {
        "access-control-allow-origin": PAGE,
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": "Retry-After",
    }
    async with serving(settings) as url, aiohttp.ClientSession() as session:
        for kind, status in ((PROTOBUF, 200), ("text/plain", 415)):
            for origin, expected in ((PAGE, marked), ("https://other.example", {})):
                headers = {"Origin": origin, "Content-Type": kind, ORG: "a"}
                async with session.post(url, headers=headers) as answer:
                    found = {k.lower(): v for k, v in answer.headers.items() if "control" in k.lower()}
                    assert (answer.status, found, answer.headers["Vary"]) == (status, expected, "Origin")


async def test_without_origins_a_preflight_is_not_answered() -> None:
    async with serving(CorsSettings()) as url, aiohttp.ClientSession() as session:
        async with session.options(url, headers={"Origin": PAGE}) as answer:
            assert answer.status == 405
        async with session.post(url, headers={"Origin": PAGE, "Content-Type": PROTOBUF, ORG: "a"}) as answer:
            assert (answer.status, "Access-Control-Allow-Origin" in answer.headers) == (200, False)


@pytest.mark.parametrize("cors", ["{allowed_headers: [a]}", "{max_age: 5}", "{allowed_origins: ['*.*']}"])
def test_cors_settings_without_effect_are_errors(cors: str) -> None:
    with pytest.raises(ConfigError, match=r"allows nothing|more than one \*"):
        load_config(None, f"distributor: {{receivers: {{otlp: {{protocols: {{http: {{cors: {cors}}}}}}}}}}}")
