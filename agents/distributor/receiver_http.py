"""Spans over HTTP: what the receivers have in common. How each reads bodies and answers is its form's affair."""

import math
from functools import partial
from typing import Protocol

from aiohttp import hdrs, web

from agents.distributor.aside import Aside
from agents.distributor.auth import Authentication, Client, names_of_peer
from agents.distributor.bodies import UNENCODED, BodyTooLargeError, decoded
from agents.distributor.connection import Connection, connection_of, headers_in_time
from agents.distributor.cors import Cors
from agents.distributor.intake import Intake
from agents.distributor.listener import HANDSHAKE_S, Listener
from agents.distributor.reception import Arrival, Reception
from agents.distributor.status import HTTP_STATUS, RETRY_AFTER_S, Code, RefusedError, status_json, status_protobuf
from agents.otlp_protocol import NO_METRICS_HEADER, ORG_ID_HEADER
from agents.server_tls import server_context
from schemas import jaeger, zipkin
from schemas.config.distributor import HttpSettings
from schemas.errors import Malformed
from schemas.otlp_json import traces_data_bytes

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
THRIFT = ("application/x-thrift", "application/vnd.apache.thrift.binary")
TEXT = "text/plain"

STOP_GRACE_S = 15.0
"""As for gRPC."""


class Form(Protocol):
    """How a protocol uses HTTP."""

    @property
    def name(self) -> str:
        """The protocol's."""

    @property
    def media_types(self) -> tuple[str, ...]:
        """Those of its requests."""

    def traces_data(self, kind: str, body: bytes) -> bytes:
        """The spans of a request that isn't OTLP's protobuf, as such. Raises Malformed."""

    def success(self, kind: str) -> web.Response:
        """The answer to a request that was taken."""

    def failure(self, kind: str, status: int, error: RefusedError) -> web.Response:
        """The answer to another one."""


class HttpReceiver:
    """An HTTP server for one path; `address` is known once it is started."""

    def __init__(
        self,
        settings: HttpSettings,
        path: str,
        form: Form,
        intake: Intake,
        authentication: Authentication,
        reception: Reception,
        max_connections: int = 0,
    ) -> None:
        self.name, self._reception = f"{form.name} over HTTP", reception
        self._max_connections = max_connections
        self._settings, self._form, self._intake, self._authentication = settings, form, intake, authentication
        app = web.Application(client_max_size=settings.max_request_body_size, middlewares=[headers_in_time])
        app.router.add_post(path, self.export)
        if settings.cors.allowed_origins:
            cors = Cors(settings.cors)
            app.router.add_route(hdrs.METH_OPTIONS, path, cors.preflight)
            app.on_response_prepare.append(cors.allow)
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=STOP_GRACE_S)
        self._listener: Listener | None = None
        self._aside = Aside()
        self.address = ""

    async def start(self) -> None:
        """Listen; raises OSError if the address is taken or a certificate can't be used."""
        host, _, port = self._settings.endpoint.rpartition(":")
        context = None if self._settings.tls is None else server_context(self._settings.tls)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        self._listener = self._reception.listener(
            server, lambda: Connection(server, self._settings, self._reception.late), self._max_connections
        )
        handshake_s = min(HANDSHAKE_S, self._settings.read_header_timeout_s or HANDSHAKE_S)
        bound = await self._listener.start(host.strip("[]") or None, int(port), context, handshake_s)
        self.address = f"{host}:{bound}"

    async def stop(self) -> None:
        """Take no more requests and answer those in flight."""
        if self._listener is not None:
            self._listener.stop()
        await self._runner.cleanup()
        self._aside.close()

    async def export(self, request: web.Request) -> web.Response:
        """Answer one request, in its own encoding (Tempo DIST-6)."""
        with self._reception.request(lambda: request.remote) as arrival:
            response = await self._answer(arrival, request)
            retry_after_s = float(response.headers.get(hdrs.RETRY_AFTER, 0))
            arrival.answered(str(response.status), taken=response.status < 400, retry_after_s=retry_after_s)
        return response

    async def _answer(self, arrival: Arrival, request: web.Request) -> web.Response:
        kind = request.content_type
        if kind not in self._form.media_types:
            supported = ", ".join(self._form.media_types)
            return web.Response(status=415, text=f"415 unsupported media type, supported: [{supported}]")
        try:
            org_ids = self._authentication.org_ids(_client(request))  # before its body is read
            body = await self._read(request)
            with self._reception.in_flight.request():  # slow senders, who have time limits, take nobody's place
                body = await self._otlp(request, body)
                await self._intake.push(arrival, body, org_ids, no_metrics=NO_METRICS_HEADER in request.headers)
        except RefusedError as error:
            return self._failure(kind, HTTP_STATUS[error.code], error)
        except (BodyTooLargeError, web.HTTPRequestEntityTooLarge):
            limit = self._settings.max_request_body_size
            too_large = RefusedError(Code.INVALID_ARGUMENT, f"the body is longer than {limit} bytes")
            return self._failure(kind, 413, too_large)
        return self._form.success(kind)

    async def _otlp(self, request: web.Request, body: bytes) -> bytes:
        """The request's spans as OTLP."""
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in UNENCODED:
            decode = partial(decoded, encoding=encoding, max_bytes=self._settings.max_request_body_size)
            body = await self._aside.done(decode, body)
        kind = request.content_type
        if kind == PROTOBUF:
            return body
        try:
            return await self._aside.done(partial(self._form.traces_data, kind), body)
        except Malformed as error:
            raise RefusedError(Code.INVALID_ARGUMENT, f"not a request of {self._form.name}: {error}") from error

    async def _read(self, request: web.Request) -> bytes:
        try:
            return await connection_of(request).body(request)
        except TimeoutError:
            limit_s = self._settings.read_timeout_s
            late = f"the request hasn't come within {limit_s:g}s (read_timeout)"
            raise RefusedError(Code.DEADLINE_EXCEEDED, late, RETRY_AFTER_S) from None

    def _failure(self, kind: str, status: int, error: RefusedError) -> web.Response:
        response = self._form.failure(kind, status, error)
        if error.retry_after_s > 0:
            response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
        if error.code is Code.UNAUTHENTICATED:
            response.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 §15.5.2 wants one
        if error.code is Code.DEADLINE_EXCEEDED:
            response.force_close()  # the rest of the body would be taken for a request
        return response


def _client(request: web.Request) -> Client:
    return Client(
        org_ids=request.headers.getall(ORG_ID_HEADER, []),
        authorization=request.headers.getall(hdrs.AUTHORIZATION, []),
        certificate=lambda: names_of_peer(request.get_extra_info("peercert")),
    )


class OtlpForm:
    """OTLP: a google.rpc.Status in the request's encoding says what is wrong."""

    name = "OTLP"
    media_types = (JSON, PROTOBUF)

    def traces_data(self, kind: str, body: bytes) -> bytes:  # noqa: ARG002 -- protobuf needs none
        """One line of JSON."""
        return traces_data_bytes(body, 1)

    def success(self, kind: str) -> web.Response:
        """No partial success is ever reported."""
        return web.Response(body=b"{}" if kind == JSON else b"", content_type=kind)

    def failure(self, kind: str, status: int, error: RefusedError) -> web.Response:
        """The status with its details."""
        encode = status_json if kind == JSON else status_protobuf
        body = encode(error.code, error.message, error.retry_after_s)
        return web.Response(status=status, body=body, content_type=kind)


class TextForm:
    """What Zipkin and Jaeger have in common: 202, or a line of text."""

    def success(self, kind: str) -> web.Response:  # noqa: ARG002 -- the same for all
        """Taken."""
        return web.Response(status=202)

    def failure(self, kind: str, status: int, error: RefusedError) -> web.Response:  # noqa: ARG002
        """The message."""
        return web.Response(status=status, text=f"{error.message}\n")


class ZipkinForm(TextForm):
    """Zipkin's spans in JSON (Tempo DIST-1)."""

    name = "Zipkin"
    media_types = (JSON,)

    def __init__(self, *, parse_string_tags: bool) -> None:
        self._parse_string_tags = parse_string_tags

    def traces_data(self, kind: str, body: bytes) -> bytes:  # noqa: ARG002 -- there is only one
        """A list of spans."""
        return zipkin.traces_data(body, parse_string_tags=self._parse_string_tags).SerializeToString()


class JaegerForm(TextForm):
    """A batch of Jaeger's in Thrift's binary protocol (Tempo DIST-1)."""

    name = "Jaeger"
    media_types = THRIFT

    def traces_data(self, kind: str, body: bytes) -> bytes:  # noqa: ARG002 -- both are the same
        """One batch."""
        return jaeger.traces_data(jaeger.batch_of_thrift(body)).SerializeToString()
