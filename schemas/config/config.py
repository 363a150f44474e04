"""The root of the configuration."""

from typing import Any, Self

from pydantic import PrivateAttr, model_validator

from schemas.config.distributor import DistributorConfig
from schemas.config.generator import GeneratorConfig
from schemas.config.kafka import IngestConfig
from schemas.config.overrides import OverridesConfig, TenantOverrides
from schemas.config.runtime import RuntimeOverrides
from schemas.config.section import KAFKA_NAME, Section
from schemas.config.server import ServerConfig
from schemas.config.spanmill import SpanmillConfig


class Config(Section):
    """A whole configuration file: Tempo's blocks that Spanmill reads, and its own block `spanmill`."""

    multitenancy_enabled: bool = False
    """Whether the header X-Scope-OrgID names the tenant; else there is one, `single-tenant`."""
    server: ServerConfig = ServerConfig()
    distributor: DistributorConfig = DistributorConfig()
    ingest: IngestConfig = IngestConfig()
    metrics_generator: GeneratorConfig = GeneratorConfig()
    overrides: OverridesConfig = OverridesConfig()
    spanmill: SpanmillConfig = SpanmillConfig()

    _notes: tuple[str, ...] = PrivateAttr(default=())
    _runtime: RuntimeOverrides = PrivateAttr(default=RuntimeOverrides())

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read and has no effect, one line each: `FILE:LINE: key: why`."""
        return (*self._notes, *self._runtime.notes)

    @property
    def runtime(self) -> RuntimeOverrides:
        """The tenants' blocks that are in force; none until `with_runtime`."""
        return self._runtime

    def with_runtime(self, runtime: RuntimeOverrides) -> Self:
        """A copy with other tenants' blocks, which replace those of before."""
        copy = self.model_copy()
        copy._runtime = runtime  # noqa: SLF001 -- its own class's
        return copy

    def tenant_overrides(self, tenant: str) -> TenantOverrides:
        """The block that holds for a tenant: its own, else `*`, else the defaults; never a mixture (Tempo OVR-1)."""
        block = self._runtime.block_name(tenant)
        return self.overrides.defaults if block is None else self._runtime.blocks[block]

    def with_notes(self, notes: tuple[str, ...]) -> Self:
        """A copy that carries notes."""
        copy = self.model_copy()
        copy._notes = notes  # noqa: SLF001 -- its own class's
        return copy

    @model_validator(mode="before")
    @classmethod
    def _spans_topic(cls, value: Any) -> Any:
        """Tempo's key for the spans topic fills ours, if that isn't written."""
        if not isinstance(value, dict):
            return value
        topic = look_up(value, ("ingest", "kafka", "topic"))
        spans = look_up(value, ("spanmill", "topics", "spans"))
        if spans is not None or not isinstance(topic, str) or not KAFKA_NAME.fullmatch(topic):
            return value
        return {**value, "spanmill": with_spans_topic(value.get("spanmill"), topic)}

    @model_validator(mode="after")
    def _reads_no_topic_of_its_own(self) -> Self:
        """A receiver that reads what the distributor writes would copy it for ever."""
        receiver = self.distributor.receivers.kafka
        spans = self.spanmill.topics.spans
        own = {each.strip() for each in self.ingest.kafka.address.split(",")}
        if receiver is not None and receiver.source.topic == spans and own & receiver.addresses:
            raise ValueError(
                f"distributor.receivers.kafka reads {spans}, the spans topic itself; name another topic there, or "
                "leave the receiver out: generators read a topic that others write, if it has LogAppendTime"
            )
        return self

    @model_validator(mode="after")
    def _tenants_can_be_known(self) -> Self:
        """A tenant map needs tenants, and certificates somebody who asks for them."""
        tenants = self.spanmill.distributor.tenants
        if tenants is not None and not self.multitenancy_enabled:
            raise ValueError(
                "spanmill.distributor.tenants says who writes as which tenant, and there is only one; set "
                "multitenancy_enabled, or leave it out"
            )
        if tenants is not None and tenants.certificates and not self.distributor.receivers.asks_for_certificates:
            raise ValueError(
                "spanmill.distributor.tenants.certificates names clients, and no receiver asks for their certificates; "
                "set tls.client_ca_file there"
            )
        return self


def look_up(value: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of keys, None if there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def with_spans_topic(block: Any, topic: str) -> Any:
    """The block `spanmill` with that spans topic; whatever isn't a mapping is left to the models to refuse."""
    block = {} if block is None else block
    if not isinstance(block, dict):
        return block
    topics = block.get("topics") or {}
    return {**block, "topics": {**topics, "spans": topic}} if isinstance(topics, dict) else block
