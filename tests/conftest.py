"""The real servers that tests may ask for. They start once per session, when the first test needs them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from spanmill import drop_stale_kernels
from tests.e2e.fixtures import cluster
from tests.servers.kafka import KafkaBroker
from tests.servers.prometheus import Prometheus
from tests.servers.telemetrygen import Telemetrygen

__all__ = ["cluster"]


drop_stale_kernels(Path(__file__).resolve().parents[1])

# Machines are shared and noisy: how long an example takes says nothing.
hypothesis.settings.register_profile("spanmill", deadline=None)
hypothesis.settings.load_profile("spanmill")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """Apache Kafka: `.address`, topics with unique names, reading and writing."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    broker.format()
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def kafka_broker(kafka: KafkaBroker) -> str:
    """Bootstrap address of the session's Apache Kafka."""
    return kafka.address


@pytest.fixture
def new_prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Prometheus]]:
    """Starts a Prometheus of the test's own, for tests that need an empty one, settings, or to stop it."""
    started: list[Prometheus] = []

    def start(out_of_order_window: str = "0s", directory: Path | None = None) -> Prometheus:
        server = Prometheus(directory or tmp_path_factory.mktemp("prometheus"), out_of_order_window)
        started.append(server)
        server.start()
        return server

    try:
        yield start
    finally:
        for server in started:
            server.stop()


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """The session's Prometheus; tests share it, so they keep apart by labels of their own."""
    server = Prometheus(tmp_path_factory.mktemp("prometheus"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def telemetrygen() -> Telemetrygen:
    """The OTLP load generator."""
    return Telemetrygen()
