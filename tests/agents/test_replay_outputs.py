"""Where a replay's samples go: to endpoints, under a name of their own, or beside those of another configuration."""

import asyncio
from itertools import groupby
from pathlib import Path

import pytest

from agents.replay import Request, run
from agents.replay.bookmark import read
from agents.replay.files import InputError
from agents.replay.labelled import LabelTakenError
from agents.replay.remote import NoEndpointError
from agents.replay.run import NotLiveError
from schemas.config import load_config
from schemas.openmetrics import seconds_text, value_text
from tests.agents.test_replay import BOTH, CONFIG, RECORDS, config, many_records, replayed, write_bin
from tests.servers.remote_write_receiver import Received, Receiver, Reply


async def written(receiver: Receiver, source: Path, **options: object) -> None:
    """Replay a file to a receiver, in a thread as a command has it: without a loop."""
    request = Request(str(source), None, remote_write=receiver.url, **options)  # type: ignore[arg-type]
    await asyncio.to_thread(run, config(*BOTH), request)


def lines(text: bytes) -> set[tuple[str, str, str]]:
    """Name, value and time of all samples of a text."""
    found = (line.split(" # ")[0].rsplit(" ", 2) for line in text.decode().splitlines() if line[0] != "#")
    return {(series.split("{")[0], value, at) for series, value, at in found}


async def test_an_endpoint_gets_what_the_text_says_in_order_and_under_the_replays_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_bin(tmp_path / "spans.bin", many_records())
    async with Receiver().serve() as receiver:
        await written(receiver, source, replay_id="again")
    markers = [each for each in receiver.stored if each[0] == "spanmill_sink_window"]
    values = {(name, value_text(value), seconds_text(at)) for name, value, at in receiver.stored} - {
        (name, value_text(value), seconds_text(at)) for name, value, at in markers
    }
    assert values == lines(await asyncio.to_thread(replayed, tmp_path, source, *BOTH))
    assert [at for _, _, at in markers] == sorted({at for _, _, at in markers})
    assert all(series.labels["replay"] == "again" for each in receiver.received for series in each.series)
    assert f"{len(receiver.stored) - len(markers)} samples written" in capsys.readouterr().err


async def test_an_endpoint_that_is_down_is_asked_again_until_it_has_everything(tmp_path: Path) -> None:
    source = write_bin(tmp_path / "spans.bin", RECORDS)
    answers = iter([503, 204, 429, 500])

    def sometimes(_: Received) -> Reply:
        return Reply(next(answers, 204))

    async with Receiver().serve() as calm, Receiver(sometimes).serve() as receiver:
        await written(calm, source, replay_id="again")
        await written(receiver, source, replay_id="again")
    assert receiver.stored == calm.stored
    assert [name for name, _ in groupby(receiver.requests)] == calm.requests


def test_live_series_are_never_written_by_what_is_not_live(tmp_path: Path) -> None:
    source = write_bin(tmp_path / "spans.bin", RECORDS)
    request = Request(str(source), None, remote_write="http://127.0.0.1:1/api/v1/write")
    with pytest.raises(NotLiveError, match=r"the input is a file\. Give the replay a name"):
        run(config(), request)


def test_without_a_url_there_must_be_an_endpoint_in_the_configuration(tmp_path: Path) -> None:
    source = write_bin(tmp_path / "spans.bin", RECORDS)
    with pytest.raises(NoEndpointError, match="give a URL to --remote-write"):
        run(config(), Request(str(source), None, remote_write="", replay_id="x"))


def test_a_label_that_series_have_already_is_not_written_over(tmp_path: Path) -> None:
    source = write_bin(tmp_path / "spans.bin", RECORDS)
    taken = load_config(
        None,
        text=CONFIG.replace("PROCESSORS", "span-metrics").replace(
            "metrics_generator:\n  processor:",
            "metrics_generator:\n  registry: {external_labels: {replay: x}}\n  processor:",
            1,
        ),
    )
    with pytest.raises(LabelTakenError, match="'replay': 'x'"):
        run(taken, Request(str(source), str(tmp_path / "out"), replay_id="again"))


def test_a_comparison_names_the_samples_that_another_configuration_changes(tmp_path: Path) -> None:
    source, other, out = write_bin(tmp_path / "spans.bin", RECORDS), tmp_path / "other.yaml", tmp_path / "out"
    plain = CONFIG.replace("PROCESSORS", "span-metrics-count")
    other.write_text(plain + "      processor: {span_metrics: {intrinsic_dimensions: {status_code: false}}}\n")
    run(config("span-metrics-count"), Request(str(source), str(out), last=True, compare=other))
    shown = [line for line in out.read_text().splitlines() if "calls_total" in line]
    without = 'traces_spanmetrics_calls_total{{service="{}",span_kind="SPAN_KIND_{}",span_name="{}"}} {} 1700000055'
    assert [line for line in shown if line[0] == "+"] == [
        "+" + without.format("cart", "SERVER", "buy", 1),
        "+" + without.format("shop", "CLIENT", "buy", 2),
        "+" + without.format("shop", "SERVER", "look", 1),
    ]
    assert len([line for line in shown if line[0] == "-"]) == 3

    other.write_text(plain)
    run(config("span-metrics-count"), Request(str(source), str(out), compare=other))
    assert out.read_bytes() == b""


def test_a_bookmark_that_is_none_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "nowhere")
    (tmp_path / "other").write_bytes(b"# HELP")
    with pytest.raises(InputError, match=r"other: .*not a bookmark"):
        read(tmp_path / "other")
