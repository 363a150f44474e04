"""A shard's owner over a log in memory: waivers, gaps, what can't be read, what is lost, a disk that is full."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agents.broker import Broker
from agents.chain_watch import MissingBatchError, UndecodableBatchError
from agents.live_config import LiveConfig
from agents.log_probe import Ends
from agents.own_metrics import OwnMetrics
from agents.rules_log import Clocks
from agents.sink import ShardOwner, Sink
from agents.topics import OtherShardsError
from schemas.config import load_config
from schemas.config.rules import Rules
from schemas.control import CONTROL_HEADER, AcceptGap, ConfigChange, Control, SkipRecord, Tick, Waiver, encode_control
from schemas.control_format import NO_KEYS, ControlKeys
from schemas.deltas import encode_window
from schemas.snapshot import newest_snapshot
from streams.shard import WindowSamples
from streams.spill import WINDOWS_IN_MEMORY
from tests.streams.delta_rows import INTERVAL, calls, text, window

HOLD_BACK_S = 120
SHARD = 0
CONFIG = f"""
overrides: {{defaults: {{metrics_generator: {{processors: [span-metrics]}}}}}}
spanmill: {{sink: {{hold_back: {HOLD_BACK_S}s, snapshot_every_windows: 2, data_dir: "%s"}}}}
"""


@dataclass
class Record:
    offset: int
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp: int = 0
    key: bytes | None = None


class Log:
    """One partition of `[deltas]`, with its broker: producer, probe and topics in one."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.low = 0
        self.is_up = True

    def append(self, *values: bytes | Control) -> None:
        for each in values:
            value = each if isinstance(each, bytes) else b""
            headers = () if isinstance(each, bytes) else ((CONTROL_HEADER, encode_control(each)),)
            self.records.append(Record(self.low + len(self.records), value, headers))

    def forget(self, low: int) -> None:
        """Retention."""
        self.records = [record for record in self.records if record.offset >= low]
        self.low = low

    @property
    def high(self) -> int:
        return self.low + len(self.records)

    @property
    def controls(self) -> list[bytes]:
        return [dict(record.headers)[CONTROL_HEADER] for record in self.records if record.headers]

    async def send(self, topic: str, partition: int, value: bytes, **more: Any) -> "asyncio.Future[int]":
        self.records.append(Record(self.high, value, more["headers"]))
        acknowledged: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        acknowledged.set_result(self.high - 1)
        return acknowledged

    def purge(self) -> None:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError

    async def ends(self, topic: str, partition: int) -> Ends:
        if not self.is_up:
            raise TimeoutError
        return Ends(self.low, self.high)

    async def first_from(self, topic: str, partition: int, offset: int) -> tuple[int, int] | None:
        return next(((record.offset, 0) for record in self.records if record.offset >= offset), None)

    async def partitions(self, topic: str) -> int:
        return 1


class Table:
    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}


class Worker:
    """What an owner needs of its worker: the table and the commits; knows the log's end as of the last delivery."""

    def __init__(self) -> None:
        self.table = Table()
        self.writes: list[list[tuple[bytes, bytes | None]]] = []
        self.committed: list[int] = []
        self.end = 0

    async def save(self, partition: int, items: Mapping[bytes, bytes | None]) -> None:
        self.writes.append(list(items.items()))
        for key, value in items.items():
            if value is None:
                self.table.data.pop(key, None)
            else:
                self.table.data[key] = value

    async def commit(self, partition: int, offset: int) -> None:
        self.committed.append(offset)

    def end_offset(self, partition: int) -> int | None:
        return self.end


class Storage:
    """An endpoint that can be shut."""

    name = "storage"

    def __init__(self) -> None:
        self.windows: list[WindowSamples] = []
        self.is_up = asyncio.Event()
        self.is_up.set()

    async def write(self, samples: WindowSamples) -> None:
        await self.is_up.wait()
        self.windows.append(samples)

    @property
    def calls(self) -> list[str]:
        """Values of service a, with their times."""
        return [line.split()[-1] for line in text(self.windows) if "service=a" in line and " 0@" not in line]


class Running:
    """An owner at work: its log is delivered when the test says so, and its clock is the test's."""

    def __init__(
        self,
        directory: Path,
        log: Log,
        worker: Worker,
        threads: ThreadPoolExecutor,
        keys: ControlKeys,
        shards: int,
        waits_for_rules: bool,
    ) -> None:
        self.log, self.worker, self.storage, self.metrics, self.now = log, worker, Storage(), OwnMetrics(), 0.0
        config = load_config(None, CONFIG % directory)
        live = LiveConfig(config, self.metrics.config)
        clocks = Clocks(now_s=lambda: 1_700_000_000.0 + self.now, elapsed_s=lambda: self.now)
        sink = Sink(
            config,
            live,
            self.metrics,
            [self.storage],
            Broker(log, log, log, keys),  # type: ignore[arg-type]
            threads,
            writer=b"w",
            clocks=clocks,
            shards=shards,
        )
        self.owner: ShardOwner = sink.owner(worker, SHARD, worker.table.data)  # type: ignore[arg-type]
        if not waits_for_rules:
            self.owner._shard.keep_rules()

    async def deliver(self) -> None:
        """Hand over what isn't yet, and wait until it is fed."""
        new = [record for record in self.log.records if record.offset >= self.owner.next_offset]
        self.worker.end = self.log.high
        if new:
            await self.owner.put(new)
        await self.until(lambda: self.owner.at_end or self.owner.paused)

    async def until(self, holds: Callable[[], bool], timeout_s: float = 120) -> None:
        """Wait; the first window may have to wait for kernels that are compiled."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                await asyncio.sleep(0.005)

    async def looks(self, times: int = 2) -> None:
        """Let the owner look at its chains as often as the clock says now."""
        for _ in range(times):
            await self.owner._watch.look(self.owner._is_idle)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@contextlib.asynccontextmanager
async def running(
    directory: Path,
    log: Log,
    worker: Worker | None = None,
    keys: ControlKeys = NO_KEYS,
    shards: int = 2,
    *,
    waits_for_rules: bool = False,
) -> AsyncIterator[Running]:
    with ThreadPoolExecutor(2) as threads:
        it = Running(directory, log, worker or Worker(), threads, keys, shards, waits_for_rules)
        task = asyncio.create_task(it.owner.run())
        try:
            yield it
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def part(partition: int, number: int, previous: int | None = -1, n: float = 1, partitions: int = 2) -> bytes:
    """A batch of a window by its number, with `n` calls of service a; it follows the one before by default."""
    before = number - 1 if previous == -1 else previous
    closed = window(number * INTERVAL, before * INTERVAL if before else None, [calls("a", n)])
    (only,) = encode_window(closed, partition, partitions, 1)[0]
    return only


async def test_a_window_stops_waiting_when_the_waiver_is_read_back(tmp_path: Path) -> None:
    log = Log()
    log.append(part(0, 1), part(1, 1), part(0, 2))
    async with running(tmp_path, log) as it:
        await it.deliver()
        await it.looks()
        it.now = HOLD_BACK_S - 1
        await it.looks()
        assert log.controls == []
        it.now = HOLD_BACK_S
        await it.looks(5)
        assert log.controls == [encode_control(Waiver(1, 2 * INTERVAL))], "one, until it is read back"
        assert it.storage.calls == ["2@15"]
        await it.deliver()
        await it.until(lambda: it.storage.calls == ["2@15", "3@30"])
        await it.looks()
        assert it.value("spanmill_sink_waivers_total", shard="0") == 1
        assert it.value("spanmill_sink_waived_partitions", shard="0") == 1
        log.append(part(1, 2, n=10), part(0, 3), part(1, 3))
        await it.deliver()
        await it.until(lambda: it.storage.calls == ["2@15", "3@30", "15@45"])
        await it.looks()
        assert it.value("spanmill_sink_waived_partitions", shard="0") == 0
        assert [each.incomplete for each in it.storage.windows] == [False, True, False]


async def test_the_first_windows_are_by_the_rules_that_the_log_names_first(tmp_path: Path) -> None:
    """A sink that begins writes nothing by its own: another may take its place before anything else is known."""
    log = Log()
    log.append(part(0, 1), part(1, 1))
    async with running(tmp_path, log, waits_for_rules=True) as it:
        await it.deliver()
        assert it.storage.calls == []
        labelled = load_config(None, "metrics_generator: {registry: {external_labels: {cluster: b}}}\n" + CONFIG % "x")
        log.append(ConfigChange(1, 9 * INTERVAL, Rules.of(labelled).packed, "test", 2))
        await it.deliver()
        await it.until(lambda: it.storage.calls == ["2@15"])
    assert any("cluster=b" in line for line in text(it.storage.windows))


async def test_a_partition_that_still_delivers_is_waited_for(tmp_path: Path) -> None:
    log = Log()
    log.append(part(0, 1), part(1, 1), part(0, 2), part(0, 3))
    async with running(tmp_path, log) as it:
        await it.deliver()
        await it.looks()
        it.now = HOLD_BACK_S - 1
        log.append(part(1, 2))
        await it.deliver()
        it.now = 2 * HOLD_BACK_S - 2
        await it.looks()
        assert log.controls == []
        it.now = 2 * HOLD_BACK_S
        await it.looks()
        assert log.controls == [encode_control(Waiver(1, 3 * INTERVAL))]


async def test_a_partition_that_only_repeats_itself_is_not(tmp_path: Path) -> None:
    log = Log()
    log.append(part(0, 1), part(1, 1), part(0, 2))
    async with running(tmp_path, log) as it:
        await it.deliver()
        await it.looks()
        it.now = HOLD_BACK_S - 1
        log.append(part(1, 1))
        await it.deliver()
        it.now = HOLD_BACK_S
        await it.looks()
        assert log.controls == [encode_control(Waiver(1, 2 * INTERVAL))]


async def test_a_window_waits_from_its_first_batch_on(tmp_path: Path) -> None:
    log = Log()
    log.append(part(0, 1), part(1, 1))
    async with running(tmp_path, log) as it:
        await it.deliver()
        it.now = 10 * HOLD_BACK_S
        log.append(part(0, 2))
        await it.deliver()
        await it.looks()
        it.now = 11 * HOLD_BACK_S - 1
        await it.looks()
        assert log.controls == []
        assert it.value("spanmill_sink_oldest_window_waits_seconds", shard="0") == HOLD_BACK_S - 1
        it.now += 1
        await it.looks()
        assert log.controls == [encode_control(Waiver(1, 2 * INTERVAL))]


async def test_a_sink_that_has_more_to_read_appends_no_waiver_though_it_thinks_that_it_is_at_the_end(
    tmp_path: Path,
) -> None:
    log = Log()
    log.append(part(0, 1), part(1, 1), part(0, 2))
    async with running(tmp_path, log) as it:
        await it.deliver()
        await it.looks()
        log.append(part(1, 2))  # while the process is stopped: its clock goes on, its last fetch is old
        it.now = 10 * HOLD_BACK_S
        assert it.owner.at_end
        await it.looks()
        assert log.controls == []
        log.is_up = False
        await it.looks()
        assert log.controls == []
        log.is_up = True
        await it.deliver()
        await it.looks()
        assert log.controls == []


async def test_a_sink_that_pauses_appends_no_waiver(tmp_path: Path) -> None:
    log = Log()
    async with running(tmp_path, log) as it:
        it.storage.is_up.clear()
        log.append(*(part(p, number) for number in range(1, 6) for p in (0, 1)), part(0, 6))
        await it.deliver()
        assert it.owner.paused
        it.now = 10 * HOLD_BACK_S
        await asyncio.sleep(1.2)  # its own looks
        assert log.controls == []
        assert it.value("spanmill_sink_paused", shard="0") == 1
        it.storage.is_up.set()
        await it.until(lambda: it.owner.at_end)
        await it.looks()
        assert log.controls == [], "window 6 has only now begun to wait, as far as can be seen"


async def test_while_every_endpoint_is_down_no_more_of_the_log_is_taken_than_a_few_deliveries(tmp_path: Path) -> None:
    log = Log()
    async with running(tmp_path, log) as it:
        it.storage.is_up.clear()
        log.append(*(part(p, number) for number in range(1, 101) for p in (0, 1)))
        it.worker.end = log.high

        async def deliver() -> None:
            for record in log.records:
                await it.owner.put([record])

        delivering = asyncio.create_task(deliver())
        await it.until(lambda: it.owner.paused)
        await asyncio.sleep(0.1)
        taken = it.owner.next_offset
        it.now = 10 * HOLD_BACK_S
        await asyncio.sleep(0.1)
        assert it.owner.next_offset == taken <= 10
        assert it.owner.paused
        it.storage.is_up.set()
        await delivering
        await it.until(lambda: len(it.storage.windows) == 100)


async def test_other_control_records_at_the_end_keep_nothing_waiting(tmp_path: Path) -> None:
    log = Log()
    log.append(part(0, 1), Tick(5))
    async with running(tmp_path, log) as it:
        await it.deliver()
        await it.looks()
        it.now = HOLD_BACK_S
        await it.looks()
        assert log.controls[1:] == [encode_control(Waiver(1, INTERVAL))]


async def test_with_a_key_waivers_are_signed_and_those_of_others_are_passed_over(tmp_path: Path) -> None:
    log = Log()
    log.append(part(0, 1), Waiver(1, INTERVAL), SkipRecord(0))
    async with running(tmp_path, log, keys=ControlKeys((b"k" * 32,))) as it:
        await it.deliver()
        assert it.value("spanmill_controls_refused_total", stage="sink") == 2
        await it.looks()
        it.now = HOLD_BACK_S
        await it.looks()
        assert log.controls[2:] == [encode_control(Waiver(1, INTERVAL))]
        assert it.storage.calls == []
        await it.deliver()
        await it.until(lambda: it.storage.calls == ["1@15"])


async def test_the_owner_looks_by_itself(tmp_path: Path) -> None:
    log = Log()
    log.append(part(0, 1))
    async with running(tmp_path, log) as it:
        await it.deliver()
        await it.looks()
        it.now = HOLD_BACK_S
        await it.until(lambda: len(log.controls) == 1)


async def test_a_gap_stops_the_shard_after_hold_back_and_the_command_that_it_names_lets_it_go_on(
    tmp_path: Path,
) -> None:
    log, worker = Log(), Worker()
    log.append(part(0, 1), part(1, 1), part(0, 2), part(0, 3), part(1, 4), part(0, 4), part(1, 5), part(0, 5))
    async with running(tmp_path, log, worker) as it:
        await it.deliver()
        await it.looks()
        assert it.value("spanmill_sink_chain_gaps_total") == 2
        it.now = HOLD_BACK_S
        with pytest.raises(MissingBatchError) as stop:
            await it.looks()
        assert log.controls == [], "a partition whose chain is broken isn't waived"
    found = re.search(r"accept-gap --shard (\d+) --partition (\d+) --after (\d+)", str(stop.value))
    assert found is not None
    assert "deltas/0 offset 4: window 60000 of partition 1 follows 45000, the last one delivered is 15000" in str(
        stop.value
    )
    _, partition, after = map(int, found.groups())
    log.append(AcceptGap(partition, after))
    async with running(tmp_path, log, worker) as it:
        await it.deliver()
        await it.until(lambda: it.storage.calls[-1:] == ["8@75"])
        it.now = 10 * HOLD_BACK_S
        await it.looks()
        assert ledger(it.storage, "chain_gaps_total") == ledger(it.storage, "gap_windows_total") / 2 == 1


def ledger(storage: Storage, name: str) -> float:
    lines = [line for line in text(storage.windows, ledger=True) if line.startswith(f"spanmill_ledger_{name}{{")]
    return float(lines[-1].split()[-1].split("@")[0])


async def test_a_missing_batch_that_comes_lets_the_shard_go_on(tmp_path: Path) -> None:
    log = Log()
    log.append(part(0, 1, partitions=1), part(0, 3, partitions=1))
    async with running(tmp_path, log) as it:
        await it.deliver()
        await it.looks()
        log.append(part(0, 2, partitions=1), part(0, 3, partitions=1))
        await it.deliver()
        it.now = 10 * HOLD_BACK_S
        await it.looks()
        await it.until(lambda: it.storage.calls == ["1@15", "2@30", "3@45"])


@pytest.mark.parametrize("garbage", [b"\xff garbage", part(0, 2, partitions=1)[:-9], b""])
async def test_what_can_t_be_read_stops_the_shard_after_hold_back_unless_it_is_skipped(
    tmp_path: Path, garbage: bytes
) -> None:
    log, worker = Log(), Worker()
    log.append(part(0, 1, partitions=1), garbage, *(part(0, number, partitions=1) for number in (2, 3, 4)))
    if not garbage:
        log.records[1].headers = [(CONTROL_HEADER, b"\xff")]
    async with running(tmp_path, log, worker) as it:
        await it.deliver()
        await it.until(lambda: it.storage.calls == ["1@15", "2@30", "3@45", "4@60"])
        await it.until(lambda: worker.committed in ([1, 1], [1]))
        await it.looks()
        it.now = HOLD_BACK_S
        with pytest.raises(UndecodableBatchError, match=r"deltas/0 offset 1: .*accept-gap --shard 0 --offset 1"):
            await it.looks()
    log.append(SkipRecord(1), *(part(0, number, partitions=1) for number in (5, 6)))
    async with running(tmp_path, log, worker) as it:
        assert it.owner.start_offset == 1, "a program that can read it finds it here"
        await it.deliver()
        it.now = 10 * HOLD_BACK_S
        await it.looks()
        await it.until(lambda: worker.committed[-1] == log.high)


async def test_where_the_log_begins_above_what_is_wanted_chains_go_on_there_and_the_loss_is_counted(
    tmp_path: Path,
) -> None:
    log, worker = Log(), Worker()
    log.append(*(part(0, number, partitions=1) for number in range(1, 8)))
    log.forget(4)
    async with running(tmp_path, log, worker) as it:
        await it.deliver()
        await it.until(lambda: it.storage.calls == ["1@75", "2@90", "3@105"])
        assert it.value("spanmill_records_lost_total", stage="sink") == 4
        assert ledger(it.storage, "chain_gaps_total") == 1
        it.now = 10 * HOLD_BACK_S
        await it.looks()


async def test_what_retention_takes_while_the_sink_reads_is_adopted_too(tmp_path: Path) -> None:
    log = Log()
    log.append(part(0, 1, partitions=1), part(0, 2, partitions=1))
    async with running(tmp_path, log) as it:
        await it.deliver()
        log.append(*(part(0, number, partitions=1) for number in (3, 4, 5, 6)))
        log.forget(4)
        await it.deliver()
        await it.until(lambda: it.storage.calls == ["1@15", "2@30", "3@75", "4@90"])
        assert it.value("spanmill_records_lost_total", stage="sink") == 2
        assert ledger(it.storage, "gap_windows_total") == 2
        it.now = 10 * HOLD_BACK_S
        await it.looks()


async def test_a_snapshot_follows_the_acknowledgement_ends_with_its_manifest_and_replaces_older_ones(
    tmp_path: Path,
) -> None:
    log, worker = Log(), Worker()
    async with running(tmp_path, log, worker) as it:
        it.storage.is_up.clear()
        log.append(part(0, 1, partitions=1), part(0, 2, partitions=1))
        await it.deliver()
        await asyncio.sleep(0.05)
        assert worker.writes == [], "nobody has the windows yet"
        it.storage.is_up.set()
        await it.until(lambda: len(worker.committed) == 1)
        log.append(part(0, 3, partitions=1), part(0, 4, partitions=1))
        await it.deliver()
        await it.until(lambda: len(worker.committed) == 2)
    keys = [[key.decode() for key, _ in writes] for writes in worker.writes]
    assert keys[:2] == [["0/30000/77/0"], ["0/30000/77/manifest"]], "one after the other"
    assert keys[2] == []
    assert keys[3:5] == [["0/60000/77/0"], ["0/60000/77/manifest"]]
    assert keys[5:] == [["0/30000/77/manifest", "0/30000/77/0"]]
    assert worker.committed == [2, 4]
    found = newest_snapshot(worker.table.data, SHARD)
    assert found is not None
    assert (found.cut.end_ms, found.cut.next_offset) == (60_000, 4)


async def test_a_deltas_topic_with_other_partitions_than_a_snapshot_s_is_refused(tmp_path: Path) -> None:
    log, worker = Log(), Worker()
    async with running(tmp_path, log, worker) as it:
        log.append(part(0, 1, partitions=1), part(0, 2, partitions=1))
        await it.deliver()
        await it.until(lambda: len(worker.committed) == 1)
    with pytest.raises(OtherShardsError, match=r"-deltas has 3 partitions, and .*_sink has worked with 2: "):
        async with running(tmp_path, log, worker, shards=3):
            pass


async def test_batches_that_wait_for_a_partition_far_behind_are_on_disk_and_are_gone_at_the_end(tmp_path: Path) -> None:
    log = Log()
    count = WINDOWS_IN_MEMORY + 15
    log.append(*(part(0, number) for number in range(1, count + 1)))
    async with running(tmp_path, log) as it:
        await it.deliver()
        assert len(files(tmp_path)) == count - 1 - WINDOWS_IN_MEMORY
        log.append(*(part(1, number) for number in range(1, count + 1)))
        await it.deliver()
        await it.until(lambda: it.storage.calls == [f"{2 * n}@{15 * n}" for n in range(1, count + 1)])
        assert files(tmp_path) == []
    assert list((tmp_path / "spanmill_sink" / "batches").iterdir()) == []


def files(directory: Path) -> list[Path]:
    return list(directory.glob("*/batches/*/*.arrow"))


async def test_a_disk_that_takes_no_batches_pauses_the_shard_until_it_does(tmp_path: Path) -> None:
    log = Log()
    count = WINDOWS_IN_MEMORY + 15
    directory = tmp_path / "spanmill_sink"
    directory.mkdir()
    (directory / "batches").write_text("")
    log.append(*(part(0, number) for number in range(1, count + 1)))
    async with running(tmp_path, log) as it:
        await it.deliver()
        assert it.owner.paused
        log.append(*(part(1, number) for number in range(1, count + 1)))
        it.worker.end = log.high
        await it.owner.put(log.records[count:])
        it.now = 10 * HOLD_BACK_S
        await asyncio.sleep(0.6)
        assert (it.storage.calls, log.controls) == ([], []), "it isn't fed, and no waiver says otherwise"
        (directory / "batches").unlink()
        await it.until(lambda: it.storage.calls == [f"{2 * n}@{15 * n}" for n in range(1, count + 1)])
        assert not it.owner.paused
