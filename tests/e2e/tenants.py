"""Spans of two tenants that somebody else writes to the spans topic all the time, and what became of them."""

import itertools
import random
import threading
import time
import urllib.request
from collections import Counter
from contextlib import AbstractContextManager
from itertools import pairwise

from confluent_kafka import Producer
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from tests.background import in_background
from tests.e2e.assertions import vector
from tests.e2e.cluster import Cluster, Stage
from tests.otlp_samples import any_value, attributes
from tests.servers.prometheus import Prometheus

CALLS = "traces_spanmetrics_calls_total"
LABELS = ("tenant", "service", "span_name", "span_kind", "status_code", "region")


class Load:
    """Spans of two tenants, ten of each a second, from the beginning to the end."""

    def __init__(self, address: str, topic: str) -> None:
        self.sent: Counter[tuple[str, str]] = Counter()
        """By tenant and region."""
        self._producer = Producer(
            {
                "bootstrap.servers": address,
                "partitioner": "murmur2",
                "acks": "all",
                "topic.metadata.refresh.interval.ms": 1000,  # it writes to new partitions before anybody else knows
            }
        )
        self._topic, self._random, self._numbers = topic, random.Random(5), itertools.count()

    def send(self, count: int) -> None:
        for _, tenant in itertools.product(range(count), "ab"):
            number = next(self._numbers)
            end = time.time_ns()
            span = Span(name="call", kind=Span.SPAN_KIND_SERVER, span_id=self._random.randbytes(8))
            span.trace_id, region = self._random.randbytes(16), f"r{number % 3}"
            span.start_time_unix_nano, span.end_time_unix_nano = end - 30_000_000, end
            span.attributes.append(KeyValue(key="region", value=any_value(region)))
            of_service = ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])
            of_service.resource.attributes.extend(attributes(service__name="shop"))
            value = TracesData(resource_spans=[of_service]).SerializeToString()
            self._producer.produce(self._topic, value, span.trace_id.hex(), headers=[("tenant", tenant.encode())])
            self.sent[tenant, region] += 1
        assert self._producer.flush(30) == 0

    def total(self, tenant: str) -> int:
        return sum(count for (name, _), count in self.sent.items() if name == tenant)

    def running(self) -> AbstractContextManager[None]:
        """Send all the time."""
        return in_background(self._send_on, "load")

    def _send_on(self, stop: threading.Event) -> None:
        while not stop.wait(0.1):
            self.send(1)


def own_metric(stage: Stage, name: str) -> list[float]:
    """The values of a metric of a process, of all series whose lines begin so."""
    with urllib.request.urlopen(f"http://127.0.0.1:{stage.port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)]


def calls(cluster: Cluster, prometheus: Prometheus, tenant: str) -> dict[str, float]:
    """Of a tenant's one label set, the counts by region; "" without that dimension."""
    found = vector(prometheus, cluster.app, CALLS, LABELS)
    return {labels[-1]: value for labels, value in found.items() if labels[0] == tenant}


def falls(cluster: Cluster, prometheus: Prometheus) -> list[object]:
    """Series whose raw samples, zeros included, ever fall: `_sum` and all other counters."""
    written = prometheus.samples(f'{{__name__=~"traces_spanmetrics.*",app="{cluster.app}"}}', 3600)
    assert written
    return [
        (labels, samples)
        for labels, samples in written.items()
        if any(later < earlier for (_, earlier), (_, later) in pairwise(samples))
    ]
