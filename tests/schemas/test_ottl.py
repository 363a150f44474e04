"""Conditions on spans: what they mean, and what isn't one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from schemas.otlp.byte_messages import traces_data
from schemas.ottl import condition

SPAN = Span(
    name="GET /cart",
    kind=Span.SPAN_KIND_SERVER,
    status=Status(code=Status.STATUS_CODE_ERROR, message='no "milk"'),
    attributes=[
        KeyValue(key="http.route", value=AnyValue(string_value="/cart")),
        KeyValue(key="http.route", value=AnyValue(string_value="second")),
        KeyValue(key="status", value=AnyValue(int_value=503)),
        KeyValue(key="ratio", value=AnyValue(double_value=0.5)),
        KeyValue(key="cached", value=AnyValue(bool_value=True)),
        KeyValue(key="unset", value=AnyValue()),
        KeyValue(key="empty", value=AnyValue(string_value="")),
    ],
)


def holds(text: str) -> bool:
    message = TracesData(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[SPAN])])])
    message.resource_spans[0].resource.attributes.add(key="env").value.string_value = "prod"
    resource = traces_data(message.SerializeToString()).resource_spans[0]
    return condition(text)(resource.scope_spans[0].spans[0], resource.resource)


@pytest.mark.parametrize(
    "text",
    [
        'attributes["http.route"] == "/cart"',
        'span.attributes["http.route"] != "second"',
        'resource.attributes["env"] == "prod"',
        'attributes["env"] == nil',
        'attributes["unset"] == nil',
        'attributes["empty"] != nil',
        'attributes["status"] >= 500 and attributes["status"] < 504.5',
        'attributes["ratio"] == 0.5',
        'attributes["ratio"] < 1',
        'attributes["cached"] == true',
        'name == "GET /cart"',
        "span.kind == SPAN_KIND_SERVER",
        "kind == 2",
        "status.code == STATUS_CODE_ERROR",
        r'status.message == "no \"milk\""',
        'IsMatch(name, "^GET ")',
        'IsMatch(attributes["status"], "^5..$")',
        'IsMatch(attributes["cached"], "true")',
        'not IsMatch(attributes["nowhere"], ".*")',
        'not (kind == SPAN_KIND_CLIENT or name == "x")',
        'name == "x" and name == "y" or kind == SPAN_KIND_SERVER',
        'kind == SPAN_KIND_SERVER or name == "x" and name == "y"',
        "not not true == true",
        '"/cart" == attributes["http.route"]',
        "-1 < 1e3",
    ],
)
def test_a_condition_holds(text: str) -> None:
    """DIST-15: as the Collector's filter processor has it."""
    assert holds(text)
    assert not holds(f"not ({text})")


@pytest.mark.parametrize(
    "text",
    [
        'attributes["status"] == "503"',
        'attributes["cached"] == 1',
        'attributes["nowhere"] < 1',
        'attributes["nowhere"] >= nil',
        'attributes["cached"] > false',
        "name < 5",
        'IsMatch(name, "^cart")',
    ],
)
def test_what_can_not_be_compared_does_not_hold(text: str) -> None:
    """DIST-15."""
    assert not holds(text)


@pytest.mark.parametrize("text", ['attributes["status"] != "503"', "name != nil", 'attributes["nowhere"] != 1'])
def test_values_of_different_types_differ(text: str) -> None:
    """DIST-15."""
    assert holds(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "the end where a value is wanted"),
        ("name", "the end where a comparison is wanted"),
        ("name ==", "the end where a value is wanted"),
        ('name == "x" name', "name where and, or is wanted"),
        ('name = "x"', "= where a comparison is wanted"),
        ('name == "x', '" where a value is wanted'),
        ("attributes == nil", r"== where \[ is wanted"),
        ("attributes[name] == nil", "name where a key in quotes is wanted"),
        ('(name == "x"', r"the end where \) is wanted"),
        ("IsMatch(name, name)", "name where a regular expression in quotes is wanted"),
        ('IsMatch(name, "(")', "is no regular expression"),
        ('Concat(["a"], "b") == "ab"', "Concat where a value is wanted"),
        ("trace_state == nil", "trace_state where a value is wanted"),
        ("not " * 60 + "true == true", "nested more than 50 times"),
        ('name == "x" or \0', "where a value is wanted"),
    ],
)
def test_what_is_no_condition_is_said(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        condition(text)


WORDS = [
    "name",
    "==",
    "(",
    ")",
    "and",
    "or",
    "not",
    '"x"',
    "1",
    "attributes",
    "[",
    "]",
    "IsMatch",
    ",",
    "nil",
    " ",
    "é",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)))
def test_any_text_is_a_condition_or_a_value_error(text: str) -> None:
    try:
        condition(text)
    except ValueError:
        return
    assert holds(text) in {True, False}
