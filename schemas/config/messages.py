"""Errors of a configuration in the user's words: `FILE:LINE: dotted.key: what; what to do`."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic_core import ErrorDetails

from schemas.config.generator import GeneratorConfig
from schemas.config.section import Section
from schemas.config.tempo_keys import known_beside
from schemas.config.yaml_lines import Document, Path

GENERATOR = "metrics_generator"


class ConfigError(Exception):
    """A configuration that can't be used; one line for each thing that is wrong."""


def dotted(path: Path) -> str:
    """`a.b[0].c`; a key that would break the line is quoted."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key if key.isprintable() else repr(key)}"
    return text.removeprefix(".")


def at(name: str, document: Document, path: Path, what: str) -> str:
    """One line about a place in a file."""
    where = f"{dotted(document.written(path))}: " if path else ""
    return f"{name}:{document.line_of(path)}: {where}{what}"


def describe(error: ErrorDetails, root: type[Section]) -> tuple[Path, str]:
    """Where in the file an error of pydantic's is, and what it says. Values of wrong type aren't quoted: secrets."""
    path = tuple(key for key in error["loc"] if key != "[key]")
    return path, unknown_key(path, root) if error["type"] == "extra_forbidden" else what_is_wrong(error)


def what_is_wrong(error: ErrorDetails) -> str:
    """What a value is, and should be."""
    says = SAYINGS.get(error["type"], error["msg"])
    return says.format(**{"value": error["input"], "kind": kind_of(error["input"]), **error.get("ctx", {})})


SAYINGS = {
    "bool_type": "must be true or false, not {kind}",
    "dict_type": "must be a mapping, not {kind}",
    "float_type": "must be a number, not {kind}",
    "int_type": "must be a whole number, not {kind}",
    "model_type": "must be a mapping, not {kind}",
    "path_type": "must be a path, not {kind}",
    "string_type": "must be a text, not {kind}",
    "tuple_type": "must be a list, not {kind}",
    "greater_than": "{value!r} must be greater than {gt}",
    "greater_than_equal": "{value!r} must be at least {ge}",
    "less_than_equal": "{value!r} must be at most {le}",
    "literal_error": "{value!r} is not known; choose {expected}",
    "missing": "is missing; it is required",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "too_long": "has more than {max_length} items; name fewer",
    "value_error": "{error}",
}
"""Our words for pydantic's errors, by their type. Values of a wrong type aren't quoted: they may be secrets."""


def kind_of(value: object) -> str:
    """What a value is, in YAML's words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return str(value)  # never a secret: a text may be written as a number
        case str():
            return "a text"
        case tuple():
            return "a list"
        case _:
            return "a mapping"


def unknown_key(path: Path, root: type[Section]) -> str:
    """What an unknown key may have been meant to be."""
    key = str(path[-1])
    if static_place(path):
        return f"can't be overridden; write it as {dotted(static_place(path))}, for every tenant"
    known = [*keys_at(path[:-1], root), *known_beside(path[:-1])]
    close = get_close_matches(key, known, n=1)
    return f"unknown key; did you mean {close[0]}?" if close else f"unknown key; known are {', '.join(sorted(known))}"


def static_place(path: Path) -> Path:
    """Where a key that a block of overrides can't have belongs (Tempo CFG-6); empty if it is no key at all."""
    static = path[path.index(GENERATOR) :] if path[0] == "overrides" and GENERATOR in path[2:] else ()
    section: Any = GeneratorConfig
    for key in static[1:]:
        if section is None or key not in section.yaml_keys():
            return ()
        section = next(sections_in(section.model_fields[section.yaml_keys()[key]].annotation), None)
    return static


def keys_at(path: Path, root: type[Section]) -> list[str]:
    """The keys of the section at a path."""
    section: Any = root
    keys = iter(path)
    for key in keys:
        if isinstance(key, str):
            annotation = section.model_fields[section.yaml_keys()[key]].annotation
            if get_origin(annotation) is dict:
                next(keys, None)  # a name of the user's own, such as a tenant's
            section = section_of(annotation)
    return list(section.yaml_keys())


def section_of(annotation: Any) -> type[Section]:
    """The section within a field's type: itself, optional, or the items of a list."""
    return next(sections_in(annotation))


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """The sections that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    elif get_origin(annotation) is not None:
        for part in get_args(annotation):
            yield from sections_in(part)
