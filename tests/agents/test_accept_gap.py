"""The command that lets a stopped shard go on: what it appends, and what it refuses."""

from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, TopicPartition

from agents.cli import cli
from agents.embedded_broker import EmbeddedBroker
from schemas.control import CONTROL_HEADER, AcceptGap, Control, SkipRecord, decode_control

TOPIC = "spanmill-deltas"


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    """A broker with an empty topic of four partitions."""
    broker = EmbeddedBroker()
    broker.create([TOPIC])
    yield broker
    broker.close()


def accept_gap(*arguments: str) -> tuple[int, str]:
    """Exit code (of click's own errors 2, of ours 1) and what was said."""
    done = CliRunner().invoke(cli, ["sink", "accept-gap", *arguments])
    return done.exit_code, done.output + str(done.exception or "")


def read(address: str, shard: int, offset: int) -> Control:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "test", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(TOPIC, shard, offset)])
        message = consumer.poll(10)
        assert message is not None
        assert message.value() in {None, b""}
        return decode_control(dict(message.headers() or ())[CONTROL_HEADER])
    finally:
        consumer.close()


def test_the_record_is_in_the_shard_s_partition(broker: EmbeddedBroker) -> None:
    at = ("--kafka", broker.address, "--shard", "2")
    for offset, (options, expected) in enumerate(
        [
            (("--partition", "7", "--after", "15000"), AcceptGap(7, 15_000)),
            (("--partition", "7", "--after", "none"), AcceptGap(7, None)),
            (("--offset", "1"), SkipRecord(1)),
        ]
    ):
        code, said = accept_gap(*at, *options)
        assert (code, f"{TOPIC}/2 at offset {offset}" in said) == (0, True), said
        assert read(broker.address, 2, offset) == expected


def test_what_isn_t_there_is_refused(broker: EmbeddedBroker) -> None:
    at = ("--kafka", broker.address)
    code, said = accept_gap(*at, "--shard", "99", "--offset", "0")
    assert (code, f"{TOPIC} has 4 partitions: there is no shard 99" in said) == (1, True), said
    code, said = accept_gap(*at, "--shard", "3", "--offset", "5")
    assert (code, f"{TOPIC}/3 has no record at offset 5" in said) == (1, True), said


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--partition", "1"),
        ("--after", "15000"),
        ("--partition", "1", "--after", "then"),
        ("--partition", "1", "--after", "15000", "--offset", "3"),
    ],
)
def test_a_gap_and_a_record_are_told_apart(options: tuple[str, ...]) -> None:
    assert accept_gap("--shard", "0", *options)[0] == 2
    assert CliRunner().invoke(cli, ["sink", "--kafka", "x:1", "accept-gap", "--shard", "0", *options]).exit_code == 2
