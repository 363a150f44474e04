"""Spans over gRPC. Requests of OTLP stay bytes: no message object is made of them."""

import math
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # its documented name
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from agents.distributor.aside import Aside
from agents.distributor.auth import Authentication, Client, names_of_context
from agents.distributor.intake import Intake
from agents.distributor.reception import Arrival, Reception
from agents.distributor.status import Code, RefusedError, retry_info_protobuf, status_protobuf
from agents.otlp_protocol import EXPORT_METHOD, NO_METRICS_HEADER, ORG_ID_HEADER
from agents.server_tls import grpc_credentials
from schemas import jaeger
from schemas.config.distributor import GrpcSettings
from schemas.errors import Malformed

STOP_GRACE_S = 15.0
"""For requests in flight: longer than Kafka's time-out, so that each gets its answer."""

RESPONSE = b""
"""Of either method: an OTLP one without partial success, for none is ever reported (Tempo DIST-6)."""

POST_SPANS_METHOD = "/jaeger.api_v2.CollectorService/PostSpans"
"""Jaeger's method that takes spans."""

AUTHORIZATION = "authorization"

STATUS_DETAILS = "grpc-status-details-bin"
"""The trailer with a google.rpc.Status, whose details say when to come again."""

RETRY_INFO = "google.rpc.retryinfo-bin"
"""The trailer in which OpenTelemetry's SDK for Python looks for that: a google.rpc.RetryInfo by itself."""

STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

Context = grpc.aio.ServicerContext[bytes, bytes]
Handler = Callable[[bytes, Context], Awaitable[bytes]]
Translation = Callable[[bytes], bytes]
"""A request's spans as OTLP. Raises Malformed."""


def jaeger_batch(body: bytes) -> bytes:
    """A PostSpansRequest."""
    return jaeger.traces_data(jaeger.batch_of_request(body)).SerializeToString()


METHODS: dict[str, tuple[str, Translation | None]] = {
    "OTLP": (EXPORT_METHOD, None),
    "Jaeger": (POST_SPANS_METHOD, jaeger_batch),
}
"""By protocol (Tempo DIST-1); OTLP's spans are left as they are."""


class GrpcReceiver:
    """A gRPC server for one protocol of `METHODS`; `address` is known once it is started."""

    def __init__(
        self,
        settings: GrpcSettings,
        protocol: str,
        intake: Intake,
        authentication: Authentication,
        reception: Reception,
        max_connections: int = 0,
    ) -> None:
        self.name, self._reception = f"{protocol} over gRPC", reception
        self._settings, self._intake, self._authentication = settings, intake, authentication
        method, self._translate = METHODS[protocol]
        self._aside = Aside()
        self._server = grpc.aio.server(options=channel_options(settings, max_connections))
        self._server.add_generic_rpc_handlers((Service(method, self.export),))
        self._service = method.split("/")[1]
        self._health = health.HealthServicer()
        add_HealthServicer_to_server(self._health, self._server)
        self.address = ""

    async def start(self) -> None:
        """Listen; raises RuntimeError if the address is taken, OSError if a certificate can't be used."""
        host, _, port = self._settings.endpoint.rpartition(":")
        address, tls = f"{host or '[::]'}:{port}", self._settings.tls
        if tls is None:
            bound = self._server.add_insecure_port(address)
        else:
            bound = self._server.add_secure_port(address, grpc_credentials(tls))
        await self._server.start()
        await self._health.set(self._service, HealthCheckResponse.SERVING)
        self.address = f"{host}:{bound}"

    async def stop(self) -> None:
        """Take no more requests and answer those in flight; load balancers that ask are told first."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(STOP_GRACE_S)
        self._aside.close()

    async def export(self, body: bytes, context: Context) -> bytes:
        """Answer one request."""
        with self._reception.request(context.peer) as arrival:
            try:
                with self._reception.in_flight.request():
                    await self._take(arrival, body, context)
            except RefusedError as error:
                arrival.answered(error.code.name, retry_after_s=error.retry_after_s)
                await context.abort(STATUS_CODES[error.code], error.message, _trailers(error))
            arrival.answered("OK", taken=True)
        return RESPONSE

    async def _take(self, arrival: Arrival, body: bytes, context: Context) -> None:
        metadata = context.invocation_metadata() or ()
        client = Client(
            org_ids=[_text(value) for key, value in metadata if key == ORG_ID_HEADER],
            authorization=[_text(value) for key, value in metadata if key == AUTHORIZATION],
            certificate=lambda: names_of_context(context.auth_context()),
        )
        no_metrics = any(key == NO_METRICS_HEADER for key, _ in metadata)
        org_ids = self._authentication.org_ids(client)
        if self._translate is not None:
            body = await self._translated(self._translate, body)
        await self._intake.push(arrival, body, org_ids, no_metrics=no_metrics)

    async def _translated(self, translate: Translation, body: bytes) -> bytes:
        try:
            return await self._aside.done(translate, body)
        except Malformed as error:
            raise RefusedError(Code.INVALID_ARGUMENT, f"not a request of {self.name}: {error}") from error


def channel_options(settings: GrpcSettings, max_connections: int) -> list[tuple[str, int]]:
    """Settings as gRPC's channel arguments; what is 0 keeps gRPC's own default."""
    ends, asks = settings.keepalive.server_parameters, settings.keepalive.enforcement_policy
    given = {
        "grpc.max_allowed_incoming_connections": max_connections,
        "grpc.max_concurrent_streams": settings.max_concurrent_streams,
        "grpc.max_connection_idle_ms": milliseconds(ends.max_connection_idle_s),
        "grpc.max_connection_age_ms": milliseconds(ends.max_connection_age_s),
        "grpc.max_connection_age_grace_ms": milliseconds(ends.max_connection_age_grace_s),
        "grpc.keepalive_time_ms": milliseconds(ends.time_s),
        "grpc.keepalive_timeout_ms": milliseconds(ends.timeout_s),
        "grpc.http2.min_ping_interval_without_data_ms": milliseconds(asks.min_time_s),
        "grpc.keepalive_permit_without_calls": int(asks.permit_without_stream),
    }
    return [
        ("grpc.max_receive_message_length", settings.max_recv_msg_size_mib << 20),
        ("grpc.so_reuseport", 0),  # a second distributor on the port is a mistake that must be seen
        *((name, value) for name, value in given.items() if value),
    ]


def milliseconds(seconds: float) -> int:
    """At least one, unless it is 0."""
    return math.ceil(seconds * 1000)


class Service(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Routes the one method that there is; without serialisers, its request and response are bytes."""

    def __init__(self, method: str, export: Handler) -> None:
        self._method, self._export = method, grpc.unary_unary_rpc_method_handler(export)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """The handler of a method; None answers UNIMPLEMENTED."""
        return self._export if handler_call_details.method == self._method else None


def _trailers(error: RefusedError) -> tuple[tuple[str, bytes], ...]:
    if error.retry_after_s <= 0:
        return ()
    return (
        (STATUS_DETAILS, status_protobuf(error.code, error.message, error.retry_after_s)),
        (RETRY_INFO, retry_info_protobuf(error.retry_after_s)),
    )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
