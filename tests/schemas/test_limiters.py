import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import snapshot_pb2 as pb
from schemas.errors import Malformed
from schemas.limiters import (
    MAX_EXACT,
    WORDS,
    DemandState,
    DrainCluster,
    DrainNode,
    DrainState,
    LabelState,
    LimiterState,
    Sketches,
    SketchPeriod,
    limiter_message,
    limiter_state,
)

names = st.text("abcü<_>", max_size=5)
numbers = st.integers(0, 1 << 40)


@st.composite
def one_period(draw, period, keys):
    counts = draw(st.lists(st.sampled_from([-1, 0, 3, MAX_EXACT]), max_size=keys))
    words = b""
    for count in counts:
        if count < 0:
            words += bytes(draw(st.integers(0, 55)) for _ in range(8)) * WORDS
        else:
            words += struct.pack(f"<{WORDS}Q", *(n + 1 if n < count else 0 for n in range(WORDS)))
    return SketchPeriod(period, words, tuple(counts))


@st.composite
def sketches(draw):
    keys = draw(st.lists(names, max_size=3, unique=True))
    periods = draw(st.lists(st.integers(-1, 1 << 30), max_size=2, unique=True).map(sorted))
    return Sketches(tuple(keys), tuple(draw(one_period(period, len(keys))) for period in periods))


@st.composite
def trees(draw, depth=3):
    children = draw(st.lists(trees(depth - 1), max_size=2)) if depth else []
    own = DrainNode(draw(names), len(children), tuple(draw(st.lists(numbers, max_size=2))))
    return (own, *(node for child in children for node in child))


def clusters(found):
    return tuple(DrainCluster(number, tokens) for number, tokens in found.items())


states = st.builds(
    LimiterState,
    names,
    st.builds(
        DemandState,
        sketches(),
        st.dictionaries(st.integers(0, 99), numbers, max_size=3).map(lambda d: (*sorted(d.items()),)),
    ),
    st.builds(
        LabelState,
        sketches(),
        st.dictionaries(names, numbers, max_size=3).map(lambda d: (*sorted(d.items()),)),
        st.lists(names, max_size=3).map(tuple),
    ),
    st.builds(
        DrainState,
        st.just(1 << 41),
        st.dictionaries(numbers, st.lists(names, max_size=4).map(tuple), max_size=3).map(clusters),
        trees(),
    ),
)


@settings(deadline=None, max_examples=50)
@given(states)
def test_messages_give_their_state_again(state):
    read = limiter_state(pb.TenantLimiters.FromString(limiter_message(state).SerializeToString()))
    assert read == state
    assert isinstance(hash(read), int)


FEW = struct.pack("<Q", 7) + bytes(8 * WORDS - 8)


@pytest.mark.parametrize(
    "broken",
    [
        Sketches(("a", "a"), ()),
        Sketches((), (SketchPeriod(1, FEW, (1,)),)),
        Sketches(("a",), (SketchPeriod(1, FEW, (1,)), SketchPeriod(1, FEW, (1,)))),
        Sketches(("a",), (SketchPeriod(1, FEW[:-8], (1,)),)),
        Sketches(("a",), (SketchPeriod(1, FEW + b"x", (1,)),)),
        Sketches(("a",), (SketchPeriod(1, FEW[:-1], ()),)),
        Sketches(("a",), (SketchPeriod(1, FEW, (2,)),)),
        Sketches(("a",), (SketchPeriod(1, b"\1" * 8 * WORDS, (WORDS,)),)),
        Sketches(("a",), (SketchPeriod(1, FEW, (-2,)),)),
        Sketches(("a",), (SketchPeriod(1, b"\x38" * 8 * WORDS, (-1,)),)),
    ],
)
def test_sketches_that_break_a_rule_are_malformed(broken):
    """A table without a free slot would be searched for ever."""
    for state in (LimiterState("t", demand=DemandState(broken)), LimiterState("t", labels=LabelState(broken))):
        with pytest.raises(Malformed):
            limiter_state(limiter_message(state))


@pytest.mark.parametrize(
    "broken",
    [
        DrainState(nodes=()),
        DrainState(nodes=(DrainNode("", 1),)),
        DrainState(nodes=(DrainNode("", 0), DrainNode("a", 0))),
        DrainState(nodes=(DrainNode("", 1), DrainNode("a", 0), DrainNode("b", 0))),
        DrainState(1, (DrainCluster(1, ("a",)),)),
        DrainState(2, (DrainCluster(1, ("a",)), DrainCluster(1, ("b",)))),
    ],
)
def test_span_names_that_break_a_rule_are_malformed(broken):
    with pytest.raises(Malformed):
        limiter_state(limiter_message(LimiterState("t", span_names=broken)))
