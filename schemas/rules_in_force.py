"""Which rules a reader of a log follows: part of the state of every partition and every shard."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from schemas import rules_in_force_pb2 as pb
from schemas.config.rules import MAX_PACKED_BYTES, Rules
from schemas.errors import Malformed, Reason

SEEN_AT_MOST = 256
"""Rules that are known to have been named: whoever starts with older ones than these brings them in once more."""
COMING_AT_MOST = 4
"""Rules that wait for their window. More are never written in time; those of the highest rank are kept."""
MAX_RULES_BYTES = (1 + COMING_AT_MOST) * (MAX_PACKED_BYTES + 200) + SEEN_AT_MOST * 40 + 10_000
"""What rules in force are encoded in, at most: packed ones with their numbers, digests, and counts for 500 growths."""

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Decided:
    """Rules that a configuration record names, or with which a log was begun (revision 0).

    They hold from the window that ends at `from_end_ms` on. `program` and `spans_partitions` are their writer's.
    """

    revision: int
    from_end_ms: int
    rules: Rules
    program: str = ""
    spans_partitions: int = 0

    @property
    def rank(self) -> tuple[int, str]:
        """The highest wins, in any order of arrival: of two writers with one revision the digest decides."""
        return self.revision, self.rules.digest


@dataclass(frozen=True, slots=True)
class RulesInForce:
    """The rules of the open window, those that are known to follow, and which ones the log has named before."""

    current: Decided
    coming: tuple[Decided, ...] = ()
    """Ascending, by window and by rank."""
    seen: tuple[tuple[int, str], ...] = ()
    """Revision and digest, ascending; the newest ones."""
    counts: tuple[tuple[int, int], ...] = ()
    """From which window (its end) on `[spans]` has how many partitions: ascending in both, never forgotten. From 0 on,
    if it was known when the log was begun. It only grows, so unlike rules it doesn't depend on who outranks whom."""

    @property
    def newest(self) -> Decided:
        """What holds in the end, as far as is known."""
        return self.coming[-1] if self.coming else self.current

    @classmethod
    def initial(cls, rules: Rules, revision: int = 0, spans_partitions: int = 0) -> "RulesInForce":
        """Of a log that names none yet."""
        counts = ((0, spans_partitions),) if spans_partitions else ()
        return cls(Decided(revision, 0, rules, spans_partitions=spans_partitions), counts=counts)

    def spans_partitions(self, end_ms: int) -> int:
        """How many partitions `[spans]` has in the window that ends then; 0 if that isn't known."""
        return max((count for from_end_ms, count in self.counts if from_end_ms <= end_ms), default=0)

    def joined_ms(self, partition: int) -> int | None:
        """The first window of a partition of `[spans]`; 0 if it was there from the beginning, None if it isn't yet."""
        return next((from_end_ms for from_end_ms, count in self.counts if count > partition), None)


def encode_rules(state: RulesInForce) -> bytes:
    """A message; the same for equal states."""
    message = pb.RulesInForce(
        current=_decided(state.current),
        coming=[_decided(each) for each in state.coming],
        seen=[pb.Seen(revision=revision, digest=bytes.fromhex(digest)) for revision, digest in state.seen],
        counts=[pb.Count(from_end_ms=from_end_ms, spans_partitions=count) for from_end_ms, count in state.counts],
    )
    return message.SerializeToString(deterministic=True)


def decode_rules(value: bytes) -> RulesInForce:
    """What `encode_rules` encoded. Raises Malformed for anything else."""
    try:
        message = pb.RulesInForce.FromString(value)
    except DecodeError as error:
        raise Malformed(Reason.ENVELOPE, "no rules in force") from error
    if not message.HasField("current") or any(len(each.digest) != _DIGEST_BYTES for each in message.seen):
        raise Malformed(Reason.FIELD, "rules in force that aren't whole")
    return RulesInForce(
        current=_read(message.current),
        coming=tuple(_read(each) for each in message.coming),
        seen=tuple((each.revision, each.digest.hex()) for each in message.seen),
        counts=tuple((each.from_end_ms, each.spans_partitions) for each in message.counts),
    )


def _decided(decided: Decided) -> pb.Decided:
    return pb.Decided(
        revision=decided.revision,
        from_end_ms=decided.from_end_ms,
        rules=decided.rules.packed,
        program=decided.program,
        spans_partitions=decided.spans_partitions,
    )


def _read(message: pb.Decided) -> Decided:
    rules = Rules.unpack(message.rules)
    return Decided(message.revision, message.from_end_ms, rules, message.program, message.spans_partitions)
