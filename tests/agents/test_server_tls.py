"""TLS of our servers, to real clients: renewed certificates, clients' own, versions."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest
from aiohttp import web

from agents.server_tls import grpc_credentials, server_context
from schemas.config import ConfigError, load_config
from schemas.config.server_tls import ServerTls
from tests.servers.certificates import Authority


class Files:
    """A server's certificate files, which a test replaces."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory / "ca")
        self.cert, self.key = directory / "tls.crt", directory / "tls.key"
        self.renew("first")

    def renew(self, name: str) -> None:
        cert, key = self.authority.certify(name)
        for new, place in ((cert, self.cert), (key, self.key)):
            beside = place.with_suffix(".new")
            shutil.copy(new, beside)
            beside.replace(place)

    def config(self, **more: object) -> ServerTls:
        return ServerTls(cert_file=self.cert, key_file=self.key, **more)  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


Serve = Callable[[ServerTls], "asyncio.Future[int]"]


@pytest.fixture(params=["http", "grpc"])
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    """Starts a server of either kind; gives its port."""
    stops = []

    async def http(config: ServerTls) -> int:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(text="ok")

        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(config)).start()
        stops.append(runner.cleanup)
        return int(runner.addresses[0][1])

    async def over_grpc(config: ServerTls) -> int:
        server = grpc.aio.server()
        port = server.add_secure_port("127.0.0.1:0", grpc_credentials(config))
        await server.start()
        stops.append(lambda: server.stop(0))
        return port

    yield http if request.param == "http" else over_grpc  # type: ignore[misc]
    for stop in stops:
        await stop()


async def name_shown(port: int, authority: Authority, **loaded: object) -> str:
    """The common name of the certificate that a new connection is shown. Raises OSError if there is no connection."""
    context = ssl.create_default_context(cafile=authority.certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if "cert" in loaded:
        context.load_cert_chain(*loaded["cert"])  # type: ignore[misc]
    if "newest" in loaded:
        context.maximum_version = loaded["newest"]  # type: ignore[assignment]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        shown = writer.get_extra_info("peercert")
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        if not await reader.read(1):  # TLS 1.3 tells a client that it was refused only afterwards
            raise ConnectionResetError
        return str(dict(pair[0] for pair in shown["subject"])["commonName"])
    finally:
        writer.close()


async def test_a_renewed_certificate_is_shown_to_the_next_connection(serve: Serve, files: Files) -> None:
    port = await serve(files.config())
    assert await name_shown(port, files.authority) == "first"
    files.renew("second")
    names = [await name_shown(port, files.authority) for _ in range(2)]
    assert names[-1] == "second"


async def test_a_broken_renewal_changes_nothing(serve: Serve, files: Files) -> None:
    port = await serve(files.config())
    files.cert.write_text("no certificate")
    assert await name_shown(port, files.authority) == "first"
    files.renew("third")
    assert [await name_shown(port, files.authority) for _ in range(2)][-1] == "third"


async def test_clients_need_a_certificate_where_that_is_asked_for(serve: Serve, files: Files, tmp_path: Path) -> None:
    port = await serve(files.config(client_ca_file=files.authority.certificate))
    with pytest.raises(OSError):  # noqa: PT011  which one depends on when the server hangs up
        await name_shown(port, files.authority)
    other = Authority(tmp_path / "other", "other")
    with pytest.raises(OSError):  # noqa: PT011
        await name_shown(port, files.authority, cert=other.certify("stranger"))
    assert await name_shown(port, files.authority, cert=files.authority.certify("client")) == "first"


async def test_only_as_old_a_version_is_spoken_as_is_allowed(files: Files) -> None:
    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        await writer.drain()

    server = await asyncio.start_server(never, "127.0.0.1", 0, ssl=server_context(files.config(min_version="1.3")))
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(OSError):  # noqa: PT011
        await name_shown(port, files.authority, newest=ssl.TLSVersion.TLSv1_2)
    assert await name_shown(port, files.authority) == "first"
    server.close()


@pytest.mark.parametrize("make", [server_context, grpc_credentials])
def test_files_that_do_not_belong_together_are_an_error_at_the_start(
    make: Callable[[ServerTls], object], files: Files
) -> None:
    _, key = files.authority.certify("other")
    with pytest.raises(OSError, match=r"(?i)key"):
        make(ServerTls(cert_file=files.cert, key_file=key))
    with pytest.raises(FileNotFoundError):
        make(ServerTls(cert_file=files.cert, key_file=files.key.with_name("none")))


def test_a_certificate_without_its_key_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cert_file and key_file are both needed"):
        load_config(None, "distributor: {receivers: {zipkin: {tls: {cert_file: /tls.crt}}}}")
