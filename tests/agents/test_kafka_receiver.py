"""The Kafka receiver on real Kafka: what a foreign topic holds is in the spans topic, partitioned as ours, no less."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Message
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from structlog.testing import capture_logs

from agents.distributor import Distributor
from agents.distributor.receiver_kafka import client_settings
from agents.own_metrics import OwnMetrics
from schemas.config import Config, load_config
from schemas.config.kafka_receiver import KafkaReceiver
from schemas.config.messages import ConfigError
from schemas.jaeger_pb2 import Process
from schemas.jaeger_pb2 import Span as JaegerSpan
from schemas.murmur2 import partition_of
from tests.schemas.test_otlp_codecs import SKIP_METRICS, push_bytes
from tests.servers.kafka import KafkaBroker

PARTITIONS = 4
WAIT_S = 60.0
LONG_AGO_MS = 1_600_000_000_000


def spans(first: int, count: int) -> list[Span]:
    """Of as many traces."""
    return [
        Span(trace_id=i.to_bytes(4, "big") * 4, span_id=i.to_bytes(8, "big"), name=f"n{i}", start_time_unix_nano=i)
        for i in range(first, first + count)
    ]


def value_of(of: Iterable[Span]) -> bytes:
    message = TracesData()
    message.resource_spans.add().scope_spans.add().spans.extend(of)
    return message.SerializeToString()


def spans_of(record: Message) -> list[Span]:
    message = TracesData.FromString(record.value() or b"")
    return [span for r in message.resource_spans for s in r.scope_spans for span in s.spans]


@dataclass
class Topics:
    """A foreign topic, and what a distributor makes of it."""

    kafka: KafkaBroker
    foreign: str
    spans: str
    dead_letters: str
    group: str

    @classmethod
    def create(cls, kafka: KafkaBroker, partitions: int = 3) -> "Topics":
        # Its records' timestamps are old: with a retention they would go at the broker's next look.
        settings = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
        foreign = kafka.new_topic("foreign", partitions, settings)
        return cls(kafka, foreign, kafka.spans_topic(PARTITIONS), kafka.new_topic("dead"), kafka.unique("group"))

    def config(self, encoding: str = "otlp_proto", extra: str = "") -> Config:
        return load_config(
            None,
            f"""
multitenancy_enabled: true
ingest: {{kafka: {{address: "{self.kafka.address}"}}}}
spanmill: {{topics: {{spans: {self.spans}, dead_letters: {self.dead_letters}}}}}
distributor:
  receivers:
    kafka:
      brokers: ["{self.kafka.address}"]
      traces: {{topic: {self.foreign}, encoding: {encoding}}}
      group_id: {self.group}
      initial_offset: earliest
{extra}""",
        )

    def write(self, value: bytes, partition: int = 0, tenant: str = "a", key: bytes | None = None) -> None:
        headers = [("tenant", tenant.encode())]
        self.kafka.produce(self.foreign, value, partition=partition, key=key, headers=headers, timestamp_ms=LONG_AGO_MS)

    def arrived(self) -> list[Message]:
        return self.kafka.read(self.spans)

    def names(self) -> Counter[str]:
        return Counter(span.name for record in self.arrived() for span in spans_of(record))

    def committed(self) -> Mapping[int, int]:
        return self.kafka.committed(self.group, self.foreign)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[OwnMetrics]:
    metrics = OwnMetrics()
    distributor = Distributor(config, metrics, PARTITIONS)
    await distributor.start()
    try:
        yield metrics
    finally:
        await distributor.stop()
        for ending in distributor.endings:
            assert not ending.done() or ending.exception() is None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


@pytest.mark.kafka
async def test_spans_are_copied_to_our_partitions_with_their_tenants(kafka: KafkaBroker) -> None:
    topics = Topics.create(kafka)
    sent = spans(1, 90)
    for number in range(9):  # a client that puts what belongs to one trace anywhere
        topics.write(value_of(sent[number * 10 : number * 10 + 10]), number % 3, "ab"[number % 2], key=b"whatever")
    async with running(topics.config()) as metrics:
        await until(lambda: topics.committed() == {0: 3, 1: 3, 2: 3})
        assert (
            metrics.registry.get_sample_value("tempo_distributor_spans_received_total", {"tenant": "a"})
            == len(sent[::20]) * 10
        )
    arrived = topics.arrived()
    assert sorted(span.SerializeToString() for record in arrived for span in spans_of(record)) == sorted(
        span.SerializeToString() for span in sent
    )
    for record in arrived:
        tenant = dict(record.headers() or [])["tenant"]
        assert record.timestamp()[1] > LONG_AGO_MS, "the log's time, not the foreign one's"
        for span in spans_of(record):
            assert record.partition() == partition_of(span.trace_id.hex().encode(), PARTITIONS)
            assert tenant == b"ab"[(int(span.name[1:]) - 1) // 10 % 2 :][:1]


def otlp_json() -> bytes:
    span = {"traceId": "0a" * 16, "spanId": "0b" * 8, "name": "call", "kind": 2}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


def jaeger_proto() -> bytes:
    process = Process(service_name="shop")
    return JaegerSpan(
        trace_id=b"\n" * 16, span_id=b"\x0b" * 8, operation_name="call", process=process
    ).SerializeToString()


def zipkin_json() -> bytes:
    span = {"traceId": "0a" * 16, "id": "0b" * 8, "name": "call", "localEndpoint": {"serviceName": "shop"}}
    return json.dumps([span]).encode()


ENCODED = {"otlp_json": otlp_json(), "jaeger_proto": jaeger_proto(), "zipkin_json": zipkin_json()}


@pytest.mark.kafka
@pytest.mark.parametrize("encoding", ENCODED)
async def test_other_encodings_become_otlp(kafka: KafkaBroker, encoding: str) -> None:
    topics = Topics.create(kafka, 1)
    topics.write(ENCODED[encoding])
    async with running(topics.config(encoding)):
        await until(lambda: topics.committed() == {0: 1})
    (record,) = topics.arrived()
    (resource,) = TracesData.FromString(record.value() or b"").resource_spans
    (span,) = spans_of(record)
    assert (span.trace_id, span.span_id, span.name) == (b"\n" * 16, b"\x0b" * 8, "call")
    if encoding != "otlp_json":
        assert {each.key: each.value.string_value for each in resource.resource.attributes} == {"service.name": "shop"}


@pytest.mark.kafka
async def test_a_topic_of_tempos_is_copied_by_its_keys_and_flags(kafka: KafkaBroker) -> None:
    topics = Topics.create(kafka, 1)
    traces = [value_of([each]) for each in spans(1, 3)]
    topics.write(push_bytes(*traces[:2]), key=b"t1", tenant="not this")
    topics.write(push_bytes(traces[2], rest=SKIP_METRICS), key=b"t2")
    async with running(topics.config("push-bytes")):
        await until(lambda: topics.committed() == {0: 2})
    found = {
        (dict(record.headers() or [])["tenant"], "no-metrics" in dict(record.headers() or []), span.name)
        for record in topics.arrived()
        for span in spans_of(record)
    }
    assert found == {(b"t1", False, "n1"), (b"t1", False, "n2"), (b"t2", True, "n3")}


@pytest.mark.kafka
async def test_what_can_never_be_taken_goes_to_the_dead_letters_and_the_stream_goes_on(kafka: KafkaBroker) -> None:
    topics = Topics.create(kafka, 1)
    cut = value_of(spans(1, 2))[:-3]
    no_id = value_of([Span(trace_id=b"short", span_id=b"\x01" * 8)])
    topics.write(cut)
    topics.write(value_of(spans(1, 1)))
    topics.write(no_id)
    topics.write(value_of(spans(2, 1)), tenant="no/tenant")
    topics.write(value_of(spans(3, 1)))
    topics.write(b"")
    async with running(topics.config()) as metrics:
        await until(lambda: topics.committed() == {0: 6})
        assert metrics.registry.get_sample_value("spanmill_dead_letters_total", {"reason": "malformed"}) == 3
    assert topics.names() == {"n1": 1, "n3": 1}
    dead: dict[Any, Any] = {record.key(): record for record in kafka.read(topics.dead_letters)}
    assert sorted(dead) == [f"{topics.foreign}-0-{offset}".encode() for offset in (0, 2, 3)]
    assert [dead[key].value() for key in sorted(dead)] == [cut, no_id, value_of(spans(2, 1))]
    said = [dict(dead[key].headers() or [])["reason"].decode() for key in sorted(dead)]
    assert "not an OTLP trace request" in said[0]
    assert "trace ids must be 128 bit" in said[1]
    assert "tenant ID 'no/tenant' contains unsupported character '/'" in said[2]


@pytest.mark.kafka
async def test_a_tenant_above_its_rate_makes_the_topic_wait_and_loses_nothing(kafka: KafkaBroker) -> None:
    topics = Topics.create(kafka, 1)
    values = [value_of(spans(number * 10 + 1, 10)) for number in range(3)]
    for value in values:
        topics.write(value)
    size = len(values[0])
    limits = f"""
  retry_after_on_resource_exhausted: 0s
overrides: {{defaults: {{ingestion: {{rate_limit_bytes: {size}, burst_size_bytes: {size + 10}}}}}}}
"""
    with capture_logs() as said:
        async with running(topics.config(extra=limits)):
            await until(lambda: topics.committed() == {0: 3})
    assert topics.names() == {f"n{number}": 1 for number in range(1, 31)}
    assert any("RATE_LIMITED" in line.get("reason", "") for line in said)


@pytest.mark.kafka
async def test_distributors_that_come_and_go_copy_every_span_once(kafka: KafkaBroker) -> None:
    """At least once holds for crashes; whoever stops or gives a partition up finishes what it has begun."""
    topics = Topics.create(kafka)
    written = 0

    def write(count: int) -> None:
        nonlocal written
        for _ in range(count):
            topics.write(value_of(spans(written * 5 + 1, 5)), written % 3)
            written += 1

    await asyncio.to_thread(write, 30)
    async with running(topics.config()):
        await asyncio.to_thread(write, 30)
        async with running(topics.config()):
            await asyncio.to_thread(write, 60)
        await asyncio.to_thread(write, 30)
    async with running(topics.config()):
        await until(lambda: topics.committed() == {0: 50, 1: 50, 2: 50})
    assert topics.names() == {f"n{number}": 1 for number in range(1, written * 5 + 1)}


def test_the_topic_that_is_written_is_never_read() -> None:
    text = """
ingest: {kafka: {address: "kafka-0:9092,kafka-1:9092"}}
distributor: {receivers: {kafka: {brokers: ["kafka-1:9092"], topic: spanmill-spans}}}
"""
    with pytest.raises(ConfigError, match="the spans topic itself"):
        load_config(None, text)


def test_credentials_and_certificates_may_stand_where_older_collectors_had_them() -> None:
    old = {
        "auth": {
            "plain_text": {"username": "me", "password": "secret"},
            "tls": {"ca_file": "/ca.pem", "insecure_skip_verify": True},
        }
    }
    new = {
        "auth": {"sasl": {"username": "me", "password": "secret", "mechanism": "PLAIN"}},
        "tls": {"ca_file": "/ca.pem", "insecure_skip_verify": True},
    }
    found = [client_settings(KafkaReceiver.model_validate(each)) for each in (old, new)]
    assert found[0] == found[1]
    assert found[0]["security.protocol"] == "SASL_SSL"
    assert found[0]["sasl.password"] == "secret"
    assert found[0]["enable.ssl.certificate.verification"] is False
    assert client_settings(KafkaReceiver())["security.protocol"] == "PLAINTEXT"


def test_insecure_means_no_tls() -> None:
    settings = KafkaReceiver.model_validate({"tls": {"insecure": True}})
    assert client_settings(settings)["security.protocol"] == "PLAINTEXT"
