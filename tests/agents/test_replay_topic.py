"""Replay of a range of the spans topic."""

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Producer

from agents.embedded_broker import EmbeddedBroker
from agents.options import with_kafka
from agents.replay import Request, run
from agents.replay.files import InputError
from agents.replay.output import SeveralTenantsError
from agents.replay.topic import BoundError, Topic, TopicReader, parse_bound
from schemas.config.generator import GeneratorConfig, RegistryConfig
from schemas.config.rules import Rules
from schemas.control import CONTROL_HEADER, ConfigChange, Tick, encode_control
from tests.agents.spans import T0_MS
from tests.agents.test_replay import BOTH, RECORDS, config, many_records, replayed, write_bin
from tests.servers.kafka import KafkaBroker

TOPIC = "spans"
INTERVAL_MS = 15_000
LABELLED = RegistryConfig(external_labels={"cluster": "from-the-log"})
KEPT = {"retention.ms": "-1"}
"""The records' times are long ago: Kafka would delete them."""


@pytest.fixture
def embedded() -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker()
    broker.create([TOPIC])
    yield broker
    broker.close()


def produce(address: str, topic: str, records: list[tuple[int, int, bytes]], headers=None) -> None:
    """Write records (partition, timestamp in ms, value)."""
    producer = Producer({"bootstrap.servers": address, "acks": "all", "log_level": 0})
    for partition, timestamp_ms, value in records:
        producer.produce(topic, value, partition=partition, timestamp=timestamp_ms, headers=headers)
    assert producer.flush(30) == 0


def end_ms(record) -> int:
    """The largest span end of a record."""
    return max(s.scope_spans[0].spans[0].end_time_unix_nano for s in record.resource_spans) // 1_000_000


def timed(records, partitions: int = 1) -> list[tuple[int, int, bytes]]:
    """Records over partitions, each with the time that it would have in a file."""
    return [(n % partitions, end_ms(each), each.SerializeToString()) for n, each in enumerate(records)]


def topic_replayed(directory: Path, address: str, topic: str, **options) -> bytes:
    out = directory / "topic.om"
    run(with_kafka(config(*BOTH), address), Request(None, str(out), topic=topic, **options))
    return out.read_bytes()


def test_a_topic_of_one_partition_gives_the_same_as_a_file(tmp_path: Path, kafka: KafkaBroker) -> None:
    records = many_records()
    topic = kafka.new_topic(config=KEPT)
    produce(kafka.address, topic, timed(records))
    from_file = replayed(tmp_path, write_bin(tmp_path / "spans.bin", records), *BOTH)
    assert topic_replayed(tmp_path, kafka.address, topic, close=True) == from_file
    assert topic_replayed(tmp_path, kafka.address, topic, close=True, start="0", end="400") == from_file


def increases(text: bytes) -> dict[tuple[str, str], float]:
    """By series, without the label of a replay, and time: by how much a counter grew in the window that ends then."""
    found: dict[tuple[str, str], float] = {}
    before: dict[str, float] = {}
    for line in text.decode().splitlines():
        if line.startswith(("traces_spanmetrics_calls_total", "traces_service_graph_request_total")):
            series, value, at = line.split(" # ")[0].rsplit(" ", 2)
            series = re.sub(r'replay="[^"]*",', "", series)
            found[series, at] = float(value) - before.get(series, 0.0)
            before[series] = float(value)
    return {key: increase for key, increase in found.items() if increase}


def test_from_elsewhere_the_deltas_are_those_of_the_whole_log_and_series_are_labelled(
    tmp_path: Path, kafka: KafkaBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    """What came before the range is folded, as far as half-edges live, and not counted; totals begin at 0."""
    records = many_records(400)
    topic = kafka.new_topic(config=KEPT)
    produce(kafka.address, topic, timed(records))
    whole = increases(topic_replayed(tmp_path, kafka.address, topic))
    capsys.readouterr()
    since, last, until = (end_ms(records[n]) for n in (150, 299, 300))
    wanted = {(s, at): value for (s, at), value in whole.items() if since < 1000 * float(at) <= last}
    assert len({at for _, at in wanted}) == 2
    times = [datetime.fromtimestamp(ms / 1000, UTC).isoformat() for ms in (since, until)]
    for start, end in (("150", "300"), times):
        part = topic_replayed(tmp_path, kafka.address, topic, start=start, end=end)
        assert increases(part) == wanted
        lines = [line for line in part.decode().splitlines() if not line.startswith("#")]
        assert all(f'replay="{start}..{end}"' in line for line in lines)
        assert "the range begins inside the log: totals begin at 0 there" in capsys.readouterr().err
    unlabelled = topic_replayed(tmp_path, kafka.address, topic, start="150", end="300", replay_id="")
    assert increases(unlabelled) == wanted
    assert b"replay=" not in unlabelled


def test_a_topic_that_has_lost_its_beginning_is_begun_inside(
    tmp_path: Path, kafka: KafkaBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = kafka.new_topic(config=KEPT)
    produce(kafka.address, topic, timed(many_records(200)))
    kafka.delete_records(topic, {0: 100})
    text = topic_replayed(tmp_path, kafka.address, topic, close=True).decode()
    assert all('replay="start..end"' in line for line in text.splitlines() if not line.startswith("#"))
    assert "records of the beginning are gone (retention)" in capsys.readouterr().err


def test_a_range_that_no_partition_has_is_an_error(tmp_path: Path, embedded: EmbeddedBroker) -> None:
    produce(embedded.address, TOPIC, timed(RECORDS))
    with pytest.raises(InputError, match="no partition has a record at offset 17 or later"):
        topic_replayed(tmp_path, embedded.address, TOPIC, start="17")


def test_several_partitions_are_folded_together(tmp_path: Path, embedded: EmbeddedBroker) -> None:
    produce(embedded.address, TOPIC, timed(many_records(), partitions=4))
    text = topic_replayed(tmp_path, embedded.address, TOPIC, close=True, last=True).decode()
    calls = [line for line in text.splitlines() if line.startswith("traces_spanmetrics_calls_total")]
    assert sum(float(line.split()[-2]) for line in calls) == 700


def test_a_topics_end_closes_nothing_unless_it_is_told_to(tmp_path: Path, embedded: EmbeddedBroker) -> None:
    produce(embedded.address, TOPIC, [(p, at, value) for _, at, value in timed(RECORDS) for p in range(4)])
    text = topic_replayed(tmp_path, embedded.address, TOPIC).decode()
    assert " 1700000025\n" in text
    assert " 1700000055\n" not in text


def test_a_tick_in_the_log_closes_windows(tmp_path: Path, embedded: EmbeddedBroker) -> None:
    produce(embedded.address, TOPIC, [(p, at, value) for _, at, value in timed(RECORDS) for p in range(4)])
    tick = [(CONTROL_HEADER, encode_control(Tick(T0_MS + 45_000)))]
    produce(embedded.address, TOPIC, [(p, T0_MS + 46_000, b"") for p in range(4)], headers=tick)
    assert " 1700000055\n" in topic_replayed(tmp_path, embedded.address, TOPIC).decode()


def test_configuration_records_in_the_log_decide_unless_the_own_one_is_wanted(
    tmp_path: Path, embedded: EmbeddedBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    """INST-3: from the window that a record names, the topic's configuration holds, as it did for the live stages."""
    other = Rules.of(config(*BOTH).replace(metrics_generator=GeneratorConfig(registry=LABELLED)))
    change = ConfigChange(1, T0_MS // INTERVAL_MS * INTERVAL_MS + 2 * INTERVAL_MS, other.packed, "", 1)
    records = timed(many_records())
    produce(embedded.address, TOPIC, records[:1])
    produce(embedded.address, TOPIC, [(0, records[0][1], b"")], headers=[(CONTROL_HEADER, encode_control(change))])
    produce(embedded.address, TOPIC, records[1:])

    obeyed = topic_replayed(tmp_path, embedded.address, TOPIC, close=True).decode()
    own = topic_replayed(tmp_path, embedded.address, TOPIC, close=True, own_config=True).decode()

    lines = [line for line in obeyed.splitlines() if line.startswith("traces_spanmetrics_calls_total{")]
    at = {line: float(line.split("}")[1].split()[1]) for line in lines if not line.split("}")[1].startswith(" 0 ")}
    labelled = [time for line, time in at.items() if "from-the-log" in line]
    plain = [time for line, time in at.items() if "from-the-log" not in line]
    assert max(plain) < change.from_end_ms / 1000 == min(labelled)
    assert "from-the-log" not in own
    said = capsys.readouterr().err
    assert said.count("1 configuration records passed over (--own-config)") == 1


def test_the_partition_that_is_furthest_behind_is_read_next(embedded: EmbeddedBroker) -> None:
    value = b"x" * 1000
    produce(embedded.address, TOPIC, [(0, T0_MS + n, value) for n in range(100)])
    produce(embedded.address, TOPIC, [(1, T0_MS + 50 + n, value) for n in range(100)])
    times: dict[int, int] = {}
    seen: dict[int, list[int]] = {0: [], 1: []}
    with closing(Topic({"bootstrap.servers": embedded.address}, TOPIC)) as topic:
        reader = TopicReader(topic)
        assert reader.records == 200
        for partition, records in reader.chunks(times.get, 10_000):
            others = [times[p] for p, offsets in seen.items() if p != partition and p in times and len(offsets) < 100]
            assert all(times.get(partition, 0) <= other for other in others)
            seen[partition] += [record.offset for record in records]
            times[partition] = records[-1].timestamp_ms
            assert len(records) == 10
    assert seen == {0: list(range(100)), 1: list(range(100))}


def test_a_topic_that_is_not_there_is_an_error(kafka: KafkaBroker) -> None:
    with pytest.raises(InputError, match="topic nowhere"):
        Topic({"bootstrap.servers": kafka.address}, "nowhere")
    assert Topic.if_there({"bootstrap.servers": kafka.address}, "nowhere") is None


def test_bounds_are_offsets_or_times() -> None:
    assert parse_bound("17") == 17
    assert parse_bound("2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_bound("2026-01-31 12:00") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    with pytest.raises(BoundError, match="'yesterday' is neither an offset nor a time"):
        parse_bound("yesterday")


def test_samples_of_two_tenants_are_never_mixed(tmp_path: Path, embedded: EmbeddedBroker) -> None:
    for tenant, records in (("a", RECORDS[:1]), ("b", RECORDS[1:])):
        produce(embedded.address, TOPIC, timed(records), headers=[("tenant", tenant.encode())])
    with pytest.raises(SeveralTenantsError, match="'a' and 'b': choose one with --tenant"):
        topic_replayed(tmp_path, embedded.address, TOPIC, close=True)
    of_b = topic_replayed(tmp_path, embedded.address, TOPIC, close=True, tenant="b").decode()
    assert 'span_name="look"' in of_b
    assert 'service="cart"' not in of_b
