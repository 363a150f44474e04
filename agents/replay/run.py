"""`spanmill replay`: read a file or a topic, fold it, write the samples and the report."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from agents import kafka
from agents.control_keys import control_keys
from agents.replay.files import FileRecord, Form, open_input, read_records
from agents.replay.output import Samples, report, report_text, write_files
from agents.replay.topic import TopicReader, TopicRecord, parse_bound
from agents.topics import TopicNames
from schemas.config import Config, TenantSettings, tenant_settings
from schemas.config.rules import Rules
from schemas.control import ConfigChange
from schemas.deltas import LedgerKey
from schemas.errors import Malformed
from schemas.otlp import Codec, scan_records
from schemas.record import Record
from schemas.record_format import RecordFormat
from streams.partition import Rejected
from streams.pipeline import Pipeline

CHUNK_BYTES = 4 << 20
NS_PER_MS = 1_000_000
TOLD_AT_MOST = 10
"""Malformed records that are named one by one; the report has their number."""
REJECTED = LedgerKey("spanmill_dead_letters_total", (("reason", "malformed"),))

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be replayed, and where to. `source` None: the topic.

    `own_config`: go by the configuration, not by the one that the topic's records name.
    """

    source: str | None
    output: str
    last: bool = False
    report: Path | None = None
    topic: str | None = None
    start: str | None = None
    end: str | None = None
    close: bool | None = None
    form: str | None = None
    tenant: str | None = None
    shards: int = 1
    own_config: bool = False


def run(config: Config, request: Request, chunk_bytes: int = CHUNK_BYTES) -> None:
    """Replay. Nothing is written unless the input was read to its end.

    Raises `InputError` for an input that can't be read, OSError for an output that can't be written.
    """
    samples = Samples(request.tenant, last=request.last)
    rejects = Rejects()
    if request.source is not None:
        pipeline = replay_file(config, request, samples, rejects, chunk_bytes)
    else:
        pipeline = replay_topic(config, request, samples, rejects, chunk_bytes)
    rejects.summary()
    contents: dict[str, Iterable[bytes]] = {request.output: samples.text()}
    if request.report is not None:
        counted = pipeline.ledger | ({REJECTED: rejects.count} if rejects.count else {})
        contents[str(request.report)] = [report_text(report(counted))]
    write_files(contents)


class Rejects:
    """Records that are malformed: named on standard error, counted, passed over."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, where: str, reason: str) -> None:
        """Count one, and name the first few."""
        self.count += 1
        if self.count <= TOLD_AT_MOST:
            sys.stderr.write(f"spanmill: {where}: {reason}: passed over\n")

    def summary(self) -> None:
        """Say how many weren't named."""
        if self.count > TOLD_AT_MOST:
            sys.stderr.write(f"spanmill: {self.count - TOLD_AT_MOST} more malformed records passed over\n")


def settings_of(config: Config) -> Callable[[str], TenantSettings]:
    """A tenant's settings, computed once."""

    @cache
    def of(tenant: str) -> TenantSettings:
        return tenant_settings(config, tenant)

    return of


class FileClock:
    """Timestamps for the records of a file: the largest span end in each, else the stream time before it."""

    def __init__(self) -> None:
        self._stream_time_ms = 0

    def timestamps(self, values: Sequence[bytes]) -> list[int]:
        """A timestamp in ms for each value, in the file's order."""
        frame = scan_records([Record(i, 0, value) for i, value in enumerate(values)], (), Codec.OTLP)
        ends_ns = np.zeros(len(values), dtype=np.uint64)
        np.maximum.at(ends_ns, frame.spans.record, frame.spans.end_ns)
        stamped = []
        for end_ms in (ends_ns // NS_PER_MS).tolist():
            at = end_ms or self._stream_time_ms
            self._stream_time_ms = max(self._stream_time_ms, at)
            stamped.append(at)
        return stamped


def replay_file(
    config: Config, request: Request, samples: Samples, rejects: Rejects, chunk_bytes: int = CHUNK_BYTES
) -> Pipeline:
    """Replay a file as a log of one partition, through one shard."""
    name = request.source or "-"
    interval_ms = config.metrics_generator.registry.collection_interval_ms
    pipeline = Pipeline(settings_of(config), interval_ms, Codec.OTLP, samples.add)
    clock, offset, done = FileClock(), 0, 0
    with open_input(name) as file, progress(name, _size(file)) as advance:
        for chunk in _chunks(read_records(name, file, Form(request.form) if request.form else None), chunk_bytes):
            readable = [record for record in chunk if record.error is None]
            for record in chunk:
                if record.error is not None:
                    rejects.add(_where(name, record), str(record.error))
            stamps = clock.timestamps([record.value for record in readable])
            records = [
                Record(offset + i, at, record.value)
                for i, (record, at) in enumerate(zip(readable, stamps, strict=True))
            ]
            for rejected in pipeline.feed(0, records):
                rejects.add(_where(name, readable[rejected.offset - offset]), _reason(rejected))
            offset += len(records)
            advance(chunk[-1].position - done)
            done = chunk[-1].position
    if request.close is not False:
        pipeline.close()
    return pipeline


def _chunks(records: Iterable[FileRecord], max_bytes: int) -> Iterator[list[FileRecord]]:
    chunk: list[FileRecord] = []
    size = 0
    for record in records:
        chunk.append(record)
        size += len(record.value)
        if size >= max_bytes:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _where(name: str, record: FileRecord) -> str:
    return f"{name}: record {record.number} at byte {record.position}"


def _reason(rejected: Rejected) -> str:
    return f"{rejected.reason} at byte {rejected.position} of the record"


def _size(file: BinaryIO) -> int | None:
    """Bytes of a file, None for a pipe."""
    return os.fstat(file.fileno()).st_size or None


def replay_topic(
    config: Config, request: Request, samples: Samples, rejects: Rejects, chunk_bytes: int = CHUNK_BYTES
) -> Pipeline:
    """Replay a range of the spans topic, with as many shards as the deltas topic has partitions."""
    topic = request.topic or TopicNames.of(config).spans
    bounds = [None if text is None else parse_bound(text) for text in (request.start, request.end)]
    codec = Codec(config.metrics_generator.codec)
    keys = control_keys(config)
    with closing(TopicReader(kafka.client_settings(config), topic, *bounds)) as reader:
        if reader.starts_inside:
            sys.stderr.write("spanmill: the range starts inside the log: cumulative values begin at 0 there\n")
        pipeline = Pipeline(
            settings_of(config),
            config.metrics_generator.registry.collection_interval_ms,
            codec,
            samples.add,
            partitions=len(reader.ranges),
            shards=request.shards,
            rules=None if request.own_config else Rules.of(config),
        )
        changes = 0
        with progress(topic, reader.records) as advance:
            for partition, read in reader.chunks(pipeline.stream_time_ms, chunk_bytes):
                where = f"{topic}/{partition}"
                form = RecordFormat(codec, config.spanmill.tenant_headers, keys.at(topic, partition))
                records = [_parse(form, each, rejects, where) for each in read]
                changes += sum(isinstance(record.control, ConfigChange) for record in records)
                for rejected in pipeline.feed(partition, records):
                    rejects.add(f"{where}: offset {rejected.offset}", _reason(rejected))
                advance(len(read))
    if request.own_config and changes:
        sys.stderr.write(
            f"spanmill: {changes} configuration records passed over (--own-config): these aren't the samples that the "
            "live stages made\n"
        )
    if request.close:
        pipeline.close()
    return pipeline


def _parse(form: RecordFormat, record: TopicRecord, rejects: Rejects, where: str) -> Record:
    try:
        return form.parse(*record)
    except Malformed as error:
        rejects.add(f"{where}: offset {record.offset}", str(error))
        return Record(record.offset, record.timestamp_ms, b"")  # its timestamp still moves the stream time


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """A bar on standard error if that is a terminal, nothing otherwise; takes what was done since the last call."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, advance=done)
