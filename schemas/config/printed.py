"""The effective configuration of a tenant as YAML, and where each of its values comes from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.config.config import Config
from schemas.config.durations import parse_duration
from schemas.config.effective import changes, effective
from schemas.config.generator import IntrinsicDimensions
from schemas.config.load import DEFAULTS, ConfigFile
from schemas.config.overrides import TenantOverrides
from schemas.config.runtime import FALL_BACK
from schemas.config.section import Section
from schemas.config.yaml_lines import Document, Path
from schemas.config.yaml_text import text_of, unit_of, value_text

OTHERS = "tenants without their own"
OWN_PROCESSORS: Path = ("metrics_generator", "processor")
INSTEAD: Mapping[Path, Path] = {
    (*DEFAULTS, "metrics_generator", "collection_interval"): ("metrics_generator", "registry", "collection_interval"),
    (*DEFAULTS, "metrics_generator", "ingestion_time_range_slack"): (
        "metrics_generator",
        "metrics_ingestion_time_range_slack",
    ),
    ("spanmill", "topics", "spans"): ("ingest", "kafka", "topic"),
}
"""Whose value holds where a key isn't set."""

NOT_A_TENANTS = frozenset(
    {
        "per_tenant_override_config",
        "per_tenant_override_period",
        "user_configurable_overrides",
        "enable_legacy_overrides",
    }
)
"""Keys of `overrides` that say where overrides come from."""


def printed(file: ConfigFile, config: Config, tenant: str) -> str:
    """The effective configuration of a tenant of `config`, which is `file`'s with its tenants.

    It is a configuration file itself, in which every tenant would be as this one is; secrets are `<secret>`. A comment
    beside each value says where it comes from: FILE:LINE with (tenant), ("*") or (defaults) for overrides, or default.
    """
    sources = Sources(file, config, tenant)
    head = f"# Tenant {text_of(tenant)}; its overrides are {sources.block_place}"
    shown = effective(config, tenant)
    return "\n".join([head, *section_lines(shown, (), sources)]) + "\n"


def section_lines(section: Section, path: Path, sources: "Sources", indent: str = "") -> Iterator[str]:
    """A section's keys, one line each value."""
    for key, name in section.yaml_keys().items():
        value, here = getattr(section, name), (*path, key)
        if value is None or (path == DEFAULTS[:1] and key in NOT_A_TENANTS):
            continue
        if here == (*DEFAULTS, *OWN_PROCESSORS):
            continue  # they stand in metrics_generator.processor
        if isinstance(value, Section):
            below = list(section_lines(value, here, sources, f"{indent}  "))
            yield from [f"{indent}{key}:", *below] if below else [f"{indent}{key}: {{}}"]
        elif isinstance(value, Mapping) and any(isinstance(each, Section) for each in value.values()):
            yield f"{indent}{key}:  # {sources.origin(here)}"
            for own_name, each in value.items():
                yield f"{indent}  {text_of(own_name)}:"
                yield from section_lines(each, (*here, own_name), sources, f"{indent}    ")
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            yield f"{indent}{key}:  # {sources.origin(here)}"
            yield from item_lines(value, here, sources, f"{indent}  ")
        else:
            text = value_text(value, unit_of(type(section).model_fields[name]))
            yield f"{indent}{key}: {text}  # {sources.origin(here)}"


def item_lines(items: tuple[Section, ...], path: Path, sources: "Sources", indent: str) -> Iterator[str]:
    """The sections of a list."""
    for i, item in enumerate(items):
        first, *others = section_lines(item, (*path, i), sources, f"{indent}  ")
        yield f"{indent}- {first.removeprefix(f'{indent}  ')}"
        yield from others


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the values of a tenant's effective configuration are written."""

    file: ConfigFile
    config: Config
    tenant: str

    @property
    def block(self) -> str | None:
        """The name of the tenant's block, None if the defaults are its own."""
        return self.config.runtime.block_name(self.tenant)

    @property
    def block_place(self) -> str:
        """Which block that is."""
        where = f"of {self.config.runtime.name}"
        return "the defaults" if self.block is None else f"those {where} for {OTHERS if self.block == '*' else 'it'}"

    def origin(self, path: Path) -> str:
        """Where the value at a path of the effective configuration comes from."""
        if path[:2] == OWN_PROCESSORS and self.is_overridden(path[2:]):
            return self.of_block(path)
        if path[:2] == DEFAULTS:
            own = self.of_block(path[2:])
            if own != "default" or path not in INSTEAD:
                return own
        own = self.of_file(path)
        return self.of_file(INSTEAD[path]) if own == "default" and path in INSTEAD else own

    def is_overridden(self, path: Path) -> bool:
        """Whether the tenant's block decides a processor's value: (processor, key, ...)."""
        processor, key, *deeper = path
        own = getattr(self.config.tenant_overrides(self.tenant).metrics_generator.processor, str(processor))
        value = changes(own).get(str(key))
        if deeper and deeper[0] in IntrinsicDimensions.model_fields and isinstance(value, Mapping):
            return deeper[0] in value  # merged key by key
        return value is not None

    def of_block(self, path: Path) -> str:
        """Where a value of the tenant's overrides is written."""
        runtime = self.config.runtime
        if self.block is None or path == ("ingestion", "rate_strategy"):
            return self.of_defaults(path)
        if runtime.document is None:
            return runtime.name or "overrides"
        falls, place = path[-1] in FALLING, ("overrides", self.block, *path)
        if is_set(runtime.document, place, UNSET_BY_ZERO | FALLING):
            which = '"*"' if self.block == "*" else "tenant"
            return f"{runtime.name}:{runtime.document.line_of(place)} ({which})"
        return self.of_defaults(path) if falls else "default"

    def of_defaults(self, path: Path) -> str:
        """Where a value of the defaults is written."""
        place = (*DEFAULTS, *path)
        if not is_set(self.file.document, place, UNSET_BY_ZERO):
            return "default"
        return f"{self.of_file(place)} (defaults)"

    def of_file(self, path: Path) -> str:
        """Where a static value is written."""
        document = self.file.document
        return f"{self.file.name}:{document.line_of(path)}" if is_set(document, path) else "default"


FALLING = frozenset(
    {
        *(key for key, name in TenantOverrides().metrics_generator.yaml_keys().items() if name in FALL_BACK),
        "retry_info_enabled",
    }
)
"""The keys of what falls back to the defaults (OVR-1)."""


UNSET_BY_ZERO = frozenset(
    {
        "collection_interval",
        "generate_native_histograms",
        "ingestion_time_range_slack",
        "native_histogram_bucket_factor",
        "trace_id_label_name",
    }
)
"""The keys whose zero means "not overridden"."""


def is_set(document: Document, path: Path, unset_by_zero: frozenset[str] = frozenset()) -> bool:
    """Whether a value stands there; a key without one doesn't set anything, nor does Go's zero for some keys."""
    value = raw(document, path) if document.has(path) else None
    return value is not None and not (path[-1] in unset_by_zero and is_zero(value))


def raw(document: Document, path: Path) -> Any:
    """A value as it was read."""
    value: Any = document.values
    for key in path:
        value = value[key] if isinstance(value, tuple) and isinstance(key, int) else value.get(key)
    return value


def is_zero(value: Any) -> bool:
    """Whether a value is Go's zero."""
    if isinstance(value, bool):
        return False
    if isinstance(value, str):
        try:
            return parse_duration(value) == 0
        except ValueError:
            return value == ""
    return not value
