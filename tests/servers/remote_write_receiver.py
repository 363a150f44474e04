"""A remote-write receiver that is stricter than any real one: what a sender does wrong fails the test."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cramjam
from aiohttp import web
from google.protobuf.message import DecodeError

from schemas import remote_write_pb2 as pb
from schemas import remote_write_v2_pb2 as pb2

MAX_EXEMPLAR_CHARACTERS = 128


class ProtocolError(AssertionError):
    """What a sender must not do."""


class Series(NamedTuple):
    """A series of a request: labels by name, (value, time in ms) of its samples, its exemplars' labels."""

    labels: dict[str, str]
    samples: list[tuple[float, int]]
    histograms: list[tuple[int, int]]
    """(count, time in ms)."""
    exemplars: list[dict[str, str]]

    @property
    def name(self) -> str:
        return self.labels["__name__"]


@dataclass
class Received:
    """A request: its headers, what it holds."""

    headers: list[tuple[str, str]]
    series: list[Series] = field(default_factory=list)
    metadata: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Type and help by metric family."""
    version: str = "1"
    target: str = ""
    """Path, or the whole URL if it came as a proxy gets it."""

    @property
    def names(self) -> list[str]:
        return [series.name for series in self.series]

    def header(self, name: str) -> str | None:
        """The only value of a header."""
        values = self.all(name)
        assert len(values) < 2, f"{name} stands {len(values)} times"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Reply(NamedTuple):
    """What the receiver answers."""

    status: int = 204
    text: str = ""
    headers: dict[str, str] = {}  # noqa: RUF012  never changed


Rule = Callable[[Received], Reply]


class Receiver:
    """Answers by a rule, and keeps what came and what it took."""

    def __init__(self, rule: Rule = lambda _: Reply(), *, only_version_1: bool = False) -> None:
        self.rule = rule
        self.only_version_1 = only_version_1
        """As receivers before 2.0: they read nothing from a request of 2.0, and say that all is well."""
        self.received: list[Received] = []
        self.problems: list[str] = []
        self.url = ""
        self.ignored = 0
        self._taken: list[Received] = []

    @property
    def requests(self) -> list[list[str]]:
        """The names of the series of each request."""
        return [each.names for each in self.received if each.series]

    @property
    def stored(self) -> list[tuple[str, float, int]]:
        """(name, value, time in ms) of all samples that were taken."""
        return [(s.name, *sample) for each in self._taken for s in each.series for sample in s.samples]

    async def handle(self, request: web.Request) -> web.Response:
        if self.only_version_1 and request.headers.get("X-Prometheus-Remote-Write-Version") != "0.1.0":
            self.ignored += 1
            return web.Response(status=204)
        try:
            received = read_request(request, await request.read())
        except ProtocolError as problem:
            self.problems.append(str(problem))
            return web.Response(status=400, text=str(problem))
        self.received.append(received)
        reply = self.rule(received)
        if reply.status < 300:
            self._taken.append(received)
        confirmed = written_headers(received) if received.version == "2" and reply.status < 300 else {}
        return web.Response(status=reply.status, text=reply.text, headers={**confirmed, **reply.headers})

    @contextlib.asynccontextmanager
    async def serve(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Receiver"]:
        """Serve on 127.0.0.1 for the time of the context, which ends with an error if a request was wrong."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("POST", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/api/v1/write"
        try:
            yield self
        finally:
            await runner.cleanup()
        assert self.problems == []


def read_request(request: web.Request, body: bytes) -> Received:
    """A request that follows the specification to the letter; raises ProtocolError for any other."""
    received = Received([(name, value) for name, value in request.headers.items()], target=request.path)
    expect(received, "Content-Encoding", "snappy")
    if not received.header("User-Agent"):
        raise ProtocolError("no User-Agent")
    message = bytes(cramjam.snappy.decompress_raw(body))
    if received.header("Content-Type") == "application/x-protobuf;proto=io.prometheus.write.v2.Request":
        received.version = "2"
        expect(received, "X-Prometheus-Remote-Write-Version", "2.0.0")
        read_version_2(received, message)
    else:
        expect(received, "Content-Type", "application/x-protobuf")
        expect(received, "X-Prometheus-Remote-Write-Version", "0.1.0")
        read_version_1(received, message)
    return received


def expect(received: Received, name: str, value: str) -> None:
    if received.header(name) != value:
        raise ProtocolError(f"{name}: {received.header(name)!r}, not {value!r}")


def read_version_1(received: Received, message: bytes) -> None:
    try:
        request = pb.WriteRequest.FromString(message)
    except DecodeError as error:
        raise ProtocolError(f"not a WriteRequest: {error}") from error
    if request.SerializeToString(deterministic=True) != message:
        raise ProtocolError("fields that aren't known, or not in canonical form")
    if request.timeseries and request.metadata:
        raise ProtocolError("samples and metadata in one request")
    for series in request.timeseries:
        labels = checked_labels([(label.name, label.value) for label in series.labels])
        samples = [(sample.value, sample.timestamp) for sample in series.samples]
        histograms = [(each.count_int, each.timestamp) for each in getattr(series, "histograms", ())]
        if not samples and not histograms:
            raise ProtocolError(f"{labels} without samples")
        exemplars = [{label.name: label.value for label in exemplar.labels} for exemplar in series.exemplars]
        received.series.append(Series(labels, samples, histograms, [checked_exemplar(each) for each in exemplars]))
    for family in request.metadata:
        name = pb.MetricMetadata.MetricType.Name(family.type)
        received.metadata[family.metric_family_name] = (name, family.help)
    check_times(received)


def read_version_2(received: Received, message: bytes) -> None:
    try:
        request = pb2.Request.FromString(message)
    except DecodeError as error:
        raise ProtocolError(f"not a Request: {error}") from error
    if request.SerializeToString(deterministic=True) != message:
        raise ProtocolError("fields that aren't known, or not in canonical form")
    symbols = list(request.symbols)
    if symbols[:1] != [""] or len(set(symbols)) != len(symbols):
        raise ProtocolError(f"symbols must begin with an empty one and be there once: {symbols}")
    used = {0}
    for series in request.timeseries:
        used |= set(series.labels_refs) | {series.metadata.help_ref, series.metadata.unit_ref}
        labels = checked_labels(resolved(series.labels_refs, symbols))
        samples = [(sample.value, sample.timestamp) for sample in series.samples]
        histograms = [(each.count_int, each.timestamp) for each in series.histograms]
        if bool(samples) == bool(histograms):
            raise ProtocolError(f"{labels} must have either samples or histograms")
        exemplars = []
        for exemplar in series.exemplars:
            used |= set(exemplar.labels_refs)
            exemplars.append(checked_exemplar(dict(resolved(exemplar.labels_refs, symbols))))
        received.series.append(Series(labels, samples, histograms, exemplars))
        if series.HasField("metadata"):
            kind = pb2.Metadata.MetricType.Name(series.metadata.type)
            received.metadata[labels["__name__"]] = (kind, symbols[series.metadata.help_ref])
    if used != set(range(len(symbols))):
        raise ProtocolError("symbols that nothing refers to, or references to none")
    check_times(received)


def resolved(refs: Sequence[int], symbols: Sequence[str]) -> list[tuple[str, str]]:
    if len(refs) % 2 or any(ref >= len(symbols) for ref in refs):
        raise ProtocolError(f"references that aren't pairs of symbols: {refs}")
    return [(symbols[name], symbols[value]) for name, value in zip(refs[::2], refs[1::2], strict=True)]


def written_headers(received: Received) -> dict[str, str]:
    """What a receiver of 2.0 says when it has taken everything."""
    counts = {
        "Samples": sum(len(series.samples) for series in received.series),
        "Histograms": sum(len(series.histograms) for series in received.series),
        "Exemplars": sum(len(series.exemplars) for series in received.series),
    }
    return {f"X-Prometheus-Remote-Write-{what}-Written": str(count) for what, count in counts.items()}


def checked_labels(pairs: list[tuple[str, str]]) -> dict[str, str]:
    names = [name for name, _ in pairs]
    if names != sorted(set(names)):
        raise ProtocolError(f"labels aren't sorted and unique: {pairs}")
    if any(not name or not value for name, value in pairs):
        raise ProtocolError(f"an empty label: {pairs}")
    if "__name__" not in names:
        raise ProtocolError(f"no name: {pairs}")
    return dict(pairs)


def checked_exemplar(labels: dict[str, str]) -> dict[str, str]:
    if sum(len(name) + len(value) for name, value in labels.items()) > MAX_EXEMPLAR_CHARACTERS:
        raise ProtocolError(f"an exemplar that is too long: {labels}")
    return labels


def check_times(received: Received) -> None:
    for series in received.series:
        for _, at in iter_points(series):
            if at <= 0:
                raise ProtocolError(f"{series.labels} at {at}")


def iter_points(series: Series) -> Iterator[tuple[float, int]]:
    yield from series.samples
    yield from series.histograms
