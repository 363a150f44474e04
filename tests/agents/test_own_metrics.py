"""What a process says about itself."""

import asyncio

import aiohttp

from agents.own_metrics import OwnMetrics, own_routes, serve
from schemas.deltas import LedgerKey


def test_ledgers_add_up_under_tempos_own_names() -> None:
    metrics = OwnMetrics()
    tenant = (("tenant", "t"),)
    for count in (2, 3):
        metrics.ledger.add(
            {
                LedgerKey("tempo_metrics_generator_spans_received_total", tenant): count,
                LedgerKey("tempo_metrics_generator_processor_service_graphs_edges", tenant): count,
            }
        )
    lines = metrics.exposition().decode().splitlines()
    assert 'tempo_metrics_generator_spans_received_total{tenant="t"} 5.0' in lines
    assert 'tempo_metrics_generator_processor_service_graphs_edges{tenant="t"} 5.0' in lines


def test_two_processes_metrics_do_not_meet() -> None:
    one, other = OwnMetrics(), OwnMetrics()
    one.records.labels("0").inc(3)
    assert b'spanmill_generator_records_total{partition="0"} 3.0' in one.exposition()
    assert b"spanmill_generator_records_total{" not in other.exposition()


async def test_ready_is_said_only_when_it_is_true() -> None:
    ready = asyncio.Event()
    async with (
        serve("127.0.0.1", 0, own_routes(OwnMetrics(), ready)) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        assert (await http.get("/healthz")).status == 200
        assert (await http.get("/readyz")).status == 503
        ready.set()
        assert (await http.get("/readyz")).status == 200
        exposed = await http.get("/metrics")
        assert exposed.headers["Content-Type"].startswith("text/plain")
        assert "process_cpu_seconds_total" in await exposed.text()
