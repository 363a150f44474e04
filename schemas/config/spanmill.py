"""What Tempo has no key for (`spanmill`). Defaults are decisions.md's."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from schemas.config.durations import PositiveSeconds
from schemas.config.section import Count, Int, KafkaName, Section
from schemas.config.tenant_map import TenantMap


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
    """What the distributor writes, or others do."""
    deltas: KafkaName = "spanmill-deltas"
    """What generators write and sinks read; its partitions are the shards."""
    dead_letters: KafkaName = "spanmill-dead-letters"
    """Records that can't be read, with the reason."""

    @model_validator(mode="after")
    def _are_three(self) -> Self:
        if len({self.spans, self.deltas, self.dead_letters}) < 3:
            raise ValueError("spans, deltas and dead_letters must be different topics; rename one")
        return self


class DistributorWork(Section):
    """How the distributor works."""

    tenants: TenantMap | None = None
    access_log: bool = False
    """Whether each request is a line of the log: who sent it, for which tenant, how many spans and bytes, what it was
    answered, and after how long."""
    max_concurrent_requests: Count = 10_000
    """So many requests may wait for their answers, over all receivers but that of Kafka; one more is told to come again
    in a second, before its spans are looked at. One whose body is still coming doesn't wait. 0: any number."""
    max_concurrent_requests_per_tenant: Count = 0
    """The same for each tenant. 0: any number."""
    max_connections: Annotated[Int, Field(ge=0, le=(1 << 31) - 1)] = 20_000
    """So many connections may each receiver have; one more is hung up on. 0: any number."""


class GeneratorWork(Section):
    """How a generator works; nothing here changes a value."""

    chunk_max_bytes: Annotated[Int, Field(ge=65_536, le=1 << 30)] = 4 * 1024 * 1024
    """So much is decoded at once, in a thread: enough to amortise a kernel's call, little enough to keep memory low."""
    tick_after_s: PositiveSeconds = Field(default=2.0, alias="tick_after")
    """A partition without records for so long gets a tick, which lets the log's time go on."""
    data_dir: Directory = Path("data")
    """For what can be computed again."""


class SinkWork(Section):
    """How a sink works."""

    hold_back_s: PositiveSeconds = Field(default=120.0, alias="hold_back")
    """How long a window waits for partitions that are late."""
    snapshot_every_windows: Annotated[Int, Field(ge=1)] = 4
    """How often a shard's state is kept: a restart begins at the last one."""
    endpoint_max_lag_s: PositiveSeconds = Field(default=3600.0, alias="endpoint_max_lag")
    """An endpoint that is so far behind, by the clock and by the log, is written off: it goes on from the newest window
    when it answers."""
    stale_markers: bool = False
    """Whether a series that ends gets Prometheus' stale marker, so that queries end it at once; Tempo sends none (Q14).
    The same for all sinks of an installation."""
    data_dir: Directory = Path("data")
    """For what can be computed again: Faust's state, and windows that an endpoint doesn't have yet."""


class IngesterWork(Section):
    """The trace store behind the ingester."""

    endpoint: Annotated[str, AfterValidator(check_otlp_endpoint)] = ""
    """A URL such as http://tempo:4317. Empty: there is none."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Headers of every request."""
    timeout_s: PositiveSeconds = Field(default=10.0, alias="timeout")
    """How long a request may take."""


class SpanmillConfig(Section):
    """Names, and how the stages work."""

    app_id: KafkaName = "spanmill"
    """What the names of consumer groups and changelogs begin with: two installations on one Kafka differ in it."""
    topics: Topics = Topics()
    tenant_headers: Annotated[tuple[str, ...], AfterValidator(check_tenant_headers)] = ("tenant", "x-scope-orgid")
    """Headers of records that name the tenant, the first that is there. A Collector's `include_metadata_keys:
    [x-scope-orgid]` gives a header of that name."""
    distributor: DistributorWork = DistributorWork()
    generator: GeneratorWork = GeneratorWork()
    sink: SinkWork = SinkWork()
    ingester: IngesterWork = IngesterWork()
    revision: Annotated[Count, Field(le=1 << 62)] = 0
    """Of what decides values in this file and the tenants'. Needed only to bring back rules that the log has had
    before: a process that starts with such is taken for one with old files, and obeys the log, unless its number is
    higher."""
    control_key_file: Annotated[Path | None, Field(strict=False)] = None
    """Keys that control records are signed with, one a line, of 32 characters or more. The first signs; a record that
    none of them has signed isn't obeyed: in the spans topic it becomes a dead letter, in the deltas topic it is passed
    over and counted. All stages and commands need the same keys, as a record that some obey and others don't makes
    their samples differ. A line `unsigned` lets unsigned records be obeyed too: while keys are introduced, and to
    replay what was written before. A new key is added as the last line everywhere, then made the first everywhere; then
    the old one may go. Read at start."""
