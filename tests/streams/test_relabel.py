"""Relabelling: each action, Go's templates, and what the rules' models refuse (Tempo ST-3)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.config.relabel import RelabelConfig, compile_anchored
from streams.relabel import Relabelling, expand

SERIES = {"__name__": "calls", "a": "foo", "b": "bar", "c": "baz"}


def relabelled(labels: dict[str, str], *rules: dict[str, Any]) -> dict[str, str] | None:
    """Labels after rules that are written as in a file."""
    # A file's lists arrive as tuples.
    read = [{key: tuple(value) if isinstance(value, list) else value for key, value in rule.items()} for rule in rules]
    configs = [RelabelConfig.model_validate(rule, by_name=False, by_alias=True) for rule in read]
    result = Relabelling(configs).apply(tuple(sorted(labels.items())))
    if result is None:
        return None
    assert list(result) == sorted(dict(result).items()), "sorted by name, unique"
    return dict(result)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param(
            {"source_labels": ["a"], "regex": "f(.*)", "target_label": "d", "replacement": "ch${1}-ch${1}"},
            {**SERIES, "d": "choo-choo"},
            id="replace",
        ),
        pytest.param({"source_labels": ["a"], "regex": "o", "target_label": "d"}, SERIES, id="anchored on both sides"),
        pytest.param(
            {"source_labels": ["a", "b"], "target_label": "d"}, {**SERIES, "d": "foo;bar"}, id="default separator"
        ),
        pytest.param(
            {"source_labels": ["a", "none", "b"], "separator": "/", "target_label": "d"},
            {**SERIES, "d": "foo//bar"},
            id="a missing label is empty",
        ),
        pytest.param({"target_label": "d", "replacement": "x"}, {**SERIES, "d": "x"}, id="a fixed label"),
        pytest.param(
            {"target_label": "a", "replacement": ""}, {k: v for k, v in SERIES.items() if k != "a"}, id="gone"
        ),
        pytest.param({"source_labels": ["none"], "target_label": "d"}, SERIES, id="copying nothing sets nothing"),
        pytest.param(
            {"source_labels": ["none"], "target_label": "a"},
            {k: v for k, v in SERIES.items() if k != "a"},
            id="copying nothing removes",
        ),
        pytest.param(
            {"source_labels": ["a"], "regex": "(.)oo", "target_label": "${1}_x", "replacement": "y"},
            {**SERIES, "f_x": "y"},
            id="target from a group",
        ),
        pytest.param(
            {"source_labels": ["a"], "regex": "foo", "target_label": "$1", "replacement": "y"},
            SERIES,
            id="an empty target sets nothing",
        ),
        pytest.param(
            {"source_labels": ["a"], "regex": "(?P<rest>.*)o", "target_label": "d", "replacement": "$rest"},
            {**SERIES, "d": "fo"},
            id="named group",
        ),
        pytest.param({"source_labels": ["a"], "regex": "fo+", "action": "keep"}, SERIES, id="kept"),
        pytest.param({"source_labels": ["a"], "regex": "fo", "action": "keep"}, None, id="not kept"),
        pytest.param({"source_labels": ["a"], "regex": "bar|foo", "action": "drop"}, None, id="dropped"),
        pytest.param({"source_labels": ["a"], "regex": "bar|fo", "action": "drop"}, SERIES, id="not dropped"),
        pytest.param({"source_labels": ["a"], "target_label": "b", "action": "keepequal"}, None, id="not equal"),
        pytest.param({"source_labels": ["a"], "target_label": "a", "action": "keepequal"}, SERIES, id="equal"),
        pytest.param({"source_labels": ["a"], "target_label": "b", "action": "dropequal"}, SERIES, id="unequal stays"),
        pytest.param({"source_labels": ["x"], "target_label": "y", "action": "dropequal"}, None, id="both missing"),
        pytest.param(
            # The last 8 bytes of MD5("baz"), as a big-endian number, modulo 1000.
            {"source_labels": ["c"], "target_label": "d", "action": "hashmod", "modulus": 1000},
            {**SERIES, "d": "976"},
            id="hashmod",
        ),
        pytest.param(
            {"regex": "(b|c)", "replacement": "bar_${1}", "action": "labelmap"},
            {**SERIES, "bar_b": "bar", "bar_c": "baz"},
            id="labelmap",
        ),
        pytest.param(
            {"regex": "(?:a|b)", "replacement": "d", "action": "labelmap"},
            {**SERIES, "d": "bar"},
            id="labelmap to one: the last",
        ),
        pytest.param({"regex": "a|b", "action": "labeldrop"}, {"__name__": "calls", "c": "baz"}, id="labeldrop"),
        pytest.param({"regex": "__.*|a", "action": "labelkeep"}, {"__name__": "calls", "a": "foo"}, id="labelkeep"),
        pytest.param(
            {"source_labels": ["a"], "target_label": "a", "action": "uppercase"}, {**SERIES, "a": "FOO"}, id="uppercase"
        ),
        pytest.param(
            {"source_labels": ["__name__"], "target_label": "__name__", "action": "LowerCase"},
            SERIES,
            id="actions in any case",
        ),
        pytest.param(
            {"target_label": "__name__", "replacement": "other"}, {**SERIES, "__name__": "other"}, id="renamed"
        ),
        pytest.param({"regex": "__name__", "action": "labeldrop"}, None, id="without a name it is dropped"),
        pytest.param({"regex": ".*", "action": "labeldrop"}, None, id="without labels it is dropped"),
        pytest.param({"target_label": "höhe", "replacement": "1"}, {**SERIES, "höhe": "1"}, id="names are UTF-8"),
    ],
)
def test_st_3_each_action_does_what_prometheus_does(rule: dict[str, Any], expected: dict[str, str] | None) -> None:
    """ST-3."""
    assert relabelled(SERIES, rule) == expected


def test_st_3_rules_see_what_the_rules_before_left() -> None:
    """ST-3: a label that was removed can be set again, and comes after the others in `labelmap`."""
    assert relabelled(
        SERIES,
        {"regex": "a", "action": "labeldrop"},
        {"target_label": "a", "replacement": "late"},
        {"regex": "a|b|c", "replacement": "last", "action": "labelmap"},
    ) == {**SERIES, "a": "late", "last": "late"}
    assert relabelled(SERIES, {"source_labels": ["a"], "action": "drop", "regex": "foo"}, {"target_label": "b"}) is None


def test_a_dot_is_any_character() -> None:
    rule = {"source_labels": ["a"], "regex": "x.y", "target_label": "d", "replacement": "1"}
    assert relabelled({"__name__": "m", "a": "x\ny"}, rule) == {"__name__": "m", "a": "x\ny", "d": "1"}


def test_case_is_mapped_character_by_character() -> None:
    """Go's mapping never changes the number of characters."""
    rule = {"source_labels": ["a"], "target_label": "a"}
    upper = relabelled({"__name__": "m", "a": "straße ﬁ éﬀ"}, {**rule, "action": "uppercase"})
    assert upper == {"__name__": "m", "a": "STRAßE ﬁ Éﬀ"}
    lower = relabelled({"__name__": "m", "a": "ΟΔΟΣ İ"}, {**rule, "action": "lowercase"})
    assert lower == {"__name__": "m", "a": "οδοσ i"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("$1", "first"),
        ("${1}x", "firstx"),
        ("$1x", ""),
        ("$2$1", "secondfirst"),
        ("$0", "first-second"),
        ("$3", ""),
        ("$01", ""),
        ("$$1", "$1"),
        ("a$", "a$"),
        ("$-", "$-"),
        ("${1", "${1"),
        ("${}", "${}"),
        ("$word", "second"),
        ("${word}$1", "secondfirst"),
        ("$none.", "."),
        ("$9999999999", ""),
        ("${1-}", "${1-}"),
    ],
)
def test_templates_are_gos(template: str, expected: str) -> None:
    match = compile_anchored("(\\w+)-(?P<word>\\w+)").match("first-second")
    assert expand(template, match) == expected


def test_a_group_that_took_no_part_is_empty() -> None:
    assert expand("<$1>", compile_anchored("(x)?y").match("y")) == "<>"


@given(st.text(), st.text(alphabet="ab${}1_x"))
def test_templates_never_fail(text: str, template: str) -> None:
    match = compile_anchored("(.)?.*").match(text)
    assert isinstance(expand(template, match), str)


@given(st.dictionaries(st.text("abc", min_size=1), st.text(max_size=4), max_size=5), st.integers(1, 1 << 64))
def test_hashmod_is_below_its_modulus(labels: dict[str, str], modulus: int) -> None:
    modulus = min(modulus, (1 << 64) - 1)
    rule = {"source_labels": ["a", "b"], "target_label": "m", "action": "hashmod", "modulus": modulus}
    result = relabelled({"__name__": "n", **labels}, rule)
    assert result is not None
    assert 0 <= int(result["m"]) < modulus


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"action": "hashmod", "target_label": "x"}, "hashmod requires non-zero modulus"),
        ({"action": "replace"}, "replace action requires 'target_label' value"),
        ({"action": "lowercase"}, "lowercase action requires 'target_label' value"),
        ({"action": "keepequal", "target_label": "x", "regex": "y"}, "keepequal action requires only 'source_labels'"),
        ({"action": "dropequal", "target_label": "x", "separator": ","}, "dropequal action requires only"),
        (
            {"action": "uppercase", "target_label": "x", "replacement": "y"},
            "'replacement' can not be set for uppercase",
        ),
        ({"action": "labelmap", "replacement": ""}, "invalid 'replacement' for labelmap"),
        ({"action": "labeldrop", "source_labels": ["x"]}, "labeldrop action requires only 'regex'"),
        ({"action": "labelkeep", "target_label": "x"}, "labelkeep action requires only 'regex'"),
        ({"regex": "(", "target_label": "x"}, "is not a regular expression (missing ): ()"),
        ({"regex": "a)|(b", "target_label": "x"}, "is not a regular expression (unexpected ): a)|(b)"),
        ({"regex": "(?=a)", "target_label": "x"}, "is not a regular expression"),
        ({"source_labels": [""], "target_label": "x"}, "an empty label name"),
        ({"action": "explode"}, "Input should be 'replace'"),
    ],
)
def test_st_3_a_rule_that_cannot_be_meant_is_refused(rule: dict[str, Any], message: str) -> None:
    """ST-3."""
    with pytest.raises(ValidationError) as error:
        relabelled({}, rule)
    assert message in str(error.value)
