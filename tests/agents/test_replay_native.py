"""Native histograms in a replay: OpenMetrics text can't hold them."""

import subprocess
import sys
from pathlib import Path

import pytest

from agents.replay import Request, run
from agents.replay.output import NativeHistogramsError
from schemas.config import load_config
from tests.agents.test_replay import CONFIG, RECORDS, replayed, write_bin


def in_mode(mode: str, *processors: str) -> str:
    return CONFIG.replace("PROCESSORS", ", ".join(processors)) + f"      generate_native_histograms: {mode}\n"


def replay(directory: Path, mode: str, *processors: str) -> bytes:
    out = directory / f"{mode}.om"
    source = write_bin(directory / "spans.bin", RECORDS)
    run(load_config(None, text=in_mode(mode, *processors)), Request(str(source), str(out)))
    return out.read_bytes()


@pytest.mark.parametrize("processors", [("span-metrics",), ("service-graphs", "span-metrics")])
def test_the_text_has_the_classic_part_where_there_are_both(tmp_path: Path, processors: tuple[str, ...]) -> None:
    """REG-19: it is the same as in classic mode, weights being whole here."""
    classic = replayed(tmp_path, write_bin(tmp_path / "spans.bin", RECORDS), *processors)
    assert b"_bucket" in classic
    # These counters differ: a label set has one series more (REG-21), and rows of both kinds.
    added = (b"spanmill_ledger_registry_series_added_total", b"spanmill_ledger_registry_rows_")
    both = replay(tmp_path, "both", *processors)
    assert [line for line in both.splitlines() if not line.startswith(added)] == [
        line for line in classic.splitlines() if not line.startswith(added)
    ]


def test_native_histograms_alone_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NativeHistogramsError, match="set generate_native_histograms to classic or both"):
        replay(tmp_path, "native", "span-metrics")
    assert not (tmp_path / "native.om").exists()


def test_counters_alone_are_no_error_in_native_mode(tmp_path: Path) -> None:
    text = replay(tmp_path, "native", "span-metrics-count")
    assert b"traces_spanmetrics_calls_total" in text
    assert b"traces_spanmetrics_latency" not in text


def test_the_command_ends_with_one_line_and_a_code(tmp_path: Path) -> None:
    settings, source = tmp_path / "spanmill.yaml", write_bin(tmp_path / "spans.bin", RECORDS)
    settings.write_text(in_mode("native", "span-metrics"))
    command = [sys.executable, "spanmill.py", "replay", "--config.file", str(settings), "--input", str(source)]
    done = subprocess.run([*command, "--output", "-"], capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines() == [
        "spanmill: traces_spanmetrics_latency is a native histogram only, which OpenMetrics text can't hold: set "
        "generate_native_histograms to classic or both, or write to an endpoint (remote write holds all)"
    ]
