"""The ingester: forwards the records of the spans topic to a trace store, at its own pace.

Each partition's records are sent in order. One that the store refuses for good costs no others.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException, Message
from prometheus_client import CollectorRegistry, Counter

from agents import kafka
from agents.group_reader import GroupReader, Waiting
from agents.own_metrics import OwnMetrics
from agents.topic_record import topic_record
from agents.topics import TopicNames, check_topics
from agents.trace_store import TraceStore, TraceStoreMetrics, joined
from schemas.config import Config
from schemas.errors import Malformed
from schemas.otlp.codecs import Codec, traces_data
from schemas.record_format import RecordFormat

log = structlog.get_logger(__name__)

STAGE = "ingester"


class IngesterMetrics:
    """Records forwarded, and those that weren't."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter(
            "spanmill_ingester_records", "Records that the trace store took.", ["partition"], registry=registry
        )
        self.refused = Counter(
            "spanmill_ingester_refused_records", "Records that can't be forwarded.", ["reason"], registry=registry
        )


class Forwarded(NamedTuple):
    """A record on its way; `messages` is empty for what isn't forwarded (control records, bytes of no codec)."""

    offset: int
    tenant: str
    messages: bytes


class Ingester:
    """Sends what a reader gives it to the trace store."""

    def __init__(self, config: Config, metrics: IngesterMetrics, store: TraceStore) -> None:
        self._codec = Codec(config.metrics_generator.codec)
        self._format = RecordFormat(self._codec, config.spanmill.tenant_headers)
        self._metrics, self._store = metrics, store

    def parse(self, message: Message) -> Waiting[Forwarded]:
        """A record's tenant and messages; none of what can't be read, which is counted."""
        offset = message.offset() or 0
        try:
            record = self._format.parse(*topic_record(message))
            found = Forwarded(offset, record.tenant, traces_data(record.value, self._codec).value)
        except Malformed as error:
            self._metrics.refused.labels("malformed").inc()
            log.warning("a record can't be read", partition=message.partition(), offset=offset, error=str(error))
            found = Forwarded(offset, "", b"")
        return Waiting(offset, len(found.messages), found.tenant, found)

    async def do(self, partition: int, items: Sequence[Forwarded]) -> None:
        """Send records of one tenant."""
        await self._send(partition, [each for each in items if each.messages])

    def failed(self, error: KafkaError) -> None:
        """End: the spans topic is what this stage is for."""
        raise KafkaException(error)

    async def _send(self, partition: int, records: Sequence[Forwarded]) -> None:
        """Send records together; if the store refuses that for good, one by one, so that one costs no others."""
        if not records:
            return
        refusal = await self._store.send(records[0].tenant, joined([record.messages for record in records]))
        if refusal is None:
            self._metrics.records.labels(partition).inc(len(records))
        elif len(records) > 1:
            for record in records:
                await self._send(partition, [record])
        else:
            self._metrics.refused.labels(refusal.code.name.lower()).inc()
            log.warning("the trace store refuses a record", offset=records[0].offset, reason=refusal.text)


async def run(
    config: Config,
    stop: asyncio.Event,
    metrics: OwnMetrics,
    *,
    embedded: bool = False,
    ready: asyncio.Event | None = None,
) -> None:
    """Run an ingester until `stop` is set. Raises `TopicsError`, or ValueError if there is no endpoint."""
    if not config.spanmill.ingester.endpoint:
        raise ValueError("spanmill.ingester.endpoint isn't set: where should spans go? (http://tempo:4317)")
    names = TopicNames.of(config)
    await check_topics(config, embedded=embedded, only=[names.spans])
    work = config.spanmill.ingester
    headers = {name: value.get_secret_value() for name, value in work.headers.items()}
    store = TraceStore(work.endpoint, headers, work.timeout_s, TraceStoreMetrics(metrics.registry))
    ingester = Ingester(config, IngesterMetrics(metrics.registry), store)
    settings = kafka.consumer_settings(config, names.ingester_group)
    reader = GroupReader(settings, names.spans, ingester, STAGE, metrics.lag_records, ready or asyncio.Event())
    try:
        await reader.run(stop)
    finally:
        await store.close()
