"""Settings that are read and checked in shape, but that nothing acts on yet.

One that switches such a thing on is an error, never silently ignored. This table is the only such list: whoever
implements a setting deletes its line here.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from schemas.config.section import Section
from schemas.config.yaml_lines import Path


class Pending(NamedTuple):
    """A dotted key (`*`: any item of a list), what it would do, and whether a value of it asks for that."""

    key: str
    what: str
    asks: Callable[[Any], bool] = bool


def other_than(*values: object) -> Callable[[Any], bool]:
    """Whether a value isn't one of these."""
    return lambda value: value not in values


def one_of(*values: object) -> Callable[[Any], bool]:
    """Whether a value is one of these."""
    return lambda value: value in values


ENDPOINT = "metrics_generator.storage.remote_write.*."

PENDING = (
    Pending("overrides.defaults.ingestion.rate_strategy", "the global rate strategy", other_than("local")),
    Pending("overrides.defaults.ingestion.rate_limit_bytes", "rate limits", other_than(30_000_000)),
    Pending("overrides.defaults.ingestion.burst_size_bytes", "rate limits", other_than(30_000_000)),
    Pending("overrides.defaults.ingestion.max_attribute_bytes", "attribute limits of tenants"),
    Pending("overrides.defaults.ingestion.artificial_delay", "artificial delays"),
    Pending("overrides.defaults.ingestion.retry_info_enabled", "RetryInfo of tenants", other_than(True)),
    Pending("overrides.defaults.forwarders", "forwarders"),
    Pending("overrides.defaults.cost_attribution.dimensions", "cost attribution"),
    Pending("overrides.user_configurable_overrides.enabled", "user-configurable overrides"),
    # Each needs its cloud's own client library, and an account there to show that it works.
    *(
        Pending(f"{ENDPOINT}{key}", f"{key} of an endpoint", other_than(None))
        for key in ("sigv4", "azuread", "google_iam")
    ),
    Pending("distributor.receivers.jaeger", "the Jaeger receiver", other_than(None)),
    Pending("distributor.receivers.zipkin", "the Zipkin receiver", other_than(None)),
    Pending("distributor.receivers.kafka", "the Kafka receiver", other_than(None)),
    *(
        Pending(f"distributor.receivers.otlp.protocols.{protocol}.{key}", f"{key} of receivers")
        for protocol, keys in (("grpc", ("tls", "auth")), ("http", ("cors", "tls", "auth")))
        for key in keys
    ),
    Pending("distributor.artificial_delay", "artificial delays"),
    Pending("distributor.forwarders", "forwarders"),
    Pending("distributor.log_received_spans.enabled", "logging of spans"),
    Pending("distributor.log_discarded_spans.enabled", "logging of spans"),
    Pending("distributor.metric_received_spans.enabled", "counting of spans by name"),
    Pending("distributor.usage.cost_attribution.enabled", "cost attribution"),
    Pending("ingest.kafka.sasl_mechanism", "this SASL mechanism", one_of("OAUTHBEARER", "AWS_MSK_IAM")),
    Pending("ingest.kafka.tls_server_name", "tls_server_name"),
    Pending("ingest.kafka.tls_cipher_suites", "tls_cipher_suites"),
    Pending("ingest.kafka.tls_min_version", "tls_min_version"),
    Pending("spanmill.control_key_file", "signed control records"),
)


DEFAULTS = "overrides.defaults."


def asked_for(config: Section) -> Iterator[tuple[Path, str]]:
    """The settings of a configuration that ask for what isn't implemented: (path, what)."""
    for pending in PENDING:
        for path, value in values_at(config, tuple(pending.key.split("."))):
            if pending.asks(value):
                yield path, pending.what


def asked_for_by_tenant(block: Section) -> Iterator[tuple[Path, str]]:
    """The same of a tenant's block of overrides, whose paths begin there."""
    for pending in PENDING:
        if pending.key.startswith(DEFAULTS):
            for path, value in values_at(block, tuple(pending.key.removeprefix(DEFAULTS).split("."))):
                if pending.asks(value):
                    yield path, pending.what


def values_at(value: Any, pattern: tuple[str, ...], at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The values of a configuration at a pattern of YAML keys and `*`; below an optional section that is off, none."""
    if not pattern:
        yield at, value
        return
    key, deeper = pattern[0], pattern[1:]
    if key == "*":
        for i, item in enumerate(value):
            yield from values_at(item, deeper, (*at, i))
    elif isinstance(value, Section):
        yield from values_at(getattr(value, value.yaml_keys()[key]), deeper, (*at, key))
