"""The distributor (`distributor`): its receivers and what it does to spans."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from schemas.config.cors import CorsSettings
from schemas.config.durations import Seconds
from schemas.config.forwarders import Forwarders
from schemas.config.kafka_receiver import KafkaReceiver
from schemas.config.section import Count, Int, Section
from schemas.config.server_tls import ServerTls


def check_endpoint(endpoint: str) -> str:
    """`host:port`; an empty host means every interface, as in Go."""
    host, colon, port = endpoint.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or "//" in host:
        raise ValueError(f"{endpoint!r} is not an address; write host:port, such as 0.0.0.0:4317")
    return endpoint


def check_auth(auth: dict[str, Any]) -> dict[str, Any]:
    """The Collector's authenticators are extensions, which neither Tempo nor we have."""
    if auth:
        raise ValueError(
            "names an extension of the Collector, and there are none here; leave it out, and say in "
            "spanmill.distributor.tenants who may send"
        )
    return auth


NoExtension = Annotated[dict[str, Any], AfterValidator(check_auth)]
Endpoint = Annotated[str, AfterValidator(check_endpoint)]


class KeepaliveParameters(Section):
    """When the server ends connections, or asks whether somebody is there. 0: gRPC's own defaults."""

    max_connection_idle_s: Seconds = Field(default=0.0, alias="max_connection_idle")
    """One without requests for so long is ended."""
    max_connection_age_s: Seconds = Field(default=0.0, alias="max_connection_age")
    """One that is so old is ended, so that clients spread over new distributors."""
    max_connection_age_grace_s: Seconds = Field(default=0.0, alias="max_connection_age_grace")
    """For the requests in flight of one that is too old."""
    time_s: Seconds = Field(default=0.0, alias="time")
    """One that is silent for so long is asked."""
    timeout_s: Seconds = Field(default=0.0, alias="timeout")
    """One that doesn't answer within that time is ended."""


class KeepalivePolicy(Section):
    """How often clients may ask whether the server is there; those that ask more often are hung up on."""

    min_time_s: Seconds = Field(default=0.0, alias="min_time")
    """As often as every so many seconds. 0: gRPC's own default."""
    permit_without_stream: bool = False
    """Also while they have no request."""


class GrpcKeepalive(Section):
    """The Collector's `keepalive` of servers."""

    server_parameters: KeepaliveParameters = KeepaliveParameters()
    enforcement_policy: KeepalivePolicy = KeepalivePolicy()


class GrpcSettings(Section):
    """A receiver's gRPC server."""

    endpoint: Endpoint
    """`host:port`; without a host, every interface."""
    max_recv_msg_size_mib: Annotated[Int, Field(ge=1, le=2047)] = 4
    """Larger messages are refused."""
    max_concurrent_streams: Annotated[Int, Field(ge=0, le=(1 << 31) - 1)] = 1000
    """So many requests may each connection have at once, also unfinished ones, of which each takes 12 KB; clients wait
    with more. 0: any number, the Collector's default."""
    keepalive: GrpcKeepalive = GrpcKeepalive()
    tls: ServerTls | None = None
    """The server's certificate; without it what clients send can be read on its way."""
    auth: NoExtension = Field(default_factory=dict)
    """Refused: it names an extension of the Collector's, and there are none. `spanmill.distributor.tenants` says who
    may send."""


class HttpSettings(Section):
    """A receiver's HTTP server."""

    endpoint: Endpoint
    """`host:port`; without a host, every interface."""
    max_request_body_size: Annotated[Int, Field(ge=1)] = 20 * 1024 * 1024
    """Bytes; larger bodies are refused, also once they are decompressed."""
    read_timeout_s: Seconds = Field(default=30.0, alias="read_timeout")
    """From a request's first byte to its last: the Collector's exporters give up after as long. A later one is answered
    with 504 if its headers came in time, and nothing of it is taken. 0: any time, the Collector's default."""
    read_header_timeout_s: Seconds = Field(default=60.0, alias="read_header_timeout")
    """From a new connection to its first byte, and from a request's first byte to the end of its headers, which are
    part of `read_timeout`, too. TLS may take as long to begin, 10s at most. 0: any time."""
    write_timeout_s: Seconds = Field(default=30.0, alias="write_timeout")
    """For taking an answer, from when there is one; in the Collector from the end of the headers. 0: any time."""
    idle_timeout_s: Seconds = Field(default=60.0, alias="idle_timeout")
    """From an answer to the next request's first byte. 0: any time."""
    cors: CorsSettings = CorsSettings()
    tls: ServerTls | None = None
    """The server's certificate; without it what clients send can be read on its way."""
    auth: NoExtension = Field(default_factory=dict)
    """Refused: it names an extension of the Collector's, and there are none. `spanmill.distributor.tenants` says who
    may send."""


class OtlpGrpc(GrpcSettings):
    """OTLP over gRPC (Tempo DIST-1)."""

    endpoint: Endpoint = "localhost:4317"
    """`host:port`; without a host, every interface."""


class OtlpHttp(HttpSettings):
    """OTLP over HTTP (Tempo DIST-1)."""

    endpoint: Endpoint = "localhost:4318"
    """`host:port`; without a host, every interface."""
    traces_url_path: str = "/v1/traces"
    """Where requests go."""


class JaegerGrpc(GrpcSettings):
    """Jaeger's agents (Tempo DIST-1): jaeger.api_v2.CollectorService/PostSpans."""

    endpoint: Endpoint = "localhost:14250"
    """`host:port`; without a host, every interface."""


class JaegerThriftHttp(HttpSettings):
    """Jaeger's clients (Tempo DIST-1): POST /api/traces, Thrift's binary protocol."""

    endpoint: Endpoint = "localhost:14268"
    """`host:port`; without a host, every interface."""


class ZipkinReceiver(HttpSettings):
    """Zipkin's clients (Tempo DIST-1): POST /api/v2/spans, JSON."""

    endpoint: Endpoint = "localhost:9411"
    """`host:port`; without a host, every interface."""
    parse_string_tags: bool = False
    """Whether tags that look like numbers or booleans become such."""


def named_is_on(value: Any) -> Any:
    """An item that is named without settings (`grpc:`) has the defaults."""
    return {key: {} if item is None else item for key, item in value.items()} if isinstance(value, dict) else value


class OtlpProtocols(Section):
    """A protocol that isn't named is off; one that is named without settings (`grpc:`) has the defaults."""

    grpc: OtlpGrpc | None = None
    http: OtlpHttp | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_is_on(cls, value: Any) -> Any:
        return named_is_on(value)


class OtlpReceiver(Section):
    """The OTLP receiver."""

    protocols: OtlpProtocols = OtlpProtocols(grpc=OtlpGrpc(), http=OtlpHttp())


class JaegerProtocols(Section):
    """As those of OTLP."""

    grpc: JaegerGrpc | None = None
    thrift_http: JaegerThriftHttp | None = None
    thrift_compact: dict[str, Any] | None = None
    """Over UDP."""
    thrift_binary: dict[str, Any] | None = None
    """Over UDP."""

    @model_validator(mode="before")
    @classmethod
    def _named_is_on(cls, value: Any) -> Any:
        return named_is_on(value)


class JaegerReceiver(Section):
    """The Jaeger receiver."""

    protocols: JaegerProtocols = JaegerProtocols(grpc=JaegerGrpc(), thrift_http=JaegerThriftHttp())


class Receivers(Section):
    """Receivers by name: those that are named are on. Without any, OTLP by gRPC and HTTP.

    Tempo has Jaeger by gRPC and HTTP, and OTLP by gRPC then.
    """

    otlp: OtlpReceiver = OtlpReceiver()
    jaeger: JaegerReceiver | None = None
    zipkin: ZipkinReceiver | None = None
    kafka: KafkaReceiver | None = None
    """Spans of another topic."""

    @model_validator(mode="before")
    @classmethod
    def _named_is_on(cls, value: Any) -> Any:
        if isinstance(value, dict) and value:
            value = {"otlp": {"protocols": {}}, **value}
        return named_is_on(value)

    @property
    def servers(self) -> dict[str, GrpcSettings | HttpSettings]:
        """Those that listen, by their keys."""
        jaeger = JaegerProtocols() if self.jaeger is None else self.jaeger.protocols
        every = {
            "otlp.protocols.grpc": self.otlp.protocols.grpc,
            "otlp.protocols.http": self.otlp.protocols.http,
            "jaeger.protocols.grpc": jaeger.grpc,
            "jaeger.protocols.thrift_http": jaeger.thrift_http,
            "zipkin": self.zipkin,
        }
        return {key: server for key, server in every.items() if server is not None}

    @property
    def asks_for_certificates(self) -> bool:
        """Whether any asks clients for theirs."""
        return any(each.tls is not None and each.tls.client_ca_file is not None for each in self.servers.values())


class LogSpans(Section):
    """A line of the log for each span (Tempo DIST-18). Nothing bounds how many: for finding out what is sent."""

    enabled: bool = False
    """Whether to."""
    include_all_attributes: bool = False
    """With their attributes."""
    filter_by_status_error: bool = False
    """Only those that failed."""


class MetricSpans(Section):
    """Count spans by name and service (Tempo DIST-18). Nothing bounds how many series: for finding out what is sent."""

    enabled: bool = False
    """Whether to."""
    root_only: bool = False
    """Only those without a parent."""


class CostAttribution(Section):
    """Bytes by attributes, on `/usage_metrics` (Tempo DIST-19). The tenants' overrides name them."""

    enabled: bool = False
    """Whether to."""
    max_cardinality: Count = 10_000
    """Combinations that are told apart."""
    stale_duration_s: Seconds = Field(default=900.0, alias="stale_duration")
    """One that hasn't come for so long is forgotten."""


class Usage(Section):
    """Usage tracking."""

    cost_attribution: CostAttribution = CostAttribution()


class DistributorConfig(Section):
    """How spans come in."""

    receivers: Receivers = Receivers()
    max_attribute_bytes: Count = 2048
    """Longer keys and values of attributes are cut. 0: never."""
    retry_after_on_resource_exhausted_s: Seconds = Field(default=5.0, alias="retry_after_on_resource_exhausted")
    """When a client that was refused for now is told to come again. 0: it isn't told."""
    artificial_delay_s: Seconds = Field(default=0.0, alias="artificial_delay")
    """How long an answer is held back."""
    log_received_spans: LogSpans = LogSpans()
    log_discarded_spans: LogSpans = LogSpans()
    metric_received_spans: MetricSpans = MetricSpans()
    forwarders: Forwarders = ()
    """Where else spans are sent to. A tenant's overrides say which of them get a copy of its spans."""
    usage: Usage = Usage()
