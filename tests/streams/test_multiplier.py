"""Weights of spans: trace states, attributes, and exact division."""

import math
import struct
from dataclasses import replace
from fractions import Fraction

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import MultiplierSettings
from schemas.metrics import WEIGHT_ONE
from schemas.otlp import Codec, Mode, WantedKey
from streams import multiplier
from streams.multiplier import (
    MAX_WEIGHT,
    MIN_WEIGHT,
    UNKNOWN,
    adjusted_count,
    multipliers,
    needs,
    reciprocal,
    trace_state_weight,
)
from streams.partition import PartitionFold
from tests.streams.log import CLIENT, INTERVAL_MS, SERVER, Told, ledger, records, samples, settings, windows

NONE = MultiplierSettings()
TRACE_STATE = MultiplierSettings(tracestate=True)
RATIO = MultiplierSettings(key="ratio")
BOTH = MultiplierSettings(key="ratio", tracestate=True)

CALLS = "traces_spanmetrics_calls_total{service=test-service,span_kind=SPAN_KIND_CLIENT,span_name=test,"
CALLS += "status_code=STATUS_CODE_OK}"
REQUESTS = "traces_service_graph_request_total{client=a,server=b}"
THRESHOLDS = st.integers(0, (1 << 56) - 1) | st.integers(0, 56).flatmap(
    lambda bit: st.integers(max(0, (1 << 56) - (1 << bit) - 2), min((1 << 56) - 1, (1 << 56) - (1 << bit) + 2))
)


def of_state(text: str | bytes) -> tuple[int, bool]:
    """The weight that a trace state says, and whether it was clamped; 0: none."""
    # Bytes around the text belong to others: reading them would show.
    raw = text if isinstance(text, bytes) else text.encode()
    data = np.frombuffer(b"f,ot=th:8" + raw + b"f;th:c", np.uint8)
    weight, clamped = trace_state_weight(data, 9, 9 + len(raw), multiplier._CLASSES)
    return int(weight), clamped


def of_double(value: float) -> tuple[int, bool]:
    weight, clamped = reciprocal(struct.unpack("<q", struct.pack("<d", value))[0])
    return int(weight), clamped


def fixed(count: Fraction) -> tuple[int, bool]:
    """A count in 2^-32, half to even, within 2^-32 and 2^31; and whether it had to be brought there."""
    units = round(count * WEIGHT_ONE)
    within = min(max(units, MIN_WEIGHT), MAX_WEIGHT)
    return within, within != units


# Trace states


@pytest.mark.parametrize(
    ("text", "count"),
    [
        pytest.param("ot=th:0", 1, id="G41 0"),
        pytest.param("ot=th:8", 2, id="G41 8"),
        pytest.param("ot=th:c", 4, id="G41 c"),
        pytest.param("ot=rv:00112233445566;th:8", 2, id="G43"),
        pytest.param("not=th:8,ot=th:c", 4, id="G45 close"),
        pytest.param("not=th:8, ot=th:c", 4, id="G45 apart"),
        ("ot=th:C", 4),
        ("ot=th:8,ot=th:c", 2),
        (" \t\r\n\v\fot=th:8", 2),
        ("ot=th:8 \t", 2),
        (",ot=th:8", 2),
        (",,a=b, , ot=th:8,x", 2),
        ("ot=th:8,", 2),
        ("ot=a:;b1:A.z_9-;th:c;t:1;thx:z", 4),
        ("ot=th:8;th:c", 4),
        ("ot=th:8;rv:00000000000000;rv:ffffffffffffff", 2),
        ("ot=th:" + "0" * 14, 1),
        ("ot=th:8" + "0" * 13, 2),
        ("ot=th:8;x:" + "a" * 249, 2),
    ],
)
def test_a_trace_state_says_how_many_spans_one_stands_for(text: str, count: int) -> None:
    """PRIM-14."""
    assert len(text.partition("ot=")[2]) <= 256
    assert of_state(text) == (count * WEIGHT_ONE, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "o",
        "ot",
        "ot=",
        "ot=,ot=th:8",
        "not=th:8",
        "OT=th:8",
        "ot =th:8",
        "a=ot=th:8",
        "ot=th:",
        "ot=th",
        "ot=:8",
        "ot=th:8;",
        "ot=;th:8",
        "ot=th:8;;rv:00112233445566",
        "ot=th:8;x",
        "ot= th:8",
        "ot=th:8 ,x=y",
        "ot=th:8 ;x:y",
        "ot=th:g",
        "ot=th:-8",
        "ot=th:0x8",
        "ot=th:8:8",
        "ot=TH:8",
        "ot=tH:8",
        "ot=th:8;1a:b",
        "ot=th:8;a_b:c",
        "ot=th:8;a:b/c",
        "ot=th:8;a:ü",
        "ot=th:" + "0" * 15,
        "ot=rv:00112233445566",
        "ot=th:8;rv:0011223344556",
        "ot=th:8;rv:001122334455667",
        "ot=th:8;rv:0011223344556g",
        "ot=th:8;rv:",
        "ot=th:zz;th:8",
        "ot=rv:0;th:8;rv:00112233445566",
        "ot=th:8;x:" + "a" * 250,
        "x" * 5000,
    ],
)
def test_what_is_no_legal_trace_state_says_nothing(text: str) -> None:
    """PRIM-14: any error means unknown, one in a field that is there twice too."""
    assert of_state(text) == (int(UNKNOWN), False)


def test_bytes_that_are_no_text_say_nothing() -> None:
    assert of_state(b"ot=th:8;x:\xff") == of_state(b"ot=\x00th:8") == (0, False)
    assert of_state(b"\xff\xfe,ot=th:8") == (2 * WEIGHT_ONE, False)


@given(THRESHOLDS, st.none() | st.integers(0, (1 << 56) - 1), st.booleans())
@hypothesis.settings(max_examples=600, deadline=None)
def test_counts_are_those_of_exact_fractions(threshold: int, randomness: int | None, upper: bool) -> None:
    """PRIM-14, PRIM-15: 2^56 / (2^56 - T), and with rv one more or none for its fraction."""
    count = Fraction(1 << 56, (1 << 56) - threshold)
    rest = count - math.floor(count)
    if randomness is not None and rest:
        count = Fraction(math.floor(count) + (Fraction(randomness >> 3, 1 << 53) < rest))
    th = f"{threshold:014x}".rstrip("0") or "0"
    text = f"th:{th}" if randomness is None else f"th:{th};rv:{randomness:014x}"

    assert of_state("ot=" + (text if not upper else text.translate(str.maketrans("abcdef", "ABCDEF")))) == fixed(count)
    weight, clamped = adjusted_count(threshold, -1 if randomness is None else randomness)
    assert (int(weight), clamped) == fixed(count)


@pytest.mark.parametrize("threshold", [0x40000000000000, 0x55555555555555, (1 << 56) - 3, 1])
def test_the_draw_decides_at_exactly_the_fraction(threshold: int) -> None:
    """PRIM-15: r < f rounds up, r = f doesn't."""
    count = Fraction(1 << 56, (1 << 56) - threshold)
    edge = math.ceil((count - math.floor(count)) * (1 << 53))  # the first draw that isn't below the fraction
    floor = math.floor(count) if count < 1 << 31 else 1 << 31
    drawn = [adjusted_count(threshold, draw << 3)[0] for draw in (0, edge - 1, edge, (1 << 53) - 1)]
    steps = (1, 1, 0, 0) if count < 1 << 31 else (0, 0, 0, 0)
    assert [int(weight) >> 32 for weight in drawn] == [floor + step for step in steps]


@pytest.mark.parametrize(("text", "count"), [pytest.param("ot=th:fd70a4", 100, id="G41"), ("ot=th:4", 4 / 3)])
def test_counts_need_not_be_whole(text: str, count: float) -> None:
    """G47: th:4 is 4/3, within 1e-9."""
    weight, clamped = of_state(text)
    assert weight / WEIGHT_ONE == pytest.approx(count, abs=1e-3 if count == 100 else 1e-9)
    assert not clamped


# Attributes


@given(st.floats(min_value=0, exclude_min=True, allow_nan=False))
@hypothesis.settings(max_examples=600, deadline=None)
@hypothesis.example(5e-324)
@hypothesis.example(2.0**-31)
@hypothesis.example(math.nextafter(2.0**-31, 0))
@hypothesis.example(2.0**33)
@hypothesis.example(math.nextafter(2.0**33, 0))
@hypothesis.example(2.0**32)
@hypothesis.example(2.0**32 / 1.5)
@hypothesis.example(math.inf)
@hypothesis.example(3.0)
@hypothesis.example(0.1)
def test_the_reciprocal_of_a_double_is_rounded_once(value: float) -> None:
    """PRIM-12, PRIM-13: 1/v, v being the double exactly, to the nearest 2^-32."""
    assert of_double(value) == fixed(Fraction(0) if math.isinf(value) else 1 / Fraction(value))


@given(st.integers(-31, 33), st.integers(0, 1 << 20))
def test_the_reciprocals_of_plain_ratios_are_right(exponent: int, step: int) -> None:
    value = math.ldexp(1 + step / (1 << 20), exponent)
    assert of_double(value) == fixed(1 / Fraction(value))


# Whose spans are weighed


def test_settings_that_look_at_nothing_weigh_nothing() -> None:
    """PRIM-11."""
    how = multipliers([NONE, BOTH, NONE, RATIO, BOTH])
    assert how.settings == (BOTH, RATIO)
    assert how.of_tenant.tolist() == [-1, 0, -1, 1, 0]
    assert multipliers([]).settings == ()
    assert list(needs(BOTH)) == [WantedKey("ratio", Mode.FIRST_POSITIVE_DOUBLE)]
    assert list(needs(TRACE_STATE)) == []


def calls(how: MultiplierSettings, *spans: Told) -> float:
    """The calls that span metrics count for spans with one label set."""
    tenants = settings(span_metrics={"multiplier": how})
    value = samples(windows(tenants, records((0, spans))))[CALLS]
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize(
    ("how", "span", "count"),
    [
        pytest.param(RATIO, Told(trace_state="ot=th:8", attributes={"ratio": 0.5}), 2, id="G49"),
        pytest.param(BOTH, Told(attributes={"ratio": 0.5}), 2, id="G51"),
        pytest.param(BOTH, Told(), 1, id="G53 on"),
        pytest.param(RATIO, Told(trace_state="ot=th:8"), 1, id="G53 off"),
        pytest.param(NONE, Told(trace_state="ot=th:8", attributes={"ratio": 0.5}), 1, id="PRIM-11"),
        (BOTH, Told(trace_state="ot=th:c", attributes={"ratio": 0.5}), 4),
        (BOTH, Told(trace_state="ot=th:z", attributes={"ratio": 0.5}), 2),
        (TRACE_STATE, Told(trace_state="ot=th:z", attributes={"ratio": 0.5}), 1),
        (RATIO, Told(attributes={"ratio": 4.0}), 0.25),
        (RATIO, Told(attributes={"ratio": 0.5}, resource={"ratio": 0.25}), 2),
        (RATIO, Told(resource={"ratio": 0.25}), 4),
        (RATIO, Told(attributes={"ratio": 0.0}, resource={"ratio": 0.25}), 4),
        (RATIO, Told(attributes={"ratio": -1.0}), 1),
        (RATIO, Told(attributes={"ratio": math.nan}), 1),
        (RATIO, Told(attributes={"ratio": 2}), 1),
        (RATIO, Told(attributes={"ratio": "0.5"}, resource={"ratio": True}), 1),
        (RATIO, Told(attributes={"ratios": 0.5}), 1),
    ],
)
def test_the_first_of_trace_state_span_and_resource_that_says_one_decides(
    how: MultiplierSettings, span: Told, count: float
) -> None:
    """PRIM-12, PRIM-13."""
    assert calls(how, span) == count


def test_weights_add_up_exactly() -> None:
    """Three times the weight of 3 is 3 * round(2^32 / 3) / 2^32, not 1."""
    assert calls(RATIO, *[Told(attributes={"ratio": 3.0})] * 3) == 3 * round(Fraction(1 << 32, 3)) / (1 << 32)


def test_each_processor_and_tenant_weighs_by_settings_of_its_own() -> None:
    """PRIM-11."""
    edge = [
        Told("a", CLIENT, id=1, attributes={"ratio": 0.5, "other": 0.125}),
        Told("b", SERVER, parent=1, attributes={"ratio": 0.5, "other": 0.125}),
    ]
    log = [
        record._replace(offset=2 * i + j, tenant=tenant)
        for i, record in enumerate(records((0, edge)))
        for j, tenant in enumerate(("one", "two"))
    ]
    one = settings(span_metrics={"multiplier": RATIO}, service_graphs={"multiplier": replace(RATIO, key="other")})
    two = settings(span_metrics={}, service_graphs={"multiplier": RATIO})
    fold = PartitionFold({"one": one, "two": two}.__getitem__, INTERVAL_MS, Codec.OTLP)
    fold.feed(log)
    found = samples(fold.close_all())
    calls_of = {name[:3]: value for name, value in found.items() if "calls_total{service=a" in name}
    assert calls_of == {"one": 2, "two": 1}
    assert (found[f"one {REQUESTS}"], found[f"two {REQUESTS}"]) == (8, 2)


def test_clamped_weights_are_counted_once_a_span() -> None:
    tenants = settings(span_metrics={"multiplier": RATIO}, service_graphs={"multiplier": BOTH})
    spans = [Told(attributes={"ratio": 1e-10}), Told(attributes={"ratio": 1e10}), Told(attributes={"ratio": 1e9})]
    log = records((0, [*spans, Told(trace_state="ot=th:" + "f" * 14)]))
    assert ledger(windows(tenants, log))["spanmill_weights_clamped_total"] == 3
    unmeasured = [record._replace(no_metrics=True) for record in log]
    assert "spanmill_weights_clamped_total" not in ledger(windows(tenants, unmeasured))
