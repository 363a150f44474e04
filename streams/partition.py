"""One partition of `[spans]`: its records, in order, become closed windows and checkpoints.

Everything follows from the records: fed in any chunks, or taken up again at any checkpoint, they give the same windows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from schemas.checkpoint import Checkpoint
from schemas.config import TenantSettings
from schemas.config.rules import MAX_HALF_EDGE_BYTES
from schemas.control import ConfigChange, encode_control
from schemas.deltas import Window
from schemas.errors import Malformed
from schemas.ledger_counters import (
    DROPPED_SIDE_OVERFLOWS,
    EDGE_SPANS_ALONE,
    EDGE_SPANS_DROPPED,
    EDGE_SPANS_JOINED,
    EDGES,
    EDGES_DROPPED,
    EDGES_EXPIRED,
    EDGES_FORGOTTEN,
    EDGES_MEASURED,
    EDGES_OUTGROWN,
    INVALID_UTF8,
    RECORDS_LOST,
    RECORDS_UNREADABLE,
    SPANS_MEASURED,
    SPANS_WITHOUT_TARGET_INFO,
)
from schemas.otlp import Codec, SpanFrame, scan_records
from schemas.record import DEFAULT_TENANT, Record
from schemas.rules_in_force import RulesInForce
from streams import host_info, service_graphs, span_metrics
from streams.edges import ALONE, COUNTERPARTS, DROPPED, JOINED, MADE, OUTGROWN, OVERFLOWS
from streams.filters import Filters
from streams.host_info import HostInfo
from streams.intake import LedgerCounts, count_choices, count_intake, within_slack
from streams.interner import Interner
from streams.plan import Plan, SettingsOf
from streams.rows import LabelCache, window_rows
from streams.rules_in_force import at_window, decided, heard
from streams.service_graphs import ServiceGraphs, Waiting
from streams.span_columns import (
    KIND_CLIENT,
    KIND_CONSUMER,
    KIND_PRODUCER,
    KIND_SERVER,
    span_columns,
)
from streams.span_metrics import KIND_TEXTS, SpanMetrics, SpanMetricsCaches
from streams.target_info import TargetInfoCache
from streams.windows import window_end

_EDGE_COUNTERS = (
    (MADE, EDGES),
    (DROPPED, EDGE_SPANS_DROPPED),
    (COUNTERPARTS, EDGES_DROPPED),
    (OVERFLOWS, DROPPED_SIDE_OVERFLOWS),
    (JOINED, EDGE_SPANS_JOINED),
    (ALONE, EDGE_SPANS_ALONE),
    (OUTGROWN, EDGES_OUTGROWN),
)
"""The columns of edges' counts that are a counter each."""

NOTHING_LOST: Mapping[int, int] = {}
MAX_FRAME_BYTES = 64 << 20
"""Records that are decoded together have so many bytes at most, unless one alone has more."""


@dataclass(frozen=True, slots=True)
class Closing:
    """What one record closed: one window or two, and the checkpoint that holds when they are delivered.

    The record itself, which the checkpoint names, isn't applied yet.
    """

    windows: tuple[Window, ...]
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that isn't what its codec says, whole; no span of the message at fault was measured."""

    offset: int
    timestamp_ms: int
    position: int
    reason: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Fed:
    """What some records gave, in the order of the log."""

    closings: tuple[Closing, ...]
    rejected: tuple[Rejected, ...]


class PartitionFold:
    """The state of one partition: the open window, the half-edges that wait, and the rules in force.

    The rules are the checkpoint's, and then those of configuration records, each from its window on. Without any in the
    checkpoint `settings_of` and `max_half_edge_bytes` decide, and such records are passed over. Not safe for use from
    several threads at once.
    """

    def __init__(
        self,
        settings_of: SettingsOf,
        interval_ms: int,
        codec: Codec,
        checkpoint: Checkpoint | None = None,
        max_half_edge_bytes: int = MAX_HALF_EDGE_BYTES,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        start = Checkpoint.initial(0) if checkpoint is None else checkpoint
        self._given, self._given_max_half_edge_bytes = settings_of, max_half_edge_bytes
        self._interval_ms, self._codec, self._max_frame_bytes = interval_ms, codec, max_frame_bytes
        self._span_caches = SpanMetricsCaches(LabelCache("service"), TargetInfoCache())
        self._edge_labels = LabelCache("server")
        self._next_offset = start.next_offset
        self._stream_time_ms = start.stream_time_ms
        self._previous_end_ms = start.previous_end_ms
        self._rules, self._given_revision, self._shards = start.rules, start.revision, start.shards
        self._tenants: dict[str, TenantSettings] = {}
        self._waiting = Waiting(start.half_edges, start.dropped_sides)
        self._open_end_ms = None if start.stream_time_ms is None else self._end_of(start.stream_time_ms)
        self._open(self._open_end_ms)

    @property
    def next_offset(self) -> int:
        """The offset after the last record that was fed."""
        return self._next_offset

    @property
    def open_end_ms(self) -> int | None:
        """The end of the open window; None before the first record."""
        return self._open_end_ms

    @property
    def spans_partitions(self) -> int:
        """How many partitions deliver the open window, by the rules in force; 0 if these don't say."""
        if self._rules is None or self._open_end_ms is None:
            return 0
        return self._rules.spans_partitions(self._open_end_ms)

    @property
    def stream_time_ms(self) -> int | None:
        """The greatest timestamp so far; None before the first record."""
        return self._stream_time_ms

    @property
    def rules(self) -> RulesInForce | None:
        """The rules in force and the next ones, as far as records were fed; None if they aren't the log's."""
        return self._rules

    @property
    def tenants(self) -> Mapping[str, TenantSettings]:
        """The settings that were in force when a tenant was last seen."""
        return self._tenants

    def feed(self, records: Sequence[Record], lost_before: Mapping[int, int] = NOTHING_LOST) -> Fed:
        """Take over records in the order of their offsets. Raises ValueError for one that comes again.

        `lost_before`: how many records retention took before those at some offsets. They count as lost in the window
        that was open then, which the checkpoint knows, so whoever takes up the partition there counts them there again.
        """
        closings: list[Closing] = []
        rejected: list[Rejected] = []
        for run, stream_ms in self._runs(records):
            if self._open_end_ms is None:
                self._open_end_ms = self._end_of(int(stream_ms[0]))
            self._lose(lost_before, run[:1])
            closing = self._advance(run[0], int(stream_ms[0]))
            if closing is not None:
                closings.append(closing)
            self._lose(lost_before, run[1:])
            rejected += self._fold(run, stream_ms)
            self._stream_time_ms = int(stream_ms[-1])
            self._next_offset = run[-1].offset + 1
        return Fed(tuple(closings), tuple(rejected))

    def close_all(self) -> list[Window]:
        """The end of a bounded input: windows close in turn until no half-edge waits. Feed nothing then."""
        if self._open_end_ms is None:
            return []
        windows = [self._close(self._open_end_ms)]
        while True:
            end = windows[-1].end_ms + self._interval_ms
            self._open(end)
            if not self._graphs.waiting:
                return windows
            windows.append(self._close(end))

    def _lose(self, lost_before: Mapping[int, int], records: Sequence[Record]) -> None:
        """Count what was lost before records, of whichever tenants it was."""
        if lost_before and (lost := sum(lost_before.get(record.offset, 0) for record in records)):
            self._counts.add(RECORDS_LOST, DEFAULT_TENANT, lost)

    def _end_of(self, timestamp_ms: int) -> int:
        return window_end(timestamp_ms, self._interval_ms)

    def _runs(self, records: Sequence[Record]) -> Iterator[tuple[Sequence[Record], npt.NDArray[np.int64]]]:
        """The records of each window in turn, each with the stream time at it, in runs that are decoded at once."""
        if not records:
            return
        offsets = np.array([self._next_offset - 1, *(record.offset for record in records)])
        if (np.diff(offsets) <= 0).any():
            raise ValueError(f"records from {records[0].offset} on, where {self._next_offset} or later is next")
        stream_ms = np.maximum.accumulate(np.array([record.timestamp_ms for record in records], np.int64))
        if self._stream_time_ms is not None:
            stream_ms = np.maximum(stream_ms, self._stream_time_ms)
        sizes = np.cumsum([len(record.value) for record in records])
        pieces = stream_ms // self._interval_ms, sizes // self._max_frame_bytes
        ends = np.flatnonzero((np.diff(pieces[0]) != 0) | (np.diff(pieces[1]) != 0)) + 1
        start = 0
        for end in (*ends.tolist(), len(records)):
            yield records[start:end], stream_ms[start:end]
            start = end

    def _advance(self, record: Record, stream_ms: int) -> Closing | None:
        """Close what a record closes: the open window and, if half-edges wait, the last one before the record's."""
        end = self._end_of(stream_ms)
        assert self._open_end_ms is not None, "a record opens a window"
        if end <= self._open_end_ms:
            return None
        windows = [self._close(self._open_end_ms)]
        before = end - self._interval_ms
        if before > self._open_end_ms:
            self._open(before)
            if self._graphs.waiting:
                windows.append(self._close(before))
        self._open_end_ms = end
        self._open(end)
        checkpoint = Checkpoint(
            next_offset=record.offset,
            next_timestamp_ms=record.timestamp_ms,
            stream_time_ms=stream_ms,
            previous_end_ms=self._previous_end_ms,
            revision=self._revision,
            half_edges=self._waiting.half_edges,
            dropped_sides=self._waiting.dropped_sides,
            rules=self._rules,
            shards=self._shards,
        )
        return Closing(tuple(windows), checkpoint)

    @property
    def _revision(self) -> int:
        return self._given_revision if self._rules is None else self._rules.current.revision

    def _open(self, end_ms: int | None) -> None:
        """Begin the window that ends then, by its rules, with nothing but the half-edges that wait.

        Also a process that goes on does it from the table that the checkpoint holds, so that it can't differ from one
        that starts there.
        """
        settings_of, max_half_edge_bytes = self._given, self._given_max_half_edge_bytes
        if self._rules is not None:
            if end_ms is not None:
                self._rules = at_window(self._rules, end_ms)
            rules = self._rules.current.rules
            settings_of, max_half_edge_bytes = rules.settings_of, rules.max_half_edge_bytes
        self._plan, self._interner, self._counts = Plan(settings_of), Interner(), LedgerCounts()
        self._filters = Filters(self._plan, self._interner)
        self._spans = SpanMetrics(self._plan, self._interner, self._span_caches)
        self._hosts = HostInfo(self._plan, self._interner)
        self._graphs = ServiceGraphs(self._plan, self._interner, self._edge_labels, self._waiting, max_half_edge_bytes)

    def _fold(self, records: Sequence[Record], stream_ms: npt.NDArray[np.int64]) -> list[Rejected]:
        """Add records of the open window; control records tell the time, and rules that follow."""
        unread = [rejected for record in records for rejected in self._hear(record)]
        unreadable = len(unread) + sum(record.unreadable for record in records)
        if unreadable:
            self._counts.add(RECORDS_UNREADABLE, DEFAULT_TENANT, unreadable)
        chosen = [row for row, record in enumerate(records) if record.control is None]
        if not chosen:
            return unread
        scanned = [records[row] for row in chosen]
        self._plan.include(record.tenant for record in scanned)
        self._tenants.update(zip(self._plan.tenants, self._plan.settings, strict=True))
        frame = scan_records(scanned, self._plan.keys, self._codec)
        tenants = np.array([self._plan.numbers[tenant] for tenant in frame.tenants], np.int32)
        tenant_of_record = tenants[frame.records.tenant]
        within = within_slack(frame, self._plan, tenant_of_record)
        count_intake(self._counts, frame, self._plan, tenant_of_record, within)
        measured = within & ~frame.records.no_metrics[frame.spans.record]
        columns = span_columns(frame, self._plan, self._interner, tenant_of_record, stream_ms[chosen], measured)
        columns = self._filters.applied(columns)
        count_choices(self._counts, self._plan, columns, within)
        self._spans.fold(columns)
        self._graphs.fold(columns)
        self._hosts.fold(frame, tenant_of_record, columns)
        for row in sorted({error.record for error in frame.errors}):
            self._counts.add(RECORDS_UNREADABLE, scanned[row].tenant, 1)
        return sorted([*unread, *_rejected(frame, scanned)], key=attrgetter("offset"))

    def _hear(self, record: Record) -> Iterator[Rejected]:
        """Take over what a configuration record decides; gives the record if that can't be read."""
        if not isinstance(record.control, ConfigChange) or self._rules is None:
            return
        assert self._open_end_ms is not None, "a record opens a window"
        try:
            change = decided(record.control, self._interval_ms)
        except Malformed as error:
            yield Rejected(record.offset, record.timestamp_ms, 0, str(error), encode_control(record.control))
        else:
            self._rules = heard(self._rules, change, self._open_end_ms + self._interval_ms)

    def _close(self, end_ms: int) -> Window:
        """Close the window that was opened last."""
        self._graphs.expire(end_ms)
        spans, edges = self._spans.close(), self._graphs.rows()
        host_rows, invalid_hosts = self._hosts.close()
        for processor, invalid in (
            (span_metrics.PROCESSOR, spans.invalid),
            (service_graphs.PROCESSOR, edges.invalid),
            (host_info.PROCESSOR, invalid_hosts),
        ):
            for tenant, count in invalid.items():
                self._counts.add_discarded(tenant, count, INVALID_UTF8, processor)
        self._count_spans(spans)
        self._count_edges(edges)
        window = Window(
            end_ms=end_ms,
            previous_end_ms=self._previous_end_ms,
            rows=window_rows([*spans.rows, edges.rows, host_rows]),
            layouts=tuple(self._plan.layouts),
            ledger=self._counts.ledger(),
            revision=self._revision,
            spans_partitions=0 if self._rules is None else self._rules.spans_partitions(end_ms),
        )
        self._previous_end_ms, self._waiting = end_ms, self._graphs.left_waiting()
        return window

    def _count_spans(self, spans: span_metrics.Closed) -> None:
        for tenant, count in spans.measured.items():
            self._counts.add(SPANS_MEASURED, tenant, count, processor=span_metrics.PROCESSOR)
        for tenant, count in spans.without_target_info.items():
            self._counts.add(SPANS_WITHOUT_TARGET_INFO, tenant, count)

    def _count_edges(self, edges: service_graphs.Edges) -> None:
        for (tenant, connection), count in edges.measured.items():
            self._counts.add(EDGES_MEASURED, tenant, count, connection_type=connection)
        for tenant, count in self._graphs.forgotten.items():
            self._counts.add(EDGES_FORGOTTEN, tenant, count)
        for tenant, counts in zip(self._plan.tenants, self._graphs.counts().tolist(), strict=False):
            for column, counter in _EDGE_COUNTERS:
                if counts[column]:
                    self._counts.add(counter, tenant, counts[column])
            for kind in (KIND_SERVER, KIND_CLIENT, KIND_PRODUCER, KIND_CONSUMER):
                if counts[kind]:
                    self._counts.add(EDGES_EXPIRED, tenant, counts[kind], unmatched_span_kind=KIND_TEXTS[kind].decode())


def _rejected(frame: SpanFrame, records: Sequence[Record]) -> list[Rejected]:
    """The records of a frame that could not be read whole, each once, with its first error."""
    first = {error.record: error for error in reversed(frame.errors)}
    return [
        Rejected(records[row].offset, records[row].timestamp_ms, error.position, error.reason, records[row].value)
        for row, error in sorted(first.items())
    ]
