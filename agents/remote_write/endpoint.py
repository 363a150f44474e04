"""A remote-write endpoint: the samples of completed windows, to Prometheus and its like.

Every window begins with a marker, a request of one sample of `spanmill_sink_window{app,shard}`. An endpoint that
answers "out of order" has a later window, hence this one too: so the endpoint is its own record of what it has, and
nothing else needs to be remembered (architecture.md, "Writing"). One that takes samples out of order takes a repeated
window again, sample for sample the same.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import aiohttp
import structlog
from multidict import CIMultiDict
from pydantic import SecretStr

from agents.own_metrics import OwnMetrics
from agents.remote_write.answers import RETRIED, Answer, Response, classify, retry_after_s
from agents.remote_write.connection import Connection
from agents.remote_write.credentials import credentials_of
from agents.remote_write.headers import RequestHeaders
from agents.remote_write.metrics import Fate, QueueMetrics
from agents.remote_write.requests import chunks, load_of
from agents.remote_write.series import RelabelledSeries
from schemas.config import RemoteWriteConfig
from schemas.remote_write import Row, encode_series_labels, encode_write_request
from streams.relabel import Relabelling
from streams.shard import Sample, TenantSamples, WindowSamples

log = structlog.get_logger(__name__)

MARKER = "spanmill_sink_window"
COMPLAIN_EVERY_S = 30.0
PROTOCOL_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}

TenantHeaders = Callable[[str], Mapping[str, SecretStr]]
"""A tenant's `remote_write_headers`, as they are now (Tempo ST-6)."""


def no_headers(_: str) -> Mapping[str, SecretStr]:
    """Tenants without headers of their own."""
    return {}


class RemoteWriteEndpoint:
    """Writes windows to one `remote_write` entry of the configuration. To be made while a loop runs."""

    def __init__(
        self,
        config: RemoteWriteConfig,
        app: str,
        metrics: OwnMetrics,
        session: aiohttp.ClientSession,
        *,
        org_id: bool,
        tenant_headers: TenantHeaders = no_headers,
    ) -> None:
        self.name = config.name or config.url
        self._config, self._app, self._metrics = config, app, metrics
        self._connection = Connection(
            config.url, config, session, config.remote_timeout_s, redirects=config.follow_redirects
        )
        self._credentials = credentials_of(config, session)
        self._headers = RequestHeaders(config, org_id=org_id)
        self._tenant_headers = tenant_headers
        self._relabelling = Relabelling(config.write_relabel_configs)
        self._series: dict[tuple[int, str], RelabelledSeries] = {}
        self._queues: dict[str, QueueMetrics] = {}
        self._complained_at = -COMPLAIN_EVERY_S

    async def write(self, window: WindowSamples) -> None:
        """Store a window, tenant by tenant; see `Endpoint.write`."""
        limit_s = self._config.queue_config.sample_age_limit_s
        for tenant in window.tenants:
            queue = self._queue(tenant.tenant)
            if limit_s and time.time() - window.end_ms / 1000 > limit_s:
                queue.dropped("too_old", len(tenant.zeros) + len(tenant.values))
            else:
                await self._write_tenant(window, tenant, queue)
            queue.newest_sent.set(window.end_ms / 1000)

    async def _write_tenant(self, window: WindowSamples, samples: TenantSamples, queue: QueueMetrics) -> None:
        marked = await self._answer([self._marker(window)], samples.tenant, queue)
        if marked is Answer.OUT_OF_ORDER:
            self._metrics.windows_skipped.labels(self.name, "stored").inc()
            return
        if marked is Answer.TOO_OLD:
            # After more than an hour down this comes before "out of order": the window may well have been stored.
            self._metrics.windows_skipped.labels(self.name, "possibly stored").inc()
            return
        series = self._series.setdefault((window.shard, samples.tenant), RelabelledSeries(self._relabelling))
        series.begin()
        # Lists of their own: a zero may be refused where its series exists, and that must not cost a value.
        for timestamp_ms, part in ((samples.start_ms, samples.zeros), (window.end_ms, samples.values)):
            rows = self._rows(series, part, timestamp_ms)
            with queue.pending_of(len(part)) as done:
                for chunk in chunks(rows, self._config.queue_config.max_samples_per_send):
                    await self._store(chunk, samples.tenant, queue)
                    done(len(chunk))
        queue.dropped("dropped_series", series.dropped)

    def _rows(self, series: RelabelledSeries, samples: Sequence[Sample], timestamp_ms: int) -> Iterator[Row]:
        return (sample.row(timestamp_ms) for sample in series.of(samples))

    def _marker(self, window: WindowSamples) -> Row:
        labels = (("__name__", MARKER), ("app", self._app), ("shard", str(window.shard)))
        return Row(encode_series_labels(labels), float(window.end_ms), window.end_ms, None)

    def _queue(self, tenant: str) -> QueueMetrics:
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._metrics.remote_storage.queue(tenant, self.name, self._config.url)
            queue.max_samples.set(self._config.queue_config.max_samples_per_send)
            self._queues[tenant] = queue
        return queue

    async def _store(self, rows: Sequence[Row], tenant: str, queue: QueueMetrics) -> None:
        """Store rows; a request that is refused is cut in two, so that one bad series never costs the others."""
        answer = await self._answer(rows, tenant, queue)
        if answer is Answer.STORED:
            self._metrics.samples_written.labels(self.name).inc(len(rows))
            queue.count(Fate.SENT, load_of(rows))
        elif len(rows) == 1 or answer is Answer.TOO_OLD:
            self._metrics.refused_samples.labels(self.name, answer).inc(len(rows))
            queue.count(Fate.SENT, load_of(rows))
            queue.count(Fate.FAILED, load_of(rows))
        else:
            half = len(rows) // 2
            await self._store(rows[:half], tenant, queue)
            await self._store(rows[half:], tenant, queue)

    async def _answer(self, rows: Sequence[Row], tenant: str, queue: QueueMetrics) -> Answer:
        """Send a request until its answer says something about the samples."""
        body = encode_write_request(rows)
        backoff_s = self._config.queue_config.min_backoff_s
        while True:
            response = await self._post(body, tenant, queue)
            self._metrics.requests.labels(self.name, response.answer).inc()
            queue.bytes.inc(len(body))
            if response.answer not in RETRIED:
                return response.answer
            queue.count(Fate.RETRIED, load_of(rows))
            self._complain(response)
            # With jitter, so that many sinks don't come back at once.
            wait_s = backoff_s * random.uniform(0.5, 1.0)  # noqa: S311  no secret
            await asyncio.sleep(max(wait_s, response.retry_after_s or 0.0))
            backoff_s = min(backoff_s * 2, self._config.queue_config.max_backoff_s)

    async def _post(self, body: bytes, tenant: str, queue: QueueMetrics) -> Response:
        """One attempt. Headers are made for each: they, and what files hold, may change meanwhile."""
        try:
            headers = self._headers.of(tenant, self._tenant_headers(tenant))
        except OSError as error:
            self._metrics.remote_storage.update_failed.labels(tenant).inc()
            return Response(Answer.BUSY, str(error))
        try:
            with queue.duration.time():
                return await self._attempt(body, headers)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Response(Answer.BUSY, str(error) or type(error).__name__)

    async def _attempt(self, body: bytes, headers: CIMultiDict[str]) -> Response:
        headers.update(PROTOCOL_HEADERS)
        if "Authorization" not in headers:  # a tenant's own comes first
            authorization = await self._credentials.authorization()
            if authorization is not None:
                headers["Authorization"] = authorization
        status, answered, text = await self._connection.post(body, headers)
        if status == 401:
            self._credentials.refused()
        return Response(classify(status, text), f"{status} {text}", retry_after_s(answered.get("Retry-After")))

    def _complain(self, response: Response) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = now
            log.warning(
                "endpoint doesn't take samples, trying again",
                endpoint=self.name,
                answer=response.answer,
                error=response.text,
                retry_after_s=response.retry_after_s,
            )
