"""A real Collector as the writer of the spans topic, and of the files that a replay reads."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.e2e.assertions import CALL_LABELS, assert_truth
from tests.e2e.cluster import Cluster
from tests.e2e.traffic import Shop
from tests.servers.collector import Collector
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Prometheus

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
