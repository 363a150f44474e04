"""Prometheus as remote write meets it: a request is stored whole or not at all, in order, and only so old.

Bodies are the product's own, snappy and protobuf. Each tenant is a store of its own.
"""

import asyncio
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import cramjam
from aiohttp import ClientConnectionError

from agents.remote_write.connection import HttpAnswer
from schemas import remote_write_pb2 as pb
from schemas.metric_families import WINDOW_MARKER
from schemas.record import DEFAULT_TENANT

Labels = tuple[tuple[str, str], ...]


class Point(NamedTuple):
    """A sample; its value as the bits of a float, or a native histogram's bytes."""

    at_ms: int
    value: bytes
    exemplar: tuple[Labels, float, int] | None = None

    @property
    def number(self) -> float:
        """The value of a float."""
        return float(struct.unpack("<d", self.value)[0]) if len(self.value) == 8 else float("nan")

    @property
    def is_zero(self) -> bool:
        """Whether it is 0, or a histogram of nothing."""
        if len(self.value) == 8:
            return self.number == 0
        return pb.Histogram.FromString(self.value).count_int == 0


def bits(value: float) -> bytes:
    """A float's bits: of stale markers too there is only one."""
    return struct.pack("<d", value)


@dataclass
class Store:
    """The samples of a tenant."""

    series: dict[Labels, list[Point]] = field(default_factory=dict)
    newest_ms: int = 0

    def refusal(self, labels: Labels, point: Point, age_ms: int) -> str:
        """Why a sample isn't taken; empty if it is."""
        if age_ms and point.at_ms < self.newest_ms - age_ms:
            return "out of bounds"
        points = self.series.get(labels)
        if not points or point.at_ms > points[-1].at_ms:
            return ""
        if point.at_ms < points[-1].at_ms:
            return "out of order sample"
        return "" if point.value == points[-1].value else "duplicate sample for timestamp"

    def put(self, labels: Labels, point: Point) -> None:
        """Store a sample that isn't refused; one that is there already stays as it is."""
        points = self.series.setdefault(labels, [])
        if not points or points[-1].at_ms < point.at_ms:
            points.append(point)
            self.newest_ms = max(self.newest_ms, point.at_ms)


@dataclass
class Prometheus:
    """A server. Its troubles last until they are set otherwise."""

    random: Random
    age_ms: int = 0
    """How much older than the newest a sample may be; 0: any age."""
    status: int = 0
    """What is answered in the place of storing anything: 429, 500, 503; 0: nothing of that kind."""
    is_up: bool = True
    lost_answers: float = 0.0
    """How often a request is stored and its answer lost."""
    stores: dict[str, Store] = field(default_factory=dict)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Samples that were refused for good, by what they are and the reason."""
    requests: int = 0
    too_old: set[tuple[str, int]] = field(default_factory=set)
    """Tenants and times of samples that were refused for their age, or followed a marker that was."""

    def refused_as_too_old(self, tenant: str, at_ms: int, interval_ms: int) -> bool:
        """Whether a sample of that time may be missing."""
        return not self.too_old.isdisjoint((tenant, at_ms + n * interval_ms) for n in range(3))

    def newest_marker_ms(self, shard: int) -> int:
        """The newest window that was begun."""
        return max(
            (
                points[-1].at_ms
                for store in self.stores.values()
                for labels, points in store.series.items()
                if ("__name__", WINDOW_MARKER) in labels and ("shard", str(shard)) in labels
            ),
            default=0,
        )

    def receive(self, tenant: str, body: bytes) -> HttpAnswer:
        """Store a request, or say why not."""
        self.requests += 1
        store = self.stores.setdefault(tenant, Store())
        rows = list(decoded(body))
        for labels, point in rows:
            why = store.refusal(labels, point, self.age_ms)
            if why:
                if why == "out of bounds":
                    self.too_old.update((tenant, each.at_ms) for _, each in rows)
                if len(rows) == 1 or why == "out of bounds":
                    for each in rows:
                        self.refused[kind(*each), why] += 1
                return HttpAnswer(400, {}, why)
        for labels, point in rows:
            store.put(labels, point)
        return HttpAnswer(204, {}, "")


def kind(labels: Labels, point: Point) -> str:
    """What a sample is: a marker, a zero or a value."""
    if ("__name__", WINDOW_MARKER) in labels:
        return "marker"
    return "zero" if point.number == 0 else "value"


class Connection:
    """A process' way to a server; see `agents.remote_write.connection.Connection`."""

    def __init__(self, server: Prometheus, latency: Callable[[], float]) -> None:
        self._server, self._latency = server, latency
        self.is_dead = False

    def kill(self) -> None:
        """The process is gone; a request of its may be on its way."""
        self.is_dead = True

    async def post(self, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """Post a body. Raises ClientConnectionError or TimeoutError if there is no answer."""
        server, loop = self._server, asyncio.get_running_loop()
        tenant = headers.get("X-Scope-OrgID", DEFAULT_TENANT)
        arrived: asyncio.Future[HttpAnswer] = loop.create_future()

        def arrive() -> None:
            # Of a process that was killed meanwhile the request may be on its way.
            if self.is_dead and server.random.random() < 0.5:
                return
            if not server.is_up:
                _settle(arrived, ClientConnectionError("connection refused"))
            elif server.status:
                retry = {"Retry-After": "1"} if server.random.random() < 0.3 else {}
                _settle(arrived, HttpAnswer(server.status, retry, "try again"))
            else:
                answer = server.receive(tenant, body)
                lost = server.random.random() < server.lost_answers
                _settle(arrived, TimeoutError("no answer") if lost else answer)

        loop.call_later(self._latency(), arrive)
        answer = await arrived
        await asyncio.sleep(self._latency())
        return answer


def _settle(future: "asyncio.Future[HttpAnswer]", answer: HttpAnswer | Exception) -> None:
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
        future.exception()
    else:
        future.set_result(answer)


def decoded(body: bytes) -> Iterable[tuple[Labels, Point]]:
    """The samples of a request."""
    request = pb.WriteRequest.FromString(bytes(cramjam.snappy.decompress_raw(body)))
    for series in request.timeseries:
        labels = tuple([(label.name, label.value) for label in series.labels])
        exemplar = None
        for each in series.exemplars:
            exemplar = tuple([(label.name, label.value) for label in each.labels]), each.value, each.timestamp
        for sample in series.samples:
            yield labels, Point(sample.timestamp, bits(sample.value), exemplar)
        for histogram in series.histograms:
            yield labels, Point(histogram.timestamp, histogram.SerializeToString(deterministic=True), exemplar)
