"""Replay of a file, as a log of one partition."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from agents.replay.files import FileRecord, Form, open_input, read_records
from agents.replay.request import Pipelines, Rejects, Request, progress
from schemas.otlp import Codec, scan_records
from schemas.record import Record
from streams.partition import Rejected

NS_PER_MS = 1_000_000


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


def feed_file(pipelines: Pipelines, request: Request, rejects: Rejects, chunk_bytes: int) -> None:
    """Feed all records of the request's file. Raises InputError if it can't be read to its end."""
    name = request.source or "-"
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
            for rejected in pipelines.feed(0, records):
                rejects.add(_where(name, readable[rejected.offset - offset]), reason(rejected))
            offset += len(records)
            advance(chunk[-1].position - done)
            done = chunk[-1].position
    if request.close is not False:
        pipelines.close()


def reason(rejected: Rejected) -> str:
    """Why a record couldn't be read."""
    return f"{rejected.reason} at byte {rejected.position} of the record"


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


def _size(file: BinaryIO) -> int | None:
    """Bytes of a file, None for a pipe."""
    return os.fstat(file.fileno()).st_size or None
