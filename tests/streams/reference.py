"""Service graphs and span metrics as slowly and plainly as the rules read, to compare with on random logs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from schemas.config import ServiceGraphsSettings, TenantSettings
from schemas.labels import SPAN_METRICS_RESERVED as RESERVED
from schemas.labels import label_set, reserved_name, sanitize_name
from streams.windows import window_end
from tests.streams.log import CLIENT, CONSUMER, ERROR, INTERVAL_MS, PRODUCER, SERVER, Told

KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES = ("UNSET", "OK", "ERROR")

GRAPH = "traces_service_graph_"
Position = tuple[int, int, int]
"""Stream time, offset, index."""


class Batch(NamedTuple):
    """A record as it was told."""

    offset: int
    timestamp_ms: int
    tenant: str
    spans: Sequence[Told]


@dataclass
class Edge:
    """SG-4."""

    tenant: str
    trace: bytes
    second: bytes
    arrival_ms: int
    kind: int = 0
    connection: str = ""
    client: str = ""
    server: str = ""
    client_ns: int = 0
    server_ns: int = 0
    client_end: int = 0
    server_start: int = 0
    failed: bool = False
    traced: bool = False
    peer: str = ""
    dimensions: dict[str, str] = field(default_factory=dict)
    position: Position = (0, 0, 0)


class Values(NamedTuple):
    """What a window adds up: amounts by (series, bucket bound or ""), exemplars likewise, and what is counted."""

    amounts: Counter[tuple[str, str, bytes, str]]
    exemplars: dict[tuple[str, str, bytes, str], tuple[Position, str, int]]
    counts: Counter[str]


def text(value: Any) -> str:
    """PRIM-3, as far as the tests go."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def trace_text(trace: bytes) -> str:
    """PRIM-9."""
    return trace.hex().lstrip("0")


class Reference:
    """One partition."""

    def __init__(self, settings: TenantSettings) -> None:
        self.settings = settings
        self.waiting: dict[tuple[str, bytes, bytes], Edge] = {}
        self.now: int | None = None
        self.open_end: int | None = None
        self.values = Values(Counter(), {}, Counter())

    def windows(self, log: Sequence[Batch]) -> Iterator[tuple[int, Values]]:
        """Every window of a log that ends."""
        for batch in log:
            self.now = batch.timestamp_ms if self.now is None else max(self.now, batch.timestamp_ms)
            yield from self.close_until(window_end(self.now, INTERVAL_MS))
            for index, span in enumerate(batch.spans):
                self.take(batch, index, span)
        if self.open_end is not None:
            yield self.close(self.open_end)
            while self.waiting:
                self.open_end += INTERVAL_MS
                yield self.close(self.open_end)

    def close_until(self, end: int) -> Iterator[tuple[int, Values]]:
        if self.open_end is None:
            self.open_end = end
        if end > self.open_end:
            yield self.close(self.open_end)
            if self.waiting and end - INTERVAL_MS > self.open_end:
                yield self.close(end - INTERVAL_MS)
            self.open_end = end

    def close(self, end: int) -> tuple[int, Values]:
        graphs = self.settings.service_graphs
        for key, edge in list(self.waiting.items()):
            assert graphs is not None
            if edge.arrival_ms + graphs.wait_ms <= end:
                del self.waiting[key]
                self.expire(graphs, edge)
        values, self.values = self.values, Values(Counter(), {}, Counter())
        return end, values

    def take(self, batch: Batch, index: int, span: Told) -> None:
        assert self.now is not None
        self.values.counts["received"] += 1
        if abs(span.end_ns) > self.settings.slack_ns:
            self.values.counts["discarded"] += 1
            return
        position = (self.now, batch.offset, index)
        self.measure(batch.tenant, span, position)
        graphs = self.settings.service_graphs
        if graphs is not None and span.service is not None and SERVER <= span.kind <= CONSUMER:
            self.upsert(graphs, batch, span, position)

    def measure(self, tenant: str, span: Told, position: Position) -> None:
        settings = self.settings.span_metrics
        if settings is None:
            return
        pairs = [
            ("service", span.service or ""),
            ("span_name", span.name),
            ("span_kind", f"SPAN_KIND_{KINDS[span.kind]}"),
            ("status_code", f"STATUS_CODE_{STATUSES[span.status]}"),
        ]
        shown = [(name.encode(), value.encode()) for name, value in pairs]
        for dimension in settings.dimensions:
            value = span.lookup(dimension)
            shown.append((reserved_name(dimension, RESERVED), b"" if value is None else text(value).encode()))
        labels = label_set(shown)
        assert labels is not None
        self.add("traces_spanmetrics_calls_total", tenant, labels)
        buckets = settings.histogram_buckets
        self.observe("traces_spanmetrics_latency", tenant, labels, buckets, span.latency_ns, span.trace_id, position)

    def upsert(self, graphs: ServiceGraphsSettings, batch: Batch, span: Told, position: Position) -> None:
        assert self.now is not None
        is_client = span.kind in {CLIENT, PRODUCER}
        key = (batch.tenant, span.trace_id, span.span_id if is_client else span.parent_id)
        edge = self.waiting.get(key)
        new = edge is None
        if edge is None:
            edge = Edge(*key, arrival_ms=self.now)
        edge.kind, edge.position = span.kind, position
        edge.failed = edge.failed or span.status == ERROR
        edge.connection = "messaging_system" if span.kind in {PRODUCER, CONSUMER} else ""
        service, end = str(span.service), batch.timestamp_ms * 10**6 + span.end_ns
        if is_client:
            edge.client, edge.client_ns, edge.client_end, edge.traced = service, span.latency_ns, end, True
        else:
            edge.server, edge.server_ns, edge.server_start = service, span.latency_ns, end - span.latency_ns
            edge.traced = edge.traced or not span.parent_id
        self.describe(graphs, edge, span, is_client)
        if edge.client and edge.server:
            self.emit(graphs, edge)
            self.waiting.pop(key, None)
            self.values.counts["edges"] += new
        elif new:
            alive = [
                e
                for e in self.waiting.values()
                if e.tenant == batch.tenant and e.arrival_ms + graphs.wait_ms > self.now
            ]
            if len(alive) >= graphs.max_items:
                self.values.counts["dropped"] += 1
            else:
                self.waiting[key] = edge
                self.values.counts["edges"] += 1

    def describe(self, graphs: ServiceGraphsSettings, edge: Edge, span: Told, is_client: bool) -> None:
        """Dimensions, peer and database."""
        prefix = ("client_" if is_client else "server_") if graphs.enable_client_server_prefix else ""
        names = [(dimension, prefix + dimension) for dimension in graphs.dimensions]
        if graphs.enable_virtual_node_label:
            names.append(("virtual_node", "virtual_node"))
        for dimension, name in names:
            if span.lookup(dimension) is not None:
                edge.dimensions[name] = text(span.lookup(dimension))
        peers = [text(span.attributes[key]) for key in graphs.peer_attributes if key in span.attributes]
        edge.peer = peers[0] if peers else edge.peer
        databases = [span.lookup(key) for key in graphs.database_name_attributes if span.lookup(key) is not None]
        if is_client and databases:
            edge.connection, edge.server_ns = "database", span.latency_ns
            host, port = span.lookup("network.peer.address"), span.lookup("network.peer.port")
            address = None if host is None else text(host) + ("" if port is None else ":" + text(port))
            callees = [span.lookup("peer.service"), span.lookup("server.address"), address, text(databases[0]) or None]
            named = [callee for callee in callees if callee is not None]
            edge.server = text(named[0]) if named else edge.server

    def expire(self, graphs: ServiceGraphsSettings, edge: Edge) -> None:
        if not edge.client and not edge.second:
            edge.client, edge.dimensions["virtual_node"] = edge.peer or "user", "client"
        elif edge.client and not edge.server and edge.peer:
            edge.server, edge.dimensions["virtual_node"] = edge.peer, "server"
        else:
            self.values.counts[f"expired SPAN_KIND_{KINDS[edge.kind]}"] += 1
            return
        edge.connection = "virtual_node"
        self.emit(graphs, edge)

    def emit(self, graphs: ServiceGraphsSettings, edge: Edge) -> None:
        prefixes = ("client_", "server_") if graphs.enable_client_server_prefix else ("",)
        names = [prefix + dimension for dimension in graphs.dimensions for prefix in prefixes]
        names += ["virtual_node"] if graphs.enable_virtual_node_label else []
        pairs = [("client", edge.client), ("server", edge.server), ("connection_type", edge.connection)]
        pairs += [(sanitize_name(name).decode(), edge.dimensions.get(name, "")) for name in names]
        labels = label_set([(name.encode(), value.encode()) for name, value in pairs])
        assert labels is not None
        self.add(GRAPH + "request_total", edge.tenant, labels)
        if edge.failed:
            self.add(GRAPH + "request_failed_total", edge.tenant, labels)
        buckets, trace = graphs.histogram_buckets, edge.trace if edge.traced else b""
        for name, latency in (("server", edge.server_ns), ("client", edge.client_ns)):
            metric = f"{GRAPH}request_{name}_seconds"
            self.observe(metric, edge.tenant, labels, buckets, latency, trace, edge.position)
        queued = edge.server_start - edge.client_end
        if graphs.enable_messaging_system_latency_histogram and edge.connection == "messaging_system" and queued > 0:
            metric = GRAPH + "request_messaging_system_seconds"
            self.observe(metric, edge.tenant, labels, buckets, queued, trace, edge.position)

    def add(self, metric: str, tenant: str, labels: bytes) -> None:
        self.values.amounts[metric, tenant, labels, ""] += 1

    def observe(
        self,
        metric: str,
        tenant: str,
        labels: bytes,
        buckets: Sequence[float],
        latency_ns: int,
        trace: bytes,
        position: Position,
    ) -> None:
        bucket = next((str(i) for i, bound in enumerate(buckets) if latency_ns / 1e9 <= bound), str(len(buckets)))
        self.values.amounts[metric, tenant, labels, bucket] += 1
        self.values.amounts[metric, tenant, labels, "sum" + bucket] += latency_ns
        offered = (position, trace_text(trace), latency_ns)
        known = self.values.exemplars.get((metric, tenant, labels, bucket))
        if known is None or known[0] < position:
            self.values.exemplars[metric, tenant, labels, bucket] = offered


def fraction_of(units: int, per: int) -> Fraction:
    """An amount in fixed point."""
    return Fraction(units, per)
