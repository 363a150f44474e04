import pyarrow as pa
import pytest

from schemas.labels import encode_labels
from schemas.limiters import LabelState
from streams.label_limiter import LabelLimiter


def sets(*labels: dict[str, str]) -> pa.Array:
    return pa.array([encode_labels(sorted(each.items())) for each in labels], pa.binary())


def looked(limit: int, *labels: dict[str, str]) -> LabelLimiter:
    """A limiter that has seen these label sets."""
    limiter = LabelLimiter(shard=2)
    limiter.advance(0, 4)
    limiter.insert(sets(*labels))
    limiter.look(limit)
    return limiter


def limited(limiter: LabelLimiter, route: str = "service", **labels: str):
    return limiter.limited(encode_labels(sorted(labels.items())), route)


def test_each_label_has_a_number_of_values():
    """LIM-10: whatever the other labels are, in any order of names, of any length."""
    limiter = looked(
        100,
        {"a": "1", "b": "x" * 300, "c": "z"},
        {"b": "x" * 299, "c": "z"},
        {"c": "z"},
        {"a": "2", "zz": "1", "c": "y"},
        {},
        {"a": "1" * 20_000},
        {"用户": "1", "a": "2"},
    )
    assert limiter.estimates == {"a": 3, "b": 2, "c": 2, "zz": 1, "用户": 1}
    assert not limiter.over


def test_a_label_is_over_its_limit_when_it_has_more_values():
    """LIM-10."""
    labels = [{"a": str(n), "b": str(n % 4)} for n in range(5)]
    assert looked(5, *labels).over == set()
    assert looked(4, *labels).over == {"a"}
    assert looked(3, *labels).over == {"a", "b"}


@pytest.mark.parametrize("name", ["__name__", "__type__", "__unit__"])
def test_labels_of_the_metric_itself_have_no_limit(name):
    """LIM-10."""
    limiter = looked(1, *({name: str(n), "a": "1"} for n in range(5)))
    assert (limiter.over, limiter.estimates) == (set(), {"a": 1})


def test_all_values_of_a_label_over_its_limit_are_replaced():
    """LIM-10: those that are known too; other labels stay."""
    limiter = looked(1, {"a": "1", "b": "1"}, {"a": "2", "b": "1"})
    replaced = encode_labels((("a", "__cardinality_overflow__"), ("b", "1")))
    assert limited(limiter, a="1", b="1") == limited(limiter, a="new", b="1") == (replaced, ("a",))
    assert limited(limiter, b="1") == (encode_labels((("b", "1"),)), ())


def test_who_loses_the_label_of_its_route_gets_its_shard():
    """LIM-10: every shard has such a series; a dimension of that name has to make room."""
    limiter = looked(1, {"service": "1", "server": "1"}, {"service": "2", "server": "1"})
    overflow = "__cardinality_overflow__"
    assert limited(limiter, service="1", shard="9").labels == encode_labels((("service", overflow), ("shard", "2")))
    assert limited(limiter, "server", server="1", service="1").labels == encode_labels(
        (("server", "1"), ("service", overflow))
    )


def test_without_a_limit_nothing_is_replaced_and_estimates_stay():
    """LIM-9 and LIM-11."""
    limiter = looked(1, {"a": "1"}, {"a": "2"})
    assert limiter.over
    limiter.look(0)
    assert not limiter.over
    assert limited(limiter, a="1").replaced == ()
    assert limiter.estimates == {"a": 2}


def test_what_was_replaced_is_made_anew_when_other_labels_are_over():
    limiter = looked(1, {"a": "1", "b": "1"}, {"a": "2", "b": "1"})
    assert limited(limiter, a="1", b="1").replaced == ("a",)
    limiter.insert(sets({"b": "2"}))
    limiter.look(1)
    assert limited(limiter, a="1", b="1").replaced == ("a", "b")


def test_g185_labels_recover_after_four_periods():
    """LIM-11, G185."""
    limiter = looked(5, *({"a": str(n)} for n in range(10)))
    for period, over in ((1, True), (3, True), (4, False)):
        limiter.advance(period, 4)
        limiter.insert(sets({"a": "1"}))
        limiter.look(5)
        assert bool(limiter.over) is over


def test_a_restored_limiter_goes_on_identically():
    limiter = looked(3, *({"a": str(n), "b": str(n % 2)} for n in range(5)))
    restored = LabelLimiter(shard=2)
    restored.restore(limiter.state())
    assert restored.state() == limiter.state() != LabelState()
    for each in (limiter, restored):
        each.advance(0, 4)
        each.insert(sets({"c": "1", "b": "7"}, {"a": "8"}, {"b": "9"}))
        each.look(3)
    assert restored.state() == limiter.state()
    assert restored.over == {"a", "b"}
    assert restored.estimates == {"a": 6, "b": 4, "c": 1}
