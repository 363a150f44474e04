"""A cluster for a test of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Prometheus


@pytest.fixture
def cluster(kafka: KafkaBroker, prometheus: Prometheus, tmp_path: Path) -> Iterator[Cluster]:
    """Topics of its own on the session's Kafka, and the session's Prometheus as the endpoint."""
    app = kafka.unique("e2e").replace("-", "_")
    config = {
        "ingest": {"kafka": {"address": kafka.address}},
        "metrics_generator": {
            "registry": {"collection_interval": "5s", "external_labels": {"app": app}},
            "storage": {"remote_write": [{"url": f"{prometheus.url}/api/v1/write"}]},
        },
        "overrides": {"defaults": {"metrics_generator": {"processors": ["service-graphs", "span-metrics"]}}},
        "spanmill": {
            "app_id": app,
            "topics": {"spans": f"{app}-spans", "deltas": f"{app}-deltas", "dead_letters": f"{app}-dead"},
            "generator": {"data_dir": str(tmp_path / "data")},
            "sink": {"data_dir": str(tmp_path / "data"), "hold_back": "10m", "snapshot_every_windows": 2},
        },
    }
    cluster = Cluster(tmp_path, config, app)
    cluster.run("topics", "create", "--partitions", "4")
    try:
        yield cluster
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.close()
