"""`spanmill replay`: read a file or a topic, fold it, write the samples and the report."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

from agents.options import with_remote_write_only
from agents.replay.files import InputError
from agents.replay.from_file import feed_file
from agents.replay.from_topic import OpenTopics, feed_topic, open_topics
from agents.replay.labelled import Labelled
from agents.replay.output import Samples, report, report_text, write_files
from agents.replay.plan import Plan
from agents.replay.remote import RemoteWriter
from agents.replay.request import TOLD_AT_MOST, Pipelines, Rejects, Request, say
from agents.replay.topic import CHUNK_BYTES
from schemas.config import Config, TenantSettings, load_all, tenant_settings
from schemas.deltas import LedgerKey
from schemas.otlp import Codec
from streams.pipeline import Pipeline
from streams.scripted_shard import Difference
from streams.shard import WindowSamples

REJECTED = LedgerKey("spanmill_dead_letters_total", (("reason", "malformed"),))
FILE = Plan(shards=1, rules=None, starts={})

Take = Callable[[WindowSamples], None]


class NotLiveError(Exception):
    """Samples that aren't the live stages', where these were wanted or would be written over; the message says why."""


def run(config: Config, request: Request, chunk_bytes: int = CHUNK_BYTES) -> None:
    """Replay. No file is written unless the input was read to its end.

    Raises `InputError` for an input that can't be read, OSError for an output that can't be written, and `NotLiveError`
    for samples that would be written over live's, or if a batch isn't the deltas topic's; then all is written first.
    """
    samples, rejects = Samples(request.tenant, last=request.last), Rejects()
    with ExitStack() as opened:
        topics = None if request.source is not None else opened.enter_context(open_topics(config, request))
        replay_id = _replay_id(request, topics)
        takes: list[Take] = [] if request.output is None else [samples.add]
        writer = None
        if request.remote_write is not None:
            _check_label(topics, replay_id)
            target = with_remote_write_only(config, request.remote_write)
            writer = opened.enter_context(RemoteWriter(target, replay_id=replay_id, tenant=request.tenant))
            takes.append(writer.add)
        pipeline = _pipeline(config, topics, request, _labelled(takes, replay_id))
        pipelines, other = Pipelines(pipeline), Samples(request.tenant, last=request.last)
        if request.compare is not None:
            takes = [other.add]
            pipelines = Pipelines(
                pipeline, _other(config, load_all(request.compare), topics, _labelled(takes, replay_id))
            )
        if topics is None:
            feed_file(pipelines, request, rejects, chunk_bytes)
        else:
            feed_topic(config, topics, pipelines, request, rejects, chunk_bytes)
        for line in () if writer is None else writer.summary():
            say(line)
    rejects.summary()
    _write(request, pipeline, rejects, samples.text() if request.compare is None else samples.unlike(other))
    _judge(request, pipeline)


def settings_of(config: Config) -> Callable[[str], TenantSettings]:
    """A tenant's settings, computed once."""

    @cache
    def of(tenant: str) -> TenantSettings:
        return tenant_settings(config, tenant)

    return of


def _pipeline(config: Config, topics: OpenTopics | None, request: Request, take: Take) -> Pipeline:
    plan = FILE if topics is None else topics.plan
    return Pipeline(
        settings_of(config),
        config.metrics_generator.registry.collection_interval_ms,
        Codec.OTLP if topics is None else Codec(config.metrics_generator.codec),
        take,
        partitions=1 if topics is None else len(topics.spans.ends),
        shards=plan.shards,
        rules=plan.rules,
        beginning=plan.beginning,
        scripts=None if request.compare is not None else plan.scripts,
        warm_up_ms=plan.warm_up_ms,
        stale_markers=config.spanmill.sink.stale_markers,
    )


def _other(config: Config, other: Config, topics: OpenTopics | None, take: Take) -> Pipeline:
    """The pipeline of a configuration that is compared: it goes by nothing else."""
    if topics is not None and topics.plan.beginning.cuts:
        raise InputError("another configuration can't be compared from a bookmark: what was saved is of this one")
    plan = FILE if topics is None else topics.plan
    own = topics and OpenTopics(topics.spans, replace(plan, rules=None, scripts=None))
    # How the input is written belongs to the input.
    other = other.replace(metrics_generator=other.metrics_generator.replace(codec=config.metrics_generator.codec))
    return _pipeline(other, own, Request(None, None), take)


def _labelled(takes: Sequence[Take], replay_id: str) -> Take:
    labelled = Labelled(replay_id) if replay_id else None

    def take(window: WindowSamples) -> None:
        window = window if labelled is None else labelled.window(window)
        for each in takes:
            each(window)

    return take


def _replay_id(request: Request, topics: OpenTopics | None) -> str:
    """The value of the label that all series get; empty: none. Says why the samples aren't live's, if so."""
    if topics is None:
        return request.replay_id or ""
    replay_id = request.replay_id
    if replay_id is None:
        replay_id = request.range_id if topics.plan.inside else ""
    for why in topics.plan.differs:
        say(f"not the samples that the live stages wrote: {why}")
    if replay_id:
        say(f'all series have the label replay="{replay_id}"')
    return replay_id


def _check_label(topics: OpenTopics | None, replay_id: str) -> None:
    """Live's series are written by live, and by a replay that writes the same."""
    if replay_id or (topics is not None and not topics.plan.differs):
        return
    why = "the input is a file" if topics is None else "; ".join(topics.plan.differs)
    raise NotLiveError(
        f"the series would be those of the live stages, and their samples aren't: {why}. Give the replay a name, which "
        "its series get as a label (--id)"
    )


def _write(request: Request, pipeline: Pipeline, rejects: Rejects, text: Iterable[bytes]) -> None:
    contents: dict[str, Iterable[bytes]] = {}
    if request.output is not None:
        contents[request.output] = text
    if request.report is not None:
        counted = pipeline.ledger | ({REJECTED: rejects.count} if rejects.count else {})
        contents[str(request.report)] = [report_text(report(counted))]
    write_files(contents)


def _judge(request: Request, pipeline: Pipeline) -> None:
    """Say which batches of the deltas topic aren't what was computed; raises `NotLiveError` if any isn't."""
    if pipeline.waiting and request.end is not None and not request.close:
        say("the range ends: the windows that need what comes after it aren't complete")
    found = [*map(_about, pipeline.differences)]
    if pipeline.waiting and request.end is None and not request.close:
        found.append(f"{pipeline.waiting} shards have batches of windows that the records don't close")
    for line in found[:TOLD_AT_MOST]:
        say(line)
    if found:
        raise NotLiveError(
            f"{len(found)} batches of the deltas topic aren't what the records give: the live stages had another "
            "configuration when they began, or another version of this program, or one of the two computed wrongly; "
            "the samples are those of what was computed now"
        )


def _about(difference: Difference) -> str:
    at = datetime.fromtimestamp(difference.end_ms / 1000, UTC).isoformat()
    return (
        f"shard {difference.shard}, offset {difference.offset} of its deltas: the batch of partition "
        f"{difference.partition} for the window that ends at {at} {difference.unlike}"
    )
