"""The bounded part of `make fuzz`: requests through scan, truncation, IDs and splicing, against protobuf's objects."""

import random
from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.intake_fuzz import judged, regroupings, requests

CUTTERS = regroupings()


@settings(max_examples=200)
@given(st.integers(0, (1 << 64) - 1))
@example(0)
def test_requests_are_judged_and_cut_as_objects_would_be(seed: int) -> None:
    rng = random.Random(seed)
    outcomes = Counter(judged(CUTTERS, rng, body) for body in requests(rng))
    assert outcomes["taken"] > 0
    assert outcomes["malformed"] > 0


def test_every_outcome_comes_up() -> None:
    """What never happens isn't tested."""
    rng = random.Random(1)
    outcomes = Counter(judged(CUTTERS, rng, body) for _ in range(40) for body in requests(rng))
    assert set(outcomes) == {"taken", "empty", "malformed", "invalid ID", "too large", "no UTF-8"}
