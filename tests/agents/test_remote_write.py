"""The remote-write endpoint: what its answers mean, and that no answer costs a sample that could be stored."""

import time
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from agents.own_metrics import OwnMetrics
from agents.remote_write.answers import Answer, classify
from agents.remote_write.endpoint import MARKER, RemoteWriteEndpoint
from schemas.config import RemoteWriteConfig
from schemas.remote_write import DecodedSeries, decode_write_request
from streams.series import Sample, Series
from streams.shard import TenantSamples, WindowSamples
from tests.servers.prometheus import Prometheus

END_MS = 1_700_000_010_000
Rule = Callable[[tuple[DecodedSeries, ...]], tuple[int, str]]


@pytest.mark.parametrize(
    ("status", "text", "meaning"),
    [
        (204, "", Answer.STORED),
        (200, "", Answer.STORED),
        (400, "out of order sample", Answer.OUT_OF_ORDER),
        (400, "out of bounds", Answer.TOO_OLD),
        (500, "too old sample", Answer.TOO_OLD),
        (400, "duplicate sample for timestamp", Answer.DUPLICATE),
        (400, 'label name "" is invalid', Answer.BAD),
        (413, "", Answer.TOO_LARGE),
        (401, "", Answer.DENIED),
        (403, "", Answer.DENIED),
        (404, "", Answer.DENIED),
        (429, "", Answer.BUSY),
        (500, "", Answer.BUSY),
        (503, "out of order", Answer.BUSY),
    ],
)
def test_answers_and_their_meaning(status: int, text: str, meaning: Answer) -> None:
    assert classify(status, text) is meaning


class Receiver:
    """A remote-write receiver that answers by a rule and keeps what it took."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.stored: list[tuple[str, float, int]] = []
        self.requests: list[list[str]] = []
        self.tenants: list[str | None] = []

    async def handle(self, request: web.Request) -> web.Response:
        series = decode_write_request(await request.read())
        names = [dict(each.labels)["__name__"] for each in series]
        self.requests.append(names)
        self.tenants.append(request.headers.get("X-Scope-OrgID"))
        status, text = self.rule(series)
        if status < 300:
            self.stored += [(n, *each.samples[0]) for n, each in zip(names, series, strict=True)]
        return web.Response(status=status, text=text)

    async def serve(self, write: Callable[[RemoteWriteEndpoint], Awaitable[None]], metrics: OwnMetrics) -> None:
        app = web.Application()
        app.add_routes([web.post("/write", self.handle)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/write"
        try:
            async with aiohttp.ClientSession() as session:
                config = RemoteWriteConfig(url=url, name="here")
                await write(RemoteWriteEndpoint(config, "app", metrics, session, org_id=True))
        finally:
            await runner.cleanup()


def window(count: int = 3, tenant: str = "single-tenant", zeros: int = 1) -> WindowSamples:
    series = [Series((("__name__", f"m{i}"),)) for i in range(count)]
    samples = TenantSamples(
        tenant,
        END_MS - 5000,
        [Sample(each, 0.0) for each in series[:zeros]],
        [Sample(each, float(i + 1)) for i, each in enumerate(series)],
        count,
        0,
    )
    return WindowSamples(3, END_MS - 5000, END_MS, (samples,), 0)


async def written(rule: Rule, samples: WindowSamples) -> tuple[Receiver, OwnMetrics]:
    receiver, metrics = Receiver(rule), OwnMetrics()
    await receiver.serve(lambda endpoint: endpoint.write(samples), metrics)
    return receiver, metrics


def refused(metrics: OwnMetrics, reason: str) -> float:
    value = metrics.registry.get_sample_value(
        "spanmill_sink_refused_samples_total", {"endpoint": "here", "reason": reason}
    )
    return value or 0.0


async def test_a_marker_then_zeros_then_values() -> None:
    receiver, _ = await written(lambda _: (204, ""), window())
    assert receiver.requests == [[MARKER], ["m0"], ["m0", "m1", "m2"]]
    assert receiver.stored == [
        (MARKER, float(END_MS), END_MS),
        ("m0", 0.0, END_MS - 5000),
        ("m0", 1.0, END_MS),
        ("m1", 2.0, END_MS),
        ("m2", 3.0, END_MS),
    ]


async def test_a_window_that_the_endpoint_has_is_skipped() -> None:
    receiver, metrics = await written(lambda _: (400, "out of order sample"), window())
    assert receiver.requests == [[MARKER]]
    assert (
        metrics.registry.get_sample_value(
            "spanmill_sink_windows_skipped_total", {"endpoint": "here", "reason": "stored"}
        )
        == 1
    )


@pytest.mark.parametrize(("status", "text"), [(400, "out of bounds"), (500, "too old sample")])
async def test_a_window_that_is_too_old_is_counted_as_possibly_stored(status: int, text: str) -> None:
    receiver, metrics = await written(lambda _: (status, text), window())
    assert receiver.requests == [[MARKER]]
    assert (
        metrics.registry.get_sample_value(
            "spanmill_sink_windows_skipped_total", {"endpoint": "here", "reason": "possibly stored"}
        )
        == 1
    )


async def test_one_bad_series_costs_no_other() -> None:
    def rule(series: tuple[DecodedSeries, ...]) -> tuple[int, str]:
        return (400, "bad label") if any(("__name__", "m5") in each.labels for each in series) else (204, "")

    receiver, metrics = await written(rule, window(count=9, zeros=0))
    assert {name for name, _, _ in receiver.stored} == {MARKER, *(f"m{i}" for i in range(9) if i != 5)}
    assert refused(metrics, "bad") == 1


async def test_a_refused_zero_costs_no_value() -> None:
    def rule(series: tuple[DecodedSeries, ...]) -> tuple[int, str]:
        zero = any(value == 0.0 for each in series for value, _ in each.samples)
        return (400, "out of order sample") if zero else (204, "")

    receiver, metrics = await written(rule, window(zeros=2))
    assert [(name, value) for name, value, _ in receiver.stored[1:]] == [("m0", 1.0), ("m1", 2.0), ("m2", 3.0)]
    assert refused(metrics, "out of order") == 2


async def test_a_request_that_is_too_large_is_split() -> None:
    receiver, metrics = await written(lambda series: (413, "") if len(series) > 2 else (204, ""), window(count=7))
    assert len(receiver.stored) == 1 + 1 + 7
    assert refused(metrics, "too large") == 0


async def test_what_may_pass_is_tried_again_in_order() -> None:
    answers = iter([(503, ""), (429, ""), (401, ""), (500, "")])
    receiver, _ = await written(lambda _: next(answers, (204, "")), window())
    assert receiver.requests[:5] == [[MARKER]] * 5
    assert len(receiver.stored) == 5


async def test_a_tenant_is_named_in_the_header_unless_it_is_the_single_one() -> None:
    receiver, _ = await written(lambda _: (204, ""), window(tenant="team-a"))
    assert set(receiver.tenants) == {"team-a"}
    receiver, _ = await written(lambda _: (204, ""), window())
    assert set(receiver.tenants) == {None}


@pytest.mark.prometheus
async def test_prometheus_takes_a_window_twice_and_skips_an_earlier_one(prometheus: Prometheus) -> None:
    metrics = OwnMetrics()
    now_ms = int(time.time()) // 5 * 5000

    def at(end_ms: int, value: float) -> WindowSamples:
        series = Series((("__name__", "remote_write_test"), ("job", "repeat")))
        samples = TenantSamples("single-tenant", end_ms - 5000, [], [Sample(series, value)], 1, 0)
        return WindowSamples(0, end_ms - 5000, end_ms, (samples,), 0)

    async with aiohttp.ClientSession() as session:
        config = RemoteWriteConfig(url=f"{prometheus.url}/api/v1/write", name="here")
        endpoint = RemoteWriteEndpoint(config, "repeat", metrics, session, org_id=True)
        for end_ms, value in ((now_ms - 5000, 1.0), (now_ms, 2.0), (now_ms, 2.0), (now_ms - 5000, 1.0)):
            await endpoint.write(at(end_ms, value))
    samples = prometheus.samples('remote_write_test{job="repeat"}', 60, at=now_ms / 1000 + 1)
    assert list(samples.values()) == [[((now_ms - 5000) / 1000, 1.0), (now_ms / 1000, 2.0)]]
    assert (
        metrics.registry.get_sample_value(
            "spanmill_sink_windows_skipped_total", {"endpoint": "here", "reason": "stored"}
        )
        == 1
    )
