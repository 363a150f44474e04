"""The YAML reader: lines, Go's scalars, duplicates, and what it refuses."""

import math

import pytest

from schemas.config.yaml_lines import Document, YamlError, read_yaml


def value(text: str) -> object:
    return read_yaml(f"k: {text}").values["k"]


def test_keys_and_items_have_their_lines() -> None:
    document = read_yaml("a:\n  - 1\n  - b: 2\n    c: 3\n\nd: {e: 4,\n  f: 5}\n")
    assert document.values == {"a": (1, {"b": 2, "c": 3}), "d": {"e": 4, "f": 5}}
    assert document.lines == {
        ("a",): 1,
        ("a", 0): 2,
        ("a", 1): 3,
        ("a", 1, "b"): 3,
        ("a", 1, "c"): 4,
        ("d",): 6,
        ("d", "e"): 6,
        ("d", "f"): 7,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-06", 0.000001),
        ("1E6", 1_000_000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1_000.5", -1000.5),
        ("+.inf", math.inf),
        ("-.INF", -math.inf),
        ("1_000", 1000),
        ("-3", -3),
        ("0", 0),
        ("017", 15),
        ("0o17", 15),
        ("0xff", 255),
        ("0b11", 3),
        ("08", 8.0),
        ("yes", True),
        ("Off", False),
        ("", None),
        ("~", None),
        ("Null", None),
    ],
)
def test_plain_scalars_are_what_go_reads(text: str, expected: object) -> None:
    assert value(text) == expected
    assert type(value(text)) is type(expected)


@pytest.mark.parametrize("text", ["10:30", "2026-01-01", "1e", "1.2.3", "15s", "y", "n", "0.0.0.0:4317", "=", "e5"])
def test_everything_else_is_text(text: str) -> None:
    assert value(text) == text


def test_quoted_scalars_are_text() -> None:
    assert value("'1'") == "1"
    assert value('"true"') == "true"


def test_not_a_number_is_a_number() -> None:
    assert math.isnan(float(str(value(".nan"))))


def test_keys_are_text() -> None:
    assert read_yaml("on: 1\n12: 2\n").values == {"on": 1, "12": 2}


def test_own_keys_win_over_merged_ones_and_the_first_merged_over_later_ones() -> None:
    text = "a: &a {x: 1, y: 1, z: 1}\nb: &b {x: 2, w: 2}\nc: {y: 3, <<: [*b, *a]}\n"
    assert read_yaml(text).values["c"] == {"y": 3, "x": 2, "w": 2, "z": 1}


def test_merges_may_be_nested() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b}\n"
    assert read_yaml(text).values["c"] == {"x": 1, "y": 2}


def test_a_quoted_merge_key_is_a_key() -> None:
    assert read_yaml('"<<": 1').values == {"<<": 1}


@pytest.mark.parametrize("text", ["", "# comment", "---", "~", "null"])
def test_an_empty_document_is_an_empty_mapping(text: str) -> None:
    assert read_yaml(text) == Document({}, {}, {})


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
MERGED_LAUGHS = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "key 'a' stands twice (line 1); drop one"),
        ("a: 1\n'a': 3\n", 2, "key 'a' stands twice (line 1); drop one"),
        ("a: &a\n  b: *a\n", 1, "an alias stands within what it names; write it out"),
        ("a: &a\n  <<: *a\n", 1, "an alias stands within what it names; write it out"),
        ("a: [b", 1, "not YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        ("a: *b", 1, "not YAML: found undefined alias"),
        ("a:\n  \x07", 2, "a character that YAML doesn't allow; remove it"),
        ('a:\n- "\\ud800"\n', 2, "half a character; write the whole one"),
        ('"\\udc00": 1\n', 1, "half a character; write the whole one"),
        ('a: "\\UFFFFFFFF"\n', 1, "not YAML: a number out of range"),
        ("a: !!int x", 1, "not a value of type int"),
        ("a: !!bool x", 1, "not a value of type bool"),
        ("a: !!float x", 1, "not a value of type float"),
        ("a: !!binary eA==", 1, "a tag that is not known here; remove it, or quote a text that begins with !"),
        ("a: !!set {x: }", 1, "a tag that is not known here; remove it, or quote a text that begins with !"),
        ("a: !!omap [x: 1]", 1, "a tag that is not known here; remove it, or quote a text that begins with !"),
        ("? [a]\n: 1", 1, "a key must be a text"),
        ("a: {<<: [1]}", 1, "only mappings can be merged with <<"),
        ("just text", 1, "a configuration is a mapping of keys to values"),
        ("a: " + "[" * 101 + "]" * 101, 1, "nested too deeply"),
        ("a: " + "[" * 100_000, 1, "nested too deeply"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, line: int, what: str) -> None:
    with pytest.raises(YamlError) as error:
        read_yaml(text)
    assert (error.value.line, error.value.what) == (line, what)


@pytest.mark.parametrize("text", [LAUGHS, MERGED_LAUGHS])
def test_aliases_cannot_multiply_without_bound(text: str) -> None:
    with pytest.raises(YamlError, match="aliases stand for more than 100000 values; write out fewer"):
        read_yaml(text)
