"""The scan against protobuf's own parser: verdicts and values of arbitrary, mutated and reordered bytes.

One example is a batch of many messages, scanned at once and compared one by one: a message that is refused must not
disturb its neighbours. In all, a run compares more than 10^5 messages.
"""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.otlp_fuzz import KEYS, message, mutate
from tests.otlp_oracle import assert_agrees
from tests.otlp_samples import descending, reencode, shuffled, trace, traces_data

SAMPLE_KEYS = ("service.name", "http.request.method", "http.response.status_code", "db.statement", "app.basket.total")
SEEDS = st.integers(0, (1 << 64) - 1)


@settings(max_examples=700)
@given(SEEDS)
def test_messages_in_odd_encodings_are_read_as_the_parser_reads_them(seed: int) -> None:
    rng = random.Random(seed)
    assert_agrees([message(rng) for _ in range(60)], KEYS)


@settings(max_examples=700)
@given(SEEDS)
def test_mutated_messages_are_judged_as_the_parser_judges_them(seed: int) -> None:
    rng = random.Random(seed)
    corpus = [message(rng) for _ in range(10)]
    assert_agrees([mutate(rng, rng.choice(corpus), corpus) for _ in range(80)], KEYS)


@settings(max_examples=120)
@given(SEEDS)
def test_mutated_realistic_messages_are_judged_as_the_parser_judges_them(seed: int) -> None:
    rng = random.Random(seed)
    sample = traces_data(trace(rng)[: rng.randint(1, 3)])
    corpus = [sample.SerializeToString(), reencode(sample, descending), reencode(sample, shuffled(rng))]
    assert_agrees([*corpus, *(mutate(rng, rng.choice(corpus), corpus) for _ in range(60))], SAMPLE_KEYS)


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=60), min_size=20, max_size=60))
def test_arbitrary_bytes_are_judged_as_the_parser_judges_them(values: list[bytes]) -> None:
    assert_agrees(values, KEYS)
