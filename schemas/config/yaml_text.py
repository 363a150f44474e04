"""Values as YAML that reads back as them; secrets as `<secret>`."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from schemas.config.durations import Unit
from schemas.config.yaml_lines import YamlError, read_yaml

MASK = "<secret>"

PLAIN = re.compile(r"[A-Za-z0-9_/.][A-Za-z0-9_/. :+-]*")
"""Nearly: a few of these are numbers, or keys with values."""


def unit_of(field: FieldInfo) -> Unit | None:
    """What a field's number counts, if it is a duration."""
    return next((each for each in field.metadata if isinstance(each, Unit)), None)


def value_text(value: Any, unit: Unit | None = None) -> str:
    """A value without sections in it, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{text_of(key)}: {value_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(value_text, value)) + "]"
    return unit.text(value) if unit else scalar_text(value)


def scalar_text(value: Any) -> str:
    """A text, a number, true or false."""
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else '""'
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else text_of(str(value))


def text_of(text: str) -> str:
    """A text, quoted where it would be read as something else."""
    return text if is_plain(text) else quoted(text)


def is_plain(text: str) -> bool:
    """Whether a text needs no quotes, wherever it stands."""
    if not PLAIN.fullmatch(text):
        return False
    try:
        return read_yaml(f"x: [{{{text}: {text}}}]").values == {"x": ({text: text},)}
    except YamlError:
        return False


def quoted(text: str) -> str:
    """A text in double quotes."""
    return '"' + "".join(f"\\{c}" if c in '"\\' else c if c.isprintable() else escaped(c) for c in text) + '"'


def escaped(character: str) -> str:
    """A character that a file can't have as it is."""
    return f"\\U{ord(character):08X}"
