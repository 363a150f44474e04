"""Patterns of span names, learnt by the DRAIN algorithm (Tempo DRN-3 to DRN-7, DRN-9).

A name is cut into tokens, which a tree of fixed depth leads to a few clusters; the most similar one takes it, and each
token in which its members differ becomes a wildcard. What a name becomes depends on the names before it, and on nothing
else.
"""

from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import islice
from typing import NamedTuple
from unicodedata import category

from schemas.limiters import DrainCluster, DrainNode, DrainState

WILDCARD = "<_>"
END = "<END>"
"""The last token of every name."""

MIN_TOKENS, MAX_TOKENS = 3, 80
MAX_DEPTH = 28
MAX_CHILDREN = 1000
"""Of a node, the wildcard among them."""
MIN_SIMILARITY = 0.3
MAX_VISITS = 256
"""Nodes that are looked at for a name: names may be made such that many lead two ways."""
MAX_COMPARED = 256
"""Clusters of a leaf, the newest ones, that a name is compared with: a hundred thousand would take a quarter second."""
MAX_CLUSTERS = 100_000
MAX_CACHED_NAMES = 100_000

_HEX = frozenset("0123456789abcdefABCDEF")
# `str.isspace` has these too, Unicode's White_Space hasn't.
_NO_SPACES = frozenset("\x1c\x1d\x1e\x1f")


class Seen(NamedTuple):
    """What a name became: its cluster's pattern, or itself; `tokens` are counted with `END`."""

    text: str
    tokens: int
    cluster: int | None
    """None: it has too few or too many tokens."""


class Node:
    """A node of the tree; children by token, clusters in leaves only, by number and dead ones included."""

    __slots__ = ("children", "clusters")

    def __init__(self) -> None:
        self.children: dict[str, Node] = {}
        self.clusters: list[int] = []


class Drain:
    """The tree of a tenant, and its clusters, of which those that weren't seen for longest make room for others."""

    def __init__(self, max_clusters: int = MAX_CLUSTERS) -> None:
        self.detected = self.evicted = 0
        """Clusters that began and that made room, since the beginning of this object."""
        self._max_clusters = max_clusters
        self._root = Node()
        self._clusters: OrderedDict[int, tuple[str, ...]] = OrderedDict()
        self._next_number = 0
        # What names became that changed nothing, since something last changed.
        self._seen: dict[str, Seen] = {}

    @property
    def clusters(self) -> list[tuple[str, ...]]:
        """The tokens of all clusters, the one that wasn't seen for longest first."""
        return list(self._clusters.values())

    @property
    def nodes(self) -> int:
        """The nodes of the tree, its root among them."""
        return sum(1 for _ in _walk("", self._root))

    def see(self, name: str) -> Seen:
        """Learn a name, and say what it becomes."""
        seen = self._seen.get(name) or self._learn(name)
        if seen.cluster is not None:
            self._clusters.move_to_end(seen.cluster)
        return seen

    def prune(self) -> None:
        """Drop what of the tree leads to no cluster any more."""
        self._seen.clear()
        _prune(self._root, self._clusters)

    def state(self) -> DrainState:
        """All of it, immutable."""
        clusters = tuple(DrainCluster(number, tokens) for number, tokens in self._clusters.items())
        return DrainState(self._next_number, clusters, tuple(self._tree()))

    def restore(self, state: DrainState) -> None:
        """Put back what `state` gave."""
        self._next_number = state.next_number
        self._clusters = OrderedDict(state.clusters)
        self._seen.clear()
        nodes = iter(state.nodes)
        self._root = _rebuild(next(nodes), nodes)

    def _tree(self) -> Iterator[DrainNode]:
        return (DrainNode(key, len(node.children), tuple(node.clusters)) for key, node in _walk("", self._root))

    def _learn(self, name: str) -> Seen:
        tokens = tokenize(name)
        if not MIN_TOKENS <= len(tokens) <= MAX_TOKENS:
            return self._remembered(name, Seen(name, len(tokens), None))
        number = self._match(tokens)
        if number is None:
            return Seen(name, len(tokens), self._begin(tokens))
        known = self._clusters[number]
        merged = tuple(a if a == b else WILDCARD for a, b in zip(known, tokens, strict=True))
        seen = Seen("".join(merged[:-1]), len(tokens), number)
        if merged == known:
            return self._remembered(name, seen)
        self._clusters[number] = merged
        self._seen.clear()
        return seen

    def _remembered(self, name: str, seen: Seen) -> Seen:
        """What a name became, remembered since nothing changed: it will be the same until something does."""
        if len(self._seen) >= MAX_CACHED_NAMES:
            self._seen.clear()
        self._seen[name] = seen
        return seen

    def _match(self, tokens: Sequence[str]) -> int | None:
        """The cluster that takes a name, None if there is none yet."""
        found = (self._most_similar(leaf, tokens) for leaf in self._leaves(tokens))
        return next((number for number in found if number is not None), None)

    def _leaves(self, tokens: Sequence[str]) -> Iterator[Node]:
        """The leaves that a name may lead to, best first: at each node the wildcard's child, then the token's own."""
        path = list(_path(tokens))
        first = self._root.children.get(str(len(tokens)))
        waiting = [] if first is None else [(0, first)]
        for _ in range(MAX_VISITS):
            if not waiting:
                break
            depth, node = waiting.pop()
            if depth == len(path):
                yield node
            else:
                children = (node.children.get(path[depth]), node.children.get(WILDCARD))
                waiting += [(depth + 1, child) for child in children if child is not None]

    def _most_similar(self, leaf: Node, tokens: Sequence[str]) -> int | None:
        """The most similar cluster of a leaf, of equally similar ones that with more wildcards (DRN-6)."""
        best, found = (0, -1), None
        for number in leaf.clusters[-MAX_COMPARED:]:
            known = self._clusters.get(number)
            if known is not None:
                rank = (sum(map(str.__eq__, known, tokens)), known.count(WILDCARD))
                if rank > best:
                    best, found = rank, number
        return found if best[0] / len(tokens) >= MIN_SIMILARITY else None

    def _begin(self, tokens: Sequence[str]) -> int:
        """A new cluster of these tokens."""
        node = self._root.children.setdefault(str(len(tokens)), Node())
        for token in _path(tokens):
            node = _child(node, token)
        node.clusters = [number for number in node.clusters if number in self._clusters]
        number = self._next_number
        node.clusters.append(number)
        self._clusters[number] = tuple(tokens)
        self._next_number += 1
        self.detected += 1
        if len(self._clusters) > self._max_clusters:
            self._clusters.popitem(last=False)
            self.evicted += 1
        self._seen.clear()
        return number


def tokenize(name: str) -> list[str]:
    """The tokens of a name, `END` last (DRN-3)."""
    tokens: list[str] = []
    at = 0
    while at < len(name):
        end = _token_end(name, at)
        tokens.append(name[at:end])
        at = end
    return [*tokens, END]


def looks_like_data(token: str) -> bool:
    """Whether a token is rather a value than a word, so that it needs no node of its own (DRN-5)."""
    digits = sum(map(str.isdecimal, token))
    if digits and all(char.isdecimal() or char in _HEX or category(char).startswith("P") for char in token):
        return True
    return digits > max(len(token.encode()) // 4, 1)


def _token_end(name: str, at: int) -> int:
    """Where the token that begins here ends."""
    first = name[at]
    if first == "%":
        return at + 3 if len(name) >= at + 3 and _HEX.issuperset(name[at + 1 : at + 3]) else at + 1
    if _is_space(first):
        return _run_end(name, at, _is_space)
    if first in _HEX:
        end = _run_end(name, at, _HEX.__contains__)
        if name[end : end + 1] == "-":
            return _run_end(name, end, _is_hex_or_dash)
    return _run_end(name, at, _is_word) if _is_word(first) else at + 1


def _run_end(name: str, at: int, belongs: Callable[[str], bool]) -> int:
    return next((end for end in range(at + 1, len(name)) if not belongs(name[end])), len(name))


def _is_space(char: str) -> bool:
    return char.isspace() and char not in _NO_SPACES


def _is_word(char: str) -> bool:
    return category(char)[0] in "LN"


def _is_hex_or_dash(char: str) -> bool:
    return char in _HEX or char == "-"


def _path(tokens: Sequence[str]) -> Iterator[str]:
    """The tokens that lead through the tree, below the node of their number, which is its first level."""
    return islice(tokens, min(MAX_DEPTH, len(tokens)) - 1)


def _child(node: Node, token: str) -> Node:
    """The child to which a new cluster's token goes, made if it isn't there (DRN-5)."""
    if looks_like_data(token) or len(node.children) >= MAX_CHILDREN - 1:
        token = WILDCARD
    return node.children.setdefault(token, Node())


def _prune(node: Node, alive: Container[int]) -> bool:
    """Drop what is dead below a node; whether anything is left of it."""
    node.children = {key: child for key, child in node.children.items() if _prune(child, alive)}
    node.clusters = [number for number in node.clusters if number in alive]
    return bool(node.children or node.clusters)


def _walk(key: str, node: Node) -> Iterator[tuple[str, Node]]:
    """A node, then all that is below it."""
    yield key, node
    for child_key, child in node.children.items():
        yield from _walk(child_key, child)


def _rebuild(state: DrainNode, following: Iterator[DrainNode]) -> Node:
    """The node of a state, with its children, which come next."""
    node = Node()
    node.clusters = list(state.clusters)
    for _ in range(state.children):
        child_state = next(following)
        node.children[child_state.key] = _rebuild(child_state, following)
    return node
