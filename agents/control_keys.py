"""The keys of control records, from their file (`spanmill.control_key_file`)."""

from schemas.config import Config
from schemas.control_format import NO_KEYS, ControlKeys


class ControlKeyError(Exception):
    """The key file can't be used; the message says why."""


def control_keys(config: Config) -> ControlKeys:
    """The keys of a configuration; none without a file. Blocks; raises `ControlKeyError`."""
    file = config.spanmill.control_key_file
    if file is None:
        return NO_KEYS
    try:
        return ControlKeys.parse(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ControlKeyError(f"spanmill.control_key_file: {file}: {error}") from error
