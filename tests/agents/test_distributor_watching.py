"""What the distributor says of its requests: counts by receiver and an access log, over real servers, without Kafka."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from structlog.testing import capture_logs

from agents.distributor.auth import Authentication
from agents.distributor.exposed import OwnHistogram, RecentQuantiles
from agents.distributor.in_flight import InFlight
from agents.distributor.intake import Intake
from agents.distributor.limits import TenantLimits
from agents.distributor.metrics import SECONDS, DistributorMetrics
from agents.distributor.producer import RecordProducer
from agents.distributor.receiver_grpc import GrpcReceiver
from agents.distributor.receiver_http import HttpReceiver, OtlpForm
from agents.distributor.reception import OTLP_GRPC, OTLP_HTTP, Reception
from agents.distributor.service import watchers
from agents.distributor.status import Code, RefusedError
from agents.otlp_protocol import EXPORT_METHOD
from agents.own_metrics import OwnMetrics, own_routes, serve
from schemas.config import Config, load_config
from schemas.otlp.splice import Piece

PATH = "/v1/traces"
TENANT = "x-scope-orgid"
SLOW = "overrides: {defaults: {ingestion: {rate_limit_bytes: 10, burst_size_bytes: 10}}}"
LOGGED = "spanmill: {distributor: {access_log: true}}"


class RecordedProducer:
    """Keeps pieces; `refusal` is what happens to them instead."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.refusal: RefusedError | None = None
        self.waits: asyncio.Event | None = None

    async def produce(self, tenant: str, pieces: Sequence[Piece], *, no_metrics: bool) -> None:
        if self.waits is not None:
            await self.waits.wait()
        if self.refusal is not None:
            raise self.refusal
        self.pieces += pieces


class Distributor:
    """Intake and both OTLP receivers, in front of a producer that a test reads."""

    def __init__(self, config: Config) -> None:
        self.registry = CollectorRegistry()
        self.metrics, self.producer = DistributorMetrics(self.registry), RecordedProducer()
        self.own, limits = OwnMetrics(), TenantLimits(lambda: config)
        work = config.spanmill.distributor
        in_flight = InFlight(self.metrics, work.max_concurrent_requests, work.max_concurrent_requests_per_tenant)
        intake = Intake(
            cast("RecordProducer", self.producer),
            self.metrics,
            limits,
            in_flight,
            partitions=4,
            max_record=1_000_000,
            multitenancy=config.multitenancy_enabled,
            watchers=watchers(config, self.metrics, self.own, limits),
        )
        to = intake, Authentication(None)
        protocols = config.distributor.receivers.otlp.protocols
        assert protocols.grpc is not None
        assert protocols.http is not None
        by_grpc = Reception(OTLP_GRPC, self.metrics, in_flight, access_log=work.access_log)
        by_http = Reception(OTLP_HTTP, self.metrics, in_flight, access_log=work.access_log)
        self.grpc = GrpcReceiver(
            protocols.grpc.replace(endpoint="127.0.0.1:0"), "OTLP", *to, by_grpc, work.max_connections
        )
        by_path = protocols.http.replace(endpoint="127.0.0.1:0"), PATH, OtlpForm()
        self.http = HttpReceiver(*by_path, *to, by_http, work.max_connections)

    async def over_grpc(self, body: bytes, *metadata: tuple[str, str]) -> str:
        async with grpc.aio.insecure_channel(self.grpc.address) as channel:
            try:
                await channel.unary_unary(EXPORT_METHOD, None, None)(body, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                return error.code().name
        return "OK"

    async def over_http(self, body: bytes, kind: str = "application/x-protobuf", **headers: str) -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"http://{self.http.address}{PATH}", data=body, headers={"Content-Type": kind, **headers}
            ) as answer,
        ):
            return answer.status

    def value(self, name: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def spans(self, outcome: str) -> dict[str, float | None]:
        name = f"tempo_receiver_{outcome}_spans"
        return {
            transport: self.value(name, receiver="otlp/otlp_receiver", transport=transport)
            for transport in ("grpc", "http")
        }


@asynccontextmanager
async def started(text: str = "") -> AsyncIterator[Distributor]:
    distributor = Distributor(load_config(None, text))
    await distributor.grpc.start()
    await distributor.http.start()
    try:
        yield distributor
    finally:
        await distributor.grpc.stop()
        await distributor.http.stop()


def request(count: int, **fields: Any) -> bytes:
    """Spans of as many traces."""
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    for i in range(1, count + 1):
        ids = {"trace_id": i.to_bytes(16, "big"), "span_id": i.to_bytes(8, "big")}
        resource.scope_spans.add().spans.append(Span(**{**ids, "name": f"n{i}", **fields}))
    return message.SerializeToString()


async def test_spans_are_counted_by_receiver_as_taken_or_refused() -> None:
    """DIST-3: from the first scrape on, under names without `_total`."""
    async with started() as distributor:
        assert distributor.spans("accepted") == distributor.spans("refused") == {"grpc": 0, "http": 0}
        assert await distributor.over_grpc(request(3)) == "OK"
        assert await distributor.over_http(request(2)) == 200
        distributor.producer.refusal = RefusedError(Code.UNAVAILABLE, "Kafka is away")
        assert await distributor.over_grpc(request(5)) == "UNAVAILABLE"
        assert await distributor.over_grpc(request(1, trace_id=b"short")) == "INVALID_ARGUMENT"
        assert await distributor.over_http(request(7)) == 503
        assert distributor.spans("accepted") == {"grpc": 3, "http": 2}
        assert distributor.spans("refused") == {"grpc": 6, "http": 7}
        text = generate_latest(distributor.registry).decode()
        assert '\ntempo_receiver_accepted_spans{receiver="otlp/otlp_receiver",transport="grpc"} 3.0\n' in text
        assert "tempo_receiver_accepted_spans_total" not in text


async def test_what_nobody_looked_into_has_no_spans() -> None:
    """DIST-3: the Collector doesn't count what it can't decode either."""
    async with started("multitenancy_enabled: true") as distributor:
        assert await distributor.over_grpc(b"\x0a\x05") == "UNAVAILABLE"
        assert await distributor.over_grpc(b"\x0a\x05", (TENANT, "a")) == "INVALID_ARGUMENT"
        assert await distributor.over_http(request(1), "text/plain") == 415
        assert distributor.spans("refused") == {"grpc": 0, "http": 0}


async def test_each_request_is_a_line_of_the_access_log() -> None:
    async with started(f"multitenancy_enabled: true\n{LOGGED}") as distributor:
        body = request(3)
        with capture_logs() as lines:
            await distributor.over_grpc(body, (TENANT, "a"), ("authorization", "Bearer of-a-secret"))
            await distributor.over_http(body, **{TENANT: "b", "Authorization": "Bearer of-a-secret"})
            await distributor.over_http(b"\x0a\x05", **{TENANT: "b"})
            await distributor.over_http(body, "text/plain")
            await distributor.over_grpc(body)
        requests = [line for line in lines if line["event"] == "request"]
        assert [(each["transport"], each["tenant"], each["spans"], each["status"]) for each in requests] == [
            ("grpc", "a", 3, "OK"),
            ("http", "b", 3, "200"),
            ("http", "b", 0, "400"),
            ("http", "", 0, "415"),
            ("grpc", "", 0, "UNAVAILABLE"),
        ]
        assert [each["bytes"] for each in requests] == [len(body), len(body), 2, 0, 0]
        assert all("127.0.0.1" in each["peer"] and each["duration_s"] >= 0 for each in requests)
        assert not any("secret" in str(value) for each in lines for value in each.values())


async def test_the_access_log_says_when_to_come_again() -> None:
    async with started(f"{LOGGED}\n{SLOW}") as distributor:
        with capture_logs() as lines:
            await distributor.over_grpc(request(3))
            await distributor.over_http(request(3))
        assert [(each["status"], each["retry_after_s"]) for each in lines] == [("RESOURCE_EXHAUSTED", 5.0), ("429", 5)]


async def test_a_client_that_goes_away_is_a_line_too() -> None:
    async with started(LOGGED) as distributor:
        distributor.producer.waits = asyncio.Event()
        with capture_logs() as lines:
            async with grpc.aio.insecure_channel(distributor.grpc.address) as channel:
                call = channel.unary_unary(EXPORT_METHOD, None, None)(request(3))
                while distributor.value("tempo_distributor_spans_received_total", tenant="single-tenant") is None:
                    await asyncio.sleep(0.01)
                call.cancel()
            while not lines:
                await asyncio.sleep(0.01)
        assert [(each["status"], each["spans"]) for each in lines] == [("CANCELLED", 3)]
        assert distributor.spans("refused") == {"grpc": 3, "http": 0}


async def test_without_an_access_log_a_request_is_no_line() -> None:
    async with started() as distributor:
        with capture_logs() as lines:
            await distributor.over_grpc(request(3))
            await distributor.over_http(request(3))
        assert lines == []


def test_the_summary_is_of_the_last_minute() -> None:
    now_s = 0.0
    registry = CollectorRegistry()
    summary = RecentQuantiles("waiting", "Bytes.", registry, lambda: now_s)

    def quantile(which: str) -> float | None:
        return registry.get_sample_value("waiting", {"quantile": which})

    assert str(quantile("1")) == "nan"
    summary.observe(1_000_000)
    now_s = 30.0
    for value in range(100):
        summary.observe(value)
    assert quantile("1") == 1_000_000
    now_s = 61.0
    assert (quantile("0.5"), quantile("0.99"), quantile("1")) == (50, 99, 99)
    assert registry.get_sample_value("waiting_count") == 101
    assert registry.get_sample_value("waiting_sum") == 1_004_950
    now_s = 120.0
    assert str(quantile("0.5")) == "nan"


@given(values=st.lists(st.floats(-1, 30) | st.sampled_from(SECONDS)))
def test_a_histogram_is_exposed_as_the_client_library_exposes_its_own(values: list[float]) -> None:
    own, theirs = CollectorRegistry(), CollectorRegistry()
    observed = OwnHistogram("took", "Time.", SECONDS, own)
    reference = Histogram("took", "Time.", buckets=SECONDS, registry=theirs)
    for value in values:
        observed.observe(value)
        reference.observe(value)
    expected, _, created = generate_latest(theirs).partition(b"# HELP took_created")
    assert (generate_latest(own), bool(created)) == (expected, True)


@pytest.mark.parametrize("name", ["tempo_receiver_accepted_spans", "tempo_distributor_buffered_produce_bytes"])
def test_a_name_is_registered_once(name: str) -> None:
    registry = CollectorRegistry()
    DistributorMetrics(registry)
    with pytest.raises(ValueError, match=name):
        RecentQuantiles(name, "Again.", registry)


async def test_how_far_spans_end_from_the_clock_is_counted_by_tenant() -> None:
    """DIST-13, by the distributor's own clock; and traces of a request."""
    now_s = int(time.time())
    async with started("multitenancy_enabled: true") as distributor:
        late = request(3, end_time_unix_nano=(now_s - 1000) * 10**9)
        assert await distributor.over_grpc(late, (TENANT, "a")) == "OK"
        early = request(2, end_time_unix_nano=(now_s + 100_000) * 10**9, trace_id=b"1" * 16)
        assert await distributor.over_grpc(early, (TENANT, "a")) == "OK"

        def below(side: str, bound: str) -> float | None:
            return distributor.value(f"tempo_spans_distance_in_{side}_seconds_bucket", tenant="a", le=bound)

        bounds = ("300.0", "1800.0", "3600.0", "+Inf")
        assert [below("past", bound) for bound in bounds] == [0, 3, 3, 3]
        assert [below("future", bound) for bound in bounds] == [0, 0, 0, 2]
        total = distributor.value("tempo_spans_distance_in_past_seconds_sum", tenant="a")
        assert total is not None
        assert 3000 <= total < 3600
        assert distributor.value("tempo_distributor_traces_per_batch_bucket", le="2.0") == 1
        assert distributor.value("tempo_distributor_traces_per_batch_sum") == 4


def lines_of(lines: Sequence[Any], event: str) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in line.items() if k not in {"event", "log_level"}} for line in lines if line["event"] == event
    ]


async def test_received_spans_are_lines_with_tempos_fields() -> None:
    """DIST-18."""
    body = request(1, kind=Span.SPAN_KIND_SERVER, start_time_unix_nano=1_000_000_000, end_time_unix_nano=3_500_000_000)
    message = ExportTraceServiceRequest.FromString(body)
    span = message.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="http.status-code").value.int_value = 200
    span.attributes.add(key="name").value.string_value = "an attribute"
    span.status.code = Status.STATUS_CODE_ERROR
    body = message.SerializeToString().replace(b"n1", b"n\xff")  # no UTF-8, and taken all the same
    ids = {"tenant": "single-tenant", "spanid": f"{1:016x}", "traceid": f"{1:032x}"}
    logged = "distributor: {log_received_spans: {enabled: true, include_all_attributes: %s}}"
    async with started(logged % "false") as distributor:
        with capture_logs() as lines:
            assert await distributor.over_grpc(body) == "OK"
        assert lines_of(lines, "received") == [ids]
    async with started(logged % "true") as distributor:
        with capture_logs() as lines:
            assert await distributor.over_grpc(body) == "OK"
        assert lines_of(lines, "received") == [
            {
                **ids,
                "span_service_name": "shop",
                "span_http_status_code": "200",
                "span_name": "n\ufffd",
                "span_duration_seconds": 2.5,
                "span_kind": "SPAN_KIND_SERVER",
                "span_status": "STATUS_CODE_ERROR",
            }
        ]


async def test_only_failed_spans_are_lines_if_that_is_asked_for() -> None:
    """DIST-18."""
    config = "distributor: {log_received_spans: {enabled: true, filter_by_status_error: true}}"
    async with started(config) as distributor:
        with capture_logs() as lines:
            await distributor.over_grpc(request(2))
            await distributor.over_grpc(request(3, status=Status(code=Status.STATUS_CODE_ERROR)))
        assert len(lines_of(lines, "received")) == 3


async def test_discarded_spans_are_lines_of_their_own() -> None:
    """DIST-18: those of a request with a bad ID; not those above the rate, which a client sends again."""
    async with started("distributor: {log_discarded_spans: {enabled: true}}") as distributor:
        with capture_logs() as lines:
            await distributor.over_grpc(request(2))
            await distributor.over_grpc(request(2, span_id=b"bad"))
        assert lines_of(lines, "discarded") == [
            {"tenant": "single-tenant", "spanid": b"bad".hex(), "traceid": f"{i:032x}"} for i in (1, 2)
        ]
    async with started(f"distributor: {{log_discarded_spans: {{enabled: true}}}}\n{SLOW}") as distributor:
        with capture_logs() as lines:
            assert await distributor.over_grpc(request(2)) == "RESOURCE_EXHAUSTED"
        assert lines == []


@pytest.mark.parametrize("root_only", [False, True])
async def test_spans_are_counted_by_name_and_service(root_only: bool) -> None:
    """DIST-18: a parent of zeros is none (DIST-2)."""
    config = f"distributor: {{metric_received_spans: {{enabled: true, root_only: {str(root_only).lower()}}}}}"
    async with started(config) as distributor:
        await distributor.over_grpc(request(1))
        await distributor.over_grpc(request(1, parent_span_id=bytes(8)))
        await distributor.over_grpc(request(1, parent_span_id=b"12345678"))
        name = "tempo_distributor_debug_spans_received_total"
        counted = distributor.value(name, tenant="single-tenant", name="n1", service="shop")
        assert counted == (2 if root_only else 3)


async def test_what_looks_into_requests_can_not_lose_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with started("distributor: {log_received_spans: {enabled: true}}") as distributor:
        monkeypatch.setattr("agents.distributor.inspection.traces_data", lambda _: 1 // 0)
        with capture_logs() as lines:
            assert await distributor.over_grpc(request(2)) == "OK"
        assert [line["event"] for line in lines] == ["a request couldn't be looked into"]
        assert distributor.spans("accepted")["grpc"] == 2


COSTS = """
distributor: {usage: {cost_attribution: {enabled: true}}}
overrides: {defaults: {cost_attribution: {dimensions: {service.name: "", span.team: owner}}}}
"""


async def test_bytes_by_attributes_are_on_a_page_of_their_own() -> None:
    """DIST-19."""
    async with (
        started(COSTS) as distributor,
        serve("127.0.0.1", 0, own_routes(distributor.own, asyncio.Event())) as port,
    ):
        body = request(2, attributes=[KeyValue(key="team", value=AnyValue(string_value="blue"))])
        await distributor.over_grpc(body)
        await distributor.over_grpc(request(1))
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/usage_metrics") as answer:
            page = await answer.text()
        labels = 'owner="%s",service_name="shop",tenant="single-tenant",tracker="cost-attribution"'
        (message,) = ExportTraceServiceRequest.FromString(body).resource_spans
        (other,) = ExportTraceServiceRequest.FromString(request(1)).resource_spans
        name = "tempo_usage_tracker_bytes_received_total"
        assert f"{name}{{{labels % 'blue'}}} {float(message.ByteSize())}" in page
        assert f"{name}{{{labels % '__missing__'}}} {float(other.ByteSize())}" in page


async def test_without_cost_attribution_there_is_no_such_page() -> None:
    """DIST-19."""
    async with (
        started() as distributor,
        serve("127.0.0.1", 0, own_routes(distributor.own, asyncio.Event())) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/usage_metrics") as answer,
    ):
        assert answer.status == 404


@pytest.mark.parametrize("span_id", [b"", b"1", b"1234567", b"123456789", bytes(8)])
async def test_g225_span_ids_of_another_length_or_of_zeros_are_refused(span_id: bytes) -> None:
    """DIST-11."""
    async with started() as distributor:
        assert await distributor.over_grpc(request(1, span_id=span_id)) == "INVALID_ARGUMENT"
        assert await distributor.over_grpc(request(1, span_id=b"12345678")) == "OK"


async def test_g231_a_refusal_is_delayed_too() -> None:
    """DIST-17."""
    async with started(f"distributor: {{artificial_delay: 50ms}}\n{SLOW}") as distributor:
        assert await distributor.over_grpc(request(3)) == "RESOURCE_EXHAUSTED"
        added = distributor.value("tempo_distributor_added_latency_seconds_count", tenant="single-tenant")
        assert added == 1
