"""What limiters, estimates and the sanitiser of span names know of a tenant in a shard: as values, and in snapshots."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas import snapshot_pb2 as pb
from schemas.errors import Malformed, Reason

REGISTERS = 1 << 10
"""Registers of a sketch, a byte each."""
WORDS = REGISTERS // 8
"""The 64-bit words of a sketch; a hash may stand in each, too."""
MAX_EXACT = 96
"""Hashes that stand in a sketch's place, three quarters of what there is room for."""
DENSE = -1
_LAST_RANK = 55
_WORD_BYTES = 8


class SketchPeriod(NamedTuple):
    """One sketch for each of the first keys, one behind the other, for one period.

    `words` are `WORDS` of each, and `counts` how many hashes are among them, -1 where there are registers.
    """

    period: int
    words: bytes
    counts: tuple[int, ...]


class Sketches(NamedTuple):
    """Sliding sketches: keys in the order of their rows, periods ascending."""

    keys: tuple[str, ...] = ()
    periods: tuple[SketchPeriod, ...] = ()


class DemandState(NamedTuple):
    """Estimates of demand (Tempo LIM-8); `costs` are the series of a label set, by metric, sorted."""

    sketches: Sketches = Sketches()
    costs: tuple[tuple[int, int], ...] = ()


class LabelState(NamedTuple):
    """The limit of labels' values (LIM-9): the last estimates, and the labels that were over the limit then."""

    sketches: Sketches = Sketches()
    estimates: tuple[tuple[str, int], ...] = ()
    over: tuple[str, ...] = ()


class DrainCluster(NamedTuple):
    """A pattern of span names; names with equal places in the tree may be of one."""

    number: int
    tokens: tuple[str, ...]


class DrainNode(NamedTuple):
    """A node of the tree, and how many of the next ones are its children; `clusters` of a leaf, dead ones included."""

    key: str
    children: int
    clusters: tuple[int, ...] = ()


class DrainState(NamedTuple):
    """The sanitiser of span names (DRN-5): clusters, the one that wasn't seen for longest first, and the tree.

    The tree's nodes come parents first, each followed by all that is below it.
    """

    next_number: int = 0
    clusters: tuple[DrainCluster, ...] = ()
    nodes: tuple[DrainNode, ...] = (DrainNode("", 0),)


class LimiterState(NamedTuple):
    """All of a tenant."""

    tenant: str
    demand: DemandState = DemandState()
    labels: LabelState = LabelState()
    span_names: DrainState = DrainState()


def limiter_message(state: LimiterState) -> pb.TenantLimiters:
    """The state as a part of a snapshot."""
    return pb.TenantLimiters(
        tenant=state.tenant,
        demand=_sketches_message(state.demand.sketches),
        costs=dict(state.demand.costs),
        labels=_sketches_message(state.labels.sketches),
        label_estimates=dict(state.labels.estimates),
        labels_over=state.labels.over,
        span_names=_drain_message(state.span_names),
    )


def limiter_state(message: pb.TenantLimiters) -> LimiterState:
    """What `limiter_message` was given. Raises Malformed for what it doesn't make."""
    return LimiterState(
        tenant=message.tenant,
        demand=DemandState(_sketches(message.demand), tuple(sorted(message.costs.items()))),
        labels=LabelState(
            _sketches(message.labels), tuple(sorted(message.label_estimates.items())), tuple(message.labels_over)
        ),
        span_names=_drain(message.span_names),
    )


def _sketches_message(sketches: Sketches) -> pb.Sketches:
    periods = [pb.SketchPeriod(period=each.period, words=each.words, counts=each.counts) for each in sketches.periods]
    return pb.Sketches(keys=sketches.keys, periods=periods)


def _sketches(message: pb.Sketches) -> Sketches:
    keys = tuple(message.keys)
    periods = tuple(SketchPeriod(each.period, each.words, tuple(each.counts)) for each in message.periods)
    if len(set(keys)) < len(keys) or any(a.period >= b.period for a, b in pairwise(periods)):
        raise Malformed(Reason.FIELD, "sketches with a key twice, or out of order")
    if not all(_is_period(each, len(keys)) for each in periods):
        raise Malformed(Reason.FIELD, "words that aren't a sketch's")
    return Sketches(keys, periods)


def _is_period(period: SketchPeriod, keys: int) -> bool:
    """Whether the words are what the counts say: otherwise who inserts may look for a free one for ever."""
    words = np.frombuffer(period.words, "<u8") if len(period.words) % _WORD_BYTES == 0 else np.empty(0, np.uint64)
    if len(period.counts) > keys or len(words) != WORDS * len(period.counts) or len(period.words) != 8 * len(words):
        return False
    of_keys = zip(words.reshape(-1, WORDS), period.counts, strict=True)
    return all(_is_sketch(sketch, count) for sketch, count in of_keys)


def _is_sketch(words: npt.NDArray[np.uint64], count: int) -> bool:
    if count == DENSE:
        return int(words.view(np.uint8).max()) <= _LAST_RANK
    return count == int(np.count_nonzero(words)) and count <= MAX_EXACT


def _drain_message(state: DrainState) -> pb.SpanNames:
    return pb.SpanNames(
        next_number=state.next_number,
        clusters=[pb.Cluster(number=number, tokens=tokens) for number, tokens in state.clusters],
        nodes=[pb.TokenNode(key=key, children=children, clusters=found) for key, children, found in state.nodes],
    )


def _drain(message: pb.SpanNames) -> DrainState:
    state = DrainState(
        next_number=message.next_number,
        clusters=tuple(DrainCluster(each.number, tuple(each.tokens)) for each in message.clusters),
        nodes=tuple(DrainNode(each.key, each.children, tuple(each.clusters)) for each in message.nodes),
    )
    _check_tree(state.nodes)
    numbers = {cluster.number for cluster in state.clusters}
    if len(numbers) < len(state.clusters) or max(numbers, default=-1) >= state.next_number:
        raise Malformed(Reason.FIELD, "clusters of span names with a number twice, or one that isn't given yet")
    return state


def _check_tree(nodes: Sequence[DrainNode]) -> None:
    """Raises Malformed unless the nodes are one tree."""
    # How many nodes are announced and missing after each node.
    missing = list(accumulate((node.children - 1 for node in nodes), initial=1))
    if missing[-1] != 0 or 0 in missing[:-1]:
        raise Malformed(Reason.FIELD, "span names' nodes that aren't one tree")
