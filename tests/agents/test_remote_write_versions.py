"""Remote write 2.0 with its fall-back to 1.0, native histograms, stale markers, and metadata."""

import math
import struct
from dataclasses import replace

from structlog.testing import capture_logs

from agents.own_metrics import OwnMetrics
from schemas.metric_families import METRIC_FAMILIES
from schemas.metrics import METRICS, MetricId
from schemas.native_histogram import BucketExemplar, NativeHistogram
from streams.series import Sample, Series
from streams.shard import TenantSamples, WindowSamples
from tests.agents.windows import END_MS, endpoint, value_of, window
from tests.servers.remote_write_receiver import Received, Receiver, Reply

V2 = {"protobuf_message": "io.prometheus.write.v2.Request"}
QUIET = {"queue_config": {"min_backoff": "1ms", "max_backoff": "5ms"}}
MARKER = "spanmill_sink_window"
STALE_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""What Prometheus takes for the end of a series."""

CALLS = METRICS[MetricId.CALLS]
LATENCY = METRICS[MetricId.LATENCY]


def generated(end_ms: int = END_MS) -> WindowSamples:
    """A counter and a native histogram with an exemplar, of names that the generator gives."""
    trace = (("traceID", "0af7651916cd43dd8448eb211c80319c"),)
    native = NativeHistogram(3, 3, 0.5, 1, ((-4, 1), (2, 1)), (BucketExemplar(trace, 0.25),))
    values = [
        Sample(Series((("__name__", CALLS.name), ("service", "shop"))), 4.0),
        Sample(Series((("__name__", LATENCY.name), ("service", "shop"))), native),
        Sample(Series((("__name__", "of_an_operator"), ("service", "shop"))), 1.0),
    ]
    samples = TenantSamples("single-tenant", end_ms - 5000, [], values, 2, 0)
    return WindowSamples(3, end_ms - 5000, end_ms, (samples,), 0)


async def test_version_2_carries_type_and_help_beside_every_series() -> None:
    metrics = OwnMetrics()
    async with Receiver().serve() as receiver, endpoint(metrics, url=receiver.url, **QUIET, **V2) as writer:
        await writer.write(generated())
    marker, values = receiver.received
    assert (marker.version, values.version) == ("2", "2")
    assert [series.labels["service"] for series in values.series] == ["shop"] * 3
    assert values.series[1].histograms == [(3, END_MS)]
    assert values.series[1].exemplars == [{"traceID": "0af7651916cd43dd8448eb211c80319c"}]
    assert values.metadata == {CALLS.name: ("COUNTER", CALLS.help), LATENCY.name: ("HISTOGRAM", LATENCY.help)}
    labels = {"tenant": "single-tenant", "remote_name": "here", "url": receiver.url}
    assert value_of(metrics, "prometheus_remote_storage_samples_total", **labels) == 2
    assert value_of(metrics, "prometheus_remote_storage_histograms_total", **labels) == 1
    assert value_of(metrics, "prometheus_remote_storage_exemplars_total", **labels) == 1


async def test_version_2_says_the_same_as_version_1() -> None:
    each = []
    for keys in ({}, V2):
        async with Receiver().serve() as receiver, endpoint(OwnMetrics(), url=receiver.url, **QUIET, **keys) as writer:
            await writer.write(window(count=20, zeros=5))
            await writer.write(generated(END_MS + 5000))
        each.append([received.series for received in receiver.received if received.series])
    assert each[0] == each[1]


async def test_an_endpoint_without_version_2_gets_version_1_and_it_is_told_once() -> None:
    def rule(request: Received) -> Reply:
        return Reply(415) if request.version == "2" else Reply()

    with capture_logs() as logs:
        async with (
            Receiver(rule).serve() as receiver,
            endpoint(OwnMetrics(), url=receiver.url, **QUIET, **V2) as writer,
        ):
            await writer.write(window())
            await writer.write(window(end_ms=END_MS + 5000))
    assert [each.version for each in receiver.received if each.series] == ["2", "1", "1", "1", "1", "1", "1"]
    assert len(receiver.stored) == 2 * 5
    assert [each["log_level"] for each in logs] == ["warning"]


async def test_an_endpoint_that_reads_nothing_and_says_all_is_well_loses_nothing() -> None:
    """Receivers before 2.0 don't look at the header: a request of 2.0 is an empty one of 1.0 to them."""
    async with (
        Receiver(only_version_1=True).serve() as receiver,
        endpoint(OwnMetrics(), url=receiver.url, **QUIET, **V2) as writer,
    ):
        await writer.write(window())
    assert receiver.ignored == 1
    assert len(receiver.stored) == 5


async def test_what_a_receiver_of_version_2_did_not_write_is_counted() -> None:
    def rule(request: Received) -> Reply:
        if len(request.series) < 3:
            return Reply()
        return Reply(headers={"X-Prometheus-Remote-Write-Samples-Written": "1"})

    metrics = OwnMetrics()
    async with Receiver(rule).serve() as receiver, endpoint(metrics, url=receiver.url, **QUIET, **V2) as writer:
        await writer.write(window(zeros=0))
    assert value_of(metrics, "spanmill_sink_refused_samples_total", endpoint="here", reason="not written") == 2
    assert value_of(metrics, "spanmill_sink_samples_written_total", endpoint="here") == 1


async def test_a_window_is_cut_in_two_in_version_2_as_well() -> None:
    def rule(request: Received) -> Reply:
        return Reply(400, "bad") if "m3" in request.names else Reply()

    async with Receiver(rule).serve() as receiver, endpoint(OwnMetrics(), url=receiver.url, **QUIET, **V2) as writer:
        await writer.write(window(count=6, zeros=0))
    assert {name for name, _, _ in receiver.stored} == {MARKER, "m0", "m1", "m2", "m4", "m5"}


async def test_st_8_version_1_gets_type_and_help_in_requests_of_their_own() -> None:
    """ST-8: Tempo sends none."""
    metrics = OwnMetrics()
    async with Receiver().serve() as receiver, endpoint(metrics, url=receiver.url, **QUIET) as writer:
        await writer.write(generated())
        await writer.write(generated(END_MS + 5000))
    (sent,) = [each for each in receiver.received if each.metadata]
    assert sent.series == []
    assert sent.metadata == {CALLS.name: ("COUNTER", CALLS.help), LATENCY.name: ("HISTOGRAM", LATENCY.help)}
    labels = {"tenant": "single-tenant", "remote_name": "here", "url": receiver.url}
    assert value_of(metrics, "prometheus_remote_storage_metadata_total", **labels) == 2


async def test_metadata_that_fails_costs_no_sample_and_is_sent_again() -> None:
    failing = iter([Reply(500)])

    def rule(request: Received) -> Reply:
        return next(failing, Reply()) if request.metadata else Reply()

    async with Receiver(rule).serve() as receiver, endpoint(OwnMetrics(), url=receiver.url, **QUIET) as writer:
        await writer.write(generated())
        await writer.write(generated(END_MS + 5000))
    assert [bool(each.metadata) for each in receiver.received] == [False, False, True] * 2


async def test_metadata_can_be_switched_off_or_split() -> None:
    for keys, expected in (({"send": False}, []), ({"max_samples_per_send": 1}, [1, 1])):
        async with (
            Receiver().serve() as receiver,
            endpoint(OwnMetrics(), url=receiver.url, **QUIET, metadata_config=keys) as writer,
        ):
            await writer.write(generated())
        assert [len(each.metadata) for each in receiver.received if each.metadata] == expected


def test_every_metric_has_metadata() -> None:
    assert {metric.name for metric in METRICS.values()} | {MARKER} <= set(METRIC_FAMILIES)


async def test_stale_markers_follow_the_values() -> None:
    """Q14: Prometheus ends the series at once."""
    (samples,) = window().tenants
    ended = Sample(Series((("__name__", "gone"), ("pod", "pod-9"))), STALE_NAN)
    marked = replace(window(), tenants=(replace(samples, stale=[ended]),))
    async with Receiver().serve() as receiver, endpoint(OwnMetrics(), url=receiver.url, **QUIET) as writer:
        await writer.write(marked)
    assert receiver.requests == [[MARKER], ["m0"], ["m0", "m1", "m2"], ["gone"]]
    name, value, at = receiver.stored[-1]
    assert (name, at) == ("gone", END_MS - 1)
    assert math.isnan(value)
    assert struct.pack("<d", value) == struct.pack("<d", STALE_NAN), "to the bit"


async def test_a_tenant_that_is_not_written_has_no_marker_either() -> None:
    (samples,) = window().tenants
    empty = replace(window(), tenants=(replace(samples, zeros=[], values=[]),))
    async with Receiver().serve() as receiver, endpoint(OwnMetrics(), url=receiver.url, **QUIET) as writer:
        await writer.write(empty)
    assert receiver.received == []
