"""Topics: their names on the wire, how they are made, and what is said about them."""

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from agents import topics
from agents.topics import TopicNames, TopicsError, check_topics
from schemas.config import Config, load_config
from tests.servers.kafka import KafkaBroker


def config_for(kafka: KafkaBroker, prefix: str = "t") -> Config:
    """A configuration with names of its own, so that each test has a clean broker."""
    app = kafka.unique(prefix)
    return load_config(
        None,
        f"""
        ingest: {{kafka: {{address: "{kafka.address}"}}}}
        spanmill:
          app_id: {app}
          topics: {{spans: {app}-spans, deltas: {app}-deltas, dead_letters: {app}-dead}}
        """,
    )


def test_names_are_what_other_processes_and_operators_know() -> None:
    names = TopicNames.of(load_config(None, ""))
    assert (names.spans, names.deltas, names.dead_letters) == (
        "spanmill-spans",
        "spanmill-deltas",
        "spanmill-dead-letters",
    )
    assert (names.generator_app, names.sink_app, names.ingester_group) == (
        "spanmill_generator",
        "spanmill_sink",
        "spanmill_ingester",
    )
    assert names.checkpoints == "spanmill_generator-checkpoints-changelog"
    assert names.snapshots == "spanmill_sink-snapshots-changelog"


@pytest.mark.kafka
async def test_created_topics_pass_the_check(kafka: KafkaBroker) -> None:
    config = config_for(kafka)
    names = TopicNames.of(config)
    lines = list(topics.create(config, partitions=3))
    assert f"{names.spans}: created, 3 partitions" in lines
    assert topics.check(config) == []
    assert await check_topics(config) == {
        names.spans: 3,
        names.deltas: 3,
        names.dead_letters: 1,
        names.checkpoints: 3,
        names.snapshots: 3,
    }


@pytest.mark.kafka
def test_created_topics_have_the_settings_that_the_protocol_needs(kafka: KafkaBroker) -> None:
    config = config_for(kafka)
    names = TopicNames.of(config)
    list(topics.create(config, partitions=1))
    there = topics.Admin(config).describe(names.all)
    assert there[names.spans].settings["message.timestamp.type"] == "LogAppendTime"
    assert there[names.deltas].settings["cleanup.policy"] == "delete"
    for changelog in (names.checkpoints, names.snapshots):
        assert there[changelog].settings["cleanup.policy"] == "compact"
        assert there[changelog].number("max.message.bytes") == topics.CHANGELOG_MAX_RECORD_BYTES
    dead, spans = (there[name].number("max.message.bytes") for name in (names.dead_letters, names.spans))
    assert dead is not None
    assert spans is not None
    assert dead > spans, "a dead letter is a whole record of spans and says why"


@pytest.mark.kafka
def test_creating_again_changes_nothing(kafka: KafkaBroker) -> None:
    config = config_for(kafka)
    list(topics.create(config, partitions=2))
    again = list(topics.create(config, partitions=5))
    assert len(again) == 5
    assert all(": exists, " in line for line in again), again


@pytest.mark.kafka
def test_topics_that_a_broker_has_not_heard_of_yet_are_left_alone(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or that somebody else makes at the same time."""
    config = config_for(kafka)
    list(topics.create(config, partitions=2))
    describe, deaf = topics.Admin.describe, iter([True])

    def heard(self: topics.Admin, names: Sequence[str], *, settings: bool = True) -> dict[str, topics.Topic]:
        return {} if next(deaf, False) else describe(self, names, settings=settings)

    monkeypatch.setattr(topics.Admin, "describe", heard)
    again = list(topics.create(config, partitions=5))
    assert len(again) == 5
    assert all(": exists, " in line for line in again), again
    assert sum("2 partitions" in line for line in again) == 4, again


@pytest.mark.kafka
async def test_missing_topics_are_an_error_that_names_the_command(kafka: KafkaBroker) -> None:
    config = config_for(kafka)
    with pytest.raises(TopicsError, match=r"no such topic; run `spanmill topics create`"):
        await check_topics(config)


@pytest.mark.kafka
async def test_producers_timestamps_on_spans_are_an_error_which_create_mends(kafka: KafkaBroker) -> None:
    config = config_for(kafka)
    spans = TopicNames.of(config).spans
    kafka.create_topic(spans, 2)
    with pytest.raises(
        TopicsError, match=r"message.timestamp.type is CreateTime, it must be LogAppendTime; run `spanm"
    ):
        await check_topics(config, only=[spans])
    lines = list(topics.create(config, partitions=7))
    assert f"{spans}: set message.timestamp.type=LogAppendTime" in lines
    assert (await check_topics(config))[TopicNames.of(config).checkpoints] == 2


@pytest.mark.kafka
def test_short_retention_is_a_warning(kafka: KafkaBroker) -> None:
    config = config_for(kafka)
    spans = TopicNames.of(config).spans
    list(topics.create(config, partitions=1))
    topics.Admin(config).change(spans, {"retention.ms": "3600000"})
    with capture_logs() as logs:
        assert topics.check(config) == []
    warnings = [entry["event"] for entry in logs if entry.get("topic") == spans]
    assert any("retention.ms is 3600000 (1 h)" in warning for warning in warnings), warnings


@pytest.mark.kafka
def test_changelogs_must_have_the_partitions_of_their_topics(kafka: KafkaBroker) -> None:
    config = config_for(kafka)
    names = TopicNames.of(config)
    kafka.create_topic(names.checkpoints, 3, {"cleanup.policy": "compact"})
    list(topics.create(config, partitions=2))
    assert topics.check(config) == [
        f"{names.checkpoints}: has 3 partitions, {names.spans} has 2: they must be equal; run `spanmill topics grow`",
    ]


@pytest.mark.kafka
def test_a_larger_record_limit_raises_what_the_topics_take(kafka: KafkaBroker) -> None:
    config = config_for(kafka)
    ingest = config.ingest.kafka.replace(producer_max_record_size_bytes=4_000_000)
    config = config.replace(ingest=config.ingest.replace(kafka=ingest))
    list(topics.create(config, partitions=1))
    spans = TopicNames.of(config).spans
    limit = topics.Admin(config).describe([spans])[spans].number("max.message.bytes")
    assert limit == 4_000_000 + topics.RECORD_OVERHEAD_BYTES


def test_a_broker_that_does_not_answer_is_named() -> None:
    config = load_config(None, 'ingest: {kafka: {address: "127.0.0.1:1"}}')
    with pytest.raises(TopicsError, match=r"Kafka at 127\.0\.0\.1:1 doesn't answer"):
        topics.Admin(config, timeout_s=0.2).describe(["spans"])


REPLICATED = {"min.insync.replicas": "1", "unclean.leader.election.enable": "true", "cleanup.policy": "delete"}


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        (topics.Topic(1, 1, {**REPLICATED, "max.message.bytes": "9999999"}), ["there is one replica"]),
        (
            topics.Topic(1, 3, {**REPLICATED, "max.message.bytes": "9999999"}),
            ["min.insync.replicas is 1", "unclean.leader.election.enable is true"],
        ),
        (topics.Topic(1, 3, {}), []),  # settings that can't be read are no findings
    ],
)
def test_durability_is_a_warning(topic: topics.Topic, expected: list[str]) -> None:
    config = load_config(None, "")
    deltas = TopicNames.of(config).deltas
    found = list(topics.findings(config, {deltas: topic}, [deltas]))
    assert [finding.error for finding in found] == [False] * len(expected)
    assert all(finding.text.startswith(text) for finding, text in zip(found, expected, strict=True)), found
