import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.limiters import DrainCluster, DrainNode, DrainState
from streams.drain import (
    END,
    MAX_CHILDREN,
    MAX_COMPARED,
    MAX_DEPTH,
    MAX_VISITS,
    WILDCARD,
    Drain,
    looks_like_data,
    tokenize,
)


def learn(drain: Drain, *names: str) -> list[str]:
    return [drain.see(name).text for name in names]


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("application_1234567890", ["application", "_", "1234567890"]),
        (
            "load 123e4567-e89b-12d3-a456-426614174000 now",
            ["load", " ", "123e4567-e89b-12d3-a456-426614174000", " ", "now"],
        ),
        ("fruit%3Dmango%", ["fruit", "%3D", "mango", "%"]),
        ("50%zz %4", ["50", "%", "zz", " ", "%", "4"]),
        ("GET /api/用户/123", ["GET", " ", "/", "api", "/", "用户", "/", "123"]),
        ("タスク456", ["タスク456"]),
        ("a \t\n b", ["a", " \t\n ", "b"]),
        ("cafe-bar", ["cafe-ba", "r"]),
        ("--ff", ["-", "-", "ff"]),
        ("fact²", ["fact²"]),
        ("a\x1cb", ["a", "\x1c", "b"]),
        ("", []),
    ],
)
def test_a_name_is_cut_into_tokens(name, tokens):
    """DRN-3, G193 and Q18: `cafe-ba` looks like a UUID."""
    assert tokenize(name) == [*tokens, END]


@settings(max_examples=200)
@given(st.text())
def test_tokens_joined_are_the_name(name):
    """DRN-3: nothing is lost."""
    assert "".join(tokenize(name)[:-1]) == name


@pytest.mark.parametrize(
    ("token", "is_data"),
    [
        ("123", True),
        ("a1f", True),
        ("123e4567-e89b", True),
        ("abc", False),
        ("-", False),
        ("v1", False),
        ("v12", True),
        ("order12", True),
        ("orders12", False),
        ("orders123", True),
        ("用户12", False),
        ("x", False),
        ("", False),
    ],
)
def test_what_looks_like_data(token, is_data):
    """DRN-5: digits, hex letters and punctuation with a digit, or digits in more than a quarter of the bytes."""
    assert looks_like_data(token) is is_data


def test_the_first_member_keeps_its_name_and_later_ones_get_the_pattern():
    """DRN-7, DRN-8, G189."""
    drain = Drain()
    first, second, third = (f"GET /api/users/{n}" for n in (123, 456, 789))
    assert learn(drain, first, first) == [first, first]
    assert learn(drain, second, third, first) == ["GET /api/users/<_>"] * 3
    assert drain.clusters == [("GET", " ", "/", "api", "/", "users", "/", WILDCARD, END)]
    assert drain.detected == 1


def test_names_of_too_few_and_too_many_tokens_are_left_alone():
    """DRN-4: fewer than 3 or more than 80, the end among them."""
    drain = Drain()
    assert [(drain.see(name).tokens, drain.see(name).cluster) for name in ("", "get", "-" * 80)] == [
        (1, None),
        (2, None),
        (81, None),
    ]
    assert (drain.detected, drain.nodes) == (0, 1)
    assert drain.see("a b").cluster is not None
    assert drain.see("-" * 79).cluster is not None


def test_clusters_of_another_number_of_tokens_are_never_the_same():
    """DRN-5: the first level is the number of tokens."""
    assert learn(Drain(), "GET /a/1", "GET /a/1/2", "GET /a/2") == ["GET /a/1", "GET /a/1/2", "GET /a/<_>"]


def test_words_that_differ_in_the_tree_begin_other_clusters():
    """DRN-5: up to the depth of the tree a word leads to a node of its own."""
    drain = Drain()
    names = ["GET /users/list", "GET /orders/list", "PUT /users/list"]
    assert learn(drain, *names, *names) == names * 2
    assert drain.detected == 3


def test_below_the_tree_differing_words_are_merged():
    """DRN-5: levels end at depth 28, the number of tokens being the first, so the 28th token leads nowhere."""
    front = "." * (MAX_DEPTH - 1)
    assert learn(Drain(), f"{front}x", f"{front}y") == [f"{front}x", f"{front}<_>"]
    above = front[1:]
    assert learn(Drain(), f"{above}x.", f"{above}y.") == [f"{above}x.", f"{above}y."]


def test_a_wildcard_comes_before_the_token_s_own_node():
    """DRN-5: what lies beside data is merged with it, though a node of its own may be there."""
    drain = Drain()
    assert learn(drain, "GET /users/list", "GET /users/12", "GET /users/list") == [
        "GET /users/list",
        "GET /users/12",
        "GET /users/<_>",
    ]


def test_a_branch_without_a_match_leads_back_to_the_token_s_own():
    """DRN-5: better than Tempo 3.0, which began a cluster for such a name each time it came."""
    drain = Drain()
    assert learn(drain, "GET /users/12/x", *["GET /users/list/y"] * 3) == [
        "GET /users/12/x",
        *["GET /users/list/y"] * 3,
    ]
    assert drain.detected == 2


def test_a_full_node_sends_all_further_words_to_its_wildcard():
    """DRN-5: at 999 children."""
    drain = Drain()
    words = [f"w{''.join(chr(97 + int(digit)) for digit in str(n))}" for n in range(MAX_CHILDREN + 1)]
    texts = learn(drain, *(f"{word} end" for word in words))
    assert texts[:MAX_CHILDREN] == [f"{word} end" for word in words[:MAX_CHILDREN]]
    assert texts[-1] == "<_> end"
    assert drain.nodes == 1 + 1 + 3 * MAX_CHILDREN


def with_clusters(*clusters: tuple[str, ...], name: str) -> Drain:
    """A tree in which these clusters share the leaf to which a name leads."""
    drain = Drain()
    drain.see(name)
    state = drain.state()
    numbered = tuple(DrainCluster(number, (*tokens, END)) for number, tokens in enumerate(clusters))
    leaf = state.nodes[-1]._replace(clusters=tuple(range(len(clusters))))
    drain.restore(state._replace(next_number=len(clusters), clusters=numbered, nodes=(*state.nodes[:-1], leaf)))
    return drain


def test_the_most_similar_cluster_takes_a_name():
    """DRN-6: wildcards don't count as similar."""
    clusters = (("1", "_", WILDCARD), ("1", "_", "3"), (WILDCARD, "_", "3"))
    assert with_clusters(*clusters, name="1_3").see("1_3").cluster == 1


def test_of_equally_similar_clusters_the_one_with_more_wildcards_takes_a_name():
    """DRN-6: and the first of those."""
    clusters = (("9", "_", "3"), (WILDCARD, "_", "3"), (WILDCARD, "_", "3"))
    assert with_clusters(*clusters, name="1_3").see("1_3").cluster == 1


def test_a_name_is_compared_with_the_newest_clusters_of_a_leaf():
    """DRN-6: better, names that are made such that all are in one leaf cost a bounded search."""
    others = [(str(n), "_", "x") for n in range(MAX_COMPARED)]
    known = ("1", "_", "3")
    assert with_clusters(known, *others[1:], name="1_3").see("1_3").cluster == 0
    assert with_clusters(known, *others, name="1_3").see("1_3").cluster != 0


def test_a_name_of_too_little_similarity_begins_a_cluster():
    """DRN-6: below 0.3."""
    drain = Drain()
    drain.see("1 2 3 4 5")
    assert drain.see("6\t7\t8\t9\t0").cluster == 1
    assert drain.detected == 2


def test_pruning_drops_what_leads_to_no_cluster():
    """DRN-9, G195: of 16 nodes 9 are left when one of two clusters is gone."""
    drain = Drain()
    for n in range(1, 5):
        learn(drain, f"test test test {n}", f"my name is {n}")
    assert (len(drain.clusters), drain.nodes) == (2, 16)
    state = drain.state()
    drain.restore(state._replace(clusters=state.clusters[1:]))
    assert drain.nodes == 16
    drain.prune()
    assert drain.nodes == 9
    assert learn(drain, "test test test 9", "my name is 9") == ["test test test 9", "my name is <_>"]


def test_the_cluster_that_was_not_seen_for_longest_makes_room():
    """DRN-9."""
    drain = Drain(max_clusters=2)
    learn(drain, "a b", "c d", "a b", "e f")
    assert [tokens[0] for tokens in drain.clusters] == ["a", "e"]
    assert (drain.detected, drain.evicted) == (3, 1)
    learn(drain, "a b")
    assert drain.detected == 3
    learn(drain, "c d")
    assert (drain.detected, drain.evicted) == (4, 2)


words = st.sampled_from(["GET", "users", "7", "42", "a1", "x-y", "/", " ", "%20", "用户", "deadbeef-1", "_"])
names = st.lists(words, max_size=12).map("".join)


@settings(deadline=None)
@given(st.lists(names, max_size=60), st.integers(0, 60), st.booleans())
def test_a_restored_tree_goes_on_identically(seen, cut, prune):
    """What was remembered of names decides nothing."""
    drain, restored = Drain(max_clusters=5), Drain(max_clusters=5)
    learn(drain, *seen[:cut])
    restored.restore(drain.state())
    if prune:
        drain.prune()
        restored.prune()
    assert learn(drain, *seen[cut:]) == learn(restored, *seen[cut:])
    assert drain.state() == restored.state()


def test_names_that_lead_many_ways_cost_a_bounded_search():
    def both(depth: int) -> tuple[DrainNode, ...]:
        below = both(depth - 1) if depth else ()
        return tuple(node for key in ("a", WILDCARD) for node in (DrainNode(key, 2 if depth else 0), *below))

    drain = Drain()
    tokens = ["a"] * 14
    drain.restore(DrainState(nodes=(DrainNode("", 1), DrainNode("14", 2), *both(12))))
    assert drain.nodes == 2 + (1 << 14) - 2
    assert 0 < sum(1 for _ in drain._leaves(tokens)) < MAX_VISITS
