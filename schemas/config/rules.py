"""What of a configuration decides values, as a text that goes into the log (`ConfigChange`).

Endpoints, headers, secrets and how the stages work are no part of it. Nor is how a topic is written (its codec, the
headers that name tenants): that belongs to the topic, and is the same for all of its records.
"""

import hashlib
import json
from functools import cached_property, lru_cache
from typing import Any, Self

import cramjam
from pydantic import ValidationError

from schemas.config.config import Config
from schemas.config.generator import GeneratorConfig
from schemas.config.overrides import GeneratorOverrides, OverridesConfig, TenantOverrides
from schemas.config.runtime import RuntimeOverrides
from schemas.config.section import Count, Section
from schemas.config.settings import TenantSettings
from schemas.config.tenant import tenant_settings
from schemas.errors import Malformed, Reason

MAX_HALF_EDGE_BYTES = 16 << 20
"""The half-edges of a checkpoint take so many bytes at most, as `streams.half_edges.weigh` counts them: about 80,000.

A checkpoint is one record of a changelog that takes 20 MB.
"""

MAX_PACKED_BYTES = 600_000
"""Compressed rules are one record of each topic, and part of every checkpoint: thousands of tenants' blocks fit."""

MAX_TEXT_BYTES = 64 << 20

_ZSTD_LEVEL = 3
_STATIC = {"processor", "registry", "slack_ns", "limiter_type"}
_SECRET = {"remote_write_headers"}
_PARSED = 8


class RulesTooLargeError(ValueError):
    """Rules that don't fit into a record."""


class Rules:
    """The rules by which samples are computed; equal ones have equal texts, whatever file they come from."""

    def __init__(self, content: "Content", text: str) -> None:
        self.text = text
        self.interval_ms = content.metrics_generator.registry.collection_interval_ms
        """The length of windows, one for the whole life of an app."""
        self.max_half_edge_bytes = content.max_half_edge_bytes
        self.measures = any(block.processors for block in (content.defaults, *content.tenants.values()))
        """Whether any processor runs for anybody."""
        self._config = content.config()
        self._settings: dict[str, TenantSettings] = {}

    @classmethod
    def of(cls, config: Config, max_half_edge_bytes: int = MAX_HALF_EDGE_BYTES) -> Self:
        """The rules in a configuration. RulesTooLargeError: they don't fit into a record."""
        content = Content(
            metrics_generator=config.metrics_generator,
            defaults=config.overrides.defaults.metrics_generator,
            tenants={name: block.metrics_generator for name, block in config.runtime.blocks.items()},
            max_half_edge_bytes=max_half_edge_bytes,
        )
        rules = cls(content, content.text())
        if len(rules.packed) > MAX_PACKED_BYTES:
            raise RulesTooLargeError(
                f"processors, registry and overrides take {len(rules.packed)} bytes (compressed), {MAX_PACKED_BYTES} "
                f"fit into a record of the log; shorten the {len(config.runtime.blocks)} blocks of tenants, or join "
                'those that are alike in "*"'
            )
        return rules

    @classmethod
    def parse(cls, text: str) -> Self:
        """Rules from their text. Raises Malformed for whatever isn't one, keys of newer programs included."""
        try:
            return cls(Content.model_validate(_tuples(json.loads(text))), text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise Malformed(Reason.FIELD, f"rules: {where}: {first['msg']}") from error
        except (ValueError, RecursionError) as error:
            raise Malformed(Reason.FIELD, f"rules: {error}") from error

    @classmethod
    def unpack(cls, packed: bytes) -> "Rules":
        """Rules from what `packed` gave; those read last are kept. Raises Malformed."""
        return _unpacked(packed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rules) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    @cached_property
    def packed(self) -> bytes:
        """The text as a record carries it."""
        text = self.text.encode()
        return len(text).to_bytes(4) + bytes(cramjam.zstd.compress(text, level=_ZSTD_LEVEL))

    @cached_property
    def digest(self) -> str:
        """A name for the text: 32 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    def settings_of(self, tenant: str) -> TenantSettings:
        """A tenant's settings, computed once."""
        settings = self._settings.get(tenant)
        if settings is None:
            settings = self._settings[tenant] = tenant_settings(self._config, tenant)
        return settings


class Content(Section):
    """The parts of a configuration that rules are made of."""

    metrics_generator: GeneratorConfig
    defaults: GeneratorOverrides
    tenants: dict[str, GeneratorOverrides]
    max_half_edge_bytes: Count

    def text(self) -> str:
        """One text for equal content. Blocks of overrides hold only what differs from "not overridden"."""
        content: dict[str, Any] = {
            "metrics_generator": self.metrics_generator.model_dump(include=_STATIC),
            "defaults": _block(self.defaults),
            "tenants": {name: _block(block) for name, block in self.tenants.items()},
            "max_half_edge_bytes": self.max_half_edge_bytes,
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    def config(self) -> Config:
        """A configuration with these parts."""
        overrides = OverridesConfig(defaults=TenantOverrides(metrics_generator=self.defaults))
        blocks = {name: TenantOverrides(metrics_generator=block) for name, block in self.tenants.items()}
        config = Config(metrics_generator=self.metrics_generator, overrides=overrides)
        return config.with_runtime(RuntimeOverrides(blocks))


def _tuples(value: Any) -> Any:
    """The models hold tuples, and strictly."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value


def _block(block: GeneratorOverrides) -> dict[str, Any]:
    return block.model_dump(exclude=_SECRET, exclude_defaults=True)


@lru_cache(_PARSED)
def _unpacked(packed: bytes) -> Rules:
    size = int.from_bytes(packed[:4])
    if len(packed) > MAX_PACKED_BYTES:
        raise Malformed(Reason.FIELD, f"rules of {len(packed)} bytes, compressed: {MAX_PACKED_BYTES} fit into a record")
    if size > MAX_TEXT_BYTES:
        raise Malformed(Reason.COMPRESSION, f"rules of {size} bytes")
    text = bytearray(size)
    try:
        unpacked = cramjam.zstd.decompress_into(packed[4:], text)
    except cramjam.DecompressionError as error:
        raise Malformed(Reason.COMPRESSION, "rules that are no zstd frame of their size") from error
    if unpacked != size:
        raise Malformed(Reason.COMPRESSION, f"{unpacked} bytes of rules instead of {size}")
    try:
        return Rules.parse(text.decode())
    except UnicodeDecodeError as error:
        raise Malformed(Reason.FIELD, "rules that are not UTF-8") from error
