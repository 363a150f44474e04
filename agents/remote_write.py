"""A remote-write endpoint: the samples of completed windows, to Prometheus and its like.

Every window begins with a marker, a request of one sample of `spanmill_sink_window{app,shard}`. An endpoint that
answers "out of order" has a later window, hence this one too: so the endpoint is its own record of what it has, and
nothing else needs to be remembered (architecture.md, "Writing"). One that takes samples out of order takes a repeated
window again, sample for sample the same.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from enum import StrEnum

import aiohttp
import structlog

from agents.own_metrics import OwnMetrics
from schemas.config import RemoteWriteConfig
from schemas.record import DEFAULT_TENANT
from schemas.remote_write import Row, encode_series_labels, encode_write_request
from streams.shard import TenantSamples, WindowSamples

log = structlog.get_logger(__name__)

MARKER = "spanmill_sink_window"
MAX_ROWS = 2000
"""Samples per request, as Prometheus' own queue has it (Tempo ST-3)."""
MIN_BACKOFF_S = 0.03
MAX_BACKOFF_S = 5.0
COMPLAIN_EVERY_S = 30.0
HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "User-Agent": "spanmill",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
TENANT_HEADER = "X-Scope-OrgID"


class Answer(StrEnum):
    """What an endpoint's answer means for the request."""

    STORED = "stored"
    OUT_OF_ORDER = "out of order"
    TOO_OLD = "too old"
    DUPLICATE = "duplicate"
    BAD = "bad"
    TOO_LARGE = "too large"
    DENIED = "denied"
    BUSY = "busy"


RETRIED = {Answer.DENIED, Answer.BUSY}
"""Answers that say nothing about the samples: the same request may be stored later."""

BY_STATUS = {
    401: Answer.DENIED,
    403: Answer.DENIED,
    404: Answer.DENIED,
    413: Answer.TOO_LARGE,
    429: Answer.BUSY,
}
"""Answers that the status alone tells."""


def classify(status: int, text: str) -> Answer:
    """The meaning of a status and a body, as Prometheus (2.42 and later), Mimir and their like answer.

    2.42 answers 500 to "too old sample", which must not be retried: it would be for ever.
    """
    if status < 300:
        return Answer.STORED
    if "too old sample" in text or "out of bounds" in text:
        return Answer.TOO_OLD
    if status in BY_STATUS:
        return BY_STATUS[status]
    if status >= 500:
        return Answer.BUSY
    if "out of order" in text or "out-of-order" in text:
        return Answer.OUT_OF_ORDER
    return Answer.DUPLICATE if "duplicate sample" in text else Answer.BAD


class RemoteWriteEndpoint:
    """Writes windows to one `remote_write` entry of the configuration."""

    def __init__(
        self, config: RemoteWriteConfig, app: str, metrics: OwnMetrics, session: aiohttp.ClientSession, *, org_id: bool
    ) -> None:
        self.name = config.name or config.url
        self._config, self._app, self._metrics, self._session = config, app, metrics, session
        self._org_id = org_id
        self._complained_at = -COMPLAIN_EVERY_S

    async def write(self, window: WindowSamples) -> None:
        """Store a window, tenant by tenant; see `Endpoint.write`."""
        for tenant in window.tenants:
            await self._write_tenant(window, tenant)

    async def _write_tenant(self, window: WindowSamples, samples: TenantSamples) -> None:
        headers = self._headers(samples.tenant)
        marked = await self._answer([self._marker(window)], headers)
        if marked is Answer.OUT_OF_ORDER:
            self._metrics.windows_skipped.labels(self.name, "stored").inc()
            return
        if marked is Answer.TOO_OLD:
            # After more than an hour down this comes before "out of order": the window may well have been stored.
            self._metrics.windows_skipped.labels(self.name, "possibly stored").inc()
            return
        zeros = [sample.row(samples.start_ms) for sample in samples.zeros]
        values = [sample.row(window.end_ms) for sample in samples.values]
        for rows in (zeros, values):  # a zero may be refused where its series exists; that must not cost a value
            for first in range(0, len(rows), MAX_ROWS):
                await self._store(rows[first : first + MAX_ROWS], headers)

    def _marker(self, window: WindowSamples) -> Row:
        labels = (("__name__", MARKER), ("app", self._app), ("shard", str(window.shard)))
        return Row(encode_series_labels(labels), float(window.end_ms), window.end_ms, None)

    def _headers(self, tenant: str) -> dict[str, str]:
        """The entry's headers and, unless it has one, the tenant's (Tempo ST-5)."""
        own = {name: value.get_secret_value() for name, value in self._config.headers.items()}
        headers = {**HEADERS, **own, **self._authorization()}
        named = {name.strip().lower() for name, value in headers.items() if value}
        if self._org_id and tenant != DEFAULT_TENANT and TENANT_HEADER.lower() not in named:
            headers[TENANT_HEADER] = tenant
        return headers

    def _authorization(self) -> dict[str, str]:
        """Basic authentication; a password file is read at every use, so that it can be changed."""
        basic = self._config.basic_auth
        if basic is None:
            return {}
        password = basic.password.get_secret_value()
        if basic.password_file is not None:
            password = basic.password_file.read_text().strip()
        return {"Authorization": aiohttp.encode_basic_auth(basic.username, password)}

    async def _store(self, rows: Sequence[Row], headers: Mapping[str, str]) -> None:
        """Store rows; a request that is refused is cut in two, so that one bad series never costs the others."""
        answer = await self._answer(rows, headers)
        if answer is Answer.STORED:
            self._metrics.samples_written.labels(self.name).inc(len(rows))
        elif len(rows) == 1 or answer is Answer.TOO_OLD:
            self._metrics.refused_samples.labels(self.name, answer).inc(len(rows))
        else:
            half = len(rows) // 2
            await self._store(rows[:half], headers)
            await self._store(rows[half:], headers)

    async def _answer(self, rows: Sequence[Row], headers: Mapping[str, str]) -> Answer:
        """Send a request until its answer says something about the samples."""
        body = encode_write_request(rows)
        backoff = MIN_BACKOFF_S
        while True:
            answer, text = await self._post(body, headers)
            self._metrics.requests.labels(self.name, answer).inc()
            if answer not in RETRIED:
                return answer
            self._complain(answer, text)
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311  jitter, not a secret
            backoff = min(backoff * 2, MAX_BACKOFF_S)

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> tuple[Answer, str]:
        timeout = aiohttp.ClientTimeout(total=self._config.remote_timeout_s)
        try:
            async with self._session.post(self._config.url, data=body, headers=headers, timeout=timeout) as response:
                text = (await response.content.read(4096)).decode(errors="replace").strip()
                return classify(response.status, text), f"{response.status} {text}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Answer.BUSY, str(error) or type(error).__name__

    def _complain(self, answer: Answer, text: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = now
            log.warning("endpoint doesn't take samples, trying again", endpoint=self.name, answer=answer, error=text)
