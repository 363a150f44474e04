"""What a receiver says of its requests: their spans counted (Tempo DIST-3), and a line for each if that is wanted."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import structlog
from aiohttp import web

from agents.distributor.connection import TimeLimit
from agents.distributor.in_flight import InFlight
from agents.distributor.listener import Listener
from agents.distributor.metrics import DistributorMetrics

log = structlog.get_logger(__name__)

CANCELLED, INTERNAL = "CANCELLED", "INTERNAL"


class Origin(NamedTuple):
    """A receiver, and what it is reached by, as the Collector's own receivers call themselves."""

    receiver: str
    transport: str


OTLP_GRPC = Origin("otlp/otlp_receiver", "grpc")
OTLP_HTTP = Origin("otlp/otlp_receiver", "http")
JAEGER_GRPC = Origin("jaeger/jaeger_receiver", "grpc")
JAEGER_HTTP = Origin("jaeger/jaeger_receiver", "collector_http")
ZIPKIN = Origin("zipkin/zipkin_receiver", "http_v2_json")
KAFKA = Origin("kafka/kafka_receiver", "kafka")


class Arrival:
    """A request, as far as it is known. What is refused before it is looked into has no tenant and no spans."""

    __slots__ = ("began_s", "received", "retry_after_s", "size", "spans", "status", "taken", "tenant")

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self.tenant, self.spans, self.size = "", 0, 0
        self.received = False  # it has spans, and is within its tenant's limits
        self.status, self.taken, self.retry_after_s = "", False, 0.0

    def answered(self, status: str, *, taken: bool = False, retry_after_s: float = 0.0) -> None:
        """What the client was told."""
        self.status, self.taken, self.retry_after_s = status, taken, retry_after_s


class Reception:
    """Keeps a receiver's counts, and knows all receivers' requests `in_flight`. `access_log`: each is a line, too."""

    def __init__(self, origin: Origin, metrics: DistributorMetrics, in_flight: InFlight, *, access_log: bool) -> None:
        self._origin, self._access_log, self._metrics = origin, access_log, metrics
        self.in_flight = in_flight
        self._accepted, self._refused = metrics.accepted_spans.cell(*origin), metrics.refused_spans.cell(*origin)

    def late(self, limit: TimeLimit) -> None:
        """A client was, and its connection ends."""
        self._metrics.connections_late.labels(*self._origin, limit).inc()

    def listener(self, server: web.Server, connect: Callable[[], asyncio.Protocol], most: int) -> Listener:
        """A listener whose connections are shown."""
        listener = Listener(server, connect, most, self._metrics.connections_refused.labels(*self._origin).inc)
        self._metrics.connections.labels(*self._origin).set_function(lambda: listener.connections)
        return listener

    @contextlib.contextmanager
    def request(self, peer: Callable[[], str | None]) -> Iterator[Arrival]:
        """For the time of a request, which says what it was answered; else the client went away, or we failed."""
        arrival = Arrival()
        try:
            yield arrival
        except Exception:
            arrival.status = arrival.status or INTERNAL
            raise
        finally:
            if arrival.taken:
                self._accepted.count += arrival.spans
            else:
                self._refused.count += arrival.spans
            if self._access_log:
                self._write(arrival, peer())

    def _write(self, arrival: Arrival, peer: str | None) -> None:
        retry = {"retry_after_s": arrival.retry_after_s} if arrival.retry_after_s else {}
        log.info(
            "request",
            receiver=self._origin.receiver,
            transport=self._origin.transport,
            tenant=arrival.tenant,
            peer=peer or "",
            spans=arrival.spans,
            bytes=arrival.size,
            status=arrival.status or CANCELLED,
            duration_s=round(time.monotonic() - arrival.began_s, 6),
            **retry,
        )
