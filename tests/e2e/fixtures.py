"""A cluster for a test of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, configuration
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Prometheus


@pytest.fixture
def cluster(kafka: KafkaBroker, prometheus: Prometheus, tmp_path: Path) -> Iterator[Cluster]:
    """Topics of its own on the session's Kafka, and the session's Prometheus as the endpoint."""
    app = kafka.unique("e2e").replace("-", "_")
    config = configuration(app, kafka.address, f"{prometheus.url}/api/v1/write")
    cluster = Cluster(tmp_path, config, app)
    cluster.run("topics", "create", "--partitions", "4")
    try:
        yield cluster
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.close()
