"""The configuration file as commands name it, and how they end if it isn't valid."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from schemas.config import Config

PATH = click.Path(exists=True, dir_okay=False, path_type=Path)
CONFIG_FILE = click.option("--config.file", "config_file", type=PATH, help="Configuration, in Tempo's YAML.")


class InvalidConfigError(click.ClickException):
    """A configuration that isn't valid, one line for each thing that is wrong."""

    exit_code = 2


def valid(make: Callable[[], "Config"]) -> "Config":
    """What `make` gives; a configuration that isn't valid ends the program."""
    from schemas.config import ConfigError  # noqa: PLC0415 -- its models take a while to import

    try:
        return make()
    except (ConfigError, ValueError) as error:
        raise InvalidConfigError(str(error)) from error
