"""The whole path on real Kafka and real Prometheus: two generators, two sinks, four partitions of each topic."""

import random
import time

import pytest
from confluent_kafka import Producer
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData
from opentelemetry.trace import SpanKind

from tests.e2e.assertions import assert_truth
from tests.e2e.cluster import Cluster, Stage
from tests.e2e.traffic import MS, Shop, Truth
from tests.otlp_samples import attributes, descending, reencode
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Prometheus
from tests.servers.telemetrygen import Telemetrygen

pytestmark = [pytest.mark.kafka, pytest.mark.prometheus]


def start_stages(cluster: Cluster) -> dict[str, Stage]:
    names = ("distributor", "generator-0", "generator-1", "sink-0", "sink-1")
    stages = {name: cluster.start(name.split("-")[0], name, wait=False) for name in names}
    for stage in stages.values():
        cluster.wait_ready(stage)
    return stages


def test_spans_of_real_clients_are_counted_exactly(
    cluster: Cluster, prometheus: Prometheus, telemetrygen: Telemetrygen
) -> None:
    stages = start_stages(cluster)
    shops = [
        Shop("g", grpc=f"http://127.0.0.1:{cluster.grpc}"),
        Shop("h", http=f"127.0.0.1:{cluster.http}"),
    ]
    for _ in range(60):
        for shop in shops:
            shop.order()
    for shop in shops:
        shop.close()
    telemetrygen.traces(f"127.0.0.1:{cluster.grpc}", "--traces", "50", "--service", "tg", "--child-spans", "2")
    telemetrygen.traces(f"127.0.0.1:{cluster.http}", "--otlp-http", "--traces", "25", "--service", "tg")

    assert_truth(cluster, prometheus, [shop.truth for shop in shops], extra_calls=50 * 3 + 25 * 2)
    app = cluster.app
    by_name = prometheus.query(
        f'sum by (span_name, span_kind) (traces_spanmetrics_calls_total{{app="{app}",service="tg"}})'
    )
    assert {tuple(value for _, value in labels): count for labels, count in by_name.items()} == {
        ("SPAN_KIND_CLIENT", "lets-go"): 75,
        ("SPAN_KIND_SERVER", "okey-dokey-0"): 75,
        ("SPAN_KIND_SERVER", "okey-dokey-1"): 50,
    }
    with_exemplars = prometheus.exemplars(f'traces_spanmetrics_latency_bucket{{app="{app}"}}')
    assert any(exemplar["labels"].get("traceID") for series in with_exemplars for exemplar in series["exemplars"])
    assert [stage.stop() for stage in stages.values()] == [0] * len(stages)


def test_killing_a_generator_and_a_sink_changes_nothing(cluster: Cluster, prometheus: Prometheus) -> None:
    stages = start_stages(cluster)
    shop = Shop("k", grpc=f"http://127.0.0.1:{cluster.grpc}")
    kills = {8: "generator-0", 14: "sink-0"}
    restarts = {11: "generator-0", 17: "sink-0"}
    begin = time.monotonic()
    for second in range(22):
        for _ in range(10):
            shop.order()
        if second in kills:
            stages[kills[second]].kill()
        if second in restarts:
            stages[restarts[second]].start()
        time.sleep(max(0.0, begin + second + 1 - time.monotonic()))
    shop.close()

    assert_truth(cluster, prometheus, [shop.truth])
    for name in restarts.values():
        cluster.wait_ready(stages[name])


def test_records_of_a_collector_are_consumed_as_they_are(
    cluster: Cluster, kafka: KafkaBroker, prometheus: Prometheus
) -> None:
    """One per resource, scope and trace, fields descending, key = hex trace ID, murmur2 by librdkafka, no headers."""
    producer = Producer({"bootstrap.servers": kafka.address, "partitioner": "murmur2", "acks": "all"})
    rng, truth = random.Random(7), Truth()
    for number in range(200):
        trace_id, end = rng.randbytes(16), time.time_ns()
        call = Span(span_id=rng.randbytes(8), name="call", kind=Span.SPAN_KIND_CLIENT)
        answer = Span(span_id=rng.randbytes(8), parent_span_id=call.span_id, name="answer", kind=Span.SPAN_KIND_SERVER)
        for service, span, kind in (("col-a", call, SpanKind.CLIENT), ("col-b", answer, SpanKind.SERVER)):
            ms = 1 + number % 40
            span.trace_id = trace_id
            span.start_time_unix_nano, span.end_time_unix_nano = end - ms * MS, end
            resource_spans = ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])
            resource_spans.resource.attributes.extend(attributes(service__name=service))
            value = reencode(TracesData(resource_spans=[resource_spans]), descending)
            producer.produce(f"{cluster.app}-spans", value, trace_id.hex())
            truth.span(service, span.name, kind, ms)
        truth.edge("col-a", "col-b")
    truncated = value[:-1]
    producer.produce(f"{cluster.app}-spans", truncated, partition=2)
    assert producer.flush(30) == 0
    for name in ("generator", "sink"):
        cluster.start(name, f"{name}-0")

    assert_truth(cluster, prometheus, [truth])
    (dead,) = kafka.read(f"{cluster.app}-dead")
    headers = dict(dead.headers())
    assert dead.value() == truncated
    assert (headers["topic"], headers["partition"]) == (f"{cluster.app}-spans".encode(), b"2")
    assert headers["reason"]
    assert int(headers["position"]) <= len(truncated)
