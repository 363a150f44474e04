"""`spanmill config ...`: what is wrong in a configuration, and what it means for a tenant. Nothing is connected to."""

# ruff: noqa: PLC0415 -- the models take a while to import

import sys
from pathlib import Path

import click

from agents.config_file import CONFIG_FILE, PATH, InvalidConfigError
from schemas.record import DEFAULT_TENANT

FILE = click.argument("file", type=PATH, required=False)


@click.group("config")
def config_group() -> None:
    """The configuration file."""


@config_group.command("check")
@FILE
@CONFIG_FILE
@click.option("--shards", type=click.IntRange(1), default=4, show_default=True, help="Partitions of the deltas topic.")
def check(file: Path | None, config_file: Path | None, shards: int) -> None:
    """Check FILE and the file of tenants that it names; exit code 1 if something is wrong.

    Says what has no effect here, how many series a tenant may have, and how many a label set or an edge counts for.
    """
    from schemas.config import ConfigError, load_all
    from schemas.config.rules import Rules, RulesTooLargeError
    from schemas.config.sizing import sizes

    try:
        config = load_all(one_of(file, config_file))
        Rules.of(config)
    except (ConfigError, RulesTooLargeError) as error:
        click.echo(error, err=True)
        sys.exit(1)
    for line in (*config.notes, *sizes(config, shards)):
        click.echo(line)
    click.echo("configuration is valid")


@config_group.command("print")
@FILE
@CONFIG_FILE
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose configuration.")
def print_tenant(file: Path | None, config_file: Path | None, tenant: str) -> None:
    """Print the effective configuration of a tenant, and beside each value where it comes from."""
    from schemas.config import ConfigError
    from schemas.config.load import load_file, with_tenants
    from schemas.config.printed import printed

    try:
        read = load_file(one_of(file, config_file))
        text = printed(read, with_tenants(read.config), tenant)
    except ConfigError as error:
        raise InvalidConfigError(str(error)) from error
    click.echo(text, nl=False)


def one_of(file: Path | None, config_file: Path | None) -> Path | None:
    """The file that is named, either way."""
    if file is not None and config_file is not None:
        raise click.UsageError("FILE and --config.file are the same; give one")
    return file or config_file
