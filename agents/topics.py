"""The topics that Spanmill needs: their names, what makes them, and what is wrong with those that are there."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from agents import kafka
from schemas.config import Config
from schemas.deltas import MAX_BATCH_BYTES

log = structlog.get_logger(__name__)

CHANGELOG_MAX_RECORD_BYTES = 20_000_000
"""What a changelog takes: a checkpoint is one record, whatever it holds (its state is bounded to fit)."""

RECORD_OVERHEAD_BYTES = 16_384
"""For headers and the batch around a record (Tempo §13.1 keeps the same distance)."""

MIN_RETENTION_MS = 24 * 3600 * 1000
"""Retention is how long a stage may be down without loss."""

DURABLE_REPLICAS = 3
"""From so many replicas on, two may be asked to have a record without one broker's restart stopping everything."""

BROKER_MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's own default of `max.message.bytes`: no new topic takes less."""

ADMIN_TIMEOUT_S = 15.0
CHANGE_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class TopicNames:
    """Everything of ours that has a name in Kafka. These are on-wire identities: a test locks them."""

    spans: str
    deltas: str
    dead_letters: str
    generator_app: str
    """Faust's app id, hence also the consumer group."""
    sink_app: str
    ingester_group: str
    distributor_group: str
    """Of distributors that share rates: it consumes nothing."""

    @classmethod
    def of(cls, config: Config) -> Self:
        """The names of a configuration."""
        topics, app_id = config.spanmill.topics, config.spanmill.app_id
        return cls(
            spans=topics.spans,
            deltas=topics.deltas,
            dead_letters=topics.dead_letters,
            generator_app=f"{app_id}_generator",
            sink_app=f"{app_id}_sink",
            ingester_group=f"{app_id}_ingester",
            distributor_group=f"{app_id}_distributor",
        )

    @property
    def checkpoints(self) -> str:
        """The generator's changelog, of the name that Faust gives it."""
        return f"{self.generator_app}-checkpoints-changelog"

    @property
    def snapshots(self) -> str:
        """The sink's changelog, of the name that Faust gives it."""
        return f"{self.sink_app}-snapshots-changelog"

    @property
    def all(self) -> tuple[str, ...]:
        """The topics, a changelog before the topic it belongs to: the order in which they are made and grown."""
        return (self.dead_letters, self.snapshots, self.deltas, self.checkpoints, self.spans)


class TopicsError(Exception):
    """The topics aren't as they must be; the message says what to do."""


class TopicExistsError(TopicsError):
    """A topic that is to be made is there already."""


class OtherShardsError(Exception):
    """The deltas topic has other partitions than the app has written to; the message says what to do."""


def check_shards(deltas: str, app: str, shards: int, saved: int) -> None:
    """Raise `OtherShardsError` if what an app saved belongs to other shards than there are now; 0: it doesn't say."""
    if saved not in {0, shards}:
        raise OtherShardsError(
            f"{deltas} has {shards} partitions, and {app} has worked with {saved}: each series belongs to one of them "
            f"for good. Give it {saved} again, or begin anew with another spanmill.app_id and a topic of its own"
        )


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the brokers describe it. `settings` is empty if they don't let us read them."""

    partitions: int
    replicas: int
    settings: Mapping[str, str]

    def number(self, setting: str) -> int | None:
        """A setting's value, if it is known."""
        value = self.settings.get(setting)
        return None if value is None else int(value)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a topic that should be otherwise; an error keeps the stages from starting."""

    topic: str
    text: str
    error: bool = True

    def __str__(self) -> str:
        return f"{self.topic}: {self.text}"


class Admin:
    """The broker's side of topics: describe, create, change. Its calls block."""

    def __init__(self, config: Config, timeout_s: float = ADMIN_TIMEOUT_S) -> None:
        self._address = config.ingest.kafka.address
        self._timeout_s = timeout_s
        self._client = AdminClient(kafka.client_settings(config))

    def describe(self, names: Sequence[str], *, settings: bool = True) -> dict[str, Topic]:
        """Those of the topics that exist. Asks for all topics, since asking for one by its name may create it."""
        try:
            known = self._client.list_topics(timeout=self._timeout_s).topics
        except KafkaException as error:
            raise TopicsError(f"Kafka at {self._address} doesn't answer: {_reason(error)}") from error
        found = [name for name in names if name in known and known[name].error is None]
        read = self._settings(found) if settings else {}
        return {
            name: Topic(
                partitions=len(known[name].partitions),
                replicas=min((len(p.replicas) for p in known[name].partitions.values()), default=0),
                settings=read.get(name, {}),
            )
            for name in found
        }

    def _settings(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        if not resources:
            return {}
        read: dict[str, dict[str, str]] = {}
        for resource, answer in self._client.describe_configs(resources, request_timeout=self._timeout_s).items():
            try:
                read[resource.name] = {name: entry.value for name, entry in answer.result(self._timeout_s).items()}
            except KafkaException as error:
                log.warning("the topic's settings can't be read", topic=resource.name, error=_reason(error))
        return read

    def create(self, name: str, partitions: int, replicas: int | None, settings: Mapping[str, str]) -> bool:
        """Make a topic, with the broker's default replication unless told otherwise; returns when brokers know it.

        False if it is there already: somebody was faster, or the broker that was asked hadn't heard of it.
        """
        topic = NewTopic(name, partitions, -1 if replicas is None else replicas, config=dict(settings))
        try:
            self._wait(name, self._client.create_topics([topic], operation_timeout=self._timeout_s)[name])
        except TopicExistsError:
            created = False
        else:
            created = True
        deadline = time.monotonic() + self._timeout_s
        while not self.describe([name], settings=False):
            if time.monotonic() > deadline:
                raise TopicsError(f"{name}: was created, and the brokers don't know it after {self._timeout_s} s")
            time.sleep(CHANGE_POLL_S)
        return created

    def grow(self, name: str, partitions: int) -> None:
        """Give a topic more partitions: so many in all."""
        self._wait(name, self._client.create_partitions([NewPartitions(name, partitions)])[name])

    def change(self, name: str, settings: Mapping[str, str]) -> None:
        """Set some settings of a topic and leave the others; waits until the brokers know them."""
        entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in settings.items()]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        self._wait(name, self._client.incremental_alter_configs([resource])[resource])
        deadline = time.monotonic() + self._timeout_s
        while not settings.items() <= self._settings([name]).get(name, settings).items():
            if time.monotonic() > deadline:
                raise TopicsError(f"{name}: {settings} was set and isn't in force after {self._timeout_s} s")
            time.sleep(CHANGE_POLL_S)

    def _wait(self, name: str, answer: Any) -> None:
        try:
            answer.result(self._timeout_s)
        except KafkaException as error:
            exists = bool(error.args) and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
            kind = TopicExistsError if exists else TopicsError
            raise kind(f"{name}: {_reason(error)}") from error


def _reason(error: KafkaException) -> str:
    return str(error.args[0].str() if error.args else error)


class Requirements:
    """What each topic's settings must be: exact ones, and sizes that must be reached."""

    def __init__(self, config: Config) -> None:
        self.names = TopicNames.of(config)
        self._record_bytes = config.ingest.kafka.producer_max_record_size_bytes

    def exact(self, name: str) -> dict[str, str]:
        """Settings with one right value."""
        if name == self.names.spans:
            return {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete"}
        if name in (self.names.checkpoints, self.names.snapshots):
            return {"cleanup.policy": "compact"}
        return {"cleanup.policy": "delete"}

    def max_message_bytes(self, name: str, topics: Mapping[str, Topic]) -> int:
        """The least `max.message.bytes`. Dead letters hold whole records of the spans topic, foreign ones included."""
        if name in (self.names.checkpoints, self.names.snapshots):
            return CHANGELOG_MAX_RECORD_BYTES
        if name == self.names.deltas:
            return MAX_BATCH_BYTES + RECORD_OVERHEAD_BYTES
        spans = self._record_bytes + RECORD_OVERHEAD_BYTES
        if name == self.names.spans:
            return spans
        accepted = topics[self.names.spans].number("max.message.bytes") if self.names.spans in topics else None
        return max(spans, accepted or BROKER_MAX_MESSAGE_BYTES) + RECORD_OVERHEAD_BYTES

    def initial(self, name: str, topics: Mapping[str, Topic]) -> dict[str, str]:
        """The settings with which a topic is made."""
        size = max(self.max_message_bytes(name, topics), BROKER_MAX_MESSAGE_BYTES)
        return {**self.exact(name), "max.message.bytes": str(size)}

    def unmet(self, name: str, topics: Mapping[str, Topic]) -> dict[str, str]:
        """The settings of an existing topic that must be changed, and to what."""
        topic = topics[name]
        if not topic.settings:
            return {}
        unmet = {key: value for key, value in self.exact(name).items() if topic.settings.get(key) != value}
        least = self.max_message_bytes(name, topics)
        if (topic.number("max.message.bytes") or 0) < least:
            unmet["max.message.bytes"] = str(least)
        return unmet


def create(config: Config, partitions: int, replication_factor: int | None = None) -> Iterator[str]:
    """Create what is missing and set what must be set, giving a line for each; what is right already is left alone.

    Changelogs get as many partitions as the topic they belong to. Raises `TopicsError`.
    """
    admin, rules = Admin(config), Requirements(config)
    names = rules.names
    there = admin.describe(names.all)
    counts = {names.dead_letters: 1}
    for topic, changelog in ((names.spans, names.checkpoints), (names.deltas, names.snapshots)):
        counts[topic] = counts[changelog] = there[topic].partitions if topic in there else partitions
    created = set()
    for name in names.all:
        if name not in there and admin.create(name, counts[name], replication_factor, rules.initial(name, there)):
            created.add(name)
            yield f"{name}: created, {_partitions(counts[name])}"
        else:
            found = there.get(name) or admin.describe([name], settings=False)[name]
            yield f"{name}: exists, {_partitions(found.partitions)}"
    yield from _set_settings(admin, rules, created)


def grow(config: Config, partitions: int) -> Iterator[str]:
    """Give the spans topic more partitions while everything runs, its changelog first (growth.py).

    Gives a line for each step, the last ones of what is to be done now. Done again it goes on where it was interrupted.
    Raises `TopicsError`.
    """
    admin, names = Admin(config), TopicNames.of(config)
    there = admin.describe(names.all, settings=False)
    for name in (names.checkpoints, names.spans):
        if name not in there:
            raise TopicsError(f"{name}: there is no such topic; run `spanmill topics create`")
        if there[name].partitions > partitions:
            raise TopicsError(f"{name}: has {_partitions(there[name].partitions)}, and Kafka takes none away")
    for name in (names.checkpoints, names.spans):
        if there[name].partitions == partitions:
            yield f"{name}: has {_partitions(partitions)}"
        else:
            admin.grow(name, partitions)
            yield f"{name}: grown from {there[name].partitions} to {_partitions(partitions)}"
    yield "generators take the new partitions over within a minute, and say so in the log of the topics"
    yield "then restart the distributors, one after the other: they write to as many partitions as they found at start"


def _set_settings(admin: Admin, rules: Requirements, created: set[str]) -> Iterator[str]:
    topics = admin.describe(rules.names.all)
    for name in reversed(rules.names.all):  # spans first: what dead letters must take depends on it
        if name not in topics:
            continue
        unmet = rules.unmet(name, topics)
        if name in created and topics[name].replicas >= DURABLE_REPLICAS:
            unmet["min.insync.replicas"] = "2"
        if not unmet:
            continue
        admin.change(name, unmet)
        topics[name] = Topic(topics[name].partitions, topics[name].replicas, {**topics[name].settings, **unmet})
        for key, value in unmet.items():
            yield f"{name}: set {key}={value}"


def _partitions(count: int) -> str:
    return "1 partition" if count == 1 else f"{count} partitions"


def check(config: Config) -> list[str]:
    """What must be changed before the stages can work; what only should be is logged as a warning."""
    names = TopicNames.of(config)
    return [str(finding) for finding in _logged(findings(config, Admin(config).describe(names.all), names.all))]


async def check_topics(config: Config, *, embedded: bool = False, only: Sequence[str] = ()) -> dict[str, int]:
    """The partition count by topic, after checking all topics or `only` those that a stage uses.

    `embedded`: the broker is librdkafka's mock, whose topics have no settings. Raises `TopicsError`.
    """
    names = tuple(only) or TopicNames.of(config).all
    topics = await asyncio.to_thread(Admin(config).describe, names, settings=not embedded)
    errors = _logged(findings(config, topics, names))
    if errors:
        raise TopicsError("; ".join(str(error) for error in errors))
    return {name: topic.partitions for name, topic in topics.items()}


def _logged(found: Iterator[Finding]) -> list[Finding]:
    """The errors; the warnings are logged."""
    errors = []
    for finding in found:
        if finding.error:
            errors.append(finding)
        else:
            log.warning(finding.text, topic=finding.topic)
    return errors


def findings(config: Config, topics: Mapping[str, Topic], names: Sequence[str]) -> Iterator[Finding]:
    """All that is wrong with the topics `names`, of which `topics` are there."""
    rules = Requirements(config)
    for name in names:
        topic = topics.get(name)
        if topic is None:
            yield Finding(name, "there is no such topic; run `spanmill topics create`")
            continue
        for key, value in rules.unmet(name, topics).items():
            yield Finding(name, f"{key} is {topic.settings.get(key)}, it must be {value}; run `spanmill topics create`")
        yield from _durability(name, topic)
        if name in (rules.names.spans, rules.names.deltas):
            yield from _retention(name, topic)
    yield from _changelogs(rules.names, topics)


def _durability(name: str, topic: Topic) -> Iterator[Finding]:
    """Warnings: what is acknowledged may be lost with a broker."""
    if not topic.settings:
        return
    if topic.replicas == 1:
        yield Finding(name, "there is one replica; records are lost with its broker's disk", error=False)
    elif (topic.number("min.insync.replicas") or 1) < 2:
        text = "min.insync.replicas is 1, so one broker's word counts as an acknowledgement; set it to 2"
        yield Finding(name, text, error=False)
    if topic.replicas > 1 and topic.settings.get("unclean.leader.election.enable") == "true":
        text = "unclean.leader.election.enable is true, so acknowledged records may be lost; set it to false"
        yield Finding(name, text, error=False)


def _retention(name: str, topic: Topic) -> Iterator[Finding]:
    kept_ms = topic.number("retention.ms")
    if kept_ms is not None and 0 <= kept_ms < MIN_RETENTION_MS:
        hours = kept_ms / 3_600_000
        text = (
            f"retention.ms is {kept_ms} ({hours:.3g} h): a stage that is down for longer loses data; set 24 h or more"
        )
        yield Finding(name, text, error=False)


def _changelogs(names: TopicNames, topics: Mapping[str, Topic]) -> Iterator[Finding]:
    for changelog, source in ((names.checkpoints, names.spans), (names.snapshots, names.deltas)):
        if changelog not in topics or source not in topics:
            continue
        have, need = topics[changelog].partitions, topics[source].partitions
        if have != need:
            yield Finding(changelog, f"has {_partitions(have)}, {source} has {need}: {_what_to_do(names, source)}")


def _what_to_do(names: TopicNames, source: str) -> str:
    if source == names.spans:
        return "they must be equal; run `spanmill topics grow`"
    return (
        "they must be equal, and for as long as an app lives each series belongs to one of these partitions; give the "
        "topic as many as before, or begin anew with another spanmill.app_id and a topic of its own"
    )
