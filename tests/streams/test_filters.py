"""Filter policies: what their keys and values mean, which spans they accept, and what is counted."""

import math
import re
from collections.abc import Sequence
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from schemas.config import (
    ConfigError,
    FilterPolicySettings,
    MultiplierSettings,
    PolicyPartSettings,
    TenantSettings,
    load_config,
    tenant_settings,
)
from schemas.config.filter_policies import SPAN_KINDS, STATUS_CODES, Field, PolicyError, read_attribute, read_key
from schemas.otlp import Codec, scan_records
from schemas.record import Record
from streams.filters import Filters, search
from streams.interner import Interner
from streams.partition import PartitionFold
from streams.plan import Plan
from streams.policies import read_policies
from streams.span_columns import span_columns
from tests.otlp_oracle import parse
from tests.otlp_samples import any_value, length_delimited
from tests.reference.filters import accepts
from tests.reference.primitives import Seen, attributes_of
from tests.streams.log import CLIENT, CONSUMER, INTERNAL, INTERVAL_MS, SERVER, Told, ledger, records, settings, windows

Attribute = tuple[str, str | bool | int | float]
Policy = FilterPolicySettings


def part(*attributes: Attribute, regex: bool = False) -> PolicyPartSettings:
    return PolicyPartSettings(regex, attributes)


def policy(
    include: PolicyPartSettings | None = None,
    include_any: PolicyPartSettings | None = None,
    exclude: PolicyPartSettings | None = None,
) -> Policy:
    return FilterPolicySettings(include, include_any, exclude)


def message(*spans: Span, **resource: AnyValue) -> bytes:
    """A record of spans of one resource."""
    attributes = [KeyValue(key=key.replace("__", "."), value=value) for key, value in resource.items()]
    scope = ScopeSpans(spans=spans)
    return TracesData(
        resource_spans=[ResourceSpans(resource=Resource(attributes=attributes), scope_spans=[scope])]
    ).SerializeToString()


def accepted(policies: Sequence[Policy], *values: bytes) -> list[bool]:
    """Which spans of records both processors accept."""
    given = {"filter_policies": tuple(policies)}
    tenants = settings(span_metrics=given, service_graphs=given)
    plan, interner = Plan(lambda _: tenants), Interner()
    plan.include(["t"])
    filters = Filters(plan, interner)
    found: list[bool] = []
    for offset, value in enumerate(values):
        frame = scan_records([Record(offset, 0, value, "t")], plan.keys, Codec.OTLP)
        measured = np.ones(len(frame.spans.kind), np.bool_)
        columns = span_columns(frame, plan, interner, np.zeros(1, np.int32), np.zeros(1, np.int64), measured)
        chosen = filters.applied(columns)
        found += chosen.for_span_metrics.accepted.tolist()
        on_edges = np.isin(frame.spans.kind, [2, 3, 4, 5])
        assert (chosen.for_service_graphs.accepted == chosen.for_span_metrics.accepted)[on_edges].all()
    return found


def accepts_one(policies: Sequence[Policy], kind: int = CLIENT, name: str = "", **resource: str) -> bool:
    span = Span(kind=kind, name=name)  # type: ignore[arg-type]
    (verdict,) = accepted(policies, message(span, **{key: any_value(value) for key, value in resource.items()}))
    return verdict


# Keys


@pytest.mark.parametrize(
    ("key", "field", "attribute"),
    [
        ("kind", Field.KIND, ""),
        ("name", Field.NAME, ""),
        ("status", Field.STATUS, ""),
        ("span:kind", Field.KIND, ""),
        ("span:name", Field.NAME, ""),
        ("span:status", Field.STATUS, ""),
        ("span.kind", Field.SPAN, "kind"),
        ("span.http.url", Field.SPAN, "http.url"),
        ("span.span.kind", Field.SPAN, "span.kind"),
        ("resource.service.name", Field.RESOURCE, "service.name"),
        (" resource.a ", Field.RESOURCE, "a"),
        ('span."a key"', Field.SPAN, "a key"),
        ('span.a."b = c".d', Field.SPAN, "a.b = c.d"),
        (r'resource."\"\\"', Field.RESOURCE, '"\\'),
        ("resource.ключ/*-+%", Field.RESOURCE, "ключ/*-+%"),
    ],
)
def test_keys_are_traceql_identifiers(key: str, field: Field, attribute: str) -> None:
    """FLT-2: span.kind is the attribute named kind."""
    assert read_key(key) == (field, attribute)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (".foo", "unsupported intrinsic: none; supported intrinsics: kind, name, status"),
        ("duration", "unsupported intrinsic: duration"),
        ("rootName", "unsupported intrinsic: rootName"),
        ("span:duration", "unsupported intrinsic: span:duration"),
        ("event.name", "invalid or unsupported attribute scope: event"),
        ("link.a", "invalid or unsupported attribute scope: link"),
        ("instrumentation.a", "invalid or unsupported attribute scope: instrumentation"),
        ("parent.a", "invalid or unsupported attribute scope: parent"),
        ("", "failed to parse identifier ''"),
        ("span.", "failed to parse identifier 'span.'"),
        ("span.a b", "failed to parse identifier"),
        ("span.a=b", "failed to parse identifier"),
        ('span."a', "failed to parse identifier"),
        (r'span."\n"', "failed to parse identifier"),
        ("kind = server", "failed to parse identifier"),
    ],
)
def test_every_other_key_is_an_error(key: str, reason: str) -> None:
    """FLT-2, FLT-7."""
    with pytest.raises(PolicyError, match=f"^{re.escape(reason)}"):
        read_policies([policy(include=part((key, "x")))])


@pytest.mark.parametrize(
    ("key", "value", "regex", "reason"),
    [
        ("kind", "SERVER", False, "unsupported kind intrinsic string value: SERVER"),
        ("kind", "span_kind_server", False, "unsupported kind intrinsic string value: span_kind_server"),
        ("kind", 2, False, "invalid kind intrinsic value: 2"),
        ("status", "ERROR", False, "unsupported status intrinsic string value: ERROR"),
        ("status", True, False, "unsupported status intrinsic value: True"),
        ("name", 5, False, "unsupported name intrinsic value: 5"),
        ("span.a", None, False, "value type not supported"),
        ("span.a", ("x",), False, "value type not supported"),
        ("span.a", 1 << 63, False, "value type not supported"),
        ("span.a", math.nan, False, "value type not supported"),
        ("resource.a", math.inf, False, "value type not supported"),
        ("span.a", "(", True, "invalid attribute filter regexp: missing ): ("),
        ("span.a", r"a\Cb", True, r"invalid attribute filter regexp: invalid escape sequence: \C"),
        ("span.a", "(?=a)", True, "invalid attribute filter regexp: invalid perl operator: (?="),
        ("span.a", "\ud800", True, "invalid attribute filter regexp: invalid UTF-8"),
        ("span.a", 5, True, "invalid attribute filter regexp value: 5"),
        ("name", "a{1001}", True, "invalid intrinsic filter regex: invalid repetition size: {1001}"),
        ("kind", 3, True, "unsupported intrinsic filter regex value: 3"),
    ],
)
def test_values_that_mean_nothing_are_errors(key: str, value: Any, regex: bool, reason: str) -> None:
    """FLT-5, FLT-6, FLT-7."""
    with pytest.raises(PolicyError, match=f"^{re.escape(reason)}"):
        read_attribute(key, value, regex=regex)


def test_the_names_of_kinds_and_statuses_are_otlps() -> None:
    """FLT-6."""
    assert dict(Span.SpanKind.items()) == {name: number for number, name in enumerate(SPAN_KINDS)}
    assert dict(Status.StatusCode.items()) == {name: number for number, name in enumerate(STATUS_CODES)}


# Policies


KIND_SERVER = ("kind", "SPAN_KIND_SERVER")
EARTH = ("resource.location", "earth")


def test_without_policies_every_span_is_accepted() -> None:
    """FLT-3.1."""
    assert accepts_one([])


@pytest.mark.parametrize("text", ["{}", "{include: }"])
def test_a_policy_without_any_part_is_an_error(text: str) -> None:
    """G61; FLT-1, FLT-7. Other errors of files are in tests/schemas/config_testdata."""
    static = f"metrics_generator: {{processor: {{service_graphs: {{filter_policies: [{text}]}}}}}}"
    reason = "invalid filter policy; policies must have at least an `include`, `includeAny` or `exclude`"
    with pytest.raises(ConfigError, match=re.escape(f"service_graphs.filter_policies[0]: {reason}")):
        load_config(None, static)


def test_a_strict_kind_matches_that_kind() -> None:
    """G63."""
    policies = [policy(include=part(("kind", "SPAN_KIND_CLIENT")))]
    assert accepts_one(policies, CLIENT)
    assert not accepts_one(policies, SERVER)


def test_all_attributes_of_a_part_must_match() -> None:
    """G65; FLT-4."""
    policies = [policy(include=part(KIND_SERVER, EARTH))]
    assert accepts_one(policies, SERVER, location="earth")
    assert not accepts_one(policies, CLIENT, location="earth")
    assert not accepts_one(policies, SERVER, location="mars")
    assert not accepts_one(policies, SERVER)


def test_include_any_accepts_beside_include() -> None:
    """G67; FLT-3."""
    internal = part(("kind", "SPAN_KIND_INTERNAL"), ("resource.service.name", "auth-service"))
    policies = [policy(include=part(KIND_SERVER)), policy(include_any=internal)]
    assert accepts_one(policies, INTERNAL, service__name="auth-service")
    assert not accepts_one(policies, INTERNAL, service__name="noisy-service")
    assert accepts_one(policies, SERVER, service__name="any-service")


def test_include_any_alone_rejects_the_rest() -> None:
    """G69; FLT-3.5."""
    policies = [policy(include_any=part(KIND_SERVER))]
    assert not accepts_one(policies, CLIENT)
    assert accepts_one(policies, SERVER)


def test_include_any_may_be_a_regular_expression() -> None:
    """G71."""
    either = part(("kind", "SPAN_KIND_.*"), ("resource.service.name", "auth-.*"), regex=True)
    assert accepts_one([policy(include_any=either)], INTERNAL, service__name="auth-service")


def test_every_include_must_match_and_no_exclude() -> None:
    """FLT-3."""
    policies = [policy(include=part(KIND_SERVER), exclude=part(("name", "noise"))), policy(include=part(EARTH))]
    assert accepts_one(policies, SERVER, location="earth")
    assert not accepts_one(policies, SERVER, location="mars")
    assert not accepts_one(policies, SERVER, "noise", location="earth")
    assert accepts_one([policy(exclude=part(EARTH))], location="mars")
    either = [policy(include_any=part(KIND_SERVER), exclude=part(EARTH))]
    assert not accepts_one(either, SERVER, location="earth")


def test_a_part_without_attributes_matches_every_span() -> None:
    """FLT-4."""
    assert accepts_one([policy(include=part())])
    assert accepts_one([policy(include_any=part())])
    assert not accepts_one([policy(include=part(), exclude=part())])


# Attributes


ARRAY = AnyValue(array_value=ArrayValue(values=[any_value("x")]))
MAP = AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="x")]))
VALUES = {
    "text": any_value("text"),
    "empty": any_value(""),
    "unset": AnyValue(),
    "5": any_value(5),
    "0": any_value(0),
    "-1": any_value(-1),
    "smallest": any_value(-(1 << 63)),
    "5.0": any_value(5.0),
    "0.0": any_value(0.0),
    "-0.0": any_value(-0.0),
    "nan": any_value(math.nan),
    "true": any_value(True),
    "false": any_value(False),
    "array": ARRAY,
    "map": MAP,
    "bytes": AnyValue(bytes_value=b"text"),
}
NO_STRING = set(VALUES) - {"text"}


@pytest.mark.parametrize(
    ("wanted", "regex", "matching"),
    [
        ("text", False, {"text"}),
        ("tex", False, set()),
        ("", False, NO_STRING),
        ("5", False, set()),
        (5, False, {"5"}),
        (-1, False, {"-1"}),
        (-(1 << 63), False, {"smallest"}),
        (0, False, set(VALUES) - {"5", "-1", "smallest"}),
        (5.0, False, {"5.0"}),
        (0.0, False, set(VALUES) - {"5.0", "nan"}),
        (-0.0, False, set(VALUES) - {"5.0", "nan"}),
        (True, False, {"true"}),
        (False, False, set(VALUES) - {"true"}),
        ("", True, set(VALUES)),
        ("e.t", True, {"text"}),
        ("^$", True, NO_STRING),
        ("^ex", True, set()),
    ],
)
def test_values_are_compared_in_the_field_of_the_wanted_type(wanted: Any, regex: bool, matching: set[str]) -> None:
    """FLT-5: a field of another type reads as the empty value, an attribute that is absent matches nothing."""
    spans = [Span(attributes=[KeyValue(key="a", value=value), KeyValue(key="a")]) for value in VALUES.values()]
    verdicts = accepted([policy(include=part(("span.a", wanted), regex=regex))], message(*spans, Span()))
    assert {name for name, verdict in zip([*VALUES, "absent"], verdicts, strict=True) if verdict} == matching
    on_resources = [message(Span(), a=value) for value in VALUES.values()]
    verdicts = accepted([policy(include=part(("resource.a", wanted), regex=regex))], *on_resources, message(Span()))
    assert {name for name, verdict in zip([*VALUES, "absent"], verdicts, strict=True) if verdict} == matching


def test_an_integer_in_more_bytes_than_it_needs_is_the_same_one() -> None:
    """FLT-5: numbers are compared, not encodings."""
    values = [b"\x18\x05", b"\x18\x85\x00", b"\x98\x00\x85\x80\x00"]
    spans = [length_delimited(9, length_delimited(1, b"a") + length_delimited(2, value)) for value in values]
    value = length_delimited(1, length_delimited(2, b"".join(length_delimited(2, span) for span in spans)))
    assert accepted([policy(include=part(("span.a", 5)))], value) == [True] * 3
    assert accepted([policy(include=part(("span.a", 6)))], value) == [False] * 3


def test_intrinsics_are_names() -> None:
    """FLT-6: numbers without a name are decimal text, which only a regular expression finds."""
    spans = [Span(kind=kind) for kind in (0, 2, 5, 6, 77, -1)]  # type: ignore[arg-type]
    value = message(*spans)
    assert accepted([policy(include=part(("kind", "SPAN_KIND_UNSPECIFIED")))], value) == [True] + [False] * 5
    assert accepted([policy(include=part(("kind", "7|^6$|CON"), regex=True))], value) == [False] * 2 + [True] * 3 + [
        False
    ]
    assert accepted([policy(include=part(("span:kind", "-"), regex=True))], value) == [False] * 5 + [True]
    statuses = message(*(Span(status=Status(code=code)) for code in (0, 1, 2, 3)))  # type: ignore[arg-type]
    assert accepted([policy(include=part(("status", "STATUS_CODE_ERROR")))], statuses) == [False, False, True, False]
    assert accepted([policy(exclude=part(("span:status", "_O|3"), regex=True))], statuses) == [True, False, True, False]


def test_the_attribute_kind_is_not_the_kind() -> None:
    """FLT-2."""
    spans = [Span(kind=Span.SPAN_KIND_SERVER), Span(attributes=[KeyValue(key="kind", value=any_value("SERVER"))])]
    assert accepted([policy(include=part(("span.kind", "SERVER")))], message(*spans)) == [False, True]
    assert accepted([policy(include=part(("span.kind", ".*"), regex=True))], message(*spans)) == [False, True]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        # What Go's regexp says; the texts are below.
        ("", {0, 1, 2, 3, 4, 5, 6}),
        (".", {1, 2, 3, 4, 5, 6}),
        ("^.$", {2, 3}),
        ("^..$", {1, 4}),
        ("^...$", {5}),
        ("\\x{FFFD}", {3, 4, 5}),
        ("[^a-z]", {2, 3, 4, 5, 6}),
        ("(?i)^AB$", {1}),
        ("\\x{20AC}", {2}),
        ("b$", {1, 6}),
        ("^b", set()),
        ("(?m)^b", {6}),
        ("a.*b", {1}),
        ("(?s)a.*b", {1, 6}),
        ("\\pS", {2, 3, 4, 5}),
        ("\\bab\\b", {1}),
    ],
)
def test_searches_are_gos(pattern: str, matching: set[int]) -> None:
    """FLT-5: RE2, unanchored; a byte that is no UTF-8 is the character U+FFFD."""
    texts = [b"", b"ab", "€".encode(), b"\xff", b"\xc3\xc3", b"\xed\xa0\x80", b"a\nb"]
    found = search(pattern, pa.array(texts, pa.large_binary()))
    assert set(np.flatnonzero(found).tolist()) == matching
    valid = [i for i in range(len(texts)) if i not in {3, 4, 5}]
    only_valid = search(pattern, pa.array([texts[i] for i in valid], pa.large_binary()))
    assert {valid[i] for i in np.flatnonzero(only_valid).tolist()} == matching - {3, 4, 5}


def test_texts_are_searched_once_though_the_window_grows() -> None:
    """More texts than the tables had room for, frame after frame."""
    values = [message(*(Span(name=f"{frame}/{i}") for i in range(700))) for frame in range(5)]
    verdicts = accepted([policy(include=part(("name", "^[024]/.*7$"), regex=True))], *values, *values)
    expected = [frame % 2 == 0 and i % 10 == 7 for frame in range(5) for i in range(700)]
    assert verdicts == expected * 2


KEYS = ("kind", "span:status", "name", "span.a", "span.b", "resource.a", "resource.service.name")
TEXTS = ("", "a", "ab", "b.", "5")
PATTERNS = ("", "a", "^a$", "b", "[0-9]", "SERVER|OK", "_", "^$")
NUMBERS: tuple[int | float, ...] = (5, 0, 5.0, 0.0, True, False)
VALID: tuple[str | int | float, ...] = (*TEXTS, *NUMBERS)
GIVEN = st.sampled_from([*map(any_value, VALID), AnyValue(), ARRAY, MAP])


@st.composite
def strict_attributes(draw: st.DrawFn) -> Attribute:
    key = draw(st.sampled_from(KEYS))
    match key:
        case "kind":
            return key, draw(st.sampled_from(SPAN_KINDS))
        case "span:status":
            return key, draw(st.sampled_from(STATUS_CODES))
        case "name":
            return key, draw(st.sampled_from(TEXTS))
    return key, draw(st.sampled_from(VALID))


PARTS = (
    st.none()
    | st.builds(part, *[strict_attributes()] * 1)
    | st.builds(
        lambda attributes, regex: PolicyPartSettings(regex, tuple(attributes)),
        st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(PATTERNS)), max_size=2),
        st.just(True),
    )
    | st.builds(
        lambda attributes: PolicyPartSettings(False, tuple(attributes)), st.lists(strict_attributes(), max_size=3)
    )
)
SPANS = st.builds(
    Span,
    kind=st.integers(0, 6),
    name=st.sampled_from(TEXTS),
    status=st.builds(Status, code=st.integers(0, 3)),
    attributes=st.lists(st.builds(KeyValue, key=st.sampled_from(("a", "b")), value=GIVEN), max_size=3),
)
RESOURCES = st.builds(
    lambda attributes, spans: ResourceSpans(
        resource=Resource(attributes=attributes), scope_spans=[ScopeSpans(spans=spans)]
    ),
    st.lists(st.builds(KeyValue, key=st.sampled_from(("a", "service.name")), value=GIVEN), max_size=3),
    st.lists(SPANS, max_size=4),
)


@given(st.lists(st.builds(policy, PARTS, PARTS, PARTS), max_size=3), st.lists(RESOURCES, max_size=4))
@hypothesis.settings(max_examples=300, deadline=None)
def test_policies_accept_what_the_rules_say(policies: list[Policy], resources: list[ResourceSpans]) -> None:
    """FLT-3 to FLT-6, against a plain reading of the rules."""
    value = TracesData(resource_spans=resources).SerializeToString()
    expected = [
        accepts(policies, Seen(span, attributes_of(each.resource), attributes_of(span), (0, 0, 0)))
        for each in parse(value).resource_spans
        for scope in each.scope_spans
        for span in scope.spans
    ]
    assert accepted(policies, value) == expected


# Counts


def test_rejected_spans_are_counted_by_processor() -> None:
    """INT-6; SG-7, SG-8: service graphs ask about spans of a service that may be halves of edges only."""
    noise = {"filter_policies": (policy(exclude=part(("name", "noise"))),)}
    tenants = settings(span_metrics=noise, service_graphs=noise)
    spans = [
        Told("a", CLIENT, id=1, name="noise"),
        Told("a", INTERNAL, id=2, name="noise"),
        Told(None, SERVER, id=3, name="noise"),
        Told("", CONSUMER, id=4, name="noise"),
        Told("a", SERVER, id=5),
        Told("a", SERVER, id=6, name="noise", end_ns=-(10**12)),
    ]
    counts = ledger(windows(tenants, records((0, spans))))
    discarded = {
        name.partition("{")[2]: count for name, count in counts.items() if name.startswith("spans_discarded_total")
    }
    assert discarded == {
        "processor=all,reason=outside_metrics_ingestion_slack}": 1,
        "processor=span-metrics,reason=span_metrics_filtered}": 4,
        "processor=service-graphs,reason=service_graphs_filtered}": 2,
    }


def test_each_tenant_has_policies_of_its_own() -> None:
    """FLT-3; equal policies of several tenants are evaluated together."""
    only_a = {"filter_policies": (policy(include=part(("name", "a"))),)}
    only_b = {"filter_policies": (policy(include=part(("name", "b"))),)}
    tenants: dict[str, TenantSettings] = {
        "one": settings(span_metrics=only_a),
        "two": settings(span_metrics=only_b),
        "three": settings(span_metrics={}),
        "four": settings(span_metrics=only_a),
    }
    told = [Told(name=name) for name in ("a", "b", "c", "b")]
    log = [
        record._replace(offset=offset, tenant=tenant)
        for offset, (tenant, record) in enumerate((tenant, records((0, told))[0]) for tenant in [*tenants, *tenants])
    ]
    fold = PartitionFold(tenants.__getitem__, INTERVAL_MS, Codec.OTLP)
    fold.feed(log)
    counts = ledger(fold.close_all())
    rejected = {
        tenant: counts.get(
            f"spans_discarded_total{{processor=span-metrics,reason=span_metrics_filtered,tenant={tenant}}}", 0
        )
        for tenant in tenants
    }
    assert rejected == {"one": 6, "two": 4, "three": 0, "four": 6}


def test_spans_that_must_not_be_measured_are_not_filtered() -> None:
    """INT-7: no processor sees them."""
    nothing = {"filter_policies": (policy(exclude=part()),)}
    tenants = settings(span_metrics=nothing, service_graphs=nothing)
    log = [record._replace(no_metrics=True) for record in records((0, [Told()]))]
    assert not any("filtered" in name for name in ledger(windows(tenants, log)))


def test_a_files_policies_and_multipliers_are_those_of_its_tenants() -> None:
    """FLT-1, PRIM-11: an override replaces the static policies, an empty list clears them."""
    text = """
metrics_generator:
  processor:
    span_metrics:
      span_multiplier_key: ratio
      filter_policies:
        - exclude: {match_type: regex, attributes: [{key: span:name, value: ^noise}, {key: resource.zone, value: 5}]}
    service_graphs:
      enable_tracestate_span_multiplier: true
      filter_policies: [{include_any: {match_type: strict, attributes: []}}]
overrides:
  defaults:
    metrics_generator:
      processors: [span-metrics, service-graphs]
      processor:
        service_graphs: {filter_policies: []}
"""
    with pytest.raises(ConfigError, match=r"attributes.1..value: invalid attribute filter regexp value: 5"):
        load_config(None, text)
    found = tenant_settings(load_config(None, text.replace("5", '"5"')), "t")
    assert found.span_metrics is not None
    assert found.service_graphs is not None
    noise = part(("span:name", "^noise"), ("resource.zone", "5"), regex=True)
    assert found.span_metrics.filter_policies == (policy(exclude=noise),)
    assert found.service_graphs.filter_policies == ()
    assert found.span_metrics.multiplier == MultiplierSettings(key="ratio")
    assert found.service_graphs.multiplier == MultiplierSettings(tracestate=True)
