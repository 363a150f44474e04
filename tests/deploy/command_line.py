"""Whether commands in containers are commands of ours."""

from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner

from agents.cli import cli

ROOT = Path(__file__).resolve().parents[2]


def assert_is_command(arguments: Sequence[str]) -> None:
    """The command line takes these; nothing is run."""
    given = CliRunner().invoke(cli, [*arguments, "--help"])
    assert given.exit_code == 0, given.output
    assert given.output.startswith(f"Usage: cli {' '.join(words(arguments))} [OPTIONS]"), given.output


def words(arguments: Sequence[str]) -> list[str]:
    """The command's name, without its options."""
    return [each for each in arguments if not each.startswith("-")]
