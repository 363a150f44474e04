"""What a scenario did and found."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.faults.deployment import Exit
from tests.faults.verdict import Difference


@dataclass(frozen=True)
class Fault:
    """Something that was done to the deployment, and how long until every shard had written a window from after it."""

    what: str
    at: float
    resumed_after_s: float | None = None


@dataclass
class Report:
    """The result of a scenario; `str` of it is a table."""

    scenario: str
    seed: int
    faults: list[Fault] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    restarts: int = 0
    spans: int = 0
    seconds: float = 0.0
    samples: int = 0
    resident_mb: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Median and greatest memory by instance."""
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rate = self.spans / max(self.seconds, 1)
        lines = [
            f"scenario     {self.scenario} (seed {self.seed})",
            f"load         {self.spans} spans, {rate:.0f} a second for {self.seconds:.0f} s",
            f"faults       {len(self.faults)}, processes started again {self.restarts} times",
            *self._resume_lines(),
            *(f"exit         {each.instance} with {each.code}: {each.last_line}" for each in self.exits),
            *(f"memory       {name}: {mid} MB, at most {most} MB" for name, (mid, most) in self.resident_mb.items()),
            *(f"note         {note}" for note in self.notes),
            f"samples      {self.samples} compared with the truth and with a replay",
            f"differences  {len(self.differences)}",
            *(f"  {each}" for each in self.differences),
        ]
        return "\n".join(lines)

    def _resume_lines(self) -> list[str]:
        """One line per kind of fault."""
        kinds: dict[str, list[Fault]] = {}
        for fault in self.faults:
            kinds.setdefault(fault.what, []).append(fault)
        return [_resume_line(what, faults) for what, faults in sorted(kinds.items())]


def _resume_line(what: str, faults: Sequence[Fault]) -> str:
    took = sorted(each.resumed_after_s for each in faults if each.resumed_after_s is not None)
    if not took:
        return f"  {len(faults):4} x {what}: no window after it"
    return f"  {len(faults):4} x {what}: next window after {took[len(took) // 2]:.1f} s, at most {took[-1]:.1f} s"
