"""Static members stay in their group when they stop, unless they are gone for good."""

import asyncio
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from agents import membership
from agents.cli import cli
from agents.kubernetes import KubernetesError, StatefulSet
from agents.membership import leave_if_gone, remove_member
from schemas.config import Config
from tests.agents.recording_worker import Running, settings, topics, until
from tests.servers.kafka import KafkaBroker

pytestmark = pytest.mark.kafka

LONG_S = 120.0  # a session that no test outlasts: who has left hasn't timed out


def config_of(kafka: KafkaBroker) -> Config:
    return Config.model_validate({"ingest": {"kafka": {"address": kafka.address}}})


def static(kafka: KafkaBroker, app_id: str, topic: str, directory: Path, name: str) -> Running:
    options = {"broker_session_timeout": LONG_S, "broker_request_timeout": LONG_S}
    return Running(settings(kafka, app_id, topic, directory, consumer_group_instance_id=name, **options))


def members(kafka: KafkaBroker, group: str) -> set[str]:
    """The instance ids of a group's members."""
    admin = kafka.admin()
    described = admin.describe_consumer_groups([group])[group].result(30)
    return {str(member.group_instance_id) for member in described.members}


class Scaled(StatefulSet):
    """A set that says at once what the API server would."""

    wanted: bool | None = None

    async def wants(self) -> bool:
        if self.wanted is None:
            raise KubernetesError("no route to host")
        return self.wanted


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> type[Scaled]:
    monkeypatch.setattr(membership, "StatefulSet", Scaled)
    monkeypatch.setattr(Scaled, "of_this_pod", lambda _: Scaled("set", "set-0", "", Path()))
    return Scaled


async def test_a_static_member_that_stops_keeps_its_place(kafka: KafkaBroker, tmp_path: Path) -> None:
    app_id, topic = topics(kafka)
    async with static(kafka, app_id, topic, tmp_path, "one").running():
        assert members(kafka, app_id) == {"one"}
    assert members(kafka, app_id) == {"one"}


async def test_who_has_left_waits_for_nobody(kafka: KafkaBroker, tmp_path: Path) -> None:
    """The other has all partitions long before the session of the one that left would have timed out."""
    app_id, topic = topics(kafka)
    async with static(kafka, app_id, topic, tmp_path / "a", "one").running() as one:
        async with static(kafka, app_id, topic, tmp_path / "b", "two").running() as two:
            await until(lambda: bool(two.made) and one.ready.is_set())
            assert len({owner.partition for owner in one.made if not owner.closed}) == 1
        assert members(kafka, app_id) == {"one", "two"}
        assert await remove_member(config_of(kafka), app_id, "two")
        await until(lambda: {owner.partition for owner in one.made if not owner.closed} == {0, 1})
        assert members(kafka, app_id) == {"one"}
    assert not await remove_member(config_of(kafka), app_id, "two")


async def test_a_pod_leaves_only_when_it_is_scaled_away(
    kafka: KafkaBroker, tmp_path: Path, scaled: type[Scaled]
) -> None:
    app_id, topic = topics(kafka)
    environ = {"SPANMILL_INSTANCE_ID": "set-0"}
    async with static(kafka, app_id, topic, tmp_path, "set-0").running():
        pass
    for scaled.wanted in (True, None):  # a rollout; an API server that doesn't answer
        await leave_if_gone(config_of(kafka), app_id, environ)
        assert members(kafka, app_id) == {"set-0"}
    scaled.wanted = False
    await leave_if_gone(config_of(kafka), app_id, {})  # a dynamic member has left by itself
    assert members(kafka, app_id) == {"set-0"}
    await leave_if_gone(config_of(kafka), app_id, environ)
    assert members(kafka, app_id) == set()


async def test_brokers_that_are_away_keep_nobody_from_stopping(
    scaled: type[Scaled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "TIMEOUT_S", 1.0)
    scaled.wanted = False
    config = Config.model_validate({"ingest": {"kafka": {"address": "127.0.0.1:1"}}})
    with structlog.testing.capture_logs() as lines:
        await leave_if_gone(config, "group", {"SPANMILL_INSTANCE_ID": "set-0"})
    assert [line["event"] for line in lines] == ["stays in its group"]


def test_the_command_removes_a_stopped_process_from_its_stages_group(kafka: KafkaBroker, tmp_path: Path) -> None:
    name = kafka.unique("app").replace("-", "_")
    group = f"{name}_sink"
    file = tmp_path / "spanmill.yaml"
    file.write_text(f"ingest: {{kafka: {{address: '{kafka.address}'}}}}\nspanmill: {{app_id: {name}}}\n")
    kafka.create_topic(f"{group}-state-changelog", 2, {"cleanup.policy": "compact"})

    async def come_and_go() -> None:
        async with static(kafka, group, kafka.new_topic("source", 2), tmp_path, "one").running():
            pass

    asyncio.run(come_and_go())
    command = ["leave", "--config.file", str(file), "--stage", "sink", "--instance", "one"]
    done = CliRunner().invoke(cli, command)
    assert done.output.splitlines()[-1] == f"one has left the group {group}"
    assert members(kafka, group) == set()
    again = CliRunner().invoke(cli, command)
    assert str(again.exception) == f"the group {group} has no member one"
