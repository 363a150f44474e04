"""Bringing a process' rules into the log (architecture.md, "Config").

Each partition's state says which rules it follows. A process whose own are others appends them to all partitions of
both topics, in force from one window on, or obeys: which of the two is decided here, and what was appended takes effect
only when it is read back.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.metadata import version
from typing import Protocol

import structlog
from confluent_kafka import KafkaException

from agents import kafka
from agents.config_metrics import ConfigMetrics
from agents.live_config import LiveConfig
from agents.log_probe import LogProbe
from agents.producer import Producer
from agents.topics import TopicNames
from schemas.config import Config
from schemas.config.durations import duration_text
from schemas.config.rules import Rules
from schemas.control import ConfigChange
from schemas.control_format import ControlKeys
from schemas.rules_in_force import RulesInForce
from streams.windows import window_end

log = structlog.get_logger(__name__)

POLL_S = 0.5
PATIENCE_S = 30.0
"""How long what was appended may take until it is read back; until then it isn't appended again."""
MOST_REPEATS = 10
"""Patience doubles so often: a process of an older program may never follow."""
WINDOWS_AHEAD = 2
"""Every partition should have read a change before the window from which it holds."""


class OtherIntervalError(Exception):
    """The configuration has windows of another length than the app."""


class Verdict(StrEnum):
    """What a process does about its own rules."""

    AGREED = "agreed"
    """They are in force, or will be."""
    APPEND = "append"
    """They are to be brought in, with a revision of their own."""
    REPEAT = "repeat"
    """The newest are in some partitions and not in others: whoever appended them didn't finish."""
    OBEY = "obey"
    """Others are in force, and nothing says that ours are newer."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, and the revision and rules that it concerns: ours to be, or those that are in the log."""

    verdict: Verdict
    revision: int
    rules: Rules


def decide(
    own: Rules, states: Sequence[RulesInForce], *, number: int, renewed: bool, follows: bool, elsewhere: bool = False
) -> Decision:
    """What to do, from the states of partitions that were read to their end, at least one.

    `number` is the operator's (`spanmill.revision`, 0: none). Rules that the log has named before are old ones, of a
    process that was started with old files, unless the number says otherwise or they were just `renewed`: the file
    changed while this process ran. One that only `follows` brings in nothing. The newest rules are repeated by anyone
    who sees that they aren't everywhere, whose ever they are: their writer may be gone. `elsewhere`: whether partitions
    that aren't among the states are known to follow older ones.
    """
    newest = max((state.newest for state in states), key=lambda decided: decided.rank)
    known = any(own.digest == digest for state in states for _, digest in state.seen)
    agreed = bool(newest.revision) and newest.rules == own
    if not agreed and not follows and (renewed or (number > newest.revision if number else not known)):
        return Decision(Verdict.APPEND, max(number, newest.revision + 1), own)
    if newest.revision and (elsewhere or any(state.newest.rank != newest.rank for state in states)):
        return Decision(Verdict.REPEAT, newest.revision, newest.rules)
    return Decision(Verdict.AGREED if agreed else Verdict.OBEY, newest.revision, newest.rules)


class Follower(Protocol):
    """An owner of a partition, as far as its rules go."""

    @property
    def partition(self) -> int:
        """Its number."""

    @property
    def rules(self) -> RulesInForce | None:
        """The rules that it follows; None before it has begun."""

    @property
    def at_end(self) -> bool:
        """Whether it has read its log to the end."""

    @property
    def others_lag(self) -> bool:
        """Whether its log shows that other partitions follow older rules than they should by now."""


class Topics(Protocol):
    """Both topics, as far as rules go."""

    async def spans_partitions(self) -> int:
        """How many partitions the spans topic has."""

    async def append(self, change: ConfigChange) -> int:
        """Append a record to all partitions of both; gives how many those are, when all of them have it.

        To the deltas topic first: so if only some generators get rules, sinks have them, see that and repeat them.
        """


class KafkaTopics:
    """The topics of a configuration."""

    def __init__(self, config: Config, keys: ControlKeys) -> None:
        self._settings, self._names, self._keys = kafka.producer_settings(config), TopicNames.of(config), keys
        self._probe = LogProbe(kafka.client_settings(config))

    async def spans_partitions(self) -> int:
        """Asked anew each time."""
        return await self._probe.partitions(self._names.spans)

    async def append(self, change: ConfigChange) -> int:
        """With a producer of its own, which is rarely needed."""
        topics = {name: await self._probe.partitions(name) for name in (self._names.deltas, self._names.spans)}
        producer = Producer(self._settings)
        try:
            for topic, partitions in topics.items():
                formats = [self._keys.at(topic, partition) for partition in range(partitions)]
                sent = [await producer.send(topic, f.partition, b"", headers=f.headers(change)) for f in formats]
                await asyncio.gather(*sent)
        finally:
            await asyncio.to_thread(producer.close)
        return sum(topics.values())


@dataclass(frozen=True, slots=True)
class Clocks:
    """The time of day for windows, and one that only goes on for patience; in seconds."""

    now_s: Callable[[], float] = time.time
    elapsed_s: Callable[[], float] = time.monotonic


class RulesLog:
    """Watches the partitions that a process owns, and appends its rules when that is called for."""

    def __init__(
        self,
        live: LiveConfig,
        topics: Topics,
        metrics: ConfigMetrics,
        stage: str,
        clocks: Clocks = Clocks(),
    ) -> None:
        self._live, self._topics, self._metrics, self._stage, self._clocks = live, topics, metrics, stage, clocks
        self._followers: list[Follower] = []
        self._renewals = 0
        self._pending: Decision | None = None
        self._since = 0.0
        self._obeyed: tuple[int, str] | None = None
        self._grew_at: float | None = None
        self._repeats = 0

    @contextlib.contextmanager
    def followed_by(self, follower: Follower) -> Iterator[None]:
        """Watch a partition for the time of the context. Raises `OtherIntervalError` if ours can't hold for it."""
        self._check_interval(follower)
        self._followers.append(follower)
        try:
            yield
        finally:
            self._followers.remove(follower)
            with contextlib.suppress(KeyError):
                self._metrics.revision.remove(self._stage, str(follower.partition))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do it for the time of the context."""
        task = asyncio.create_task(self._run(), name=f"rules-{self._stage}")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _check_interval(self, follower: Follower) -> None:
        in_force = follower.rules
        own_ms = self._live.rules.interval_ms
        if in_force is not None and in_force.current.rules.interval_ms != own_ms:
            app_ms = in_force.current.rules.interval_ms
            raise OtherIntervalError(
                f"metrics_generator.registry.collection_interval is {_text(own_ms)}, and the windows of "
                f"{self._live.current.spanmill.app_id} are of {_text(app_ms)}, which can't change while the app lives: "
                f"write {_text(app_ms)}, or begin anew with another spanmill.app_id"
            )

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.look()
            except (KafkaException, OSError, TimeoutError) as error:
                log.warning("the rules could not be appended, trying again", error=str(error))

    async def look(self) -> None:
        """Look at the partitions once, and do what is called for."""
        for follower in self._followers:
            if follower.rules is not None:
                revision = follower.rules.current.revision
                self._metrics.revision.labels(self._stage, follower.partition).set(revision)
        read = [follower for follower in self._followers if follower.rules is not None and follower.at_end]
        states = [follower.rules for follower in read if follower.rules is not None]
        if not states:
            return
        own, renewals = self._live.rules, self._live.renewals
        decision = decide(
            own,
            states,
            number=self._live.current.spanmill.revision,
            renewed=renewals > self._renewals,
            # A sink may have a file of its own that says nothing of processors.
            follows=self._stage == "sink" and not own.measures,
            elsewhere=any(follower.others_lag for follower in read),
        )
        obeys = decision.rules != own or (decision.verdict is Verdict.OBEY)
        self._metrics.obeying.labels(self._stage).set(obeys)
        if obeys:
            self._say_obeying(own, decision)
        if decision.verdict is Verdict.AGREED:
            self._renewals = renewals
        if decision.verdict in {Verdict.AGREED, Verdict.OBEY}:
            if len(states) == len(self._followers):  # else one that disagrees may only not be at its end just now
                self._pending, self._repeats = None, 0
        elif self._is_time(decision, states):
            self._pending, self._since = decision, self._clocks.elapsed_s()
            await self._append(decision, states)
            self._renewals = renewals

    async def announce_growth(self, known: RulesInForce) -> None:
        """Append that the spans topic has more partitions than what is `known` says; the rules stay as they are.

        What is known may be old: the record has no revision of its own, so it can't outrank anything.
        """
        now = self._clocks.elapsed_s()
        if not known.newest.revision or (self._grew_at is not None and now - self._grew_at < PATIENCE_S):
            return
        self._grew_at = now
        newest, partitions = known.newest, await self._topics.spans_partitions()
        change = self._change(newest.revision, newest.rules, partitions)
        await self._topics.append(change)
        log.info("the spans topic has grown", partitions=partitions, from_end_ms=change.from_end_ms)

    def _is_time(self, decision: Decision, states: Sequence[RulesInForce]) -> bool:
        """Whether to append now: nothing is on its way, and what others have decided is in force."""
        now, pending = self._clocks.elapsed_s(), self._pending
        if decision.verdict is Verdict.REPEAT:
            return self._is_time_again(decision, now)
        read_back = pending is not None and all(state.newest.revision >= pending.revision for state in states)
        if pending is not None and not read_back and now - self._since < PATIENCE_S:
            return False
        soon = self._from_end_ms() + self._live.rules.interval_ms
        return not any(each.from_end_ms <= soon for state in states for each in state.coming)

    def _is_time_again(self, decision: Decision, now: float) -> bool:
        """Whether others have had the time to read what they seem to lack; each time they get twice as much."""
        if self._pending != decision:
            self._pending, self._since, self._repeats = decision, now, 0
            return False
        if now - self._since < PATIENCE_S * (1 << self._repeats):
            return False
        self._repeats = min(self._repeats + 1, MOST_REPEATS)
        return True

    def _from_end_ms(self) -> int:
        interval_ms = self._live.rules.interval_ms
        return window_end(int(self._clocks.now_s() * 1000), interval_ms) + WINDOWS_AHEAD * interval_ms

    def _change(self, revision: int, rules: Rules, spans_partitions: int) -> ConfigChange:
        return ConfigChange(revision, self._from_end_ms(), rules.packed, _own_version(), spans_partitions)

    async def _append(self, decision: Decision, states: Sequence[RulesInForce]) -> None:
        """Append rules, with the count that is known: a topic that grows is a matter of its own (growth.py)."""
        known = max((count for state in states for _, count in state.counts), default=0)
        count = known or await self._topics.spans_partitions()
        change = self._change(decision.revision, decision.rules, count)
        partitions = await self._topics.append(change)
        self._metrics.announced.labels(self._stage).inc()
        log.info(
            "rules appended to the log",
            revision=change.revision,
            digest=decision.rules.digest,
            from_end_ms=change.from_end_ms,
            partitions=partitions,
            again=decision.verdict is Verdict.REPEAT,
        )

    def _say_obeying(self, own: Rules, decision: Decision) -> None:
        if self._obeyed == (decision.revision, own.digest):
            return
        self._obeyed = decision.revision, own.digest
        log.warning(
            "the log has other rules than this process' files: following the log",
            revision=decision.revision,
            digest=decision.rules.digest,
            own_digest=own.digest,
            what_to_do=(
                f"if these files are right, set spanmill.revision to {decision.revision + 1} or more; else update them"
            ),
        )


def _text(interval_ms: int) -> str:
    return duration_text(interval_ms * 1_000_000)


@cache
def _own_version() -> str:
    """The program's version; reading the package's metadata takes milliseconds."""
    return version("spanmill")
