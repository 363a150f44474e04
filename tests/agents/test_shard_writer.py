"""Writing windows: each endpoint goes on by itself, and cuts wait for all that aren't written off."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.own_metrics import OwnMetrics
from agents.shard_writer import WINDOWS_IN_FLIGHT, WINDOWS_IN_MEMORY, Completed, ShardWriter
from agents.spilled_windows import SpilledWindows
from schemas.native_histogram import BucketExemplar, NativeHistogram
from schemas.remote_write import Exemplar
from streams.series import Sample, Series
from streams.shard import Cut, TenantSamples, WindowSamples

INTERVAL_MS = 15_000
MAX_LAG_S = 60.0


def window(number: int) -> WindowSamples:
    end_ms = number * INTERVAL_MS
    series = [Series((("__name__", f"m{i}"), ("number", str(number)))) for i in range(3)]
    samples = TenantSamples(
        "team-a",
        end_ms - INTERVAL_MS,
        [Sample(series[0], 0.0)],
        [Sample(each, float(number + i)) for i, each in enumerate(series)],
        3,
        0,
    )
    return WindowSamples(7, end_ms - INTERVAL_MS, end_ms, (samples,), 0)


def cut(number: int) -> Cut:
    return Cut(
        shard=7,
        end_ms=number * INTERVAL_MS,
        next_offset=number,
        partitions=1,
        applied={},
        waived={},
        adopted_after=None,
        series=[],
        ledger=[],
    )


class Gated:
    """An endpoint that stores while its gate is open, and waits before it otherwise."""

    def __init__(self, name: str, *, is_open: bool = True) -> None:
        self.name = name
        self.stored: list[WindowSamples] = []
        self.gate = asyncio.Event()
        if is_open:
            self.gate.set()

    async def write(self, samples: WindowSamples) -> None:
        await self.gate.wait()
        self.stored.append(samples)

    @property
    def numbers(self) -> list[int]:
        return [each.end_ms // INTERVAL_MS for each in self.stored]


class Running:
    """A writer at work, with a clock of the test's."""

    def __init__(self, directory: Path, *endpoints: Gated, max_lag_s: float = MAX_LAG_S) -> None:
        self.now = 0.0
        self.saved: list[int] = []
        self.metrics = OwnMetrics()
        self.spilled = SpilledWindows(directory, 7)
        self.writer = ShardWriter(
            7, endpoints, self.metrics, self.save, self.spilled, max_lag_s, clock=lambda: self.now
        )

    async def save(self, saved: Cut) -> None:
        self.saved.append(saved.end_ms // INTERVAL_MS)

    async def put(self, *numbers: int, with_cuts: bool = False) -> None:
        for number in numbers:
            await asyncio.wait_for(self.writer.put(Completed(window(number), cut(number) if with_cuts else None)), 10)

    async def until(self, what: str, timeout_s: float = 10) -> None:
        """Wait for a condition, an expression over `self`."""
        async with asyncio.timeout(timeout_s):
            while not eval(what, {"self": self}):
                await asyncio.sleep(0.005)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@contextlib.asynccontextmanager
async def running(directory: Path, *endpoints: Gated) -> AsyncIterator[Running]:
    it = Running(directory, *endpoints)
    task = asyncio.create_task(it.writer.run())
    try:
        yield it
    finally:
        assert not task.done() or task.cancelled(), task.exception()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def arrow_files(directory: Path) -> list[Path]:
    return list(directory.glob("7-*/*.arrow"))


def names(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


async def stored(endpoint: Gated, *numbers: int) -> None:
    async with asyncio.timeout(20):
        while endpoint.numbers != list(numbers):
            await asyncio.sleep(0.005)


async def test_an_endpoint_that_is_down_holds_no_other(tmp_path: Path) -> None:
    up, down = Gated("up"), Gated("down", is_open=False)
    async with running(tmp_path, up, down) as it:
        await it.put(*range(1, 11))
        await stored(up, *range(1, 11))
        assert down.stored == []
        down.gate.set()
        await stored(down, *range(1, 11))


async def test_the_shard_waits_while_every_endpoint_is_down(tmp_path: Path) -> None:
    endpoints = [Gated("a", is_open=False), Gated("b", is_open=False)]
    async with running(tmp_path, *endpoints) as it:
        await it.put(*range(1, WINDOWS_IN_FLIGHT + 1))
        waiting = asyncio.create_task(it.put(3))
        await it.until("self.writer.paused")
        assert not waiting.done()
        it.now = 10 * MAX_LAG_S  # however long it takes: nobody is written off, for nobody is ahead
        await asyncio.sleep(0.05)
        endpoints[0].gate.set()
        await waiting
        assert not it.writer.paused
        await stored(endpoints[0], 1, 2, 3)
        assert it.value("spanmill_sink_endpoint_written_off", endpoint="b", shard="7") == 0


async def test_st_7_without_endpoints_windows_are_completed_and_cuts_saved(tmp_path: Path) -> None:
    """ST-7."""
    async with running(tmp_path) as it:
        await it.put(*range(1, 6), with_cuts=True)
        await it.until("5 in self.saved")
        assert it.value("spanmill_sink_windows_completed_total") == 5


async def test_a_cut_waits_for_every_endpoint(tmp_path: Path) -> None:
    up, down = Gated("up"), Gated("down", is_open=False)
    async with running(tmp_path, up, down) as it:
        await it.put(*range(1, 9), with_cuts=True)
        await stored(up, *range(1, 9))
        await asyncio.sleep(0.02)
        assert it.saved == []
        down.gate.set()
        await it.until("8 in self.saved")
        assert it.saved in ([1, 8], [8]), "the newest that all have; those between aren't kept"


async def test_an_endpoint_that_is_too_far_behind_is_written_off_and_comes_back(tmp_path: Path) -> None:
    up, down = Gated("up"), Gated("down", is_open=False)
    async with running(tmp_path, up, down) as it:
        await it.put(*range(1, 7), with_cuts=True)  # 75 s of the log
        await stored(up, *range(1, 7))
        it.now = MAX_LAG_S
        await it.until("6 in self.saved")
        assert it.value("spanmill_sink_endpoint_written_off", endpoint="down", shard="7") == 1
        assert it.value("spanmill_sink_windows_lost_total", endpoint="down") == 4
        await it.put(7, 8, with_cuts=True)
        await it.until("8 in self.saved")
        down.gate.set()
        await stored(down, 1, 8)
        await it.put(9)
        await stored(down, 1, 8, 9)
        assert it.value("spanmill_sink_endpoint_written_off", endpoint="down", shard="7") == 0
        assert it.value("spanmill_sink_windows_lost_total", endpoint="down") == 6


async def test_catching_up_an_endpoint_is_behind_in_the_log_only_and_keeps_its_place(tmp_path: Path) -> None:
    fast, slow = Gated("fast"), Gated("slow", is_open=False)
    async with running(tmp_path, fast, slow) as it:
        await it.put(*range(1, 51))  # 12 minutes of the log, in no time
        await stored(fast, *range(1, 51))
        await asyncio.sleep(0.05)
        assert it.value("spanmill_sink_endpoint_written_off", endpoint="slow", shard="7") == 0
        slow.gate.set()
        await stored(slow, *range(1, 51))


async def test_windows_past_memory_are_on_disk_and_come_back_whole(tmp_path: Path) -> None:
    fast, slow = Gated("fast"), Gated("slow", is_open=False)
    numbers = range(1, WINDOWS_IN_MEMORY + 16)
    async with running(tmp_path, fast, slow) as it:
        await it.put(*numbers)
        await stored(fast, *numbers)
        await it.until("len(self.spilled._spilled) == 15")
        assert len(arrow_files(tmp_path)) == 15
        in_memory = [each.number for each in it.writer._lanes[1].waiting if each.window is not None]
        assert in_memory == list(range(1, WINDOWS_IN_MEMORY + 1))
        slow.gate.set()
        await stored(slow, *numbers)
        assert slow.stored == [window(number) for number in numbers]
        await it.until("not self.spilled._spilled")
        assert arrow_files(tmp_path) == []
    assert names(tmp_path) == []


async def test_a_disk_that_takes_nothing_makes_the_others_wait(tmp_path: Path) -> None:
    no_directory = tmp_path / "file"
    no_directory.write_text("")
    fast, slow = Gated("fast"), Gated("slow", is_open=False)
    async with running(no_directory, fast, slow) as it:
        await it.put(*range(1, WINDOWS_IN_MEMORY + 1))
        feeding = asyncio.create_task(it.put(*range(WINDOWS_IN_MEMORY + 1, WINDOWS_IN_MEMORY + 11)))
        await it.until("self.writer.paused")
        assert it.spilled.failed
        slow.gate.set()
        await feeding
        await stored(slow, *range(1, WINDOWS_IN_MEMORY + 11))


async def test_a_disk_that_takes_files_again_lets_the_others_go_on(tmp_path: Path) -> None:
    directory = tmp_path / "windows"
    directory.write_text("")
    fast, slow = Gated("fast"), Gated("slow", is_open=False)
    async with running(directory, fast, slow) as it:
        feeding = asyncio.create_task(it.put(*range(1, WINDOWS_IN_MEMORY + 11)))
        await it.until("self.spilled.failed and self.writer.paused")
        directory.unlink()
        await feeding
        await stored(fast, *range(1, WINDOWS_IN_MEMORY + 11))
        slow.gate.set()
        await stored(slow, *range(1, WINDOWS_IN_MEMORY + 11))


async def test_with_a_full_disk_an_endpoint_that_is_down_holds_the_others_no_longer_than_endpoint_max_lag(
    tmp_path: Path,
) -> None:
    no_directory = tmp_path / "file"
    no_directory.write_text("")
    fast, down = Gated("fast"), Gated("down", is_open=False)
    with contextlib.ExitStack() as longer:
        it = Running(no_directory, fast, down, max_lag_s=10 * WINDOWS_IN_MEMORY * INTERVAL_MS / 1000)
        task = asyncio.create_task(it.writer.run())
        longer.callback(task.cancel)
        feeding = asyncio.create_task(it.put(*range(1, WINDOWS_IN_MEMORY + 11)))
        await it.until("self.spilled.failed and self.writer.paused")
        it.now = 10 * WINDOWS_IN_MEMORY * INTERVAL_MS / 1000
        await feeding
        await stored(fast, *range(1, WINDOWS_IN_MEMORY + 11))
        assert it.value("spanmill_sink_endpoint_written_off", endpoint="down", shard="7") == 1


async def test_what_a_crash_left_on_disk_is_removed(tmp_path: Path) -> None:
    for left in ("7-old", "8-other"):
        (tmp_path / left).mkdir()
    async with running(tmp_path, Gated("a")):
        await asyncio.sleep(0.01)
        assert names(tmp_path) == ["8-other"]


async def test_what_an_endpoint_raises_ends_the_writer(tmp_path: Path) -> None:
    class Failing(Gated):
        async def write(self, samples: WindowSamples) -> None:
            raise ValueError("a bug")

    writer = Running(tmp_path, Failing("a")).writer
    await writer.put(Completed(window(1)))
    with pytest.raises(ValueError, match="a bug"):
        await asyncio.wait_for(writer.run(), 5)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(tuple)
FLOATS = st.floats(allow_nan=False)
NATIVES = st.builds(
    NativeHistogram,
    st.integers(-4, 8),
    st.integers(0, 1 << 62),
    FLOATS,
    st.integers(0, 1 << 62),
    st.lists(st.tuples(st.integers(-9000, 9000), st.integers(1, 1 << 40)), max_size=4).map(tuple),
    st.lists(st.builds(BucketExemplar, PAIRS, FLOATS), max_size=2).map(tuple),
)
SAMPLES = st.lists(
    st.builds(
        Sample,
        PAIRS.map(Series),
        FLOATS | NATIVES,
        st.none() | st.builds(Exemplar, PAIRS, FLOATS, st.integers(0, 1 << 60)),
    ),
    max_size=5,
)


@given(
    st.lists(
        st.builds(TenantSamples, TEXTS, st.integers(0, 1 << 60), SAMPLES, SAMPLES, st.just(1), st.just(2)), max_size=2
    )
)
def test_any_window_comes_back_from_disk_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, tenants: list[TenantSamples]
) -> None:
    spilled = SpilledWindows(tmp_path_factory.getbasetemp() / "windows", 1)
    whole = WindowSamples(1, 0, 15_000, tuple(tenants), 3)
    assert spilled.save(1, whole)
    assert spilled.load(1) == whole
    spilled.remove(1)
    assert list(spilled._directory.file("").iterdir()) == []
    spilled.close()


async def test_the_registrys_gauges_are_shown_while_the_shard_is_owned(tmp_path: Path) -> None:
    gauges = {("tempo_metrics_generator_registry_active_series", ()): 3.0}
    labelled = {("tempo_metrics_generator_registry_label_cardinality_demand_estimate", (("label_name", "pod"),)): 9.0}
    (samples,) = window(1).tenants
    shown = replace(window(1), tenants=(replace(samples, gauges={**gauges, **labelled}),))
    async with running(tmp_path, Gated("a")) as it:
        await it.writer.put(Completed(shown))
        await asyncio.sleep(0.01)
        of = {"tenant": "team-a", "shard": "7"}
        assert it.value("tempo_metrics_generator_registry_active_series", **of) == 3
        name = "tempo_metrics_generator_registry_label_cardinality_demand_estimate"
        assert it.value(name, label_name="pod", **of) == 9
        await it.writer.put(Completed(replace(window(2), tenants=(replace(samples, gauges=gauges),))))
        assert it.value("tempo_metrics_generator_registry_active_series", **of) == 3
        assert it.value(name, label_name="pod", **of) is None
    assert it.value("tempo_metrics_generator_registry_active_series", **of) is None
    assert it.value("spanmill_sink_windows_waiting", endpoint="a", shard="7") is None
