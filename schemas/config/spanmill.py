"""What Tempo has no key for (`spanmill`). Defaults are decisions.md's."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from schemas.config.durations import PositiveSeconds
from schemas.config.section import Int, KafkaName, Section


def check_otlp_endpoint(endpoint: str) -> str:
    """`http(s)://host:port`, or empty: the ingester isn't used."""
    parts = urlsplit(endpoint)
    if endpoint and (parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc):
        raise ValueError("not an OTLP endpoint; write a URL such as http://tempo:4317")
    return endpoint


def check_tenant_headers(names: tuple[str, ...]) -> tuple[str, ...]:
    """An empty name can't be found in a record."""
    if "" in names:
        raise ValueError("an empty header name; leave it out")
    return names


Directory = Annotated[Path, Field(strict=False)]


class Topics(Section):
    """Names on the wire; `spans` is `ingest.kafka.topic` if that is set."""

    spans: KafkaName = "spanmill-spans"
    deltas: KafkaName = "spanmill-deltas"
    dead_letters: KafkaName = "spanmill-dead-letters"

    @model_validator(mode="after")
    def _are_three(self) -> Self:
        if len({self.spans, self.deltas, self.dead_letters}) < 3:
            raise ValueError("spans, deltas and dead_letters must be different topics; rename one")
        return self


class GeneratorWork(Section):
    """How a generator works; nothing here changes a value."""

    # A chunk is decoded at once, in a thread: enough to amortise a kernel's call, little enough to keep memory low.
    chunk_max_bytes: Annotated[Int, Field(ge=65_536, le=1 << 30)] = 4 * 1024 * 1024
    tick_after_s: PositiveSeconds = Field(default=2.0, alias="tick_after")
    data_dir: Directory = Path("data")


class SinkWork(Section):
    """How a sink works."""

    hold_back_s: PositiveSeconds = Field(default=120.0, alias="hold_back")
    snapshot_every_windows: Annotated[Int, Field(ge=1)] = 4
    endpoint_max_lag_s: PositiveSeconds = Field(default=3600.0, alias="endpoint_max_lag")
    data_dir: Directory = Path("data")


class IngesterWork(Section):
    """The trace store behind the ingester."""

    endpoint: Annotated[str, AfterValidator(check_otlp_endpoint)] = ""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    timeout_s: PositiveSeconds = Field(default=10.0, alias="timeout")


class SpanmillConfig(Section):
    """Names, and how the stages work."""

    app_id: KafkaName = "spanmill"
    topics: Topics = Topics()
    # A Collector's `include_metadata_keys: [x-scope-orgid]` gives a header of that name.
    tenant_headers: Annotated[tuple[str, ...], AfterValidator(check_tenant_headers)] = ("tenant", "x-scope-orgid")
    generator: GeneratorWork = GeneratorWork()
    sink: SinkWork = SinkWork()
    ingester: IngesterWork = IngesterWork()
    control_key_file: Annotated[Path | None, Field(strict=False)] = None
