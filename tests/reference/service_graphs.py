"""Service graphs (Tempo §7): two dicts, one of half-edges and one of dropped sides."""

from dataclasses import dataclass, field
from typing import Literal

from schemas.config import ServiceGraphsSettings, TenantSettings
from tests.reference import filters
from tests.reference.multiplier import ONE, weight_of
from tests.reference.primitives import Seen, build, kind_text, latency_of, lookup, sanitized
from tests.reference.sums import Series, Sums

SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
GRAPH = "traces_service_graph_"
PROCESSOR = "processor_service_graphs_"

Side = Literal["client", "server"]
Key = tuple[str, bytes, bytes]
"""Tenant, trace ID, and the client's span ID."""


@dataclass
class Edge:
    """SG-4."""

    key: Key
    arrival_ms: int
    kind: int = 0
    connection: str = ""
    client: bytes = b""
    server: bytes = b""
    client_ns: int = 0
    server_ns: int = 0
    client_end: int = 0
    server_start: int = 0
    failed: bool = False
    traced: bool = False
    peer: bytes = b""
    weight: int = ONE
    dimensions: dict[str, bytes] = field(default_factory=dict)
    position: tuple[int, int, int] = (0, 0, 0)

    @property
    def side(self) -> Side:
        """SG-20."""
        return "server" if self.server else "client"


class Graphs:
    """The edges of one partition."""

    def __init__(self) -> None:
        self.waiting: dict[Key, Edge] = {}
        self.dropped: dict[tuple[Key, Side], int] = {}
        """Deadlines of filtered sides."""

    def take(self, sums: Sums, tenant: str, settings: TenantSettings, now_ms: int, seen: Seen) -> None:
        """SG-7, SG-8."""
        own = settings.service_graphs
        kind = seen.span.kind
        if own is None or kind not in {SERVER, CLIENT, PRODUCER, CONSUMER}:
            return
        service = lookup("service.name", seen.resource)
        if service is None:
            return
        side: Side = "client" if kind in {CLIENT, PRODUCER} else "server"
        key = (tenant, seen.span.trace_id, seen.span.span_id if side == "client" else seen.span.parent_span_id)
        if not filters.accepts(own.filter_policies, seen):
            sums.count("spans_discarded_total", tenant, processor="service-graphs", reason="service_graphs_filtered")
            self.drop(sums, own, key, side, now_ms)
            return
        edge, new = self.waiting.get(key), False
        if edge is None:
            other: Side = "server" if side == "client" else "client"
            if self.dropped.get((key, other), now_ms) > now_ms:
                sums.count(PROCESSOR + "dropped_edges_total", tenant)
                sums.count("spanmill_edge_spans_alone_total", tenant)
                return
            edge, new = Edge(key, now_ms), True
        else:
            sums.count("spanmill_edge_spans_joined_total", tenant)
        self.update(own, edge, side, service, seen)
        self.store(sums, settings, own, edge, now_ms, new=new)

    def store(
        self, sums: Sums, settings: TenantSettings, own: ServiceGraphsSettings, edge: Edge, now_ms: int, *, new: bool
    ) -> None:
        """SG-18, SG-33."""
        tenant = edge.key[0]
        if edge.client and edge.server:
            emit(sums, settings, own, edge)
            self.waiting.pop(edge.key, None)
        elif new:
            alive = [e for e in self.waiting.values() if e.key[0] == tenant and e.arrival_ms + own.wait_ms > now_ms]
            if len(alive) >= own.max_items:
                sums.count(PROCESSOR + "dropped_spans", tenant)
                return
            self.waiting[edge.key] = edge
        if new:
            sums.count(PROCESSOR + "edges", tenant)

    def drop(self, sums: Sums, own: ServiceGraphsSettings, key: Key, side: Side, now_ms: int) -> None:
        """SG-20."""
        edge = self.waiting.get(key)
        if edge is not None and edge.side != side:
            del self.waiting[key]
            sums.count(PROCESSOR + "dropped_edges_total", key[0])
        if side == "server" and not key[2]:
            return
        alive = {entry for entry, deadline in self.dropped.items() if entry[0][0] == key[0] and deadline > now_ms}
        if (key, side) not in alive and len(alive) >= own.max_items:
            sums.count(PROCESSOR + "dropped_span_side_cache_overflow_total", key[0])
            return
        self.dropped[key, side] = now_ms + own.wait_ms

    def update(self, own: ServiceGraphsSettings, edge: Edge, side: Side, service: bytes, seen: Seen) -> None:
        """SG-9, SG-10, SG-12, SG-13."""
        span = seen.span
        edge.kind, edge.position = span.kind, seen.position
        edge.failed = edge.failed or span.status.code == 2
        edge.weight = weight_of(seen, own.multiplier).units
        edge.connection = "messaging_system" if span.kind in {PRODUCER, CONSUMER} else ""
        if side == "client":
            edge.client, edge.client_ns, edge.client_end = service, latency_of(span), span.end_time_unix_nano
            edge.traced = True
        else:
            edge.server, edge.server_ns, edge.server_start = service, latency_of(span), span.start_time_unix_nano
            edge.traced = edge.traced or not span.parent_span_id
        prefix = f"{side}_" if own.enable_client_server_prefix else ""
        names = [(dimension, prefix + dimension) for dimension in own.dimensions]
        if own.enable_virtual_node_label:
            names.append(("virtual_node", "virtual_node"))
        for dimension, name in names:
            value = lookup(dimension, seen.resource, seen.attributes)
            if value is not None:
                edge.dimensions[name] = value
        peers = [value for key in own.peer_attributes if (value := lookup(key, seen.attributes)) is not None]
        if peers:
            edge.peer = peers[0]
        if side == "client":
            self.name_database(own, edge, seen)

    def name_database(self, own: ServiceGraphsSettings, edge: Edge, seen: Seen) -> None:
        """SG-14."""

        def value_of(key: str) -> bytes | None:
            return lookup(key, seen.resource, seen.attributes)

        named = [value for key in own.database_name_attributes if (value := value_of(key)) is not None]
        if not named:
            return
        edge.connection, edge.server_ns = "database", edge.client_ns
        address, port = value_of("network.peer.address"), value_of("network.peer.port")
        if address is not None and port is not None:
            address += b":" + port
        for callee in (value_of("peer.service"), value_of("server.address"), address):
            if callee is not None:
                edge.server = callee
                return
        edge.server = named[0] or edge.server

    def expire(self, sums: Sums, settings: dict[str, TenantSettings], end_ms: int) -> None:
        """SG-19, SG-26 to SG-29."""
        for key, edge in list(self.waiting.items()):
            own = settings[key[0]].service_graphs
            assert own is not None
            if edge.arrival_ms + own.wait_ms > end_ms:
                continue
            del self.waiting[key]
            if not edge.client and not key[2]:
                edge.client, virtual = edge.peer or b"user", b"client"
            elif edge.client and not edge.server and edge.peer:
                edge.server, virtual = edge.peer, b"server"
            else:
                sums.count(PROCESSOR + "expired_edges", key[0], unmatched_span_kind=kind_text(edge.kind))
                continue
            edge.connection = "virtual_node"
            if own.enable_virtual_node_label:
                edge.dimensions["virtual_node"] = virtual
            emit(sums, settings[key[0]], own, edge)


def emit(sums: Sums, settings: TenantSettings, own: ServiceGraphsSettings, edge: Edge) -> None:
    """SG-22, SG-24."""
    tenant = edge.key[0]
    prefixes = ("client_", "server_") if own.enable_client_server_prefix else ("",)
    names = [prefix + dimension for dimension in own.dimensions for prefix in prefixes]
    if own.enable_virtual_node_label:
        names.append("virtual_node")
    pairs = [(b"client", edge.client), (b"server", edge.server), (b"connection_type", edge.connection.encode())]
    pairs += [(sanitized(name.encode()), edge.dimensions.get(name, b"")) for name in names]
    labels = build(pairs, settings.max_label_name_length, settings.max_label_value_length)
    if labels is None:
        sums.count("spans_discarded_total", tenant, processor="service-graphs", reason="invalid_utf8")
        return
    sums.count("spanmill_edges_measured_total", tenant, connection_type=edge.connection)
    if own.request:
        sums.counters[Series(tenant, GRAPH + "request_total", labels)] += edge.weight
        if edge.failed:
            sums.counters[Series(tenant, GRAPH + "request_failed_total", labels)] += edge.weight
    latencies = []
    if own.latency:
        latencies = [("server_seconds", edge.server_ns), ("client_seconds", edge.client_ns)]
        queued = edge.server_start - edge.client_end
        if own.enable_messaging_system_latency_histogram and edge.connection == "messaging_system" and queued > 0:
            latencies.append(("messaging_system_seconds", min(queued, 1 << 53)))
    for name, latency_ns in latencies:
        series = Series(tenant, f"{GRAPH}request_{name}", labels)
        trace = edge.key[1] if edge.traced else b""
        sums.observe(series, own.histogram_buckets, settings.histograms, edge.weight, latency_ns, edge.position, trace)
    if own.connection_info:
        sums.gauges[Series(tenant, GRAPH + "connection_info", labels)] = 1
