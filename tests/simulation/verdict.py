"""Whether what is stored is what the logs say.

Two pure functions of what was ever appended are computed, each log once and in one go. The *ideal*: windows of folded
partitions, delivered in order. The *logged*: batches and control records of `[deltas]` as they stand there. Where
nothing in the log shifts counts from one window to another the endpoints must hold the ideal, else the logged, and
counts must be conserved. Nothing of it knows processes.

There are several ideals where an app was begun by processes of different rules: the first windows are by those of
whoever sends them first. Then the logged counts.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

from schemas.checkpoint import Checkpoint, decode_checkpoint
from schemas.config import TenantSettings
from schemas.control import ConfigChange, Tick
from schemas.deltas import Batch, Window, encode_window
from schemas.errors import Malformed
from schemas.metric_families import WINDOW_MARKER
from schemas.otlp import Codec
from schemas.record import Record
from schemas.record_format import RecordFormat
from schemas.remote_write import encode_write_request
from schemas.rules_in_force import RulesInForce
from streams.partition import PartitionFold
from streams.shard import Item, Shard, Unreadable, WindowSamples
from tests.simulation import prometheus
from tests.simulation.kafka import Log
from tests.simulation.load import MOST_SPANS
from tests.simulation.plan import LOSING, SHIFTING
from tests.simulation.prometheus import Labels, Point, Store, bits, decoded
from tests.simulation.schedule import GENERATOR, Schedule
from tests.simulation.settings import INTERVAL_MS, live

RECEIVED = "spanmill_ledger_spans_received_total"
REQUESTS = "traces_service_graph_request_total"
BUCKETS = "traces_service_graph_request_server_seconds_bucket"
EDGES = (REQUESTS, BUCKETS)
COUNTERS = ("traces_spanmetrics_calls_total", "traces_spanmetrics_latency_count", *EDGES, RECEIVED)
"""Of which sums are compared where counts may shift."""
LOST_RECORDS = "spanmill_ledger_records_lost_total"
LOST_BATCHES = ("spanmill_ledger_chain_gaps_total", "spanmill_ledger_gap_windows_total")

Stored = dict[str, dict[Labels, list[Point]]]
"""Points by tenant and series."""


def problems(schedule: Schedule) -> list[str]:
    """What is wrong; nothing if all is well."""
    found = [f"{name} failed: {error!r}" for name, error in schedule.unexpected]
    if schedule.stuck:
        return [*found, schedule.stuck]
    ideal = Reference(schedule, _ideal(schedule))
    shifts = schedule.plan.flavour in SHIFTING
    wanted = Reference(schedule, _logged(schedule)) if shifts or _begun_twice(schedule) else ideal
    for number, server in enumerate(schedule.servers):
        got = _until(schedule.target_ms, {tenant: store.series for tenant, store in server.stores.items()})
        about = [f"a counter fell without a reset: {dict(labels)}" for labels in _falls(got)][:1]
        about += [
            f"{count} refused: {kind} with another value for its time"
            for (kind, why), count in sorted(server.refused.items())
            if why.startswith("duplicate")
        ]
        if schedule.batches_lost:
            about += _unsaid_loss(got, ideal)
        else:
            about += _differences(got, wanted.stored, server)
        found += [f"endpoint {number}: {what}" for what in about]
    if shifts and not schedule.batches_lost:
        found += _shifted(schedule, wanted, ideal)
    if schedule.plan.flavour not in LOSING:
        found += _received(schedule, wanted)
    return found


class Reference:
    """What an endpoint should hold of some windows."""

    def __init__(self, schedule: Schedule, windows: Iterable[WindowSamples]) -> None:
        stores: dict[str, Store] = {}
        for window in windows:
            if window.end_ms <= schedule.target_ms:
                for tenant in window.tenants:
                    store = stores.setdefault(tenant.tenant, Store())
                    for at_ms, samples in (
                        (tenant.start_ms, tenant.zeros),
                        (tenant.restart_ms, tenant.restarts),
                        (window.end_ms, tenant.values),
                        (getattr(window, "stale_ms", window.end_ms), tenant.stale),
                    ):
                        for sample in samples:
                            if isinstance(sample.value, float):
                                exemplar = sample.exemplar and (
                                    sample.exemplar.labels,
                                    sample.exemplar.value,
                                    sample.exemplar.timestamp_ms,
                                )
                                pair = sample.series.labels, Point(at_ms, bits(sample.value), exemplar)
                            else:
                                (pair,) = decoded(encode_write_request([sample.row(at_ms)]))
                            if not store.refusal(*pair, 0):
                                store.put(*pair)
        self.stored = _until(schedule.target_ms, {tenant: store.series for tenant, store in stores.items()})


def _until(target_ms: int, stores: Mapping[str, Mapping[Labels, list[Point]]]) -> Stored:
    return {
        tenant: {
            labels: kept
            for labels, points in series.items()
            if ("__name__", WINDOW_MARKER) not in labels
            and (kept := [point for point in points if point.at_ms <= target_ms])
        }
        for tenant, series in stores.items()
    }


def _differences(got: Stored, wanted: Stored, server: prometheus.Prometheus) -> Iterator[str]:
    """The first differing series of each kind of difference."""
    told = Counter[str]()
    first: dict[str, str] = {}
    for tenant in sorted({*got, *wanted}):
        mine, theirs = got.get(tenant, {}), wanted.get(tenant, {})
        for labels in sorted({*mine, *theirs}):
            a, b = mine.get(labels, []), theirs.get(labels, [])
            if a == b or _begins_later(a, b):
                continue
            extra = [p for p in a if p not in b]
            missing = [p for p in b if p not in a and not server.refused_as_too_old(tenant, p.at_ms, INTERVAL_MS)]
            for what, points in (("too much", extra), ("missing", missing)):
                if points:
                    told[what] += 1
                    first.setdefault(
                        what, f"{tenant} {dict(labels)} {_text(points)}; stored {_text(a)}, expected {_text(b)}"
                    )
    for what, count in told.items():
        yield f"{count} series differ from the log's, {what}: {first[what]}"


def _begins_later(stored: list[Point], expected: list[Point]) -> bool:
    """Whether what is too much is the zero of a series that begins, or comes back, in a window behind the target.

    It has the time of the window before, and between the two there may be windows with nothing.
    """
    return len(stored) == len(expected) + 1 and stored[:-1] == expected and stored[-1].is_zero


def _text(points: Iterable[Point]) -> str:
    return " ".join(f"{p.number:g}@{p.at_ms % 10_000_000 / 1000:g}{'*' if p.exemplar else ''}" for p in points)


def _falls(got: Stored) -> Iterator[Labels]:
    for series in got.values():
        for labels, points in series.items():
            name = dict(labels)["__name__"]
            if name.endswith(("_total", "_count", "_bucket")):
                numbers = [p.number for p in points if not math.isnan(p.number)]  # without stale markers
                if any(b < a and b for a, b in pairwise(numbers)):
                    yield labels


def increase(stored: Stored, metric: str) -> Counter[str]:
    """By tenant, what PromQL sees of a metric: every fall is a reset."""
    total: Counter[str] = Counter()
    for tenant, series in stored.items():
        for labels, points in series.items():
            if ("__name__", metric) in labels:
                last = 0.0
                for point in points:
                    value = point.number
                    if not math.isnan(value):
                        total[tenant] += round(value - last if value >= last else value)
                        last = value
    return total


def _shifted(schedule: Schedule, wanted: Reference, ideal: Reference) -> Iterator[str]:
    """Counts that aren't conserved, but for records that were lost, as the stages say.

    The ledger may not say it: a window that was sent before the loss, and is computed again after it, stays as it was.
    The other half of an edge of such a window is alone then, and may become an edge to a virtual node in a later one.
    """
    lost = schedule.records_lost + _taken_unseen(schedule)
    for metric in COUNTERS:
        if lost and metric in (EDGES if schedule.plan.first == "few edges" else (BUCKETS,)):
            continue  # an edge without the half that was lost has another latency, and leaves room for others
        a, b = increase(wanted.stored, metric), increase(ideal.stored, metric)
        fewer = a.total() < b.total()
        alone = metric == REQUESTS and a.total() <= b.total() + lost * MOST_SPANS
        if a != b and not (lost and (fewer or alone)):
            yield f"{metric} adds up to {dict(a)} instead of {dict(b)}, and {lost} records were counted as lost"


def _unsaid_loss(got: Stored, ideal: Reference) -> Iterator[str]:
    """Counts that are too high; or too low, and nothing says so."""
    said = sum(increase(got, metric).total() for metric in LOST_BATCHES)
    for metric in COUNTERS:
        a, b = increase(got, metric), increase(ideal.stored, metric)
        if a.total() > b.total() or (a != b and not said):
            yield f"{metric} adds up to {dict(a)} instead of {dict(b)}, and {said} gaps were counted"


def _received(schedule: Schedule, wanted: Reference) -> Iterator[str]:
    """The ledger's spans against those that were made."""
    counted = increase(wanted.stored, RECEIVED)
    if counted != schedule.spans_appended:
        yield f"{dict(counted)} spans in the ledger, {dict(schedule.spans_appended)} in the log"


# --------------------------------------------------------------------------------------------------- pure functions
def _ideal(schedule: Schedule) -> Iterator[WindowSamples]:
    """Each partition folded once, windows delivered in order."""
    partitions = len(schedule.cluster.topics[schedule.names.spans])
    closed = [(window.end_ms, p, window) for p in range(partitions) for window in _folded(schedule, p)]
    shards = [_new_shard(schedule, number) for number in range(schedule.plan.shards)]
    for number, shard in enumerate(shards):
        for change in _effective_changes(schedule, number):
            shard.feed(shard.next_offset, change)
    for _, p, window in sorted(closed, key=lambda entry: entry[:2]):
        for shard, parts in zip(shards, encode_window(window, p, window.spans_partitions, len(shards)), strict=True):
            for part in parts:
                yield from shard.feed(shard.next_offset, schedule.decode_batch(part)).windows


def _beginnings(schedule: Schedule) -> Iterator[list[Checkpoint]]:
    """By partition, the first checkpoints: there are several where one was on its way when the next process began."""
    for log in schedule.cluster.topics[GENERATOR]:
        saved = [decode_checkpoint(record.value) for record in log.all if record.value is not None]
        yield [each for each in saved if each.stream_time_ms is None]


def _begun_twice(schedule: Schedule) -> bool:
    """Whether a partition has first checkpoints of different rules."""
    return any(
        len({first.rules.current.rules.packed for first in beginnings if first.rules is not None}) > 1
        for beginnings in _beginnings(schedule)
    )


def _taken_unseen(schedule: Schedule) -> int:
    """How many records retention took between two beginnings: the later process can't know that they were there."""
    offsets = [[first.next_offset for first in beginnings] for beginnings in _beginnings(schedule)]
    return sum(max(each) - min(each) for each in offsets if each)


def _folded(schedule: Schedule, partition: int) -> Iterator[Window]:
    name = schedule.names.spans
    log, changelog = schedule.cluster.topics[name][partition], schedule.cluster.topics[GENERATOR][partition]
    if not changelog.all:
        return
    first = changelog.all[0].value
    assert first is not None
    records = list(_records(schedule, log, partition))
    for checkpoint, read in _stretches(schedule, partition, decode_checkpoint(first), records):
        fold = PartitionFold(no_settings, INTERVAL_MS, Codec.OTLP, checkpoint)
        for closing in fold.feed(read).closings:
            for window in closing.windows:
                yield window
                if window.end_ms > schedule.target_ms:
                    return


def _stretches(
    schedule: Schedule, partition: int, first: Checkpoint, records: list[Record]
) -> Iterator[tuple[Checkpoint, list[Record]]]:
    """A log as it is folded: of a topic that was replaced what the last checkpoint had seen, then the new one."""
    if schedule.cut_at is None:
        yield first, [record for record in records if record.offset >= first.next_offset]
        return
    length, saved = schedule.cut_at[partition]
    checkpoint = first if saved is None else decode_checkpoint(saved)
    yield first, records[: checkpoint.next_offset + 1]
    yield checkpoint.restarted(0), records[length:]


def _records(schedule: Schedule, log: Log, partition: int) -> Iterator[Record]:
    form = RecordFormat(Codec.OTLP, controls=schedule.keys.at(schedule.names.spans, partition))
    for record in log.all:
        try:
            yield form.parse(record.offset, record.timestamp, record.key, record.value, record.headers)
        except Malformed:
            yield Record(record.offset, record.timestamp, b"", unreadable=True)


def _logged(schedule: Schedule) -> Iterator[WindowSamples]:
    """Each shard fed once with all that `[deltas]` ever held."""
    for number in range(schedule.plan.shards):
        shard = _new_shard(schedule, number)
        for offset, item in _items(schedule, number):
            with suppress(Malformed):  # rules that can't be read
                yield from shard.feed(offset, item).windows


def _items(schedule: Schedule, number: int) -> Iterator[tuple[int, Item]]:
    name = schedule.names.deltas
    controls = schedule.keys.at(name, number)
    for record in schedule.cluster.topics[name][number].all:
        try:
            item = schedule.decode_batch(record.value) if record.value else controls.read(record.headers)
        except Malformed as error:
            item = Unreadable(str(error))
        if not isinstance(item, Tick):
            yield record.offset, item


def _effective_changes(schedule: Schedule, number: int) -> Iterator[ConfigChange]:
    """The configuration records of a shard, each with the window from which it held there."""
    items = list(_items(schedule, number))
    changes = [(offset, item) for offset, item in items if isinstance(item, ConfigChange)]
    ends = {offset: item.end_ms for offset, item in items if isinstance(item, Batch)}
    in_time = all(
        item.from_end_ms > end_ms for offset, item in changes for other, end_ms in ends.items() if other < offset
    )
    if in_time:
        yield from (item for _, item in changes)
        return
    shard = _new_shard(schedule, number)
    for offset, item in items:
        if isinstance(item, ConfigChange):
            earliest_ms = 0 if shard.end_ms is None else shard.end_ms + INTERVAL_MS
            yield replace(item, from_end_ms=max(item.from_end_ms, earliest_ms))
        with suppress(Malformed):
            shard.feed(offset, item)


def _new_shard(schedule: Schedule, number: int) -> Shard:
    rules = live(schedule.plan.first, schedule.plan.work, schedule.directory).rules
    return Shard(
        number,
        no_settings,
        INTERVAL_MS,
        RulesInForce.initial(rules),
        provisional=True,
        stale_markers=schedule.plan.work.stale_markers,
    )


def no_settings(tenant: str) -> TenantSettings:
    """The log's rules decide."""
    raise AssertionError(tenant)
