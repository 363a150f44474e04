"""What a request's spans are like as a whole, against the same in plain Python."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from schemas.otlp.regroup import Regrouping
from schemas.otlp.survey import BOUNDS_S, LEAST_SLOTS, MOST_LOOKS, SPREAD, Survey, slots_for, survey

NOW_S = 1_700_000_000
NS = 1_000_000_000


class Ended(NamedTuple):
    """A span of a trace."""

    trace: int
    end_ns: int


def surveyed(spans: Sequence[Ended]) -> Survey:
    message = TracesData()
    scope = message.resource_spans.add().scope_spans.add()
    for i, (trace, end_ns) in enumerate(spans, 1):
        ids = {"trace_id": trace.to_bytes(16, "big"), "span_id": i.to_bytes(8, "big")}
        scope.spans.append(Span(**ids, end_time_unix_nano=end_ns))
    regrouping = Regrouping(4, 1_000_000)
    regrouping.read(message.SerializeToString())
    regrouping.pieces()
    return regrouping.survey(NOW_S)


def expected(distances: Sequence[int]) -> tuple[list[int], int]:
    counts = [0] * (len(BOUNDS_S) + 1)
    for distance in distances:
        counts[sum(distance > bound for bound in BOUNDS_S)] += 1
    return counts, sum(distances)


ENDS = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.integers(NOW_S - 4000, NOW_S + 4000).map(lambda second: second * NS),
    st.integers((NOW_S - 2) * NS, (NOW_S + 2) * NS),
)
SPANS = st.lists(st.builds(Ended, st.one_of(st.integers(1, 9), st.integers(1, (1 << 128) - 1)), ENDS), min_size=1)


@given(SPANS)
def test_traces_and_distances_are_counted(spans: list[Ended]) -> None:
    """DIST-13: on end times in whole seconds; one that isn't after the clock's second is in the past."""
    found = surveyed(spans)
    distances = [end_ns // NS - NOW_S for _, end_ns in spans]
    assert found.traces == len({trace for trace, _ in spans})
    assert found.future == expected([distance for distance in distances if distance > 0])
    assert found.past == expected([-distance for distance in distances if distance <= 0])


def test_each_bound_belongs_to_its_own_bucket() -> None:
    found = surveyed([Ended(1, (NOW_S + side * s) * NS) for side in (-1, 1) for s in (0, 300, 301, 1800, 3600, 3601)])
    assert found.future == ([1, 2, 1, 1], 9602)
    assert found.past == ([3, 2, 1, 1], 9602)


def test_many_traces_of_one_request_are_told_apart() -> None:
    spans = [Ended(i % 5000 + 1, NOW_S * NS) for i in range(10_000)]
    assert surveyed(spans).traces == 5000


def test_ids_that_were_chosen_to_share_a_slot_cost_a_bounded_time() -> None:
    """They may be counted twice: rather that than a request that takes for ever."""
    count = 4 * MOST_LOOKS
    inverse = pow(int(SPREAD), -1, 1 << 64)
    mask = (1 << 64) - 1
    ids = []
    for i in range(count):  # the first mixing undone: all begin at one slot
        mixed = (7 << 32 | i) * inverse & mask
        mixed ^= mixed >> 29 ^ mixed >> 58
        ids.append((0).to_bytes(8, "little") + mixed.to_bytes(8, "little"))
    data = np.frombuffer(b"".join(ids + ids), np.uint8)
    starts = np.arange(0, 32 * count, 16, dtype=np.int32)
    slots = slots_for(2 * count)
    assert len(slots) >= max(LEAST_SLOTS, 4 * count)
    found = survey(data, starts, np.zeros(2 * count, np.int64), NOW_S, slots)
    assert count < found.traces <= 2 * count
