"""Lists cut into their elements, against Python's own reader."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Malformed
from schemas.json_elements import elements

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=4), st.booleans(), st.sampled_from([None, 1]), st.sampled_from(["", " \r\n\t"]))
def test_the_elements_are_those_of_the_list(
    values: list[Any], ascii_only: bool, indent: int | None, around: str
) -> None:
    text = around + json.dumps(values, ensure_ascii=ascii_only, indent=indent) + around
    assert [json.loads(each) for each in elements(text.encode(), len(text) * 4)] == values


def is_list(text: bytes) -> bool:
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # Python takes half a surrogate pair
    except ValueError:
        return False
    return isinstance(found, list)


@given(VALUES, st.data())
def test_what_is_cut_off_or_changed_is_a_list_only_if_python_says_so(value: Any, data: st.DataObject) -> None:
    text = bytearray(json.dumps([value, value]).encode())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([b"", b"]", b",", b"{", b'"', b"1", b"\\"])
    )
    try:
        found = [json.loads(each) for each in elements(bytes(text), len(text))]
    except Malformed:
        assert not is_list(bytes(text))
    else:
        assert json.loads(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "json at byte 0: not a list"),
        (b" {}", "json at byte 1: not a list"),
        (b"[", "json at byte 1: not JSON from here on"),
        (b"[1", "json at byte 2: not JSON from here on"),
        (b"[1,]", "json at byte 3: not JSON from here on"),
        (b"[1 2]", "json at byte 3: not JSON from here on"),
        (b'[{"a": 1]', "json at byte 8: not JSON from here on"),
        (b"[1] 2", "json at byte 4: not JSON from here on"),
        (b"[] 2", "json at byte 3: not JSON from here on"),
        (b'[1, "12345678901"]', "json at byte 4: an element is longer than 10 bytes"),
        (b"[" * 100_000, "json at byte 501: nested too deeply"),
    ],
)
def test_what_is_none_is_refused_with_its_place(text: bytes, message: str) -> None:
    with pytest.raises(Malformed) as raised:
        list(elements(text, 10))
    assert str(raised.value) == message
