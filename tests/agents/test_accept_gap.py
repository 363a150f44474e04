"""The command that lets a stopped shard go on: what it appends, and what it refuses."""

from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition

from agents.cli import cli
from agents.embedded_broker import EmbeddedBroker
from schemas.checkpoint import Checkpoint, encode_checkpoint
from schemas.control import CONTROL_HEADER, AcceptGap, Control, SkipRecord, decode_control

TOPIC, CHECKPOINTS = "spanmill-deltas", "spanmill_generator-checkpoints-changelog"


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    """A broker with empty topics of four partitions."""
    broker = EmbeddedBroker()
    broker.create([TOPIC, CHECKPOINTS])
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


def test_what_will_be_delivered_again_is_no_gap(broker: EmbeddedBroker) -> None:
    """Found by the simulation: a generator crashed for longer than a sink waits, and its batch was taken for lost."""
    producer = Producer({"bootstrap.servers": broker.address})

    def accepted(saved_end_ms: int | None, after: str, *options: str) -> bool:
        value = encode_checkpoint(Checkpoint(7, previous_end_ms=saved_end_ms))
        producer.produce(CHECKPOINTS, value, b"checkpoint", partition=1)
        assert producer.flush(30) == 0
        at = ("--kafka", broker.address, "--shard", "1", "--partition", "1", "--after", after)
        code, said = accept_gap(*at, *options)
        assert code == 0 or "will be delivered again" in said, said
        return code == 0

    assert not accepted(None, "none")
    assert not accepted(15_000, "15000")
    assert not accepted(15_000, "30000")
    assert accepted(30_000, "15000")
    assert accepted(15_000, "none")
    assert accepted(15_000, "15000", "--lost")


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
