"""Settings that are read and checked in shape, but that nothing acts on yet.

One that switches such a thing on is an error, never silently ignored. This table is the only such list: whoever
implements a setting deletes its line here.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from schemas.config.section import Section
from schemas.config.yaml_lines import Path


class Pending(NamedTuple):
    """A setting that nothing acts on."""

    key: str
    """Dotted; `*`: any item of a list."""
    what: str
    """It would do."""
    asks: Callable[[Any], bool] = bool
    """Whether a value asks for that."""


def other_than(*values: object) -> Callable[[Any], bool]:
    """Whether a value isn't one of these."""
    return lambda value: value not in values


def one_of(*values: object) -> Callable[[Any], bool]:
    """Whether a value is one of these."""
    return lambda value: value in values


ENDPOINT = "metrics_generator.storage.remote_write.*."

PENDING = (
    Pending("overrides.user_configurable_overrides.enabled", "user-configurable overrides"),
    # Each needs its cloud's own client library, and an account there to show that it works.
    *(
        Pending(f"{ENDPOINT}{key}", f"{key} of an endpoint", other_than(None))
        for key in ("sigv4", "azuread", "google_iam")
    ),
    Pending("distributor.receivers.kafka.header_extraction", "header_extraction of receivers"),
    *(
        Pending(f"distributor.receivers.jaeger.protocols.{protocol}", "Jaeger over UDP", other_than(None))
        for protocol in ("thrift_compact", "thrift_binary")
    ),
    # It needs Amazon's own library, and an account there to show that it works.
    Pending("ingest.kafka.sasl_mechanism", "this SASL mechanism", one_of("AWS_MSK_IAM")),
    # Neither librdkafka nor aiokafka sends an authorization identity.
    Pending("ingest.kafka.sasl_oauthbearer_zid", "a zid, which our clients of Kafka can't send"),
    Pending("ingest.kafka.sasl_oauthbearer_http_socket_path", "tokens from a socket"),
    # librdkafka checks a broker's certificate against the name that it connects to, and has no other.
    Pending("ingest.kafka.tls_server_name", "another name than the broker's own in its certificate"),
    # librdkafka has no setting for it. The brokers' ssl.enabled.protocols has the same effect.
    Pending("ingest.kafka.tls_min_version", "TLS 1.3 as the oldest version", one_of("VersionTLS13")),
)


def asked_for(config: Section) -> Iterator[tuple[Path, Pending]]:
    """The settings of a configuration that ask for what isn't implemented, and their places."""
    for pending in PENDING:
        for path, value in values_at(config, tuple(pending.key.split("."))):
            if pending.asks(value):
                yield path, pending


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
