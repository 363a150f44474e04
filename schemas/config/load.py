"""Reading configuration files."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas.config.config import Config
from schemas.config.durations import UNIT_NS, duration_text
from schemas.config.generator import SpanMetricsConfig
from schemas.config.mappings import collisions
from schemas.config.messages import ConfigError, at, describe
from schemas.config.overrides import OverridesFile, SpanMetricsOverrides, TenantOverrides
from schemas.config.pending import Pending, asked_for
from schemas.config.runtime import RuntimeOverrides, complete
from schemas.config.section import Section
from schemas.config.spellings import respell, value_at
from schemas.config.tempo_keys import WITHOUT_EFFECT, WITHOUT_EFFECT_FOR_A_TENANT, take_out, take_out_blocks
from schemas.config.tenant import unknown_processors
from schemas.config.yaml_lines import Document, Path, YamlError, read_yaml

DEFAULTS: Path = ("overrides", "defaults")
GENERATOR = "metrics_generator"
STATIC: Path = (GENERATOR, "processor", "span_metrics", "dimension_mappings")
"""Where mappings stand, in the file and in a block of overrides."""

Root = TypeVar("Root", bound=Section)
Places = Iterable[tuple[Path, str]]


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file as it was read."""

    name: str
    document: Document
    config: Config


def load_config(path: FilePath | None, text: str | None = None) -> Config:
    """Read a configuration file, or `text` in its place; without either, the defaults.

    ConfigError has a line `FILE:LINE: dotted.key: what; what to do` for each thing that is wrong. What was read and has
    no effect is in the configuration's `notes`. The file of tenants is not read: `load_overrides_file`.
    """
    return load_file(path, text).config


def load_all(path: FilePath | None) -> Config:
    """Read a configuration file and the file of tenants that it names. ConfigError has what is wrong with both."""
    try:
        config = load_config(path)
    except ConfigError as error:
        raise ConfigError("\n".join([str(error), *problems_of_tenants(path)])) from None
    return with_tenants(config)


def with_tenants(config: Config) -> Config:
    """A configuration with what its file of tenants says now; itself if that hasn't changed.

    ConfigError: the file can't be read or used.
    """
    name = config.overrides.per_tenant_override_config
    if not name:
        return config
    text = read(FilePath(name), name, "overrides.per_tenant_override_config")
    if text_hash(text) == config.runtime.sha256:
        return config  # a thousand blocks take seconds to read
    return config.with_runtime(load_overrides_file(FilePath(name), text, config))


def problems_of_tenants(path: FilePath | None) -> list[str]:
    """What is wrong with the file of tenants that a broken configuration file names, as far as that can be told."""
    try:
        block = value_at(parse(str(path), read(path, str(path))).values, ("overrides",))
        keys = ("per_tenant_override_config", "enable_legacy_overrides")
        values = {key: block[key] for key in keys if key in block} if isinstance(block, dict) else {}
        config = build(Config, {"overrides": values})
    except (ConfigError, ValidationError):
        return []
    try:
        with_tenants(config)
    except ConfigError as error:
        return str(error).split("\n")
    return []


def load_file(path: FilePath | None, text: str | None = None) -> ConfigFile:
    """`load_config`, with the file's lines."""
    name = str(path) if path else "<text>"
    document = parse(name, read(path, name) if text is None else text)
    legacy = value_at(document.values, ("overrides", "enable_legacy_overrides")) is True
    respelt = respell(document, {("overrides",): DEFAULTS}, legacy=legacy)
    document = respelt.document
    values, blocks = take_out_blocks(document.values)
    values, keys = take_out(values, WITHOUT_EFFECT)
    config = validate(Config, name, document, values, respelt.problems)
    refuse(name, document, [*other_topic(config), *not_implemented(asked_for(config)), *mapping_problems(config)])
    ignored = [(place, f"ignored: {why}") for place, why in (*blocks, *respelt.ignored, *keys)]
    notes = lines(name, document, [*ignored, *respelt.notes]) + lines(name, document, config_notes(config))
    return ConfigFile(name, document, config.with_notes(notes))


def load_overrides_file(path: FilePath, text: str | None, config: Config) -> RuntimeOverrides:
    """Read a file of tenants (Tempo OVR-2), or `text` as if it stood there; `config` has what falls back (OVR-1).

    ConfigError as with `load_config`; whoever has read the file before goes on with what it said then.
    """
    name = str(path)
    text = read(path, name, "overrides.per_tenant_override_config") if text is None else text
    document = parse(name, text)
    tenants = value_at(document.values, ("overrides",))
    blocks: dict[Path, Path] = (
        {("overrides", key): ("overrides", key) for key in tenants or ()} if isinstance(tenants, dict) else {}
    )
    respelt = respell(document, blocks, legacy=config.overrides.enable_legacy_overrides)
    document = respelt.document
    values, keys = take_out(without_empty_blocks(document.values), WITHOUT_EFFECT_FOR_A_TENANT)
    file = validate(OverridesFile, name, document, values, respelt.problems)
    problems = [*(each for tenant, block in file.overrides.items() for each in block_problems(config, tenant, block))]
    refuse(name, document, problems)
    ignored = [(place, f"ignored: {why}") for place, why in (*respelt.ignored, *keys)]
    notes = [each for tenant, block in file.overrides.items() for each in block_notes(config, tenant, block)]
    return RuntimeOverrides(
        blocks={tenant: complete(block, config.overrides.defaults) for tenant, block in file.overrides.items()},
        name=name,
        sha256=text_hash(text),
        notes=lines(name, document, [*ignored, *respelt.notes, *notes]),
        document=document,
    )


def read(path: FilePath | None, name: str, option: str = "--config.file") -> str:
    """The text of a file; "" if there is none."""
    try:
        return path.read_text(encoding="utf-8-sig") if path else ""
    except OSError as error:
        raise ConfigError(f"{name}: can't be read: {error.strerror}; check {option}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: not UTF-8; save it as such") from None


def text_hash(text: str) -> str:
    """What tells a file's text from another, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse(name: str, text: str) -> Document:
    """The file's values and their places."""
    try:
        return read_yaml(text)
    except YamlError as error:
        raise ConfigError(f"{name}:{error.line}: {error.what}") from None


def without_empty_blocks(values: dict[str, Any]) -> dict[str, Any]:
    """A tenant without a block, or with one that is empty YAML (`shop:`), has none, as in Tempo."""
    tenants = values.get("overrides")
    if not isinstance(tenants, dict):
        return values
    return {**values, "overrides": {tenant: block for tenant, block in tenants.items() if block is not None}}


def validate(
    root: type[Root], name: str, document: Document, values: dict[str, Any], problems: Iterable[tuple[Path, str]]
) -> Root:
    """The models from the values. Where a text is wanted, a plain number or boolean is its text, as in Go's YAML."""
    built = attempt(root, values)
    errors = built if isinstance(built, list) else []
    texts = {e["loc"]: document.written(e["loc"]) for e in errors if e["type"] == "string_type"}
    numbers = {place: document.texts[written] for place, written in texts.items() if written in document.texts}
    if numbers:
        for path, text in numbers.items():
            values = with_value(values, path, text)
        built = attempt(root, values)
        errors = built if isinstance(built, list) else []
    refuse(name, document, [*problems, *(describe(error, root) for error in errors)])
    assert isinstance(built, root)
    return built


def refuse(name: str, document: Document, problems: list[tuple[Path, str]]) -> None:
    """Raise a ConfigError if there are problems: (place, what), reported in the file's order."""
    if problems:
        raise ConfigError("\n".join(lines(name, document, problems)))


def lines(name: str, document: Document, places: Places) -> tuple[str, ...]:
    """One line about each place, in the file's order."""
    return tuple(at(name, document, *each) for each in sorted(places, key=lambda each: document.line_of(each[0])))


def build(root: type[Root], values: dict[str, Any]) -> Root:
    """The models, by YAML keys only."""
    return root.model_validate(values, by_alias=True, by_name=False, context={"file": True})


def attempt(root: type[Root], values: dict[str, Any]) -> Root | list[ErrorDetails]:
    """The models, or what is wrong with the values."""
    try:
        return build(root, values)
    except ValidationError as error:
        return error.errors(include_url=False)


def with_value(values: Any, path: Path, value: Any) -> Any:
    """A copy of the values with another one at `path`."""
    if not path:
        return value
    if isinstance(values, tuple):
        return tuple(with_value(item, path[1:], value) if i == path[0] else item for i, item in enumerate(values))
    return {key: with_value(item, path[1:], value) if key == path[0] else item for key, item in values.items()}


def not_implemented(asked: Iterable[tuple[Path, Pending]]) -> Iterator[tuple[Path, str]]:
    """What a file asks for and must not, as problems."""
    for path, pending in asked:
        yield path, f"not implemented yet: {pending.what}; leave it out"


def other_topic(config: Config) -> Iterator[tuple[Path, str]]:
    """`ingest.kafka.topic` and `spanmill.topics.spans` are one setting."""
    topic = config.ingest.kafka.topic
    if topic and topic != config.spanmill.topics.spans:
        yield (
            ("ingest", "kafka", "topic"),
            f"{topic!r} isn't spanmill.topics.spans, which is the same setting; leave one out",
        )


def mapping_problems(config: Config) -> Iterator[tuple[Path, str]]:
    """SM-13, for the tenants without a block."""
    yield from collisions_of(config, config.overrides.defaults, DEFAULTS)


def collisions_of(config: Config, block: TenantOverrides, place: Path) -> Iterator[tuple[Path, str]]:
    """SM-13, for the tenants of a block, whose own lists replace the static ones."""
    static: SpanMetricsConfig = config.metrics_generator.processor.span_metrics
    own: SpanMetricsOverrides = block.metrics_generator.processor.span_metrics
    dimensions = static.dimensions if own.dimensions is None else own.dimensions
    mappings = static.dimension_mappings if own.dimension_mappings is None else own.dimension_mappings
    for i, what in collisions(dimensions, mappings):
        where = STATIC if own.dimension_mappings is None else (*place, *STATIC)
        yield (*where, i), f"{what}; name it otherwise"


def block_problems(config: Config, tenant: str, block: TenantOverrides) -> Iterator[tuple[Path, str]]:
    """What the models of a tenant's block don't see."""
    place: Path = ("overrides", tenant)
    yield from collisions_of(config, block, place)


def config_notes(config: Config) -> Iterator[tuple[Path, str]]:
    """What deserves a line although nothing is wrong."""
    block = config.overrides.defaults
    yield from processor_notes(block, DEFAULTS)
    yield from forwarder_notes(config, block, DEFAULTS)
    if not config.overrides.per_tenant_override_config and not runs(block):
        hint = "no processor runs, so no metrics are made; write [service-graphs, span-metrics]"
        yield (*DEFAULTS, GENERATOR, "processors"), hint
    yield from interval_notes(config, block, DEFAULTS)


def block_notes(config: Config, tenant: str, block: TenantOverrides) -> Iterator[tuple[Path, str]]:
    """The same of a tenant's block."""
    yield from processor_notes(block, ("overrides", tenant))
    yield from forwarder_notes(config, block, ("overrides", tenant))
    yield from interval_notes(config, block, ("overrides", tenant))


def processor_notes(block: TenantOverrides, place: Path) -> Iterator[tuple[Path, str]]:
    """Processors that don't exist are ignored, in Tempo's words (INST-4)."""
    for processor in unknown_processors(block.metrics_generator.processors):
        yield (*place, GENERATOR, "processors"), f"ignoring unknown metrics-generator processor {processor!r}"


def forwarder_notes(config: Config, block: TenantOverrides, place: Path) -> Iterator[tuple[Path, str]]:
    """Forwarders that don't exist are ignored (DIST-15)."""
    known = {each.name for each in config.distributor.forwarders}
    for name in block.forwarders:
        if name not in known:
            yield (*place, "forwarders"), f"ignoring unknown forwarder {name!r}"


def runs(block: TenantOverrides) -> bool:
    """Whether any processor does."""
    processors = block.metrics_generator.processors
    return len(unknown_processors(processors)) < len(processors)


def interval_notes(config: Config, block: TenantOverrides, place: Path) -> Iterator[tuple[Path, str]]:
    """Samples are written at ends of windows: another interval is rounded up to a multiple of theirs."""
    window, own = (
        config.metrics_generator.registry.collection_interval_ms,
        block.metrics_generator.collection_interval_ms,
    )
    if own % window:
        every = duration_text((own + window - own % window) * UNIT_NS["ms"])
        what = f"no multiple of metrics_generator.registry.collection_interval, the log's windows: {every} is taken"
        yield (*place, GENERATOR, "collection_interval"), what
