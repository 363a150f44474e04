"""How configuration records of a log change the rules in force, wherever that log is read.

In a window those of the highest rank hold among all that name it or an earlier one. So any reader that has seen the
same records follows the same rules, in whatever order they came and however often.
"""

from dataclasses import replace

from schemas.config.rules import Rules
from schemas.control import ConfigChange
from schemas.errors import Malformed, Reason
from schemas.rules_in_force import COMING_AT_MOST, SEEN_AT_MOST, Decided, RulesInForce

PROGRAM_CHARACTERS = 40
"""What is kept of a version: it's for people, and a checkpoint has its limit."""


def decided(change: ConfigChange, interval_ms: int) -> Decided:
    """What a record decides. Raises Malformed if the rules can't be read, or have windows of another length."""
    rules = Rules.unpack(change.rules)
    if rules.interval_ms != interval_ms:
        raise Malformed(
            Reason.FIELD,
            f"rules of revision {change.revision} with a collection_interval of {rules.interval_ms} ms, where windows "
            f"are of {interval_ms} ms: it can't change while an app lives",
        )
    program = change.program[:PROGRAM_CHARACTERS]
    return Decided(change.revision, change.from_end_ms, rules, program, change.spans_partitions)


def heard(state: RulesInForce, change: Decided, earliest_ms: int) -> RulesInForce:
    """The state after a record; it holds from `earliest_ms` on at the earliest, which is after the open window."""
    seen = tuple(sorted({*state.seen, (change.revision, change.rules.digest)})[-SEEN_AT_MOST:])
    change = replace(change, from_end_ms=max(change.from_end_ms, earliest_ms))
    coming: list[Decided] = []
    for each in sorted({*state.coming, change}, key=_by_rank, reverse=True):
        held_off = coming and each.from_end_ms >= coming[-1].from_end_ms  # one that holds as early outranks it
        if each.rank > state.current.rank and not held_off:
            coming.append(each)
    counts = _counted(state.counts, change.from_end_ms, change.spans_partitions)
    return RulesInForce(state.current, tuple(coming[:COMING_AT_MOST][::-1]), seen, counts)


def at_window(state: RulesInForce, end_ms: int) -> RulesInForce:
    """The state in the window that ends then."""
    due = sum(each.from_end_ms <= end_ms for each in state.coming)
    return replace(state, current=state.coming[due - 1], coming=state.coming[due:]) if due else state


def _counted(counts: tuple[tuple[int, int], ...], from_end_ms: int, count: int) -> tuple[tuple[int, int], ...]:
    """The counts with another one, which changes nothing from where as many are known already."""
    known: list[tuple[int, int]] = []
    for each in sorted({*counts, (from_end_ms, count)}, key=lambda each: (each[0], -each[1])):
        if each[1] > (known[-1][1] if known else 0):
            known.append(each)
    return tuple(known)


def _by_rank(decided: Decided) -> tuple[int, str, int, int, str]:
    """Of records with the same rules the one that holds first counts."""
    return *decided.rank, -decided.from_end_ms, decided.spans_partitions, decided.program
