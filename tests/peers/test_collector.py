"""A real Collector: what it writes to the spans topic, to files that a replay reads, and to a distributor."""

import asyncio
import base64
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from agents.distributor import Distributor
from agents.own_metrics import OwnMetrics
from schemas.config import load_config
from tests.agents.test_otlp_clients import (
    PARTITIONS,
    Running,
    assert_same,
    authority,
    on_topic,
    running,
    spans_of,
    text,
    until_refused,
)
from tests.e2e.assertions import CALL_LABELS, assert_truth
from tests.e2e.cluster import Cluster
from tests.e2e.traffic import Shop
from tests.servers.certificates import Authority
from tests.servers.collector import Collector
from tests.servers.go_client import GoClient
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Prometheus
from tests.servers.tcp_proxy import TcpProxy

__all__ = ["authority"]

pytestmark = pytest.mark.peers

SAMPLE = re.compile(r"^traces_spanmetrics_calls_total\{(?P<labels>[^}]*)\} (?P<value>\S+)", re.MULTILINE)


def test_what_a_collector_writes_to_kafka_is_counted_exactly(
    cluster: Cluster, kafka: KafkaBroker, prometheus: Prometheus, tmp_path: Path
) -> None:
    exporter = {
        "brokers": [kafka.address],
        "traces": {"topic": f"{cluster.app}-spans", "encoding": "otlp_proto"},
        "partition_traces_by_id": True,
        "record_partitioner": {"sticky_key": {"hasher": "murmur2"}},
    }
    for name in ("generator", "sink"):
        cluster.start(name, f"{name}-0")
    with Collector(tmp_path, {"kafka": exporter}) as collector:
        shop = Shop("c", grpc=f"http://{collector.grpc}")
        for _ in range(50):
            shop.order()
        shop.close()

    assert_truth(cluster, prometheus, [shop.truth])


@pytest.mark.parametrize(("form", "suffix"), [("proto", "bin"), ("json", "json")])
def test_a_file_of_a_collector_is_replayed_exactly(form: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"spans.{suffix}"
    with Collector(tmp_path, {"file": {"path": str(file), "format": form}}) as collector:
        shop = Shop("f", grpc=f"http://{collector.grpc}")
        for _ in range(50):
            shop.order()
        shop.close()
    config = tmp_path / "spanmill.yaml"
    processors = {"defaults": {"metrics_generator": {"processors": ["service-graphs", "span-metrics"]}}}
    config.write_text(yaml.safe_dump({"overrides": processors}))
    arguments = ["--config.file", config, "--input", file, "--output", tmp_path / "out.txt", "--last"]
    subprocess.run([sys.executable, "-m", "spanmill", "replay", *arguments], check=True, timeout=120)

    found: Counter[tuple[str, ...]] = Counter()
    for sample in SAMPLE.finditer((tmp_path / "out.txt").read_text()):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
        found[tuple(labels[name] for name in CALL_LABELS)] += int(float(sample["value"]))
    assert found == shop.truth.calls


def otlp_exporters(at: Running) -> dict[str, dict[str, Any]]:
    """The Collector's exporters of OTLP, with each compression that both sides know."""
    tls = {"ca_file": str(at.authority)} if at.authority else {"insecure": True}
    by_grpc, by_http = {"endpoint": at.grpc, "tls": tls}, {"endpoint": f"{at.scheme}://{at.http}", "tls": tls}
    return {
        **{f"otlp_grpc/{name}": {**by_grpc, "compression": name} for name in ("none", "gzip")},
        **{f"otlp_http/{name}": {**by_http, "compression": name} for name in ("none", "gzip", "zstd", "deflate")},
        "otlp_http/json": {**by_http, "encoding": "json"},
    }


def each_as_a_tenant(exporters: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    retry = {"initial_interval": "200ms", "max_interval": "1s"}
    return {
        name: {**exporter, "headers": {"X-Scope-OrgID": tenant_of(name)}, "retry_on_failure": retry}
        for name, exporter in exporters.items()
    }


def tenant_of(exporter: str) -> str:
    return exporter.replace("/", "-")


def through_a_collector(directory: Path, exporters: dict[str, dict[str, Any]]) -> tuple[TracesData, str]:
    """What a client sent to a Collector, which has sent it on by now; and the Collector's log."""
    with Collector(directory, each_as_a_tenant(exporters)) as collector:
        sent = GoClient(directory).send(collector.grpc, "grpc", traces=3)
    return sent, collector.log()


@pytest.mark.parametrize("secure", [False, True])
async def test_what_a_collector_exports_is_in_the_topic_field_by_field(
    kafka: KafkaBroker, authority: Authority, tmp_path: Path, secure: bool
) -> None:
    topic = kafka.spans_topic(PARTITIONS)
    async with running(kafka.address, topic, authority=authority if secure else None) as at:
        exporters = otlp_exporters(at)
        sent, _ = await asyncio.to_thread(through_a_collector, tmp_path, exporters)
    assert_same(on_topic(kafka, topic), dict.fromkeys(map(tenant_of, exporters), sent))


async def test_a_collector_sends_again_what_kafka_could_not_take(kafka: KafkaBroker, tmp_path: Path) -> None:
    """KFK-12: UNAVAILABLE and 503 until Kafka can be reached."""
    topic, proxy = kafka.spans_topic(PARTITIONS), TcpProxy()
    async with running(proxy.address, topic, kafka=", write_timeout: 500ms") as at:
        exporters = otlp_exporters(at)
        with Collector(tmp_path, each_as_a_tenant(exporters)) as collector:
            sent = await asyncio.to_thread(GoClient(tmp_path).send, collector.grpc, "grpc")
            await until_refused(at, len(exporters))
            proxy.start(int(kafka.address.rpartition(":")[2]))
            try:
                async with asyncio.timeout(60):  # a Collector that is stopped gives up what it had to send again
                    while on_topic(kafka, topic).keys() != {tenant_of(name) for name in exporters}:
                        await asyncio.sleep(0.2)
            finally:
                proxy.stop()
    assert_same(on_topic(kafka, topic), dict.fromkeys(map(tenant_of, exporters), sent))


@pytest.mark.parametrize("compression", ["zstd", "snappy"])
async def test_other_compressions_of_grpc_are_refused_for_good(
    kafka: KafkaBroker, tmp_path: Path, compression: str
) -> None:
    """DIST-1: the library for gRPC refuses them before it asks us, so the Collector must be told to use gzip."""
    topic = kafka.spans_topic(PARTITIONS)
    async with running(kafka.address, topic) as at:
        exporter = {"endpoint": at.grpc, "compression": compression, "tls": {"insecure": True}}
        _, log = await asyncio.to_thread(through_a_collector, tmp_path, {"otlp_grpc": exporter})
    assert on_topic(kafka, topic) == {}
    assert "Permanent error: rpc error: code = Internal desc = Error parsing 'grpc-encoding' metadata" in log


def plain(value: AnyValue) -> Any:
    """A value as JSON has it, the way Go writes it: whole numbers without a point, bytes in base64."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {each.key: plain(each.value) for each in value.kvlist_value.values}
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    found = getattr(value, kind or "string_value")
    return int(found) if kind == "double_value" and found.is_integer() else found


def tags_of(attributes: Any) -> dict[str, str]:
    """Zipkin's tags are texts."""
    values = {each.key: plain(each.value) for each in attributes}
    return {
        key: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)
        for key, value in values.items()
    }


def as_attributes(tags: dict[str, str]) -> list[KeyValue]:
    return [text(key, tags[key]) for key in sorted(tags)]


def to_us(time_ns: int) -> int:
    """Nanoseconds, rounded to Zipkin's microseconds."""
    return (time_ns + 500) // 1000 * 1000


def kept_by_zipkin(span: Span, scope_tags: dict[str, str]) -> Span:
    """A span without what Zipkin has no place for; it takes a microsecond at least."""
    kept = Span()
    kept.CopyFrom(span)
    for lost in ("flags", "dropped_attributes_count", "dropped_events_count", "dropped_links_count", "attributes"):
        kept.ClearField(lost)
    kept.attributes.extend(as_attributes({**scope_tags, **tags_of(span.attributes)}))
    kept.start_time_unix_nano = to_us(span.start_time_unix_nano)
    duration_ns = max(to_us(span.end_time_unix_nano - span.start_time_unix_nano), 1000)
    kept.end_time_unix_nano = kept.start_time_unix_nano + duration_ns
    for event in kept.events:
        event.time_unix_nano = to_us(event.time_unix_nano)
    for link in kept.links:
        link.ClearField("flags")
    if kept.status == Status():
        kept.ClearField("status")
    return kept


def as_zipkin(sent: TracesData) -> TracesData:
    """What is left of spans that a Collector writes in Zipkin's format; resources have what DIST-2 takes for theirs."""
    kept = TracesData()
    for resource in sent.resource_spans:
        tags = tags_of(resource.resource.attributes)
        service = text("service.name", tags.pop("service.name"))
        of_resource = Resource(attributes=[service, *as_attributes(tags)])
        for scope in resource.scope_spans:
            # One with tags is the last: the Collector leaves a scope's to those that follow in its resource.
            of_scope = tags_of(scope.scope.attributes)
            found = ScopeSpans(spans=[kept_by_zipkin(span, of_scope) for span in scope.spans])
            found.scope.name, found.scope.version = scope.scope.name, scope.scope.version
            kept.resource_spans.append(ResourceSpans(resource=of_resource, scope_spans=[found]))
    return kept


async def test_what_a_collector_writes_for_zipkin_is_in_the_topic_as_far_as_that_holds_it(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    """DIST-2, over HTTP and from a topic.

    This Collector has no Zipkin exporter: its Kafka exporter writes what the same translator makes for that one.
    """
    written, topic = kafka.new_topic("zipkin"), kafka.spans_topic(PARTITIONS)
    traces = {"topic": written, "encoding": "zipkin_json"}
    with Collector(tmp_path, {"kafka": {"brokers": [kafka.address], "traces": traces}}) as collector:
        sent = await asyncio.to_thread(GoClient(tmp_path).send, collector.grpc, "grpc", traces=3)
    bodies = [record.value() or b"" for record in kafka.read(written)]
    config = {
        "ingest": {"kafka": {"address": kafka.address}},
        "spanmill": {"topics": {"spans": topic, "dead_letters": kafka.new_topic("dead")}},
        "distributor": {
            "receivers": {
                "zipkin": {"endpoint": "127.0.0.1:0"},
                "kafka": {
                    "brokers": [kafka.address],
                    "traces": traces,
                    "group_id": kafka.unique("group"),
                    "initial_offset": "earliest",
                },
            }
        },
    }
    expected = as_zipkin(sent)
    expected.MergeFrom(as_zipkin(sent))  # each receiver takes all
    distributor = Distributor(load_config(None, yaml.safe_dump(config)), OwnMetrics(), PARTITIONS)
    await distributor.start()
    try:
        assert distributor.zipkin is not None
        url = f"http://{distributor.zipkin.address}/api/v2/spans"
        async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session:
            for body in bodies:
                async with session.post(url, data=body) as answer:
                    assert answer.status == 202
        async with asyncio.timeout(60):
            while sum(len(spans_of(each)) for each in on_topic(kafka, topic).values()) < len(spans_of(expected)):
                await asyncio.sleep(0.2)
    finally:
        await distributor.stop()
    assert_same(on_topic(kafka, topic), {"single-tenant": expected})
