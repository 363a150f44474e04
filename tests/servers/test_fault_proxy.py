"""The proxies that fault tests rely on: each fault is what it says."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.servers.fault_proxy import Fault, FaultProxy, Kind
from tests.servers.tcp_proxy import TcpProxy


class Target(ThreadingHTTPServer):
    """Answers 204 to all that is posted, and keeps the bodies."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        target = self

        class Requests(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                target.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        super().__init__(("127.0.0.1", 0), Requests)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def target() -> Iterator[Target]:
    server = Target()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(target: Target) -> Iterator[FaultProxy]:
    proxy = FaultProxy(f"http://127.0.0.1:{target.server_port}")
    proxy.start()
    yield proxy
    proxy.stop()


def post(proxy: FaultProxy, body: bytes) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    connection.request("POST", "/api/v1/write", body)
    return connection.getresponse()


def test_requests_pass_until_a_fault_is_set_and_again_when_it_is_gone(proxy: FaultProxy, target: Target) -> None:
    assert post(proxy, b"one").status == 204
    proxy.set(Fault(Kind.ANSWER, 429, retry_after="7"))
    refused = post(proxy, b"two")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "7")
    proxy.set(None)
    assert post(proxy, b"three").status == 204
    assert target.bodies == [b"one", b"three"]
    assert proxy.met == {"": 2, "answer 429": 1}


@pytest.mark.parametrize("kind", [Kind.CLOSE, Kind.FORGET, Kind.CUT])
def test_connections_are_closed_before_or_after_the_server_has_a_request(
    proxy: FaultProxy, target: Target, kind: Kind
) -> None:
    proxy.set(Fault(kind))
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        post(proxy, b"one").read()
    assert target.bodies == ([] if kind is Kind.CLOSE else [b"one"])


def test_nobody_listens_while_connections_are_refused(proxy: FaultProxy, target: Target) -> None:
    proxy.set(Fault(Kind.REFUSE))
    with pytest.raises(ConnectionRefusedError):
        post(proxy, b"one")
    proxy.set(None)
    assert post(proxy, b"two").status == 204
    assert target.bodies == [b"two"]


def test_a_slow_request_arrives(proxy: FaultProxy, target: Target) -> None:
    proxy.set(Fault(Kind.SLOW, delay_s=0.1))
    begun = time.monotonic()
    assert post(proxy, b"one").status == 204
    assert time.monotonic() - begun >= 0.1
    assert target.bodies == [b"one"]


def test_a_connection_stalls_flows_again_and_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = TcpProxy()
        proxy.start(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(0.2)
                client.sendall(b"one")
                assert accepted.recv(10) == b"one"
                proxy.stall()
                client.sendall(b"two")
                with pytest.raises(TimeoutError):
                    accepted.recv(10)
                proxy.resume()
                accepted.settimeout(10)
                assert accepted.recv(10) == b"two"
                proxy.reset()
                with pytest.raises(ConnectionResetError):
                    client.recv(10)
        proxy.stop()
