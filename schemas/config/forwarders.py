"""Where else spans are sent to (`distributor.forwarders`, Tempo DIST-15)."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from schemas import ottl
from schemas.config.http_client import File
from schemas.config.section import Section, Texts


def check_conditions(conditions: tuple[str, ...]) -> tuple[str, ...]:
    """Each is one of the part of OTTL that is known."""
    for each in conditions:
        ottl.condition(each)
    return conditions


def check_no_events(conditions: tuple[str, ...]) -> tuple[str, ...]:
    """Conditions on events aren't implemented."""
    if conditions:
        raise ValueError("not implemented yet: filters of events; leave it out")
    return conditions


def check_target(endpoint: str) -> str:
    """What gRPC takes: `host:port`, without a scheme."""
    host, _, port = endpoint.rpartition(":")
    if not host or "/" in host or not port.isascii() or not port.isdigit():
        raise ValueError(f"{endpoint!r} is not an address; write host:port, such as tempo:4317")
    return endpoint


class ForwarderTls(Section):
    """TLS to a forwarder's endpoints."""

    insecure: bool = False
    """Whether there is none."""
    cert_file: Annotated[File, BeforeValidator(lambda path: path or None)] = None
    """The certificates that are trusted, PEM. Read at start."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if not self.insecure and self.cert_file is None:
            raise ValueError("cert_file is empty; name the CA's certificate, or set insecure")
        return self


class OtlpGrpcForwarder(Section):
    """OTLP over gRPC."""

    endpoints: Annotated[tuple[Annotated[str, AfterValidator(check_target)], ...], Field(min_length=1)]
    """Each gets every request, as `host:port`."""
    tls: ForwarderTls
    """How they are reached."""


class TraceFilter(Section):
    """Spans that aren't forwarded: those for which any condition holds, in a part of the Collector's OTTL."""

    span: Annotated[Texts, AfterValidator(check_conditions)] = ()
    """Such as `attributes["http.route"] == "/healthz"`, `resource.attributes["env"] != "prod"`,
    `kind == SPAN_KIND_INTERNAL`, `status.code != STATUS_CODE_ERROR`, `IsMatch(name, "^GET ")`; with `and`, `or`, `not`,
    parentheses, and `< <= > >=` for numbers."""
    spanevent: Annotated[Texts, AfterValidator(check_no_events)] = ()
    """Refused: conditions on events aren't implemented."""


class ForwarderFilter(Section):
    """What isn't forwarded."""

    traces: TraceFilter = TraceFilter()


class Forwarder(Section):
    """A copy of tenants' spans to other endpoints, best effort: what can't be sent is counted and lost."""

    name: Annotated[str, Field(min_length=1)]
    """The name that tenants' overrides have in `forwarders`."""
    backend: Literal["otlpgrpc"] = "otlpgrpc"
    """There is no other."""
    otlpgrpc: OtlpGrpcForwarder
    filter: ForwarderFilter = ForwarderFilter()


def check_names(forwarders: tuple[Forwarder, ...]) -> tuple[Forwarder, ...]:
    """Tenants choose by name."""
    names = [each.name for each in forwarders]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two forwarders are called {name}; rename one")
    return forwarders


Forwarders = Annotated[tuple[Forwarder, ...], AfterValidator(check_names)]
