"""How a tenant's overrides apply to the static configuration (Tempo INST-12)."""

from collections.abc import Mapping
from typing import Any, TypeVar

from schemas.config.config import Config
from schemas.config.generator import ProcessorConfig
from schemas.config.overrides import ProcessorOverrides, TenantOverrides
from schemas.config.section import Section

DEFAULT_TRACE_ID_LABEL = "traceID"
DEFAULT_BUCKET_FACTOR = 1.1

ONLY_ON = frozenset({"enable_client_server_prefix"})
"""Switches that an override can't switch off, as in Tempo (Q5)."""

Static = TypeVar("Static", bound=Section)


def changes(own: Section) -> dict[str, Any]:
    """What a block says about a processor, by field.

    An absent value keeps the static one, and so does an empty text; an empty list replaces it.
    """
    values = {name: getattr(own, name) for name in type(own).model_fields}
    return {
        name: value
        for name, value in values.items()
        if value is not None and value != "" and (value or name not in ONLY_ON)
    }


def with_changes(static: Static, own: Section) -> Static:
    """A processor's section with a block's values."""
    return static.replace(**{name: merged(static, name, value) for name, value in changes(own).items()})


def merged(static: Section, name: str, value: Any) -> Any:
    """A value in the place of the static one; a mapping's keys replace those of a section, one by one."""
    before = getattr(static, name)
    return before.replace(**value) if isinstance(before, Section) and isinstance(value, Mapping) else value


def with_overrides(static: ProcessorConfig, own: ProcessorOverrides) -> ProcessorConfig:
    """The processors of a tenant (Tempo's copyWithOverrides)."""
    return ProcessorConfig(
        service_graphs=with_changes(static.service_graphs, own.service_graphs),
        span_metrics=with_changes(static.span_metrics, own.span_metrics),
        host_info=with_changes(static.host_info, own.host_info),
    )


def effective(config: Config, tenant: str) -> Config:
    """A configuration that means for every tenant what `config` means for one.

    Its `overrides.defaults` are that tenant's, and its processors have their values already.
    """
    generator = config.metrics_generator
    block = resolved(config, config.tenant_overrides(tenant))
    processor = with_overrides(generator.processor, block.metrics_generator.processor)
    defaults = block.replace(metrics_generator=block.metrics_generator.replace(processor=ProcessorOverrides()))
    return Config(
        multitenancy_enabled=config.multitenancy_enabled,
        server=config.server,
        distributor=config.distributor,
        ingest=config.ingest,
        metrics_generator=generator.replace(processor=processor),
        overrides=type(config.overrides)(defaults=defaults),
        spanmill=config.spanmill,
    )


def resolved(config: Config, block: TenantOverrides) -> TenantOverrides:
    """A block whose zeros, which mean "not overridden", are what holds instead."""
    own, generator = block.metrics_generator, config.metrics_generator
    return block.replace(
        metrics_generator=own.replace(
            collection_interval_ms=own.collection_interval_ms or generator.registry.collection_interval_ms,
            slack_ns=own.slack_ns or generator.slack_ns,
            trace_id_label_name=own.trace_id_label_name or DEFAULT_TRACE_ID_LABEL,
            generate_native_histograms=own.generate_native_histograms or "classic",
            native_histogram_bucket_factor=own.native_histogram_bucket_factor or DEFAULT_BUCKET_FACTOR,
        )
    )
