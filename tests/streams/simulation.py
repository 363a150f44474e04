"""A world around the product's pure functions: logs, tables, agents, endpoints, one small step at a time.

The folding, the batches, the shards, the snapshots and the checkpoints are the product's own, down to their bytes. What
runs them is as small as it can be, so that a scheduler can crash, duplicate or pause anything between any two steps.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from schemas.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from schemas.config import TenantSettings, load_config
from schemas.config.rules import Rules
from schemas.control import ConfigChange, Control, Tick, Waiver, decode_control, encode_control
from schemas.deltas import Batch, decode_batch, encode_window
from schemas.otlp import Codec
from schemas.record import Record
from schemas.rules_in_force import RulesInForce
from schemas.snapshot import newest_snapshot, obsolete_keys, snapshot_records
from streams.partition import PartitionFold
from streams.shard import Cut, Outcome, Sample, Shard, WindowSamples
from streams.windows import window_end

INTERVAL_MS = 15_000
WAIT_MS = 22_000
CHECKPOINT_EVERY, SNAPSHOT_EVERY, QUEUE = 2, 1, 2
SNAPSHOT_LIMIT = 500
"""Bytes of a snapshot's records: small, so that there are several."""

CONFIG = """
metrics_generator:
  processor:
    service_graphs: {{wait: 22s}}
    span_metrics: {{histogram_buckets: {buckets}}}
  registry: {{stale_duration: 60s}}
overrides:
  defaults:
    metrics_generator: {{processors: [service-graphs, span-metrics], max_active_series: {limit}, {more}}}
"""
OTHER_BUCKETS = {"buckets": "[0.1, 0.5, 1]", "more": ""}
OTHER_LABELS = {"buckets": "[0.1, 1]", "more": "processor: {span_metrics: {intrinsic_dimensions: {span_kind: false}}}"}


class GapError(Exception):
    """A batch is out of its chain, which never happens if the protocol holds."""


Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Message:
    """A record of `[deltas]`: a part of a batch, or a control record."""

    value: bytes
    is_control: bool = False

    def item(self) -> Batch | Waiver | ConfigChange:
        if not self.is_control:
            return decode_batch(self.value)
        control = decode_control(self.value)
        assert not isinstance(control, Tick)
        return control


def request(service: str, trace: int, side: int, end_ms: int, took_ms: int) -> bytes:
    """One half of a request between two services: the client's span, or the server's, its child."""
    client = side == Span.SPAN_KIND_CLIENT
    span = Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=(trace * 2 + client).to_bytes(8, "big"),
        parent_span_id=b"" if client else (trace * 2 + 1).to_bytes(8, "big"),
        name=f"op-{trace % 3}",
        kind=side,
        start_time_unix_nano=(end_ms - took_ms) * 1_000_000,
        end_time_unix_nano=end_ms * 1_000_000,
    )
    if client:
        span.attributes.append(KeyValue(key="peer.service", value=AnyValue(string_value="outside")))
    name = KeyValue(key="service.name", value=AnyValue(string_value=service))
    scope = ScopeSpans(spans=[span])
    return TracesData(
        resource_spans=[ResourceSpans(resource=Resource(attributes=[name]), scope_spans=[scope])]
    ).SerializeToString()


class World:
    """The logs, what survives a crash, and the clock of the brokers."""

    def __init__(self, limit: int = 0, partitions: int = 2, shards: int = 2) -> None:
        first = {"buckets": "[0.1, 1]", "more": ""}
        configs = (CONFIG.format(limit=limit, **each) for each in (first, OTHER_BUCKETS, OTHER_LABELS))
        self.rules = [Rules.of(load_config(None, config)) for config in configs]
        self.changes: list[ConfigChange] = []
        self.shards, self.now_ms = shards, 1_000_000
        self.spans: list[list[Record]] = [[] for _ in range(partitions)]
        self.skew_ms = [0] * partitions
        self.checkpoints = [[encode_checkpoint(self.beginning)] for _ in range(partitions)]
        self.deltas: list[list[Message]] = [[] for _ in range(shards)]
        self.snapshots: list[dict[bytes, bytes]] = [{} for _ in range(shards)]
        self.written_snapshots: list[list[tuple[bytes, bytes]]] = [[] for _ in range(shards)]
        self.prometheus = Prometheus()
        self.writers = 0

    @property
    def known(self) -> RulesInForce:
        """The rules that hold until the first change."""
        return RulesInForce.initial(self.rules[0])

    @property
    def beginning(self) -> Checkpoint:
        return Checkpoint.initial(0, self.known)

    def change_rules(self, number: int) -> None:
        """A process that has other rules appends them, everywhere and from one window on."""
        from_end_ms = window_end(self.now_ms, INTERVAL_MS) + 2 * INTERVAL_MS
        change = ConfigChange(len(self.changes) + 1, from_end_ms, self.rules[number].packed, "", len(self.spans))
        self.changes.append(change)
        for p in range(len(self.spans)):
            self.append(p, b"", control=change)
        for log in self.deltas:
            log.append(Message(encode_control(change), is_control=True))

    def append(self, p: int, value: bytes, tenant: str = "one", control: Control | None = None) -> None:
        """LogAppendTime: the broker's clock, which may step back when the leader changes."""
        record = Record(len(self.spans[p]), self.now_ms + self.skew_ms[p], value, tenant, control=control)
        self.spans[p].append(record)

    def add_partition(self) -> int:
        self.spans.append([])
        self.skew_ms.append(0)
        self.checkpoints.append([encode_checkpoint(self.beginning)])
        return len(self.spans) - 1

    def fold(self, checkpoint: bytes) -> PartitionFold:
        return PartitionFold(no_settings, INTERVAL_MS, Codec.OTLP, decode_checkpoint(checkpoint))

    def new_shard(self, shard: int, cut: Cut | None = None) -> Shard:
        if cut is None:
            return Shard(shard, no_settings, INTERVAL_MS, self.known)
        return Shard.restore(cut, no_settings, INTERVAL_MS)


def no_settings(tenant: str) -> TenantSettings:
    raise AssertionError("the log's rules decide")


class Generator:
    """An owner of one source partition. A zombie is simply another one that has not been told to stop."""

    def __init__(self, world: World, p: int) -> None:
        self.world, self.p = world, p
        self.fold = world.fold(world.checkpoints[p][-1])
        self.outbox: list[tuple[int | None, bytes]] = []
        """Shard and part, or None and a checkpoint."""
        self.closed = 0

    def read(self, most: int) -> bool:
        log = self.world.spans[self.p]
        chunk = log[self.fold.next_offset : self.fold.next_offset + most]
        if not chunk or len(self.outbox) > 8:
            return False
        for closing in self.fold.feed(chunk).closings:
            for window in closing.windows:
                encoded = encode_window(window, self.p, len(self.world.spans), self.world.shards)
                self.outbox += [(shard, part) for shard, parts in enumerate(encoded) for part in parts]
            self.closed += len(closing.windows)
            if self.closed >= CHECKPOINT_EVERY:
                self.closed = 0
                self.outbox.append((None, encode_checkpoint(closing.checkpoint)))
        return True

    def send(self, choose: Callable[[Sequence[int]], int], *, duplicate: bool = False) -> bool:
        """One message leaves and is acknowledged; `duplicate`: the first answer was lost and the producer retried.

        Records of one partition stay in order. A checkpoint waits for all that was to be sent before it.
        """
        first: dict[int | None, int] = {}
        for i, (to, _) in enumerate(self.outbox):
            if to is None and i:
                break
            first.setdefault(to, i)
        if not first:
            return False
        to, value = self.outbox.pop(choose(sorted(first.values())))
        if to is None:
            self.world.checkpoints[self.p].append(value)
        else:
            self.world.deltas[to].extend([Message(value)] * (2 if duplicate else 1))
        return True

    def flush(self) -> None:
        while self.send(lambda ready: ready[0]):
            pass

    def tick(self) -> None:
        if self.fold.next_offset >= len(self.world.spans[self.p]):
            self.world.append(self.p, b"", control=Tick(self.fold.open_end_ms or 0))


class Sink:
    """An owner of one shard."""

    def __init__(self, world: World, shard: int) -> None:
        self.world, self.index = world, shard
        world.writers += 1
        self.writer = world.writers.to_bytes(2, "big")
        found = newest_snapshot(world.snapshots[shard], shard)
        self.shard = world.new_shard(shard, found and found.cut)
        self.queue: list[tuple[WindowSamples, Cut | None]] = []
        self.requests: list[list[Row]] | None = None
        self.table_writes: list[tuple[bytes, bytes | None]] = []
        self.since = 0

    def read(self) -> bool:
        log = self.world.deltas[self.index]
        if self.shard.next_offset >= len(log) or len(self.queue) >= QUEUE:
            return False
        fed = self.shard.feed(self.shard.next_offset, log[self.shard.next_offset].item())
        if fed.outcome is Outcome.GAP:
            raise GapError(f"shard {self.index} at {self.shard.next_offset - 1}")
        for window in fed.windows:
            self.queue.append((window, self.shard.snapshot() if window is fed.windows[-1] else None))
        return True

    def hold_back(self) -> None:
        """The timer has expired for one partition, and there is nothing more to read."""
        missing, end_ms = self.shard.missing(), self.shard.waiting_ms
        if missing and end_ms is not None and self.shard.next_offset >= len(self.world.deltas[self.index]):
            waiver = encode_control(Waiver(missing[0], end_ms))
            self.world.deltas[self.index].append(Message(waiver, is_control=True))

    def write(self) -> bool:
        """One request to Prometheus, one record of a snapshot, or the bookkeeping after a window."""
        if self.table_writes:
            self._write_table(*self.table_writes.pop(0))
            return True
        if not self.queue:
            return False
        if self.requests is None:
            self.requests = requests(self.queue[0][0])
        return self._send() if self.requests else self._acknowledged()

    def _send(self) -> bool:
        assert self.requests is not None
        request = self.requests[0]
        answer = self.world.prometheus.write(request)
        if answer == "unavailable":
            return False
        self.requests.pop(0)
        if answer is None:
            return True
        if len(request) > 1:
            half = len(request) // 2
            self.requests[:0] = [request[:half], request[half:]]
        elif dict(request[0].key)["__name__"] == MARKER:
            self.requests = []  # a later window is complete there: so is this one
        return True

    def _acknowledged(self) -> bool:
        _, cut = self.queue.pop(0)
        self.requests = None
        self.since += 1
        if cut is not None and self.since >= SNAPSHOT_EVERY:
            self.since = 0
            self.table_writes += snapshot_records(cut, self.writer, SNAPSHOT_LIMIT)
            self.table_writes += [(key, None) for key in obsolete_keys(self.world.snapshots[self.index], cut)]
        return True

    def _write_table(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.world.snapshots[self.index].pop(key, None)
        else:
            self.world.snapshots[self.index][key] = value
            self.world.written_snapshots[self.index].append((key, value))


MARKER = "marker"


@dataclass(frozen=True)
class Row:
    """A sample as an endpoint sees it."""

    key: Key
    at_ms: int
    value: float
    exemplar: object = None


def requests(window: WindowSamples, size: int = 25) -> list[list[Row]]:
    """A window as requests: the marker, zeros, values."""
    marker = Row((("__name__", MARKER), ("shard", str(window.shard))), window.end_ms, window.end_ms)
    out = [[marker]]
    for tenant in window.tenants:
        out += [[row] for row in rows(tenant.zeros, tenant.tenant, tenant.start_ms)]
        out += [[row] for row in rows(tenant.restarts, tenant.tenant, tenant.restart_ms)]
    for tenant in window.tenants:
        values = rows(tenant.values, tenant.tenant, window.end_ms)
        out += [values[at : at + size] for at in range(0, len(values), size)]
    return out


def rows(samples: Sequence[Sample], tenant: str, at_ms: int) -> list[Row]:
    """Samples of a tenant's, each tenant being a Prometheus of its own."""
    return [Row((("", tenant), *s.series.labels), at_ms, s.value, s.exemplar) for s in samples]


class Prometheus:
    """Remote write as Prometheus does it: a request is all or nothing; only the newest sample may be repeated."""

    def __init__(self) -> None:
        self.series: dict[Key, list[Row]] = {}
        self.up, self.lose_answer = True, False
        self.requests, self.refused = 0, Counter[str]()

    def write(self, request: Sequence[Row]) -> str | None:
        if not self.up:
            return "unavailable"
        self.requests += 1
        for row in request:
            newest = self.series.get(row.key, [row])[-1]
            reason = None
            if row.at_ms < newest.at_ms:
                reason = "out of order"
            elif row.at_ms == newest.at_ms and row != newest:
                reason = "duplicate"
            if reason is not None:
                self.refused[reason] += 1
                return reason
        for row in request:
            samples = self.series.setdefault(row.key, [])
            if not samples or samples[-1].at_ms < row.at_ms:
                samples.append(row)
        if self.lose_answer:
            self.lose_answer = False
            return "unavailable"
        return None


def reference(world: World) -> dict[Key, list[Row]]:
    """The pure function: every log folded once, in one process, windows in order."""
    closed = []
    for p in range(len(world.spans)):
        fold = world.fold(encode_checkpoint(world.beginning))
        for closing in fold.feed(world.spans[p]).closings:
            closed += [(window.end_ms, p, window) for window in closing.windows]
    shards = [world.new_shard(s) for s in range(world.shards)]
    for shard in shards:
        for change in world.changes:
            shard.feed(shard.next_offset, change)
    out: dict[Key, list[Row]] = {}
    for _, p, window in sorted(closed, key=lambda entry: entry[:2]):
        encoded = encode_window(window, p, len(world.spans), world.shards)
        for shard, parts in zip(shards, encoded, strict=True):
            for part in parts:
                for completed in shard.feed(shard.next_offset, decode_batch(part)).windows:
                    for request in requests(completed)[1:]:
                        for row in request:
                            out.setdefault(row.key, []).append(row)
    return out
