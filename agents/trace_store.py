"""A trace store behind OTLP over gRPC: sending until it has the spans, or has refused them for good."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from prometheus_client import CollectorRegistry, Counter

from agents.otlp_protocol import EXPORT_METHOD, ORG_ID_HEADER

log = structlog.get_logger(__name__)

MIN_BACKOFF_S = 0.1
MAX_BACKOFF_S = 30.0
COMPLAIN_EVERY_S = 30.0

DEFAULT_PORT = 4317

RETRY_INFO = "grpc-status-details-bin"
"""Trailing metadata with details of an error. The store sends some with RESOURCE_EXHAUSTED if it expects a retry."""

TEMPORARY = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""What OTLP 1.x ("Failures") lets a client send again."""

MISCONFIGURED = frozenset(
    {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}
)
"""These say nothing about the spans: they are kept until somebody mends the configuration, loudly."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The store won't take these spans, now or later."""

    code: grpc.StatusCode
    text: str


class TraceStoreMetrics:
    """What was sent to the store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "spanmill_ingester_requests", "Requests to the trace store by their answer.", ["code"], registry=registry
        )
        self.rejected_spans = Counter(
            "spanmill_ingester_rejected_spans",
            "Spans that the trace store said it left out of requests that it took.",
            registry=registry,
        )


class TraceStore:
    """Sends TracesData to one endpoint, `http(s)://host:port`."""

    def __init__(self, endpoint: str, headers: Mapping[str, str], timeout_s: float, metrics: TraceStoreMetrics) -> None:
        parts = urlsplit(endpoint)
        target = parts.netloc if parts.port else f"{parts.netloc}:{DEFAULT_PORT}"
        if parts.scheme == "https":
            self._channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials())
        else:
            self._channel = grpc.aio.insecure_channel(target)
        self._export = self._channel.unary_unary(EXPORT_METHOD, None, None)
        self._headers = [(name.lower(), value) for name, value in headers.items()]
        self._endpoint, self._timeout_s, self._metrics = endpoint, timeout_s, metrics
        self._complained_at = -COMPLAIN_EVERY_S

    async def send(self, tenant: str, value: bytes) -> Refusal | None:
        """Send a TracesData until the store has it; gives the refusal if it doesn't want it.

        Waits for as long as the store doesn't answer or is busy.
        """
        backoff_s = MIN_BACKOFF_S
        while True:
            failure = await self._try(tenant, value)
            if failure is None:
                return None
            if not retryable(failure):
                return Refusal(failure.code(), failure.details() or "")
            self._complain(failure)
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 -- jitter
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)

    async def _try(self, tenant: str, value: bytes) -> grpc.aio.AioRpcError | None:
        metadata = [*self._headers, (ORG_ID_HEADER, tenant)]
        try:
            answer = await self._export(value, timeout=self._timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            self._metrics.requests.labels(error.code().name).inc()
            return error
        self._metrics.requests.labels("OK").inc()
        self._metrics.rejected_spans.inc(rejected_spans(answer))
        return None

    def _complain(self, failure: grpc.aio.AioRpcError) -> None:
        if time.monotonic() - self._complained_at < COMPLAIN_EVERY_S:
            return
        self._complained_at = time.monotonic()
        write = log.error if failure.code() in MISCONFIGURED else log.warning
        write("the trace store doesn't take spans, trying again", endpoint=self._endpoint, **_told(failure))


def retryable(failure: grpc.aio.AioRpcError) -> bool:
    """Whether the same spans may be taken later."""
    code = failure.code()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:  # too much at the moment, or a message that is too large
        trailing: Sequence[tuple[str, str | bytes]] = tuple(failure.trailing_metadata() or ())  # type: ignore[arg-type]
        return any(name == RETRY_INFO for name, _ in trailing)
    return code in TEMPORARY or code in MISCONFIGURED


def rejected_spans(answer: bytes) -> int:
    """Spans that an ExportTraceServiceResponse says were left out; OTLP forbids to send them again."""
    try:
        return ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans
    except DecodeError:
        return 0


def _told(failure: grpc.aio.AioRpcError) -> dict[str, str]:
    return {"code": failure.code().name, "details": failure.details() or ""}


def joined(values: Sequence[bytes]) -> bytes:
    """Several TracesData as one: it is a list, so their bytes are put one after the other."""
    return values[0] if len(values) == 1 else b"".join(values)
