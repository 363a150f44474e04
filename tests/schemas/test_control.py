from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import control_pb2 as pb
from schemas.control import AcceptGap, ConfigChange, Control, SkipRecord, Tick, Waiver, decode_control, encode_control
from schemas.errors import Malformed

TIMES = st.integers(0, 2**63 - 1)
PARTITIONS = st.integers(0, 2**31 - 1)
CONTROLS = (
    st.builds(Tick, TIMES)
    | st.builds(Waiver, PARTITIONS, TIMES)
    | st.builds(AcceptGap, PARTITIONS, TIMES | st.none())
    | st.builds(SkipRecord, TIMES)
    | st.builds(ConfigChange, st.integers(0, 2**64 - 1), TIMES, st.binary(), st.text(), PARTITIONS)
)


@given(CONTROLS)
def test_what_was_encoded_is_decoded(control: Control):
    assert decode_control(encode_control(control)) == control


@pytest.mark.parametrize(
    ("control", "wire"),
    [
        (Tick(15_000), "08011203089875"),
        (Tick(0), "08011200"),
        (Waiver(3, 15_000), "080122050803109875"),
        (AcceptGap(3, 15_000), "08012a050803109875"),
        (AcceptGap(3, None), "08012a020803"),
        (SkipRecord(300), "0801320308ac02"),
        (ConfigChange(7, 15_000, b"a: b", "0.1.0", 4), "08011a1408071098751a04613a20622205302e312e302804"),
    ],
    ids=["tick", "tick at 0", "waiver", "accept gap", "accept gap at the start", "skip record", "config change"],
)
def test_the_bytes_on_the_wire_stay_as_they_are(control: Control, wire: str):
    assert encode_control(control) == bytes.fromhex(wire)


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_a_control_or_malformed(value: bytes):
    try:
        control = decode_control(value)
    except Malformed:
        return
    assert decode_control(encode_control(control)) == control


@given(CONTROLS, st.data())
def test_damaged_controls_are_a_control_or_malformed(control: Control, data: st.DataObject):
    value = bytearray(encode_control(control))
    at = data.draw(st.integers(0, len(value) - 1))
    value[at] = data.draw(st.integers(0, 255))
    cut = bytes(value[: data.draw(st.integers(0, len(value)))])
    with suppress(Malformed):
        decode_control(cut)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.ControlRecord(), "version"),
        (pb.ControlRecord(format_version=2, tick=pb.Tick(end_ms=1)), "version"),
        (pb.ControlRecord(format_version=1), "field"),
        (pb.ControlRecord(format_version=1, tick=pb.Tick(end_ms=-1)), "field"),
        (pb.ControlRecord(format_version=1, waiver=pb.Waiver(partition=2**31)), "field"),
    ],
    ids=["no version", "newer", "no control", "negative time", "large partition"],
)
def test_controls_that_nobody_may_act_on_are_refused_with_their_reason(message: pb.ControlRecord, reason: str):
    with pytest.raises(Malformed) as refused:
        decode_control(message.SerializeToString())
    assert refused.value.reason == reason


@pytest.mark.parametrize("control", [Tick(2**63), Waiver(-1, 0), ConfigChange(-1, 0, b"", "", 1)], ids=repr)
def test_numbers_outside_their_fields_are_not_encoded(control: Control):
    with pytest.raises(ValueError, match=r"(?i)out of range"):
        encode_control(control)
