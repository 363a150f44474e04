"""Other spellings of overrides: Tempo's legacy (flat) names (OVR-4), and two that its code misspells (§12.2)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from schemas.config.messages import dotted
from schemas.config.overrides import TenantOverrides
from schemas.config.tempo_keys import WITHOUT_EFFECT
from schemas.config.yaml_lines import Document, Path

OF_GENERATOR, OF_INGESTION = "metrics_generator", "ingestion"
OTHERS = {
    "max_traces_per_user": ("ingestion", "max_traces_per_user"),
    "max_global_traces_per_user": ("ingestion", "max_global_traces_per_user"),
    "ingestion_tenant_shard_size": ("ingestion", "tenant_shard_size"),
    "metrics_generator_ring_size": ("metrics_generator", "ring_size"),
    "forwarders": ("forwarders",),
    "cost_attribution": ("cost_attribution",),
}
LEGACY: Mapping[str, tuple[str, ...]] = {
    **{"_".join(path): path for path in TenantOverrides.yaml_leaves() if path[0] in {OF_GENERATOR, OF_INGESTION}},
    **OTHERS,
}
"""Where in a block each flat name belongs."""

NO_TRACES = WITHOUT_EFFECT["overrides.defaults.storage"]
NO_QUERIES = WITHOUT_EFFECT["overrides.defaults.read"]
LEGACY_WITHOUT_EFFECT: Mapping[str, str] = {
    "block_retention": NO_TRACES,
    "compaction_disabled": NO_TRACES,
    "compaction_window": NO_TRACES,
    "max_blocks_per_tag_values_query": NO_QUERIES,
    "max_bytes_per_tag_values_query": NO_QUERIES,
    "max_bytes_per_trace": NO_TRACES,
    "max_metrics_duration": NO_QUERIES,
    "max_search_bytes_per_trace": NO_QUERIES,
    "max_search_duration": NO_QUERIES,
    "metrics_generator_forwarder_queue_size": WITHOUT_EFFECT["overrides.defaults.metrics_generator.forwarder"],
    "metrics_generator_forwarder_workers": WITHOUT_EFFECT["overrides.defaults.metrics_generator.forwarder"],
    "parquet_dedicated_columns": NO_TRACES,
    "unsafe_query_hints": NO_QUERIES,
}

PROCESSOR = ("metrics_generator", "processor")
MISSPELT: Mapping[tuple[str, ...], tuple[str, ...]] = {
    (*PROCESSOR, "span_metrics", "dimension_mapings"): (*PROCESSOR, "span_metrics", "dimension_mappings"),
    (*PROCESSOR, "host_info", "host_identifies"): (*PROCESSOR, "host_info", "host_identifiers"),
}
"""What Tempo's own JSON has."""


@dataclass(frozen=True, slots=True)
class Respelt:
    """A document in today's spelling, what was wrong with the old one, and what has no effect: (path, what)."""

    document: Document
    problems: tuple[tuple[Path, str], ...]
    ignored: tuple[tuple[Path, str], ...]
    notes: tuple[tuple[Path, str], ...]


@dataclass(slots=True)
class Speller:
    """Moves values within a document's copy."""

    values: dict[str, Any]
    moved: dict[Path, Path]
    problems: list[tuple[Path, str]]
    ignored: list[tuple[Path, str]]
    notes: list[tuple[Path, str]]

    def flat_names(self, source: Path, target: Path, *, allowed: bool) -> None:
        """Those of the mapping at `source`, to the block at `target`."""
        block = value_at(self.values, source)
        for key in list(block) if isinstance(block, dict) else ():
            path = (*target, *LEGACY[key]) if key in LEGACY else None
            if (*source, key) == path or (path is None and key not in LEGACY_WITHOUT_EFFECT):
                continue
            if not allowed:
                self.problems.append(((*source, key), f"{REFUSED}{f', or write {dotted(path)}' if path else ''}"))
            value = self.take(source, key)
            if path is None:
                self.ignored.append(((*source, key), LEGACY_WITHOUT_EFFECT[key]))
            else:
                self.put(path, value, (*source, key))

    def misspelt(self, block: Path) -> None:
        """Two keys of a block."""
        for wrong, right in MISSPELT.items():
            section = value_at(self.values, (*block, *wrong[:-1]))
            if isinstance(section, dict) and wrong[-1] in section:
                path = (*block, *wrong)
                self.notes.append((path, f"taken for {right[-1]}, as in Tempo's own JSON; write {right[-1]}"))
                self.put((*block, *right), self.take((*block, *wrong[:-1]), wrong[-1]), path)

    def take(self, path: Path, key: str) -> Any:
        """Remove a key and return its value."""
        *_, section = self.copied(path)
        return section.pop(key)

    def put(self, path: Path, value: Any, written: Path) -> None:
        """Add a value at its place; one that stands there already is a problem."""
        *_, section = self.copied(path[:-1])
        if section is None:
            return  # no mapping: the models refuse it
        if path[-1] in section:
            self.problems.append((written, f"stands also as {dotted(path)}, which is the same setting; drop one"))
            return
        section[path[-1]] = value
        self.moved[path] = written

    def copied(self, path: Path) -> Iterator[Any]:
        """The mappings down to `path`, made where there are none; None where something else stands."""
        section: Any = self.values
        yield section
        for key in path:
            below = section.get(key)
            if below is not None and not isinstance(below, dict):
                yield None
                return
            section[key] = section = dict(below or {})
            yield section


REFUSED = "legacy (flat) overrides are refused; set overrides.enable_legacy_overrides: true"


def respell(document: Document, blocks: Mapping[Path, Path], *, legacy: bool) -> Respelt:
    """A document whose blocks have today's names: `blocks` says where one's flat names stand, and where it belongs.

    What the document says of lines and places still names what is written.
    """
    speller = Speller(dict(document.values), {}, [], [], [])
    for source, target in blocks.items():
        speller.flat_names(source, target, allowed=legacy)
        speller.misspelt(target)
    return Respelt(
        replace(document, values=speller.values, moved=speller.moved),
        tuple(speller.problems),
        tuple(speller.ignored),
        tuple(speller.notes),
    )


def value_at(values: Any, path: Path) -> Any:
    """What is at a path of keys; None if nothing is."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values
