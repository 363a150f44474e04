"""More clients than the distributor has room for: requests that wait, and connections, over real servers."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable

import aiohttp
import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import RetryInfo

from agents.distributor.aside import LONG_BYTES
from agents.distributor.receiver_grpc import channel_options
from agents.distributor.receiver_http import OtlpForm
from agents.otlp_protocol import EXPORT_METHOD
from schemas.config import load_config
from schemas.otlp.regroup import rehearse
from tests.agents.test_distributor_watching import PATH, TENANT, Distributor, request, started

CROWD = "spanmill: {distributor: {max_concurrent_requests: 3}}"
TENANTS = "multitenancy_enabled: true\nspanmill: {distributor: {max_concurrent_requests_per_tenant: 2}}"
CONNECTIONS = "spanmill: {distributor: {max_connections: 2}}"
IN_FLIGHT = "spanmill_distributor_requests_in_flight"
REFUSED = "spanmill_distributor_requests_refused_total"


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    """So that kernels are not compiled while a client waits."""
    rehearse()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await asyncio.sleep(0.01)


async def test_requests_that_wait_are_limited_over_all_receivers() -> None:
    """One more is refused at once, and told when to come again; when others are answered there is room again."""
    async with started(CROWD) as distributor:
        distributor.producer.waits = asyncio.Event()
        waiting = [
            asyncio.create_task(distributor.over_grpc(request(1))),
            asyncio.create_task(distributor.over_grpc(request(1))),
            asyncio.create_task(distributor.over_http(request(1))),
        ]
        await until(lambda: distributor.value(IN_FLIGHT) == 3)
        async with grpc.aio.insecure_channel(distributor.grpc.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="3 requests wait") as refused:
                await channel.unary_unary(EXPORT_METHOD, None, None)(request(1))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        trailers = dict(refused.value.trailing_metadata() or ())
        assert b"RetryInfo" in trailers["grpc-status-details-bin"]
        by_itself = RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"])
        assert by_itself.retry_delay.ToTimedelta().total_seconds() == 1.0, "where Python's SDK looks for it"
        assert await distributor.over_http(request(1)) == 503
        assert distributor.value(REFUSED, limit="distributor") == 2
        assert distributor.value("spanmill_distributor_requests_in_flight_limit") == 3
        distributor.producer.waits.set()
        assert await asyncio.gather(*waiting) == ["OK", "OK", 200]
        assert distributor.value(IN_FLIGHT) == 0
        assert await distributor.over_http(request(1)) == 200


async def test_those_who_send_slowly_take_nobodys_place() -> None:
    async with started(CROWD) as distributor:
        host, _, port = distributor.http.address.rpartition(":")
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 9\r\n\r\nslow"
        )
        slow = [await asyncio.open_connection(host, int(port)) for _ in range(5)]
        try:
            for _, writer in slow:
                writer.write(head.encode())
            where = {"receiver": "otlp/otlp_receiver", "transport": "http"}
            await until(lambda: distributor.value("spanmill_distributor_connections", **where) == 5)
            assert await distributor.over_http(request(1)) == 200
            assert await distributor.over_grpc(request(1)) == "OK"
        finally:
            for _, writer in slow:
                writer.close()


async def test_others_are_answered_while_a_long_body_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    done, translate = threading.Event(), OtlpForm.traces_data

    def slow(form: OtlpForm, kind: str, body: bytes) -> bytes:
        if len(body) > LONG_BYTES:
            assert done.wait(120)
        return translate(form, kind, body)

    monkeypatch.setattr(OtlpForm, "traces_data", slow)
    long = json.dumps({"resourceSpans": [], "invented": "x" * LONG_BYTES}).encode()
    async with started() as distributor:
        waiting = asyncio.create_task(distributor.over_http(long, "application/json"))
        await until(lambda: distributor.value(IN_FLIGHT) == 1)
        assert await distributor.over_http(b"{}", "application/json") == 200
        assert not waiting.done()
        done.set()
        assert await waiting == 200


async def test_a_client_that_goes_away_leaves_its_place() -> None:
    async with started(CROWD) as distributor:
        distributor.producer.waits = asyncio.Event()
        waiting = [asyncio.create_task(distributor.over_grpc(request(1))) for _ in range(3)]
        await until(lambda: distributor.value(IN_FLIGHT) == 3)
        for task in waiting:
            task.cancel()
        await until(lambda: distributor.value(IN_FLIGHT) == 0)


async def test_a_tenants_requests_leave_room_for_those_of_others() -> None:
    async with started(TENANTS) as distributor:
        distributor.producer.waits = asyncio.Event()
        crowd = [asyncio.create_task(distributor.over_grpc(request(1), (TENANT, "loud"))) for _ in range(5)]
        await until(lambda: sum(task.done() for task in crowd) == 3)
        assert await distributor.over_http(request(1), **{TENANT: "loud"}) == 429
        quiet = asyncio.create_task(distributor.over_http(request(1), **{TENANT: "quiet"}))
        await until(lambda: distributor.value(IN_FLIGHT) == 3)
        assert distributor.value(REFUSED, limit="tenant") == 4
        distributor.producer.waits.set()
        assert sorted(await asyncio.gather(*crowd)) == ["OK", "OK", *["RESOURCE_EXHAUSTED"] * 3]
        assert await quiet == 200


async def test_connections_over_http_are_limited() -> None:
    async with started(CONNECTIONS) as distributor:
        host, _, port = distributor.http.address.rpartition(":")
        open_ones = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        where = {"receiver": "otlp/otlp_receiver", "transport": "http"}
        await until(lambda: distributor.value("spanmill_distributor_connections", **where) == 2)
        with pytest.raises(aiohttp.ClientConnectionError):
            await distributor.over_http(request(1))
        refused = distributor.value("spanmill_distributor_connections_refused_total", **where)
        assert refused is not None
        assert refused >= 1  # clients try again at once
        for _, writer in open_ones:
            writer.close()
            await writer.wait_closed()
        await until(lambda: distributor.value("spanmill_distributor_connections", **where) == 0)
        assert await distributor.over_http(request(1)) == 200


async def test_a_burst_of_connections_is_limited_too() -> None:
    """Many are accepted before the first of them is counted by the server."""
    async with started(CONNECTIONS) as distributor:
        host, _, port = distributor.http.address.rpartition(":")
        opened = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(40)))
        post = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
        answers = 0
        for reader, writer in opened:
            with contextlib.suppress(ConnectionError):
                writer.write(post.encode())
                answers += (await reader.read(12)) == b"HTTP/1.1 200"
        assert answers == 2


async def exchanged(distributor: Distributor, channel: grpc.aio.Channel) -> str:
    try:
        await channel.unary_unary(EXPORT_METHOD, None, None)(request(1), timeout=5)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def test_connections_over_grpc_are_limited() -> None:
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with started(CONNECTIONS) as distributor:
        channels = [grpc.aio.insecure_channel(distributor.grpc.address, own) for _ in range(3)]
        try:
            assert [await exchanged(distributor, each) for each in channels] == ["OK", "OK", "UNAVAILABLE"]
            await channels[0].close()
            async with asyncio.timeout(120):
                while await exchanged(distributor, channels[2]) != "OK":
                    await asyncio.sleep(0.1)
        finally:
            for each in channels:
                await each.close()


IDLE = """
distributor: {receivers: {otlp: {protocols: {http: {}, grpc: {
  max_concurrent_streams: 1, keepalive: {server_parameters: {max_connection_idle: 300ms}}}}}}}
"""

AGED = """
distributor: {receivers: {otlp: {protocols: {http: {}, grpc: {
  keepalive: {server_parameters: {max_connection_age: 300ms, max_connection_age_grace: 300ms}}}}}}}
"""

KEEPALIVE = """
distributor: {receivers: {otlp: {protocols: {grpc: {keepalive: {
  server_parameters: {max_connection_age: 5m, max_connection_age_grace: 10s, time: 30s, timeout: 1500us},
  enforcement_policy: {min_time: 10s, permit_without_stream: true}}}}}}}
"""


async def test_connections_over_grpc_have_one_request_each_and_end_when_they_are_idle() -> None:
    async with started(IDLE) as distributor, grpc.aio.insecure_channel(distributor.grpc.address) as channel:
        distributor.producer.waits = asyncio.Event()
        asked = [asyncio.create_task(exchanged(distributor, channel)) for _ in range(2)]
        await until(lambda: distributor.value(IN_FLIGHT) == 1)
        await asyncio.sleep(0.3)
        assert distributor.value(IN_FLIGHT) == 1, "the other one waits in the client"
        distributor.producer.waits.set()
        assert await asyncio.gather(*asked) == ["OK", "OK"]
        async with asyncio.timeout(120):
            while channel.get_state() is grpc.ChannelConnectivity.READY:
                await asyncio.sleep(0.05)
        assert await exchanged(distributor, channel) == "OK", "clients connect again"


async def test_a_request_over_grpc_that_never_ends_is_cut_off_with_its_connection() -> None:
    async with started(AGED) as distributor, grpc.aio.insecure_channel(distributor.grpc.address) as channel:
        unfinished = channel.stream_unary(EXPORT_METHOD)()
        await unfinished.wait_for_connection()
        async with asyncio.timeout(120):
            assert await unfinished.code() is grpc.StatusCode.UNAVAILABLE
            while await exchanged(distributor, channel) != "OK":  # clients connect again, and again
                await asyncio.sleep(0.1)


def test_settings_of_the_collectors_servers_become_channel_arguments() -> None:
    grpc_settings = load_config(None, KEEPALIVE).distributor.receivers.otlp.protocols.grpc
    assert grpc_settings is not None
    assert dict(channel_options(grpc_settings, 0)) == {
        "grpc.max_receive_message_length": 4 << 20,
        "grpc.so_reuseport": 0,
        "grpc.max_concurrent_streams": 1000,
        "grpc.max_connection_age_ms": 300_000,
        "grpc.max_connection_age_grace_ms": 10_000,
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 2,
        "grpc.http2.min_ping_interval_without_data_ms": 10_000,
        "grpc.keepalive_permit_without_calls": 1,
    }
