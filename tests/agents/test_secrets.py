"""No secret in what a process writes when it can't do what it is configured to do, however it is told."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from multidict import CIMultiDict

from agents.remote_write.connection import connection_of, new_session
from agents.remote_write.credentials import credentials_of
from schemas.config import RemoteWriteConfig, load_config

ROOT = Path(__file__).resolve().parents[2]
CANARY = "Canary0123456789"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Nobody answers there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


PLAIN = {"sasl_username": "u", "sasl_password": CANARY}
TOKEN = {"sasl_mechanism": "OAUTHBEARER", "sasl_oauthbearer_token": CANARY}


def said(command: list[str], config: dict[str, Any], directory: Path) -> tuple[int, str]:
    """The exit code and everything that a command writes."""
    file = directory / "spanmill.yaml"
    file.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "spanmill.py", *command, "--config.file", str(file)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("kafka", [PLAIN, TOKEN], ids=["password", "token"])
def test_a_stage_that_reaches_no_kafka_shows_no_secret(tmp_path: Path, silent_port: int, kafka: dict[str, str]) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"shop {CANARY}\n")
    config = {
        "multitenancy_enabled": True,
        "server": {"http_listen_port": 0},
        "ingest": {"kafka": {"address": f"127.0.0.1:{silent_port}", **kafka}},
        "spanmill": {"distributor": {"tenants": {"tokens_file": str(tokens)}}},
    }
    code, text = said(["distributor", "--log-level", "debug"], config, tmp_path)
    assert code == 1
    assert "doesn't answer" in text
    assert CANARY not in text


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (f"shop {CANARY} more", "must be a tenant, a space and a token"),
        (f"{CANARY}/x shop", "is no tenant"),
        (f"shop {CANARY}\nbank {CANARY}", "another tenant has this token"),
        (f"shop {CANARY}é", "letters, digits"),
    ],
)
def test_a_broken_file_of_tokens_shows_none(tmp_path: Path, line: str, what: str) -> None:
    from agents.distributor.auth import Authentication  # noqa: PLC0415

    tokens = tmp_path / "tokens"
    tokens.write_text(line)
    config = load_config(
        None, f"multitenancy_enabled: true\nspanmill: {{distributor: {{tenants: {{tokens_file: {tokens}}}}}}}"
    )
    with pytest.raises(OSError, match=what) as error:
        Authentication(config.spanmill.distributor.tenants)
    assert CANARY not in f"{error.value} {error.value!r}"


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """A server that says the same to everybody; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


REFUSED = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
BROKEN = b"no HTTP\r\n\r\n"


@pytest.mark.parametrize("answer", [REFUSED, BROKEN, b""])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_endpoint_that_fails_shows_no_secret(scheme: str, answer: bytes) -> None:
    async with answering(answer) as proxy, new_session() as session:
        config = RemoteWriteConfig.model_validate(
            {
                "url": f"{scheme}://mimir.example/api/v1/write",
                "proxy_url": f"http://user:{CANARY}@{proxy}",
                "proxy_connect_header": {"X-Secret": (CANARY,)},
            }
        )
        try:
            found = await connection_of(config, session).post(b"x", CIMultiDict({"Authorization": f"Bearer {CANARY}"}))
            text = f"{found}"
        except Exception as error:
            text = f"{error} {error!r}"
    assert CANARY not in text


async def test_a_token_server_that_fails_shows_no_secret() -> None:
    async with answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno") as server, new_session() as session:
        oauth2 = {"client_id": "c", "client_secret": CANARY, "token_url": f"http://{server}/"}
        config = RemoteWriteConfig.model_validate({"url": "http://mimir.example/", "oauth2": oauth2})
        with pytest.raises(Exception, match="token server: 403 no") as error:
            await credentials_of(config, session).authorization()
        assert CANARY not in f"{error.value} {error.value!r}"
