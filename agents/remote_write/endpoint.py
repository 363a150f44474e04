"""A remote-write endpoint: the samples of completed windows, to Prometheus and its like.

Every window begins with a marker, a request of one sample of `spanmill_sink_window{app,shard}`. An endpoint that
answers "out of order" has a later window, hence this one too: so the endpoint is its own record of what it has, and
nothing else needs to be remembered (architecture.md, "Writing"). One that takes samples out of order takes a repeated
window again, sample for sample the same. Where there are several entries the marker has a label `endpoint` too: each
goes on by itself, and two may lead to one server.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence

import aiohttp
import structlog
from multidict import CIMultiDict
from pydantic import SecretStr

from agents.own_metrics import OwnMetrics
from agents.remote_write.answers import RETRIED, Answer, Response, Written, classify, retry_after_s, written
from agents.remote_write.connection import Poster
from agents.remote_write.credentials import Credentials
from agents.remote_write.headers import RequestHeaders
from agents.remote_write.metadata import DueMetadata, families_of
from agents.remote_write.metrics import Fate, Load, QueueMetrics
from agents.remote_write.protocols import VERSION_1, Protocol, protocol_of
from agents.remote_write.requests import chunks, load_of
from agents.remote_write.series import RelabelledSeries, SeriesOfTenants
from schemas.config import RemoteWriteConfig
from schemas.metric_families import REPLAY_LABEL, WINDOW_MARKER
from schemas.remote_write import Row, encode_metadata_request, encode_series_labels
from streams.relabel import Relabelling
from streams.shard import TenantSamples, WindowSamples

log = structlog.get_logger(__name__)

COMPLAIN_EVERY_S = 30.0
WRITTEN_HEADERS = tuple(f"X-Prometheus-Remote-Write-{what}-Written" for what in ("Samples", "Histograms", "Exemplars"))

TenantHeaders = Callable[[str], Mapping[str, SecretStr]]
"""A tenant's `remote_write_headers`, as they are now (Tempo ST-6)."""


def no_headers(_: str) -> Mapping[str, SecretStr]:
    """Tenants without headers of their own."""
    return {}


class RemoteWriteEndpoint:
    """Writes windows to one `remote_write` entry of the configuration, over a connection that is the caller's."""

    def __init__(
        self,
        config: RemoteWriteConfig,
        app: str,
        metrics: OwnMetrics,
        connection: Poster,
        credentials: Credentials,
        *,
        org_id: bool,
        tenant_headers: TenantHeaders = no_headers,
        marked_as: str = "",
        replay_id: str = "",
        now_s: Callable[[], float] = time.time,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`marked_as` and `replay_id` are values of the marker's labels `endpoint` and `replay`, left out if empty.

        `now_s` is the time of day, for `sample_age_limit`; `jitter(a, b)` gives a number between two.
        """
        self.name = config.name or config.url
        own = (("endpoint", marked_as), (REPLAY_LABEL, replay_id))
        self._marked_as = tuple((name, value) for name, value in own if value)
        self._config, self._app, self._metrics = config, app, metrics
        self._connection, self._credentials = connection, credentials
        self._now_s, self._jitter = now_s, jitter
        self._headers = RequestHeaders(config, org_id=org_id)
        self._tenant_headers = tenant_headers
        self._protocol = protocol_of(config.protobuf_message)
        self._metadata = DueMetadata(config.metadata_config.send_interval_s)
        self._series = SeriesOfTenants(Relabelling(config.write_relabel_configs))
        self._queues: dict[str, QueueMetrics] = {}
        self._complained_at = -COMPLAIN_EVERY_S

    async def write(self, window: WindowSamples) -> None:
        """Store a window, tenant by tenant; see `Endpoint.write`."""
        limit_s = self._config.queue_config.sample_age_limit_s
        for tenant in window.tenants:
            if tenant.is_empty:
                continue
            queue = self._queue(tenant.tenant)
            if limit_s and self._now_s() - window.end_ms / 1000 > limit_s:
                queue.dropped("too_old", sum(map(len, tenant.lists)))
            else:
                await self._write_tenant(window, tenant, queue)
            queue.newest_sent.set(window.end_ms / 1000)

    async def _write_tenant(self, window: WindowSamples, samples: TenantSamples, queue: QueueMetrics) -> None:
        marked = (await self._ask([self._marker(window)], samples.tenant, queue)).answer
        if marked is Answer.OUT_OF_ORDER:
            self._metrics.windows_skipped.labels(self.name, "stored").inc()
            return
        if marked is Answer.TOO_OLD:
            # After more than an hour down this comes before "out of order": the window may well have been stored.
            self._metrics.windows_skipped.labels(self.name, "possibly stored").inc()
            return
        series = self._series.of(window.shard, samples.tenant)
        # Lists of their own: a zero may be refused where its series exists, and that must not cost a value.
        parts = (
            (samples.start_ms, samples.zeros),
            (samples.restart_ms, samples.restarts),
            (window.end_ms, samples.values),
            (window.stale_ms, samples.stale),
        )
        for timestamp_ms, part in parts:
            rows = chunks(series.rows(part, timestamp_ms), self._config.queue_config.max_samples_per_send)
            with queue.pending_of(len(part)) as done:
                for chunk in rows:
                    await self._store(chunk, samples.tenant, queue)
                    done(len(chunk))
        queue.dropped("dropped_series", series.dropped)
        await self._send_metadata(window, samples, series, queue)

    def _marker(self, window: WindowSamples) -> Row:
        labels = (("__name__", WINDOW_MARKER), ("app", self._app), *self._marked_as, ("shard", str(window.shard)))
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
        response = await self._ask(rows, tenant, queue)
        if response.answer is Answer.STORED:
            self._count_stored(load_of(rows), response.written, queue)
        elif len(rows) == 1 or response.answer is Answer.TOO_OLD:
            load = load_of(rows)
            self._count_refused(response.answer, load, queue)
            queue.count(Fate.SENT, load)
        else:
            half = len(rows) // 2
            await self._store(rows[:half], tenant, queue)
            await self._store(rows[half:], tenant, queue)

    def _count_stored(self, load: Load, stored: Written | None, queue: QueueMetrics) -> None:
        """Count an accepted request; a receiver of 2.0 may say that it took less of it."""
        queue.count(Fate.SENT, load)
        missing = load.less(stored) if stored is not None else Load(0, 0, 0)
        self._metrics.samples_written.labels(self.name).inc(load.rows - missing.rows)
        if missing != Load(0, 0, 0):
            self._count_refused("not written", missing, queue)

    def _count_refused(self, reason: str, load: Load, queue: QueueMetrics) -> None:
        self._metrics.refused_samples.labels(self.name, reason).inc(load.rows)
        queue.count(Fate.FAILED, load)

    async def _ask(self, rows: Sequence[Row], tenant: str, queue: QueueMetrics) -> Response:
        """Send a request until its answer says something about the samples."""
        protocol = self._protocol
        body = protocol.encode(rows)
        backoff_s = self._config.queue_config.min_backoff_s
        while True:
            response = await self._post(body, protocol, tenant, queue)
            queue.bytes.inc(len(body))
            if self._is_of_version_1(protocol, response):
                self._fall_back(response)
                protocol = VERSION_1
                body = protocol.encode(rows)
                continue
            if response.answer not in RETRIED:
                return response
            queue.count(Fate.RETRIED, load_of(rows))
            self._complain(response)
            # With jitter, so that many sinks don't come back at once.
            wait_s = backoff_s * self._jitter(0.5, 1.0)
            await asyncio.sleep(max(wait_s, response.retry_after_s or 0.0))
            backoff_s = min(backoff_s * 2, self._config.queue_config.max_backoff_s)

    def _is_of_version_1(self, protocol: Protocol, response: Response) -> bool:
        """Whether a request of 2.0 found a receiver that doesn't know it: one may say so, or read nothing and say 2xx.

        The latter would lose all samples: to 1.0 a body of 2.0 is a request without series.
        """
        unconfirmed = response.answer is Answer.STORED and response.written is None
        return protocol.confirms and (response.answer is Answer.WRONG_PROTOCOL or unconfirmed)

    def _fall_back(self, response: Response) -> None:
        """Speak 1.0 from here on, until the process is started again."""
        if self._protocol is not VERSION_1:
            self._protocol = VERSION_1
            log.warning(
                "endpoint doesn't know remote write 2.0: falling back to 1.0; set its protobuf_message",
                endpoint=self.name,
                answer=response.text,
            )

    async def _send_metadata(
        self, window: WindowSamples, samples: TenantSamples, series: RelabelledSeries, queue: QueueMetrics
    ) -> None:
        """Send type and help of the window's metrics if it is time; if that fails, with a later window."""
        config, now = self._config.metadata_config, asyncio.get_running_loop().time()
        if self._protocol.carries_metadata or not config.send:
            return
        if not self._metadata.is_due(samples.tenant, window.shard, now):
            return
        families = families_of(series.of(sample.series) for sample in samples.values)
        for first in range(0, len(families), config.max_samples_per_send):
            chunk = families[first : first + config.max_samples_per_send]
            body = encode_metadata_request(chunk)
            response = await self._post(body, VERSION_1, samples.tenant, queue)
            queue.metadata_bytes.inc(len(body))
            if response.answer in RETRIED:
                self._complain(response)
                return
            queue.count_metadata(Fate.SENT, len(chunk))
            if response.answer is not Answer.STORED:
                queue.count_metadata(Fate.FAILED, len(chunk))
        self._metadata.sent(samples.tenant, window.shard, now)

    async def _post(self, body: bytes, protocol: Protocol, tenant: str, queue: QueueMetrics) -> Response:
        """One attempt. Headers are made for each: they, and what files hold, may change meanwhile."""
        response = await self._attempt(body, protocol, tenant, queue)
        self._metrics.requests.labels(self.name, response.answer).inc()
        return response

    async def _attempt(self, body: bytes, protocol: Protocol, tenant: str, queue: QueueMetrics) -> Response:
        try:
            headers = self._headers.of(tenant, self._tenant_headers(tenant))
        except OSError as error:
            self._metrics.remote_storage.update_failed.labels(tenant).inc()
            return Response(Answer.BUSY, str(error))
        headers.update(protocol.headers)
        try:
            with queue.duration.time():
                return await self._exchange(body, headers)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Response(Answer.BUSY, str(error) or type(error).__name__)

    async def _exchange(self, body: bytes, headers: CIMultiDict[str]) -> Response:
        if "Authorization" not in headers:  # a tenant's own comes first
            authorization = await self._credentials.authorization()
            if authorization is not None:
                headers["Authorization"] = authorization
        status, answered, text = await self._connection.post(body, headers)
        if status == 401:
            self._credentials.refused()
        return Response(
            classify(status, text),
            f"{status} {text}",
            retry_after_s(answered.get("Retry-After")),
            written(*(answered.get(name) for name in WRITTEN_HEADERS)),
        )

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
