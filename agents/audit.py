"""`spanmill audit`: adds up what all stages counted, and says whether it is what the log holds, while they run.

It reads what the stages have saved first, and then the topics up to that, once and in chunks: its memory doesn't grow
with them. Prometheus is asked for the ledger's series at the windows of the snapshots.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from agents import kafka
from agents.control_keys import control_keys
from agents.replay.bookmark import current
from agents.replay.files import InputError
from agents.replay.topic import Range, Topic
from agents.topic_record import TopicRecord
from agents.topics import TopicNames
from schemas.config import Config, tenant_settings
from schemas.errors import Malformed
from schemas.otlp import Codec, scan_records
from schemas.record import Record
from schemas.record_format import RecordFormat
from schemas.snapshot import Cut
from streams.delta_records import delta_item
from streams.ledger_audit import Check, Evidence, Saved, ShardTally, checks
from streams.series import ledger_series

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found. `notes` say what couldn't be compared, and what is in flight."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...]

    @property
    def balances(self) -> bool:
        """Whether nothing is missing anywhere, and nothing too much."""
        return all(each.balances for each in self.checks)

    def lines(self) -> Iterator[str]:
        """The report as text: a line for each check, and what is to be said about it below."""
        width = max((len(each.stage) for each in self.checks), default=0)
        tenants = max((len(each.tenant) for each in self.checks), default=0)
        for each in self.checks:
            mark = "ok   " if each.balances else "WRONG"
            yield f"{mark} {each.stage:{width}}  {each.tenant:{tenants}}  {_amounts(each)}".rstrip()
            yield from (f"        {note}" for note in each.notes)
        yield from (f"note: {note}" for note in self.notes)
        wrong = sum(not each.balances for each in self.checks)
        yield f"{wrong} of {len(self.checks)} don't balance" if wrong else f"all {len(self.checks)} balance"

    def json(self) -> str:
        """The same for programs."""
        found = [
            {
                "stage": each.stage,
                "tenant": each.tenant,
                "unit": each.unit,
                "came": each.came,
                "found": each.found,
                "difference": each.difference,
                "fates": {str(fate): count for fate, count in each.fates.items()},
                "notes": each.notes,
            }
            for each in self.checks
        ]
        return json.dumps({"balances": self.balances, "checks": found, "notes": self.notes}, indent=2)


def audit(config: Config, prometheus: str | None = None) -> Report:
    """Audit an app. Raises InputError if a topic or Prometheus can't be read."""
    notes: list[str] = []
    evidence = _evidence(config, notes)
    found = list(checks(evidence))
    if prometheus is not None:
        found += _in_prometheus(config, evidence.saved, prometheus, notes)
    if not found:
        notes.append("no stage has saved a window yet: there is nothing to compare")
    return Report(tuple(found), tuple(notes))


def _amounts(check: Check) -> str:
    parts = [f"{count} {fate}" for fate, count in check.fates.items()] or [str(check.found)]
    said = f"{check.came} {check.unit} = {' + '.join(parts)}"
    return said if check.balances else f"{said}, difference {check.difference}"


def _evidence(config: Config, notes: list[str]) -> Evidence:
    names, settings = TopicNames.of(config), kafka.client_settings(config)
    bookmark = current(config)
    try:
        state = Saved(bookmark.decoded_checkpoints(), bookmark.cuts(), bookmark.shards)
    except Malformed as error:
        raise InputError(f"what the stages saved can't be read: {error}") from error
    with closing(Topic(settings, names.deltas)) as deltas:
        tallies = {shard: _tally(config, deltas, shard, state, notes) for shard in deltas.ends}
    with closing(Topic(settings, names.spans)) as spans:
        received = _spans(config, spans, state, notes)
    dead_letters = None
    topic = Topic.if_there(settings, names.dead_letters)
    if topic is not None:
        with closing(topic):
            dead_letters = _dead_letters(topic, names.spans, state, notes)
    return Evidence(state, received, dead_letters, tallies)


def _tally(config: Config, deltas: Topic, shard: int, state: Saved, notes: list[str]) -> ShardTally:
    """What a shard's partition holds."""
    ends = deltas.ends[shard]
    tally = ShardTally(shard, state, config.metrics_generator.registry.collection_interval_ms, begins=not ends.low)
    controls = control_keys(config).at(deltas.name, shard)
    for record in _records(deltas, shard, ends.high):
        try:
            item = delta_item(record.value, record.headers, controls)
        except Malformed:
            continue  # a control record that isn't ours: nobody takes notice of it
        if item is not None:
            tally.take(record.offset, item)
    if not tally.begins:
        notes.append(f"{deltas.name}/{shard} begins at offset {ends.low}: its batches aren't held against the sink's")
    if tally.in_flight:
        notes.append(f"{deltas.name}/{shard}: {tally.in_flight} batches since the newest snapshot")
    return tally


def _spans(config: Config, topic: Topic, state: Saved, notes: list[str]) -> Counter[str] | None:
    """The spans before the checkpoints, by tenant; None if retention has taken some."""
    codec, headers, keys = Codec(config.metrics_generator.codec), config.spanmill.tenant_headers, control_keys(config)
    found: Counter[str] = Counter()
    whole = True
    for partition, ends in topic.ends.items():
        checkpoint = state.checkpoints.get(partition)
        end = 0 if checkpoint is None else checkpoint.next_offset
        if ends.low:
            notes.append(f"{topic.name}/{partition} begins at offset {ends.low}: spans aren't held against the log's")
            whole = False
        if ends.high > end:
            notes.append(f"{topic.name}/{partition}: {ends.high - end} records since the newest checkpoint")
        form = RecordFormat(codec, headers, keys.at(topic.name, partition))
        left = Range(ends.low, min(end, ends.high))
        while whole and left.position < left.end:
            found.update(spans_of(topic.read(partition, left), form))
    return found if whole else None


def spans_of(records: Sequence[TopicRecord], form: RecordFormat) -> Counter[str]:
    """The spans of records by tenant; those that can't be read have none."""
    parsed = [record for each in records if (record := _parsed(each, form)) is not None]
    found: Counter[str] = Counter()
    if parsed:
        frame = scan_records(parsed, (), form.codec)
        rows = frame.records.tenant[frame.resources.record]
        for row, spans in zip(rows.tolist(), frame.resources.spans.tolist(), strict=True):
            found[frame.tenants[row]] += spans
    return found


def _parsed(record: TopicRecord, form: RecordFormat) -> Record | None:
    try:
        parsed = form.parse(*record)
    except Malformed:
        return None
    return parsed if parsed.control is None else None


def _dead_letters(topic: Topic, spans: str, state: Saved, notes: list[str]) -> int | None:
    """Records of `[spans]` before the checkpoints that are among the dead letters, each once."""
    found: set[tuple[int, int]] = set()
    for partition, ends in topic.ends.items():
        if ends.low:
            notes.append(f"{topic.name}/{partition} begins at offset {ends.low}: dead letters aren't counted")
            return None
        for record in _records(topic, partition, ends.high):
            place = _place(record, spans)
            if place is not None and _is_before(place, state):
                found.add(place)
    return len(found)


def _is_before(place: tuple[int, int], state: Saved) -> bool:
    checkpoint = state.checkpoints.get(place[0])
    return checkpoint is not None and place[1] < checkpoint.next_offset


def _place(record: TopicRecord, spans: str) -> tuple[int, int] | None:
    """Partition and offset of a dead letter that is a record of `[spans]`."""
    said = {name: value or b"" for name, value in record.headers}
    if said.get("topic") != spans.encode():
        return None
    return int(said["partition"]), int(said["offset"])


def _records(topic: Topic, partition: int, end: int) -> Iterator[TopicRecord]:
    left = Range(topic.ends[partition].low, end)
    while left.position < left.end:
        yield from topic.read(partition, left)


def _in_prometheus(config: Config, state: Saved, url: str, notes: list[str]) -> Iterator[Check]:
    """The ledgers of snapshots against their series at the snapshots' windows."""
    for shard, cut in sorted(state.cuts.items()):
        found = _vector(url, '{__name__=~"spanmill_ledger_.+"}', cut.end_ms)
        for tenant in sorted({entry.tenant for entry in cut.ledger}):
            external = _external_labels(config, cut, tenant)
            if external is None:
                notes.append(f"{tenant}: not written at the window {cut.end_ms} of sink {shard}")
                continue
            own = [entry for entry in cut.ledger if entry.tenant == tenant]
            wrong = [
                f"{series.labels}: {float(entry.total)} in the shard, {value} in Prometheus"
                for entry in own
                if (series := ledger_series(entry.key, external))
                and (value := found.get(series.labels)) != float(entry.total)
            ]
            right = len(own) - len(wrong)
            yield Check(f"sink {shard} to Prometheus", tenant, "series", len(own), right, tuple(wrong[:5]))


def _external_labels(config: Config, cut: Cut, tenant: str) -> tuple[tuple[str, str], ...] | None:
    """Of a tenant's series; None if it isn't written at the snapshot's window."""
    rules = None if cut.rules is None else cut.rules.current.rules
    settings = tenant_settings(config, tenant) if rules is None else rules.settings_of(tenant)
    due = settings.collects and cut.end_ms % settings.collection_interval_ms == 0
    return settings.external_labels if due else None


def _vector(url: str, query: str, at_ms: int) -> Mapping[tuple[tuple[str, str], ...], float]:
    """The series of an instant query by their sorted labels."""
    asked = urllib.parse.urlencode({"query": query, "time": at_ms / 1000})
    address = f"{url.rstrip('/')}/api/v1/query?{asked}"
    if not address.startswith(("http://", "https://")):
        raise InputError(f"{url}: an address of Prometheus such as http://localhost:9090 is wanted")
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:  # noqa: S310  its scheme is checked above
            result = json.load(answer)["data"]["result"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{url}: no answer to a query: {error}") from error
    return {tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in result}
