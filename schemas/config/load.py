"""Reading a configuration file."""

from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas.config.config import Config
from schemas.config.messages import ConfigError, at, describe, line_of
from schemas.config.pending import asked_for
from schemas.config.tempo_keys import take_out
from schemas.config.tenant import unknown_processors
from schemas.config.yaml_lines import Document, Path, YamlError, read_yaml

PROCESSORS: Path = ("overrides", "defaults", "metrics_generator", "processors")


def load_config(path: FilePath | None, text: str | None = None) -> Config:
    """Read a configuration file, or `text` in its place; without either, the defaults.

    ConfigError has a line `FILE:LINE: dotted.key: what; what to do` for each thing that is wrong. What was read and has
    no effect is in the configuration's `notes`.
    """
    name = str(path) if path else "<text>"
    document = parse(name, read(path, name) if text is None else text)
    values, taken = take_out(document.values)
    config = validate(name, document, values)
    check_topic(name, document, config)
    refuse(name, document, [(place, f"not implemented yet: {what}; leave it out") for place, what in asked_for(config)])
    taken.sort(key=lambda note: line_of(document, note[0]))
    notes = [at(name, document, place, f"ignored: {why}") for place, why in taken]
    return config.with_notes((*notes, *processor_notes(name, document, config)))


def read(path: FilePath | None, name: str) -> str:
    """The text of a file; "" if there is none."""
    try:
        return path.read_text(encoding="utf-8-sig") if path else ""
    except OSError as error:
        raise ConfigError(f"{name}: can't be read: {error.strerror}; check --config.file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: not UTF-8; save it as such") from None


def parse(name: str, text: str) -> Document:
    """The file's values and their places."""
    try:
        return read_yaml(text)
    except YamlError as error:
        raise ConfigError(f"{name}:{error.line}: {error.what}") from None


def validate(name: str, document: Document, values: dict[str, Any]) -> Config:
    """The models from the values. Where a text is wanted, a plain number or boolean is its text, as in Go's YAML."""
    errors = find_errors(values)
    numbers = {
        e["loc"]: document.texts[e["loc"]] for e in errors if e["type"] == "string_type" and e["loc"] in document.texts
    }
    if numbers:
        for path, text in numbers.items():
            values = with_value(values, path, text)
        errors = find_errors(values)
    refuse(name, document, [describe(error, Config) for error in errors])
    return build(values)


def refuse(name: str, document: Document, problems: list[tuple[Path, str]]) -> None:
    """Raise a ConfigError if there are problems: (place, what), reported in the file's order."""
    if problems:
        problems.sort(key=lambda problem: line_of(document, problem[0]))
        raise ConfigError("\n".join(at(name, document, place, what) for place, what in problems))


def check_topic(name: str, document: Document, config: Config) -> None:
    """`ingest.kafka.topic` and `spanmill.topics.spans` are one setting."""
    topic = config.ingest.kafka.topic
    if topic and topic != config.spanmill.topics.spans:
        what = f"{topic!r} isn't spanmill.topics.spans, which is the same setting; leave one out"
        refuse(name, document, [(("ingest", "kafka", "topic"), what)])


def build(values: dict[str, Any]) -> Config:
    """The models, by YAML keys only."""
    return Config.model_validate(values, by_alias=True, by_name=False, context={"file": True})


def find_errors(values: dict[str, Any]) -> list[ErrorDetails]:
    """What is wrong with the values."""
    try:
        build(values)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def with_value(values: Any, path: Path, value: Any) -> Any:
    """A copy of the values with another one at `path`."""
    if not path:
        return value
    if isinstance(values, tuple):
        return tuple(with_value(item, path[1:], value) if i == path[0] else item for i, item in enumerate(values))
    return {key: with_value(item, path[1:], value) if key == path[0] else item for key, item in values.items()}


def processor_notes(name: str, document: Document, config: Config) -> tuple[str, ...]:
    """Processors that don't exist are ignored (Tempo INST-4); that none runs deserves a line."""
    processors = config.overrides.defaults.metrics_generator.processors
    unknown = tuple(
        at(name, document, PROCESSORS, f"ignoring unknown metrics-generator processor {processor!r}")
        for processor in unknown_processors(processors)
    )
    if len(unknown) == len(processors):
        hint = "no processor runs, so no metrics are made; write [service-graphs, span-metrics]"
        return (*unknown, at(name, document, PROCESSORS, hint))
    return unknown
