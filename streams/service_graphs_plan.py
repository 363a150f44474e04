"""What service graphs do with the spans of each tenant of a window, as arrays that kernels read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.config import ServiceGraphsSettings
from streams.attribute_keys import CALLEE, CLIENT_SIDE, SERVER_SIDE, VIRTUAL_NODE
from streams.layouts import HistogramKinds, layout_of, limits_ns
from streams.ragged import counts, ragged


class ServiceGraphsPlan(NamedTuple):
    """Service graphs, one row per tenant; attributes are key rows, in the order in which they are tried."""

    active: npt.NDArray[np.bool_]
    latency: npt.NDArray[np.bool_]
    messaging: npt.NDArray[np.bool_]
    wait_ms: npt.NDArray[np.int64]
    max_items: npt.NDArray[np.int64]
    peer_counts: npt.NDArray[np.int32]
    peers: npt.NDArray[np.int32]
    database_counts: npt.NDArray[np.int32]
    databases: npt.NDArray[np.int32]
    callee: npt.NDArray[np.int32]
    """The key rows of `CALLEE`; -1 if no tenant needs them."""
    dimension_counts: npt.NDArray[np.int32]
    dimensions: npt.NDArray[np.int32]
    client_slots: npt.NDArray[np.int32]
    """Per dimension: where an edge keeps what its client's side says."""
    server_slots: npt.NDArray[np.int32]
    slot_counts: npt.NDArray[np.int32]
    virtual_slots: npt.NDArray[np.int32]
    """Where an edge keeps which of its nodes is virtual; -1: nowhere."""
    limit_counts: npt.NDArray[np.int32]
    limits_ns: npt.NDArray[np.int64]
    kinds: HistogramKinds


def needs(settings: ServiceGraphsSettings) -> Iterator[tuple[str, int]]:
    """The attributes to look for, and on which spans (bits of `streams.attribute_keys`)."""
    for key in settings.peer_attributes:
        yield key, CLIENT_SIDE | SERVER_SIDE
    for key in (*settings.database_name_attributes, *CALLEE):
        yield key, CLIENT_SIDE
    for key in graph_dimensions(settings):
        yield key, CLIENT_SIDE | SERVER_SIDE


def service_graphs_plan(
    every: Sequence[ServiceGraphsSettings | None], kinds: HistogramKinds, rows: Mapping[str, int]
) -> ServiceGraphsPlan:
    """The plan of tenants in their order; `rows` are the key rows of attributes."""
    peers = [[rows[key] for key in s.peer_attributes] if s else [] for s in every]
    databases = [[rows[key] for key in s.database_name_attributes] if s else [] for s in every]
    dimensions = [[rows[key] for key in graph_dimensions(s)] if s else [] for s in every]
    slots = [edge_slots(s) if s else EdgeSlots((), (), (), -1) for s in every]
    limits = [limits_ns(layout_of(s.histogram_buckets)) if s else [] for s in every]
    return ServiceGraphsPlan(
        active=np.array([s is not None for s in every], np.bool_),
        latency=np.array([s is not None and s.latency for s in every], np.bool_),
        messaging=np.array([s is not None and _measures_queues(s) for s in every], np.bool_),
        wait_ms=np.array([s.wait_ms if s else 0 for s in every], np.int64),
        max_items=np.array([s.max_items if s else 0 for s in every], np.int64),
        peer_counts=counts(peers),
        peers=ragged(peers).astype(np.int32),
        database_counts=counts(databases),
        databases=ragged(databases).astype(np.int32),
        callee=np.array([rows.get(key, -1) for key in CALLEE], np.int32),
        dimension_counts=counts(dimensions),
        dimensions=ragged(dimensions).astype(np.int32),
        client_slots=ragged([s.client for s in slots]).astype(np.int32),
        server_slots=ragged([s.server for s in slots]).astype(np.int32),
        slot_counts=counts([s.names for s in slots]),
        virtual_slots=np.array([s.virtual for s in slots], np.int32),
        limit_counts=counts(limits),
        limits_ns=ragged(limits),
        kinds=kinds,
    )


class EdgeSlots(NamedTuple):
    """Where an edge keeps the values of its dimensions, in the order in which they become labels (Tempo SG-12, SG-24).

    With prefixes a dimension has two slots, one for each side. `virtual_node` has one, the last, without a prefix.
    """

    names: tuple[str, ...]
    client: tuple[int, ...]
    server: tuple[int, ...]
    virtual: int


def edge_slots(settings: ServiceGraphsSettings) -> EdgeSlots:
    """The slots that a tenant's edges have."""
    names: list[str] = []
    client: list[int] = []
    server: list[int] = []
    for dimension in settings.dimensions:
        prefixes = ("client_", "server_") if settings.enable_client_server_prefix else ("",)
        client.append(len(names))
        server.append(len(names) + len(prefixes) - 1)
        names.extend(prefix + dimension for prefix in prefixes)
    virtual = -1
    if settings.enable_virtual_node_label:
        virtual = len(names)
        client.append(virtual)
        server.append(virtual)
        names.append(VIRTUAL_NODE)
    return EdgeSlots(tuple(names), tuple(client), tuple(server), virtual)


def graph_dimensions(settings: ServiceGraphsSettings) -> tuple[str, ...]:
    """The attributes that become labels of edges, one per pair of slots."""
    return (*settings.dimensions, VIRTUAL_NODE) if settings.enable_virtual_node_label else settings.dimensions


def _measures_queues(settings: ServiceGraphsSettings) -> bool:
    return settings.latency and settings.enable_messaging_system_latency_histogram
