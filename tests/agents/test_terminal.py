"""The newest samples of the windows, as `spanmill dev` shows them."""

import asyncio
import io

import aiohttp
from rich.console import Console

from agents.generated import FORGOTTEN_AFTER_MS, Generated
from agents.overview import Increase, Line, Overview
from agents.own_metrics import serve
from agents.terminal import Introduction, duration_text, show, view
from schemas.openmetrics import Labels
from streams.shard import Sample, Series, TenantSamples, WindowSamples

T0 = 1_700_000_000_000
INTERVAL_MS = 5_000


def labels(name: str, **others: str) -> Labels:
    return tuple(sorted({"__name__": name, **others}.items()))


EDGE = {"client": "checkout", "server": "bank", "connection_type": "virtual_node"}
REQUESTS = labels("traces_service_graph_request_total", **EDGE)
FAILED = labels("traces_service_graph_request_failed_total", **EDGE)
BUCKETS = [labels("traces_service_graph_request_server_seconds_bucket", le=le, **EDGE) for le in ("0.1", "+Inf")]
CALLS = labels(
    "traces_spanmetrics_calls_total",
    service="checkout",
    span_name="PlaceOrder",
    span_kind="SPAN_KIND_SERVER",
    status_code="STATUS_CODE_UNSET",
)


def window(number: int, values: dict[Labels, float], *, tenant: str = "t", shard: int = 0) -> WindowSamples:
    """The window of a shard that ends `number` intervals after T0; in the first one everything is new."""
    end_ms = T0 + number * INTERVAL_MS
    zeros = [Sample(Series(each), 0.0) for each in values] if number == 1 else []
    samples = [Sample(Series(each), value) for each, value in values.items()]
    of_tenant = TenantSamples(tenant, end_ms - INTERVAL_MS, zeros, samples, len(samples), 0)
    return WindowSamples(shard, end_ms - INTERVAL_MS, end_ms, (of_tenant,), 0)


async def generated(*windows: WindowSamples) -> Generated:
    endpoint = Generated()
    for each in windows:
        await endpoint.write(each)
    return endpoint


async def test_a_series_grows_from_its_zero_on() -> None:
    endpoint = await generated(window(1, {CALLS: 10.0}), window(2, {CALLS: 30.0}))
    assert list(endpoint.increases()) == [Increase(CALLS, 30.0, 10.0)]


async def test_rates_are_over_the_last_windows_only() -> None:
    endpoint = await generated(*(window(n, {CALLS: 100.0 * n}) for n in range(1, 11)))
    assert list(endpoint.increases()) == [Increase(CALLS, 600.0, 30.0)]


async def test_a_window_that_is_written_again_changes_nothing() -> None:
    endpoint = await generated(window(1, {CALLS: 10.0}), window(1, {CALLS: 10.0}))
    assert list(endpoint.increases()) == [Increase(CALLS, 10.0, 5.0)]


async def test_a_series_without_samples_is_not_shown_and_then_forgotten() -> None:
    endpoint = await generated(window(1, {CALLS: 1.0, REQUESTS: 1.0}), window(2, {CALLS: 1.0}))
    assert [increase.labels for increase in endpoint.increases()] == [CALLS]
    assert endpoint.series == 2
    await endpoint.write(window(1 + FORGOTTEN_AFTER_MS // INTERVAL_MS, {CALLS: 1.0}))
    assert endpoint.series == 1


async def test_generated_exposes_the_newest_samples_of_all_shards() -> None:
    endpoint = await generated(window(1, {CALLS: 1.0}), window(2, {CALLS: 3.0}), window(2, {REQUESTS: 4.0}, shard=1))
    async with (
        serve("127.0.0.1", 0, [endpoint.route()]) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        exposed = await http.get("/generated")
        assert exposed.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = (await exposed.text()).splitlines()
    assert [line for line in lines if line.startswith("traces_")] == [
        'traces_service_graph_request_total{client="checkout",connection_type="virtual_node",server="bank"}'
        f" 4 {T0 + 10_000}",
        'traces_spanmetrics_calls_total{service="checkout",span_kind="SPAN_KIND_SERVER",span_name="PlaceOrder",'
        f'status_code="STATUS_CODE_UNSET"}} 3 {T0 + 10_000}',
    ]


async def test_series_of_two_tenants_are_told_apart() -> None:
    endpoint = await generated(window(1, {CALLS: 1.0}), window(1, {CALLS: 2.0}, tenant="u", shard=1))
    lines = [line for line in endpoint.exposition().decode().splitlines() if line.startswith("traces_")]
    assert [(line.partition('tenant="')[2][0], line.split()[-2]) for line in lines] == [("t", "1"), ("u", "2")]


INTRODUCTION = Introduction("127.0.0.1:4317", "127.0.0.1:4318", "http://127.0.0.1:8080", True, False, None)


async def shown(console: Console) -> None:
    """Show two windows, then stop."""
    endpoint, stop = Generated(), asyncio.Event()
    task = asyncio.ensure_future(show(endpoint, INTRODUCTION, stop, console))
    values = {CALLS: 10.0, REQUESTS: 10.0, FAILED: 5.0, BUCKETS[0]: 10.0, BUCKETS[1]: 10.0}
    for number in (1, 2):
        await endpoint.write(window(number, {each: number * value for each, value in values.items()}))
        while endpoint.changed.is_set():
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(task, 5)


async def test_without_a_terminal_there_is_a_plain_line_for_each_edge_and_operation() -> None:
    out = io.StringIO()
    await shown(Console(file=out))
    text = out.getvalue()
    assert "\x1b" not in text
    assert "gRPC 127.0.0.1:4317, HTTP http://127.0.0.1:4318/v1/traces" in text
    for hint in ("--remote-write", "--kafka HOST:PORT", "for trying out", "--demo"):
        assert hint in text
    assert text.count("window 22:13:25 UTC edges=1 operations=1\n") == 1
    assert text.count("window 22:13:30 UTC edges=1 operations=1\n") == 1
    assert "  edge checkout -> bank [virtual_node] rate=2.0/s errors=50.0% p95=95 ms\n" in text
    assert "  operation checkout 'PlaceOrder' [server] rate=2.0/s errors=0.0% p95=-\n" in text


async def test_on_a_terminal_there_is_a_live_view() -> None:
    out = io.StringIO()
    await shown(Console(file=out, force_terminal=True, width=120, height=50))
    text = out.getvalue()
    assert "Service graph" in text
    assert "Busiest operations" in text
    assert "→ bank" in text
    assert "2.0/s" in text
    assert "Ctrl-C stops" in text


def test_a_low_terminal_shows_what_fits_and_counts_the_rest() -> None:
    lines = tuple(Line((f"a{n}", "b", ""), 1.0, 0.0, 0.1) for n in range(30))
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=24)
    with console.capture() as capture:
        console.print(view(Overview(lines, lines), INTRODUCTION, T0, 60, console.height))
    text = capture.get()
    assert len(text.splitlines()) <= 24
    assert "of 30" in text


def test_durations_have_three_digits() -> None:
    assert [duration_text(s) for s in (0.00002, 0.0123, 0.95, 1.234, float("nan"))] == [
        "20 µs",
        "12.3 ms",
        "950 ms",
        "1.23 s",
        "-",
    ]
