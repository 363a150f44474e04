"""OTLP over HTTP: protobuf and JSON, gzip."""

import math

from aiohttp import web

from agents.distributor.bodies import BodyTooLargeError, decoded
from agents.distributor.intake import Intake
from agents.distributor.status import HTTP_STATUS, Code, RefusedError, status_json, status_protobuf
from agents.otlp_protocol import NO_METRICS_HEADER, ORG_ID_HEADER
from schemas.config.distributor import OtlpHttp
from schemas.errors import Malformed
from schemas.otlp_json import traces_data_bytes

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

STOP_GRACE_S = 15.0
"""As for gRPC."""


class HttpReceiver:
    """The HTTP server; `address` is known once it is started."""

    def __init__(self, settings: OtlpHttp, intake: Intake) -> None:
        self._settings, self._intake = settings, intake
        app = web.Application(client_max_size=settings.max_request_body_size)
        app.router.add_post(settings.traces_url_path, self.export)
        # Bodies are decoded by us, with a limit on what they become and an OTLP answer if they don't.
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, auto_decompress=False, shutdown_timeout=STOP_GRACE_S
        )
        self.address = ""

    async def start(self) -> None:
        """Listen; raises OSError if the address is taken."""
        host, _, port = self._settings.endpoint.rpartition(":")
        await self._runner.setup()
        await web.TCPSite(self._runner, host.strip("[]") or None, int(port)).start()
        self.address = f"{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Take no more requests and answer those in flight."""
        await self._runner.cleanup()

    async def export(self, request: web.Request) -> web.Response:
        """Answer one request, in its own encoding (Tempo DIST-6)."""
        kind = request.content_type
        if kind not in {PROTOBUF, JSON}:
            text = f"415 unsupported media type, supported: [{JSON}, {PROTOBUF}]"
            return web.Response(status=415, text=text)
        try:
            body = await self._body(request)
            org_ids = request.headers.getall(ORG_ID_HEADER, [])
            await self._intake.push(body, org_ids, no_metrics=NO_METRICS_HEADER in request.headers)
        except RefusedError as error:
            return _failure(kind, HTTP_STATUS[error.code], error)
        except (BodyTooLargeError, web.HTTPRequestEntityTooLarge):
            limit = self._settings.max_request_body_size
            too_large = RefusedError(Code.INVALID_ARGUMENT, f"the body is longer than {limit} bytes")
            return _failure(kind, 413, too_large)
        return web.Response(body=b"{}" if kind == JSON else b"", content_type=kind)

    async def _body(self, request: web.Request) -> bytes:
        """The request's protobuf bytes."""
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        body = decoded(await request.read(), encoding, self._settings.max_request_body_size)
        if request.content_type == PROTOBUF:
            return body
        try:
            return traces_data_bytes(body, 1)
        except Malformed as error:
            raise RefusedError(Code.INVALID_ARGUMENT, f"not an OTLP trace request: {error}") from error


def _failure(kind: str, status: int, error: RefusedError) -> web.Response:
    encode = status_json if kind == JSON else status_protobuf
    body = encode(error.code, error.message, error.retry_after_s)
    headers = {"Retry-After": str(math.ceil(error.retry_after_s))} if error.retry_after_s > 0 else {}
    return web.Response(status=status, body=body, content_type=kind, headers=headers)
