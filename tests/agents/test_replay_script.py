"""Replay by the deltas topic, and bookmarks: what is read of Kafka, and what is said if it doesn't hold what is needed.

The stages that filled the topics are played here; tests/e2e/test_replay_equals_live.py has real ones.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer

from agents.generator import checkpoint_key
from agents.replay import Request, run
from agents.replay.bookmark import take
from agents.replay.files import InputError
from agents.replay.output import Samples
from agents.replay.run import NotLiveError
from agents.topics import TopicNames
from schemas.checkpoint import Checkpoint, encode_checkpoint
from schemas.config import Config, load_config
from schemas.config.rules import Rules
from schemas.control import CONTROL_HEADER, ConfigChange, Waiver, encode_control
from schemas.deltas import decode_batch, encode_window
from schemas.otlp import Codec
from schemas.record import Record
from schemas.rules_in_force import RulesInForce
from schemas.snapshot import Cut, snapshot_records
from streams.partition import PartitionFold
from streams.shard import Shard, WindowSamples
from tests.agents.test_replay import BOTH, CONFIG, many_records
from tests.agents.test_replay_topic import KEPT, timed
from tests.servers.kafka import KafkaBroker

pytestmark = pytest.mark.kafka

PARTITIONS, SHARDS = 2, 2


def app_config(kafka: KafkaBroker, app: str, processors: tuple[str, ...] = BOTH) -> Config:
    ours = (
        f"ingest: {{kafka: {{address: '{kafka.address}'}}}}\nspanmill: {{app_id: {app}, topics: {{spans: {app}-spans, "
    )
    return load_config(
        None, text=CONFIG.replace("PROCESSORS", ", ".join(processors)) + ours + f"deltas: {app}-deltas}}}}\n"
    )


@dataclass
class App:
    """Topics as stages leave them: partition 1 was waived for the second window."""

    kafka: KafkaBroker
    config: Config
    windows: list[WindowSamples]
    directory: Path

    def text(self, *, after: dict[int, int] | None = None) -> bytes:
        """The samples of all windows, or of each shard's after one."""
        samples = Samples()
        for window in self.windows:
            if after is None or window.end_ms > after[window.shard]:
                samples.add(window)
        return b"".join(samples.text())

    def replay(self, config: Config | None = None, **options: object) -> bytes:
        out = self.directory / "out.om"
        out.unlink(missing_ok=True)
        run(config or self.config, Request(None, str(out), **options))  # type: ignore[arg-type]
        return out.read_bytes()


def read_by_replays(config: Config) -> tuple[str, ...]:
    names = TopicNames.of(config)
    return names.spans, names.deltas, names.checkpoints, names.snapshots


@pytest.fixture
def app(kafka: KafkaBroker, tmp_path: Path) -> App:
    return written(kafka, tmp_path)


def written(kafka: KafkaBroker, directory: Path, announced: tuple[str, ...] = BOTH) -> App:
    """An app's topics; `announced` are the processors of the rules that its first process appended."""
    config = app_config(kafka, kafka.unique("app").replace("-", "_"))
    names, rules = TopicNames.of(config), RulesInForce.initial(Rules.of(config), spans_partitions=PARTITIONS)
    for name in read_by_replays(config):
        kafka.create_topic(name, PARTITIONS, KEPT)
    producer = Producer({"bootstrap.servers": kafka.address, "acks": "all", "log_level": 0})
    logs: list[list[Record]] = [[], []]
    for p, at_ms, value in timed(many_records(), PARTITIONS):
        producer.produce(names.spans, value, partition=p, timestamp=at_ms)
        logs[p].append(Record(len(logs[p]), at_ms, value))
    closings = [_fold(config, Checkpoint.initial(0, rules)).feed(log).closings for log in logs]
    for p, each in enumerate(closings):
        # One is behind the shards' snapshots, the other one before them.
        checkpoint = each[0 if p else -1].checkpoint
        producer.produce(names.checkpoints, encode_checkpoint(checkpoint), checkpoint_key(p), p)
    windows = []
    for index in range(SHARDS):
        shard = Shard(index, config_settings, rules.current.rules.interval_ms, rules, provisional=True)
        for offset, value in enumerate([_change(kafka, config, announced), *_deltas(closings, index)]):
            control = None if isinstance(value, bytes) else value
            headers = [(CONTROL_HEADER, encode_control(control))] if control is not None else []
            producer.produce(names.deltas, value if isinstance(value, bytes) else b"", partition=index, headers=headers)
            windows += shard.feed(offset, control or decode_batch(value)).windows  # type: ignore[arg-type]
            cut = shard.snapshot()
            if offset == 8 and cut is not None:
                _save(producer, names.snapshots, cut)
    assert producer.flush(30) == 0
    assert {window.late_batches for window in windows} == {0, 1}
    return App(kafka, config, windows, directory)


def _change(kafka: KafkaBroker, config: Config, processors: tuple[str, ...]) -> ConfigChange:
    rules = Rules.of(app_config(kafka, config.spanmill.app_id, processors))
    return ConfigChange(1, 0, rules.packed, "test", PARTITIONS)


def config_settings(tenant: str) -> None:
    raise AssertionError(f"{tenant}: the log's rules decide")


def _fold(config: Config, start: Checkpoint) -> PartitionFold:
    return PartitionFold(Rules.of(config).settings_of, 15_000, Codec.OTLP, start)


def _deltas(closings: list, index: int) -> list[bytes | Waiver]:  # type: ignore[type-arg]
    """Batches in turn, but for the second one of partition 1, which comes after a waiver and its window."""
    parts = [
        [part for closing in each for w in closing.windows for part in encode_window(w, p, PARTITIONS, SHARDS)[index]]
        for p, each in enumerate(closings)
    ]
    in_turn: list[bytes | Waiver] = [part for pair in zip(*parts, strict=False) for part in pair]
    late = decode_batch(parts[1][1])
    return [*in_turn[:3], Waiver(1, late.end_ms), in_turn[4], *in_turn[3:4], *in_turn[5:]]


def _save(producer: Producer, topic: str, cut: Cut) -> None:
    for key, value in snapshot_records(cut, b"writer", limit=300):
        producer.produce(topic, value, key, cut.shard)


def test_a_replay_of_an_app_has_its_shards_and_its_waivers(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.replay() == app.text()
    assert capsys.readouterr().err == ""
    ideal = app.replay(ignore_waivers=True)
    assert ideal != app.text()
    assert "waivers are ignored: what came late counts in its own window" in capsys.readouterr().err
    assert app.replay(own_config=True) == ideal
    assert app.replay(shards=1) != ideal
    assert "the deltas topic has 2 partitions, and not 1 (--shards)" in capsys.readouterr().err


def test_batches_that_are_computed_otherwise_fail_after_all_is_written(
    kafka: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = written(kafka, tmp_path, ("span-metrics",))
    with pytest.raises(NotLiveError, match=r"\d+ batches of the deltas topic aren't what the records give"):
        app.replay()
    assert "traces_spanmetrics_calls_total" in (app.directory / "out.om").read_text()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 10
    assert said[0].endswith("has another content")


def test_a_deltas_topic_that_has_lost_its_beginning_is_said(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    app.kafka.delete_records(TopicNames.of(app.config).deltas, {0: 1})
    assert app.replay() != app.text()
    said = capsys.readouterr().err
    assert "of the deltas topic, so that nobody knows what was waived or late" in said
    with pytest.raises(NotLiveError, match="Give the replay a name"):
        run(app.config, Request(None, None, remote_write="http://127.0.0.1:1/api/v1/write"))


def test_a_replay_from_a_bookmark_begins_after_each_shards_window(app: App, tmp_path: Path) -> None:
    file = tmp_path / "bookmark"
    lines = list(take(app.config, str(file)))
    names = TopicNames.of(app.config)
    assert len(lines) == 4
    assert lines[0].startswith(f"{names.spans}/0: needed from offset ")
    ends = {n: int(line.rsplit(" ", 1)[1]) for n, line in enumerate(lines[2:])}
    assert all("a replay begins after the window that ends at" in line for line in lines[2:])
    assert 0 < len(app.text(after=ends)) < len(app.text())
    assert app.replay(bookmark=file) == app.text(after=ends)

    for options in ({"own_config": True}, {"ignore_waivers": True}, {"shards": 3}):
        with pytest.raises(InputError, match="a replay from a bookmark is live's"):
            app.replay(bookmark=file, **options)
    with pytest.raises(InputError, match=f"the bookmark is of {app.config.spanmill.app_id}: of {names.spans} and of 2"):
        app.replay(app_config(app.kafka, "nobody"), topic=names.deltas, bookmark=file)

    app.kafka.delete_records(names.deltas, {1: 9})
    with pytest.raises(
        InputError, match=rf"{names.deltas}: partition 1 holds offsets 9 to \d+, and the bookmark needs"
    ):
        app.replay(bookmark=file)
    app.kafka.delete_records(names.spans, {1: 190})
    with pytest.raises(
        InputError, match=f"{names.spans}: partition 1 holds offsets 190 to 200, and the bookmark needs"
    ):
        app.replay(bookmark=file)


def test_an_app_that_has_saved_nothing_has_no_bookmark(kafka: KafkaBroker, tmp_path: Path) -> None:
    config = app_config(kafka, kafka.unique("new").replace("-", "_"))
    for name in read_by_replays(config):
        kafka.create_topic(name, 2)
    with pytest.raises(InputError, match="no stage has saved anything yet"):
        list(take(config, str(tmp_path / "bookmark")))
    assert not (tmp_path / "bookmark").exists()
