"""Signed control records: what is signed is read in its place and nowhere else, with keys that come and go."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.control import CONTROL_HEADER, ConfigChange, Control, Tick, Waiver, encode_control
from schemas.control_format import NO_KEYS, SIGNATURE_HEADER, ControlKeys
from schemas.errors import Malformed, Reason
from schemas.otlp import Codec
from schemas.record_format import RecordFormat

OLD, NEW = "o" * 32, "n" * 32
KEYS = ControlKeys.parse(OLD)
CONTROLS: list[Control] = [Tick(15_000), Waiver(3, 15_000), ConfigChange(7, 15_000, b"rules", "0.1.0", 4)]


def refusal(keys: ControlKeys, headers: list[tuple[str, bytes]], topic: str = "spans", partition: int = 1) -> str:
    with pytest.raises(Malformed) as refused:
        keys.at(topic, partition).read(headers)
    return refused.value.reason


@pytest.mark.parametrize("control", CONTROLS, ids=lambda each: type(each).__name__)
def test_what_was_signed_for_a_place_is_read_there_and_refused_elsewhere(control: Control):
    headers = KEYS.at("spans", 1).headers(control)
    assert KEYS.at("spans", 1).read(headers) == control
    assert refusal(KEYS, headers, partition=11) == Reason.SIGNATURE
    assert refusal(KEYS, headers, topic="deltas") == Reason.SIGNATURE


def test_a_topic_and_a_partition_are_told_apart():
    headers = KEYS.at("spans1", 1).headers(Tick(1))
    assert refusal(KEYS, headers, topic="spans", partition=11) == Reason.SIGNATURE


def test_the_signature_on_the_wire_stays_as_it_is():
    headers = dict(KEYS.at("spans", 1).headers(Tick(15_000)))
    assert headers[CONTROL_HEADER] == encode_control(Tick(15_000)), "it is the one that is read without keys"
    assert headers[SIGNATURE_HEADER].hex() == "6ac160509f8ae436949786fdde5709f48d7d38b2b1930e1a0fad42b4d322cc27"


@given(st.integers(0, 31), st.integers(1, 255), st.booleans())
def test_any_other_byte_makes_it_another_record(at: int, change: int, is_message: bool):
    headers = dict(KEYS.at("spans", 1).headers(ConfigChange(7, 15_000, b"x" * 32, "0.1.0", 4)))
    name = CONTROL_HEADER if is_message else SIGNATURE_HEADER
    altered = bytearray(headers[name])
    altered[at] ^= change
    assert refusal(KEYS, list({**headers, name: bytes(altered)}.items())) == Reason.SIGNATURE


def test_unsigned_records_are_refused_with_keys_and_taken_without():
    unsigned = NO_KEYS.at("spans", 1).headers(Tick(1))
    assert [name for name, _ in unsigned] == [CONTROL_HEADER]
    assert refusal(KEYS, unsigned) == Reason.SIGNATURE
    assert NO_KEYS.at("spans", 1).read(unsigned) == Tick(1)
    assert NO_KEYS.at("spans", 1).read(KEYS.at("spans", 1).headers(Tick(1))) == Tick(1)


def test_while_keys_are_introduced_unsigned_records_are_taken_and_badly_signed_ones_are_not():
    keys = ControlKeys.parse(f"{OLD}\nunsigned\n")
    assert keys.at("spans", 1).read(NO_KEYS.at("spans", 1).headers(Tick(1))) == Tick(1)
    assert SIGNATURE_HEADER in dict(keys.at("spans", 1).headers(Tick(1)))
    assert refusal(keys, ControlKeys.parse(NEW).at("spans", 1).headers(Tick(1))) == Reason.SIGNATURE


def test_keys_rotate_without_a_record_that_is_refused():
    """Each step is everywhere before the next one: what either step writes, both read."""
    steps = [ControlKeys.parse("\n".join(lines)) for lines in ([OLD], [OLD, NEW], [NEW, OLD], [NEW])]
    for before, after in pairwise(steps):
        for writes, reads in ((before, after), (after, before)):
            assert reads.at("spans", 1).read(writes.at("spans", 1).headers(Tick(1))) == Tick(1)
    assert refusal(steps[3], steps[0].at("spans", 1).headers(Tick(1))) == Reason.SIGNATURE


def test_a_key_file_may_have_remarks_and_empty_lines():
    assert ControlKeys.parse(f"# of 2026\n\n  {OLD}  \n# before\n{NEW}\n").keys == (OLD.encode(), NEW.encode())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "there is no key"), ("# nothing\nunsigned", "there is no key"), (f"{OLD}\nsecret", "line 2: a key of 6")],
)
def test_a_key_file_that_protects_nothing_is_refused_without_showing_a_key(text: str, complaint: str):
    with pytest.raises(ValueError, match=complaint) as refused:
        ControlKeys.parse(text)
    assert "secret" not in str(refused.value)
    assert OLD not in repr(KEYS)


def test_a_spans_topics_records_are_read_with_the_keys_of_their_partition():
    headers = KEYS.at("spans", 1).headers(Tick(15_000))
    assert RecordFormat(Codec.OTLP, controls=KEYS.at("spans", 1)).parse(5, 7, None, b"", headers).control == Tick(
        15_000
    )
    with pytest.raises(Malformed):
        RecordFormat(Codec.OTLP, controls=KEYS.at("spans", 2)).parse(5, 7, None, b"", headers)


@pytest.mark.parametrize("value", [b"", b"\xff"])
def test_headers_that_say_nothing_are_malformed(value: bytes):
    assert refusal(NO_KEYS, [(CONTROL_HEADER, value)]) in {"version", "envelope"}
    assert refusal(NO_KEYS, []) == "version"
