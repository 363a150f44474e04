"""Kafka: whether it answers, what its topics are like, and what time it is there."""

import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, TopicMetadata  # type: ignore[attr-defined]

from agents import kafka
from agents.doctor.finding import Finding, error, ok, warning
from agents.doctor.listeners import is_local
from agents.topics import Admin, Topic, TopicNames, TopicsError, findings
from schemas.config import Config

ANSWER_S = 10.0
LISTEN_S = 5.0
"""Ticks come every two seconds while a generator runs."""

OFFSET_WARNING_S = 2.0
OFFSET_ERROR_S = 60.0
LOG_APPEND_TIME = 2
"""librdkafka's number of that type of timestamps."""


def brokers(config: Config) -> Iterator[Finding]:
    """All checks of Kafka; if it doesn't answer, only that is said."""
    yield from _way(config)
    try:
        cluster = _metadata(config)
    except (KafkaException, OSError, ValueError) as failure:
        address = config.ingest.kafka.address
        text = f"Kafka at {address} doesn't answer: {_reason(failure)}; check the address, credentials and TLS"
        yield error("ingest.kafka", text)
        return
    yield ok("ingest.kafka", f"{len(cluster.brokers)} brokers answer")
    names = TopicNames.of(config)
    try:
        topics = Admin(config, ANSWER_S).describe(names.all)
    except (TopicsError, KafkaException) as failure:
        yield error("ingest.kafka", f"{failure}")
        return
    for name in names.all:
        yield from _topic(config, name, topics, cluster.topics.get(name))
    if names.spans in topics:
        yield from clock(config, names.spans, topics[names.spans].partitions)


def _way(config: Config) -> Iterator[Finding]:
    """What others can read on the way."""
    settings = config.ingest.kafka
    hosts = [address.strip().rpartition(":")[0] for address in settings.address.split(",")]
    if settings.tls_enabled or all(map(is_local, hosts)):
        return
    shown = "spans and credentials" if settings.authenticates else "spans"
    yield warning("ingest.kafka", f"{shown} go to {settings.address} in plain text; set tls_enabled")


def _metadata(config: Config) -> ClusterMetadata:
    """All brokers and topics. Raises KafkaException with what the brokers have said."""
    said: list[KafkaError] = []
    settings: dict[str, Any] = {**kafka.client_settings(config), "error_cb": said.append, "log_level": 0}
    client = AdminClient(settings)
    try:
        return client.list_topics(timeout=ANSWER_S)
    except KafkaException:
        client.poll(0)
        telling = [each for each in said if each.code() != KafkaError._ALL_BROKERS_DOWN]  # noqa: SLF001  its name
        if telling:
            raise KafkaException(telling[-1]) from None
        raise


def _reason(failure: Exception) -> str:
    told = failure.args[0] if failure.args else failure
    return told.str() if isinstance(told, KafkaError) else str(failure)


def _topic(config: Config, name: str, topics: dict[str, Topic], metadata: TopicMetadata | None) -> Iterator[Finding]:
    found = [each for each in findings(config, topics, TopicNames.of(config).all) if each.topic == name]
    bad = [error(name, each.text) if each.error else warning(name, each.text) for each in found]
    if name in topics:
        bad += [*_replicas(name, topics[name], metadata), *_kept(config, name, topics[name])]
    if bad or name not in topics:
        yield from bad
        return
    topic = topics[name]
    if not topic.settings:
        yield warning(name, "the brokers don't let us read its settings; allow DescribeConfigs, or check them yourself")
        return
    yield ok(name, f"{topic.partitions} partitions, {topic.replicas} replicas")


def _replicas(name: str, topic: Topic, metadata: TopicMetadata | None) -> Iterator[Finding]:
    """Whether it can be written to, now and with a broker less."""
    wanted = topic.number("min.insync.replicas") or 1
    partitions = [] if metadata is None else list(metadata.partitions.values())
    without = [each.id for each in partitions if each.leader < 0]
    short = [each.id for each in partitions if len(each.isrs) < wanted]
    if wanted > topic.replicas:
        text = f"min.insync.replicas is {wanted} and there are {topic.replicas} replicas: nothing can be written"
        yield error(name, f"{text}; set it below the number of replicas")
    elif without:
        yield error(name, f"partitions {without} have no leader: they can't be written; look after the brokers")
    elif short:
        text = f"partitions {short} have fewer replicas in sync than the {wanted} that are asked for"
        yield error(name, f"{text}: they can't be written; look after the brokers")
    elif wanted == topic.replicas > 1:
        text = f"min.insync.replicas is {wanted}, of {topic.replicas} replicas: one broker's restart stops writing"
        yield warning(name, f"{text}; set it lower, or add replicas")


def _kept(config: Config, name: str, topic: Topic) -> Iterator[Finding]:
    """Whether a record is there for as long as a stage may come back to it."""
    names, sink = TopicNames.of(config), config.spanmill.sink
    kept_ms = topic.number("retention.ms")
    if name not in (names.spans, names.deltas) or kept_ms is None or kept_ms < 0:
        return
    needed_s = sink.hold_back_s + sink.endpoint_max_lag_s
    if kept_ms < needed_s * 1000:
        text = f"retention.ms is {kept_ms}, less than hold_back and endpoint_max_lag ({needed_s:.0f} s) together"
        yield error(name, f"{text}: windows that wait would be lost; set 24 h or more")


def clock(config: Config, topic: str, partitions: int) -> Iterator[Finding]:
    """This machine's clock against the broker's, by a record that the broker stamps while we look."""
    subject = "clock"
    consumer = Consumer(
        {
            **kafka.client_settings(config),
            "group.id": "spanmill-doctor",  # librdkafka wants one; nothing is ever committed or joined
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_END) for partition in range(partitions)])
        message = consumer.poll(LISTEN_S)
        now_s = time.time()
    finally:
        consumer.close()
    if message is None or message.error() is not None:
        text = f"nothing was written to {topic} within {LISTEN_S:.0f} s, so it can't be compared with the brokers'"
        yield ok(subject, text)
        return
    yield from compared(subject, message.timestamp(), now_s)


def compared(subject: str, timestamp: Any, now_s: float) -> Iterator[Finding]:
    """What a record's timestamp (type, ms) says that was read as soon as it was written, at `now_s`."""
    kind, stamped_ms = timestamp
    if kind != LOG_APPEND_TIME:
        yield ok(subject, "records have their producers' time, so it can't be compared with the brokers'")
        return
    ahead_s = stamped_ms / 1000 - now_s
    which = "ahead of" if ahead_s > 0 else "behind"
    text = f"the brokers' clock is {abs(ahead_s):.1f} s {which} this machine's"
    if abs(ahead_s) >= OFFSET_ERROR_S:
        yield error(subject, f"{text}: samples have the brokers' time; set the clocks by NTP")
    elif abs(ahead_s) >= OFFSET_WARNING_S:
        yield warning(subject, f"{text}; set the clocks by NTP")
    else:
        yield ok(subject, text)
