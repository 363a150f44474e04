"""Span names of label sets as patterns (Tempo DRN-1, DRN-2, DRN-8), and what is counted of it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.labels import decode_labels, encode_labels
from schemas.ledger_counters import REGISTRY
from schemas.limiters import DrainState
from streams.drain import MIN_TOKENS, Drain

SPANS_SANITIZED = f"{REGISTRY}spans_sanitized_total"
PATTERNS_DETECTED = f"{REGISTRY}drain_patterns_detected_total"
PATTERNS_EVICTED = f"{REGISTRY}drain_patterns_evicted_total"
PATTERNS_EXPIRED = f"{REGISTRY}drain_patterns_expired_total"
LINES_SKIPPED = f"{REGISTRY}drain_lines_skipped_total"
LINES = f"{REGISTRY}drain_tokens_per_line_count"
TOKENS = f"{REGISTRY}drain_tokens_per_line_sum"
"""Tempo's histogram as what is exact of one: a ledger has integers, so a mean is to be had, and no buckets."""

MAX_CACHED_LABEL_SETS = 200_000
_LABEL = "span_name"
_TOO_FEW, _TOO_MANY = (("reason", "too_few_tokens"),), (("reason", "too_many_tokens"),)


Labels = tuple[tuple[str, str], ...]


class Sanitized(NamedTuple):
    """What label sets became, and what is counted of it: by counter and its labels."""

    sets: list[bytes]
    counts: Mapping[tuple[str, Labels], int]


class SpanNameSanitizer:
    """The patterns of a tenant's span names. While it is off, nothing is learnt and nothing forgotten (DRN-1)."""

    def __init__(self) -> None:
        self._drain = Drain()
        # Both of label sets that came lately; they decide nothing.
        self._names: dict[bytes, str] = {}
        self._renamed: dict[tuple[bytes, str], bytes] = {}

    def sanitize(self, sets: Sequence[bytes]) -> Sanitized:
        """What these label sets become, each learnt in its turn; those without a span name stay (DRN-2)."""
        detected, evicted = self._drain.detected, self._drain.evicted
        known = map(self._names.get, sets)
        names = [self._name(labels) if name is None else name for labels, name in zip(sets, known, strict=True)]
        seen = [self._drain.see(name) for name in names]
        sanitized = [
            labels if each.text == name else self._with_name(labels, each.text)
            for labels, name, each in zip(sets, names, seen, strict=True)
        ]
        lines = [each.tokens for each in seen if each.cluster is not None]
        too_few = sum(each.tokens < MIN_TOKENS for each in seen)
        counts = {
            (PATTERNS_DETECTED, ()): self._drain.detected - detected,
            (PATTERNS_EVICTED, ()): self._drain.evicted - evicted,
            (SPANS_SANITIZED, ()): sum(map(bytes.__ne__, sets, sanitized)),
            (LINES, ()): len(lines),
            (TOKENS, ()): sum(lines),
            (LINES_SKIPPED, _TOO_FEW): too_few,
            (LINES_SKIPPED, _TOO_MANY): len(seen) - len(lines) - too_few,
        }
        return Sanitized(sanitized, {counter: count for counter, count in counts.items() if count})

    def prune(self) -> None:
        """Drop what of the tree leads to no pattern any more (DRN-9)."""
        self._drain.prune()

    def state(self) -> DrainState:
        """All of it, immutable."""
        return self._drain.state()

    def restore(self, state: DrainState) -> None:
        """Put back what `state` gave."""
        self._drain.restore(state)

    def _name(self, labels: bytes) -> str:
        if len(self._names) >= MAX_CACHED_LABEL_SETS:
            self._names.clear()
        name = self._names[labels] = dict(decode_labels(labels)).get(_LABEL, "")
        return name

    def _with_name(self, labels: bytes, name: str) -> bytes:
        renamed = self._renamed.get((labels, name))
        if renamed is None:
            if len(self._renamed) >= MAX_CACHED_LABEL_SETS:
                self._renamed.clear()
            pairs = ((key, name if key == _LABEL else value) for key, value in decode_labels(labels))
            renamed = self._renamed[labels, name] = encode_labels(pairs)
        return renamed
