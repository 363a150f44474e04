"""Remote write: whether an endpoint takes our requests, and how old samples it takes."""

import json
from collections.abc import Iterator
from http import HTTPStatus

import aiohttp
import yaml

from agents.doctor.finding import Finding, error, ok, warning
from agents.remote_write.connection import Connection, HttpAnswer, connection_of, new_session
from agents.remote_write.credentials import credentials_of
from agents.remote_write.headers import RequestHeaders
from agents.remote_write.protocols import protocol_of
from schemas.config import Config, RemoteWriteConfig
from schemas.record import DEFAULT_TENANT

WRITE_PATH, CONFIG_PATH = "/api/v1/write", "/api/v1/status/config"
MAX_CONFIG_BYTES = 4_000_000
WINDOW_KEY = "out_of_order_time_window"


async def endpoints(config: Config) -> list[Finding]:
    """Each endpoint, asked with a request that holds nothing."""
    storage = config.metrics_generator.storage
    if not storage.remote_write:
        text = "there is no endpoint, so metrics go nowhere; name one"
        return [warning("metrics_generator.storage.remote_write", text)]
    found: list[Finding] = []
    async with new_session() as session:
        for endpoint in storage.remote_write:
            found += await _endpoint(config, endpoint, session)
    return found


async def _endpoint(config: Config, endpoint: RemoteWriteConfig, session: aiohttp.ClientSession) -> list[Finding]:
    subject = f"remote_write {endpoint.name or endpoint.url}"
    protocol = protocol_of(endpoint.protobuf_message)
    org_id = config.metrics_generator.storage.remote_write_add_org_id_header
    tenant = next((name for name in config.runtime.blocks if name != "*"), DEFAULT_TENANT)
    try:
        headers = RequestHeaders(endpoint, org_id=org_id).of(
            tenant, config.tenant_overrides(tenant).metrics_generator.remote_write_headers
        )
        authorization = await credentials_of(endpoint, session).authorization()
        if authorization is not None:
            headers["Authorization"] = authorization
        asked = headers.copy()
        asked.update(protocol.headers)
        answer = await connection_of(endpoint, session).post(protocol.encode([]), asked)
    except (aiohttp.ClientError, TimeoutError, OSError) as failure:
        text = f"no answer: {str(failure) or type(failure).__name__}; check its URL, proxy, TLS and credentials"
        return [error(subject, text)]
    findings = list(answered(subject, answer))
    if answer.status < HTTPStatus.BAD_REQUEST and endpoint.url.endswith(WRITE_PATH):
        url = endpoint.url.removesuffix(WRITE_PATH) + CONFIG_PATH
        shown = Connection(url, endpoint, session, endpoint.remote_timeout_s, redirects=endpoint.follow_redirects)
        try:
            findings += age_limit(subject, await shown.get(headers, MAX_CONFIG_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError):
            findings += age_limit(subject, None)
    return findings


def answered(subject: str, answer: HttpAnswer) -> Iterator[Finding]:
    """What the answer to an empty request means."""
    said = f"it answers {answer.status} {' '.join(answer.body.split())[:200]}".rstrip()
    match answer.status:
        case status if status < HTTPStatus.MULTIPLE_CHOICES:
            yield ok(subject, f"takes requests ({status})")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            yield error(subject, f"{said}: it doesn't know us; check its credentials and the tenant's headers")
        case HTTPStatus.NOT_FOUND | HTTPStatus.METHOD_NOT_ALLOWED:
            yield error(subject, f"{said}: it takes no remote write there; check the path, and that its receiver is on")
        case HTTPStatus.BAD_REQUEST:
            yield ok(subject, f"{said}, to a request that holds nothing: it is there")
        case _:
            yield warning(subject, f"{said}; look at its logs")


def age_limit(subject: str, answer: HttpAnswer | None) -> Iterator[Finding]:
    """How old samples it takes, if it is a Prometheus that shows its configuration."""
    try:
        shown = json.loads(answer.body)["data"]["yaml"] if answer is not None and answer.status == HTTPStatus.OK else ""
        found = yaml.safe_load(shown) if shown else None
    except (ValueError, KeyError, TypeError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict):
        yield ok(subject, "doesn't show how old samples it takes")
        return
    window = ((found.get("storage") or {}).get("tsdb") or {}).get(WINDOW_KEY)
    if window in {None, 0, "0s"}:
        text = (
            f"it takes samples as old as about an hour; set storage.tsdb.{WINDOW_KEY} to 24h, or longer stops lose data"
        )
        yield warning(subject, text)
    else:
        yield ok(subject, f"its {WINDOW_KEY} is {window}")
