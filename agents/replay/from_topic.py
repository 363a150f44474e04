"""Replay of a range of the spans topic, by what the deltas topic says."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from agents import kafka
from agents.control_keys import control_keys
from agents.replay import bookmark
from agents.replay.from_file import reason
from agents.replay.plan import Plan, from_bookmark, from_range
from agents.replay.request import Pipelines, Rejects, Request, progress, say
from agents.replay.script import DeltaScripts
from agents.replay.topic import Topic, TopicReader, parse_bound
from agents.topic_record import TopicRecord
from agents.topics import TopicNames
from schemas.config import Config
from schemas.control import ConfigChange
from schemas.errors import Malformed
from schemas.otlp import Codec
from schemas.record import Record
from schemas.record_format import RecordFormat


class OpenTopics:
    """The topics of a replay, and its plan."""

    def __init__(self, spans: Topic, plan: Plan) -> None:
        self.spans, self.plan = spans, plan


@contextmanager
def open_topics(config: Config, request: Request) -> Iterator[OpenTopics]:
    """The topics while the context lasts. Raises InputError.

    The deltas topic is opened first: what it holds then was made of what the spans topic holds later.
    """
    names, settings, keys = TopicNames.of(config), kafka.client_settings(config), control_keys(config)
    start = None if request.start is None else parse_bound(request.start)
    with ExitStack() as opened:
        is_live = request.topic in {None, names.spans}
        deltas = Topic.if_there(settings, names.deltas) if is_live else None
        scripts = None
        if deltas is not None:
            opened.enter_context(closing(deltas))
            scripts = DeltaScripts(deltas, keys)
        spans = opened.enter_context(closing(Topic(settings, request.topic or names.spans)))
        if request.bookmark is not None:
            plan = from_bookmark(config, request, bookmark.read(request.bookmark), spans, scripts)
        else:
            plan = from_range(config, request, start, spans, scripts, is_live=is_live)
        yield OpenTopics(spans, plan)


def feed_topic(
    config: Config, topics: OpenTopics, pipelines: Pipelines, request: Request, rejects: Rejects, chunk_bytes: int
) -> None:
    """Feed the records of the request's range."""
    spans, keys = topics.spans, control_keys(config)
    codec, tenants = Codec(config.metrics_generator.codec), config.spanmill.tenant_headers
    forms = {p: RecordFormat(codec, tenants, keys.at(spans.name, p)) for p in spans.ends}
    reader = TopicReader(spans, topics.plan.starts, None if request.end is None else parse_bound(request.end))
    changes = 0
    with progress(spans.name, reader.records) as advance:
        for partition, read in reader.chunks(pipelines.first.stream_time_ms, chunk_bytes):
            where = f"{spans.name}/{partition}"
            records = [_parse(forms[partition], each, rejects, where) for each in read]
            changes += sum(isinstance(record.control, ConfigChange) for record in records)
            for rejected in pipelines.feed(partition, records):
                rejects.add(f"{where}: offset {rejected.offset}", reason(rejected))
            advance(len(read))
    if request.own_config and changes:
        say(f"{changes} configuration records passed over (--own-config)")
    if request.close:
        pipelines.close()


def _parse(form: RecordFormat, record: TopicRecord, rejects: Rejects, where: str) -> Record:
    try:
        return form.parse(*record)
    except Malformed as error:
        rejects.add(f"{where}: offset {record.offset}", str(error))
        return Record(record.offset, record.timestamp_ms, b"", unreadable=True)  # its timestamp moves the stream time
