"""The distributor's parts, put together."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from agents import kafka
from agents.distributor.auth import Authentication
from agents.distributor.forwarders import Forwarding
from agents.distributor.in_flight import InFlight
from agents.distributor.inspection import Inspection
from agents.distributor.intake import Intake, Watcher
from agents.distributor.limits import TenantLimits
from agents.distributor.metrics import DistributorMetrics
from agents.distributor.presence import Presence
from agents.distributor.producer import RecordProducer
from agents.distributor.receiver_grpc import GrpcReceiver
from agents.distributor.receiver_http import HttpReceiver, JaegerForm, OtlpForm, ZipkinForm
from agents.distributor.receiver_kafka import KafkaReceiver
from agents.distributor.reception import (
    JAEGER_GRPC,
    JAEGER_HTTP,
    KAFKA,
    OTLP_GRPC,
    OTLP_HTTP,
    ZIPKIN,
    Origin,
    Reception,
)
from agents.distributor.usage import UsageTracker
from agents.live_config import LiveConfig
from agents.memory import collect_rarely
from agents.open_files import allow_many
from agents.own_metrics import OwnMetrics
from agents.producer import Producer
from agents.topics import TopicNames, check_topics
from schemas import json_elements, otlp_json
from schemas.config import Config
from schemas.otlp import regroup

log = structlog.get_logger(__name__)

JAEGER_PATH, ZIPKIN_PATH = "/api/traces", "/api/v2/spans"


class Distributor:
    """Receivers, intake and producer, for a spans topic of `partitions` partitions."""

    def __init__(
        self, config: Config, metrics: OwnMetrics, partitions: int, now: Callable[[], Config] | None = None
    ) -> None:
        """`now` gives the configuration with the tenants' overrides as they are; without it they are `config`'s.

        Raises OSError if the file of tokens, or a forwarder's certificate, can't be used.
        """
        names = TopicNames.of(config)
        shared = config.overrides.defaults.ingestion.rate_strategy == "global"
        self._presence = (
            Presence(kafka.client_settings(config), names.distributor_group, names.spans) if shared else None
        )
        settings = config.ingest.kafka
        own = DistributorMetrics(metrics.registry)
        self._producer = Producer(kafka.producer_settings(config, settings.write_timeout_s))
        self.records = RecordProducer(
            self._producer,
            names.spans,
            own,
            max_record=settings.producer_max_record_size_bytes,
            max_buffered=settings.producer_max_buffered_bytes,
        )
        limits = TenantLimits(now or (lambda: config), lambda: self.distributors)
        work = config.spanmill.distributor
        in_flight = InFlight(own, work.max_concurrent_requests, work.max_concurrent_requests_per_tenant)
        self._watchers = watchers(config, own, metrics, limits)
        self._intake = Intake(
            self.records,
            own,
            limits,
            in_flight,
            partitions=partitions,
            max_record=settings.producer_max_record_size_bytes,
            multitenancy=config.multitenancy_enabled,
            watchers=self._watchers,
        )
        receivers = config.distributor.receivers
        to = self._intake, Authentication(work.tenants)
        most = work.max_connections

        def reception(origin: Origin) -> Reception:
            return Reception(origin, own, in_flight, access_log=work.access_log)

        otlp, jaeger, zipkin = receivers.otlp.protocols, receivers.jaeger, receivers.zipkin
        self.grpc = self.http = self.jaeger_grpc = self.jaeger_http = self.zipkin = None
        if otlp.grpc is not None:
            self.grpc = GrpcReceiver(otlp.grpc, "OTLP", *to, reception(OTLP_GRPC), most)
        if otlp.http is not None:
            path = otlp.http.traces_url_path
            self.http = HttpReceiver(otlp.http, path, OtlpForm(), *to, reception(OTLP_HTTP), most)
        if jaeger is not None and jaeger.protocols.grpc is not None:
            self.jaeger_grpc = GrpcReceiver(jaeger.protocols.grpc, "Jaeger", *to, reception(JAEGER_GRPC), most)
        if jaeger is not None and jaeger.protocols.thrift_http is not None:
            thrift = jaeger.protocols.thrift_http
            self.jaeger_http = HttpReceiver(thrift, JAEGER_PATH, JaegerForm(), *to, reception(JAEGER_HTTP), most)
        if zipkin is not None:
            form = ZipkinForm(parse_string_tags=zipkin.parse_string_tags)
            self.zipkin = HttpReceiver(zipkin, ZIPKIN_PATH, form, *to, reception(ZIPKIN), most)
        self.kafka = None
        if receivers.kafka is not None:
            self.kafka = KafkaReceiver(
                receivers.kafka,
                config.spanmill.tenant_headers,
                self._intake,
                self._producer,
                names.dead_letters,
                metrics.dead_letters,
                metrics.lag_records,
                reception(KAFKA),
            )
        every = (self.grpc, self.http, self.jaeger_grpc, self.jaeger_http, self.zipkin, self.kafka)
        self._receivers = [receiver for receiver in every if receiver is not None]

    async def start(self) -> None:
        """Listen on the configured addresses, with everything compiled that a request needs."""
        for rehearse in (regroup.rehearse, otlp_json.rehearse, json_elements.rehearse):
            await asyncio.to_thread(rehearse)
        if self._presence is not None:
            self._presence.start()
        for receiver in self._receivers:
            await receiver.start()
            log.info("listening for spans", receiver=receiver.name, address=receiver.address)

    async def stop(self) -> None:
        """Answer what is in flight, then stop."""
        await asyncio.gather(*(receiver.stop() for receiver in self._receivers))
        await self.records.close()
        await asyncio.gather(*(watcher.close() for watcher in self._watchers))
        await asyncio.to_thread(self._producer.close)
        if self._presence is not None:
            await asyncio.to_thread(self._presence.close)

    @property
    def endings(self) -> list[asyncio.Future[None]]:
        """What ends only with an error after which the process can't go on."""
        running = None if self.kafka is None else self.kafka.running
        return [self.records.lost] if running is None else [self.records.lost, running]

    @property
    def distributors(self) -> int:
        """How many share global rates, as last counted."""
        return 1 if self._presence is None else self._presence.distributors


def watchers(config: Config, own: DistributorMetrics, metrics: OwnMetrics, limits: TenantLimits) -> list[Watcher]:
    """What looks into requests, where the configuration asks for it. Raises OSError for a forwarder's certificate."""
    found: list[Watcher] = []
    inspection, cost = Inspection.of(config.distributor, own), config.distributor.usage.cost_attribution
    if inspection is not None:
        found.append(inspection)
    if cost.enabled:
        tracker = UsageTracker(cost, limits.settings)
        metrics.usage = CollectorRegistry()
        metrics.usage.register(tracker)
        found.append(tracker)
    if config.distributor.forwarders:
        found.append(Forwarding(config.distributor.forwarders, limits.settings, own))
    return found


async def run(
    config: Config,
    stop: asyncio.Event,
    metrics: OwnMetrics,
    *,
    live: LiveConfig | None = None,
    embedded: bool = False,
    ready: asyncio.Event | None = None,
) -> None:
    """Run a distributor until `stop` is set. `embedded`: the broker has no topic settings.

    `live` is for stages that share a process, whose affair it is then to watch it.

    Raises `TopicsError`, OSError or RuntimeError if it can't start, `ProducerLostError` if it can't write any more.
    """
    allow_many()  # a connection of each client
    spans = TopicNames.of(config).spans
    counts = await check_topics(config, embedded=embedded, only=[spans])
    async with contextlib.AsyncExitStack() as running:
        if live is None:
            live = LiveConfig(config, metrics.config, embedded=embedded)
            await running.enter_async_context(live.watched())
        current = live
        distributor = Distributor(config, metrics, counts[spans], lambda: current.current)
        running.push_async_callback(distributor.stop)
        await distributor.start()
        collect_rarely()
        if ready is not None:
            ready.set()
        await _until(stop, distributor.endings)


async def _until(stop: asyncio.Event, endings: Sequence[asyncio.Future[None]]) -> None:
    asked = asyncio.ensure_future(stop.wait())
    waited: list[asyncio.Future[Any]] = [asked, *endings]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    for ended in endings:
        if ended.done():
            ended.result()
