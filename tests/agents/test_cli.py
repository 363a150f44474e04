"""The command line: what it says, and how it ends."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spanmill import drop_stale_kernels, foreign_packages

ROOT = Path(__file__).resolve().parents[2]


def spanmill(
    *arguments: str, cwd: Path = ROOT, script: Path = ROOT / "spanmill.py"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )


def test_every_stage_has_a_command() -> None:
    shown = spanmill("--help")
    assert shown.returncode == 0
    stages = ["distributor", "generator", "sink", "ingester"]
    commands = [*stages, "replay", "bookmark", "audit", "doctor", "dev", "topics", "config"]
    assert all(f"\n  {command} " in shown.stdout for command in commands)


def test_a_wrong_configuration_ends_in_one_line_that_names_file_line_and_key(tmp_path: Path) -> None:
    file = tmp_path / "spanmill.yaml"
    file.write_text("metrics_generator:\n  registry:\n    collection_intervall: 5s\n")
    for command in (["config", "print"], ["generator"], ["replay", "--input", "x.bin", "--output", "y"]):
        refused = spanmill(*command, "--config.file", str(file))
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert line.startswith(f"spanmill: {file}:3: ")
        assert "collection_intervall" in line


def test_a_kafka_address_that_is_none_is_refused() -> None:
    refused = spanmill("generator", "--kafka", "nowhere")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("spanmill: 'nowhere' is not an address")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--input", "x.bin", "--kafka", "127.0.0.1:9092", "--output", "y"],
        ["--input", "x"],
        ["--from", "0", "--bookmark", __file__, "--output", "y"],
        ["--input", "x", "--remote-write", "http://127.0.0.1:1/api/v1/write", "--compare", __file__, "--output", "y"],
    ],
)
def test_a_replay_is_of_a_file_or_of_a_topic(arguments: list[str]) -> None:
    refused = spanmill("replay", *arguments)
    assert refused.returncode == 2
    assert "Usage: spanmill replay" in refused.stderr


def copied(home: Path) -> Path:
    """An installation: our packages as they stand, and the first step."""
    for name in ("agents", "streams", "schemas"):
        (home / name).mkdir(parents=True)
        shutil.copy(ROOT / name / "__init__.py", home / name)
    shutil.copy(ROOT / "spanmill.py", home)
    return home


def test_packages_of_ours_are_recognised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert foreign_packages(ROOT) == {}


def test_another_package_of_the_same_name_is_named(tmp_path: Path) -> None:
    home, other = copied(tmp_path / "home"), tmp_path / "other"
    (other / "streams").mkdir(parents=True)
    (other / "streams" / "__init__.py").write_text('raise RuntimeError("imported")\n')
    code = f"import sys; sys.path[:0] = [{str(other)!r}, {str(home)!r}]; import spanmill; spanmill.main()"
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"spanmill: the package 'streams' is not Spanmill's, it comes from {other}")


def test_another_package_unpacked_over_ours_is_named(tmp_path: Path) -> None:
    home = copied(tmp_path)
    (home / "agents" / "__init__.py").write_text('"""Agents of another kind."""\n')
    refused = spanmill("--help", cwd=tmp_path, script=home / "spanmill.py")
    assert refused.returncode == 1
    assert "the package 'agents' is not Spanmill's" in refused.stderr


def test_kernels_older_than_a_source_are_dropped(tmp_path: Path) -> None:
    for folder in ("schemas", "streams"):
        (tmp_path / folder / "__pycache__").mkdir(parents=True)
    source, old, new = (
        tmp_path / "schemas" / "wire.py",
        tmp_path / "streams" / "__pycache__" / "kernel.1.nbc",
        tmp_path / "streams" / "__pycache__" / "kernel.nbi",
    )
    for path, at in ((source, 200), (old, 100), (new, 300)):
        path.touch()
        os.utime(path, (at, at))
    drop_stale_kernels(tmp_path)
    assert [old.exists(), new.exists()] == [False, True]
