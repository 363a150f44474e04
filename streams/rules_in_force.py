"""How configuration records of a log change the rules in force, wherever that log is read.

Any reader that has seen the same records follows the same rules, in whatever order they came and however often.
"""

from dataclasses import replace

from schemas.config.rules import Rules
from schemas.control import ConfigChange
from schemas.errors import Malformed, Reason
from schemas.rules_in_force import Decided, RulesInForce

SEEN_AT_MOST = 256
"""Rules that are known to have been named: whoever starts with older ones than these brings them in once more."""


def decided(change: ConfigChange, interval_ms: int) -> Decided:
    """What a record decides. Raises Malformed if the rules can't be read, or have windows of another length."""
    rules = Rules.unpack(change.rules)
    if rules.interval_ms != interval_ms:
        raise Malformed(
            Reason.FIELD,
            f"rules of revision {change.revision} with a collection_interval of {rules.interval_ms} ms, where windows "
            f"are of {interval_ms} ms: it can't change while an app lives",
        )
    return Decided(change.revision, change.from_end_ms, rules, change.program, change.spans_partitions)


def heard(state: RulesInForce, change: Decided, earliest_ms: int) -> RulesInForce:
    """The state after a record; it holds from `earliest_ms` on at the earliest, which is after the open window."""
    seen = tuple(sorted({*state.seen, (change.revision, change.rules.digest)})[-SEEN_AT_MOST:])
    change = replace(change, from_end_ms=max(change.from_end_ms, earliest_ms))
    newest = state.newest
    if change.rank > newest.rank:
        return RulesInForce(state.current, change, seen)
    if state.next is not None and change.rank == newest.rank and change.from_end_ms < newest.from_end_ms:
        return RulesInForce(state.current, replace(newest, from_end_ms=change.from_end_ms), seen)
    return replace(state, seen=seen)


def at_window(state: RulesInForce, end_ms: int) -> RulesInForce:
    """The state in the window that ends then."""
    if state.next is None or state.next.from_end_ms > end_ms:
        return state
    return RulesInForce(state.next, None, state.seen)
