"""What a process does about rules that aren't in force: append its own once, or obey."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from agents.config_metrics import ConfigMetrics
from agents.live_config import LiveConfig
from agents.own_metrics import OwnMetrics
from agents.rules_log import PATIENCE_S, Clocks, OtherIntervalError, RulesLog, Verdict, decide
from schemas.config import load_config
from schemas.config.rules import Rules
from schemas.control import ConfigChange
from schemas.rules_in_force import RulesInForce
from streams.rules_in_force import at_window, decided, heard

INTERVAL_MS = 15_000
NOW_S = 1_700_000_012.0
NEXT_END_MS = 1_700_000_025_000


def text(limit: int = 1, revision: int = 0, processors: str = "span-metrics", interval: str = "15s") -> str:
    return (
        f"metrics_generator: {{registry: {{collection_interval: {interval}}}}}\n"
        f"overrides: {{defaults: {{metrics_generator: {{processors: [{processors}], max_active_series: {limit}}}}}}}\n"
        f"spanmill: {{revision: {revision}}}"
    )


def rules(limit: int) -> Rules:
    return Rules.of(load_config(None, text(limit)))


class Partition:
    """A partition of a log, and its owner that reads what is appended when it is told to."""

    def __init__(self, number: int, own: Rules) -> None:
        self.partition = number
        self.rules: RulesInForce | None = RulesInForce.initial(own)
        self.unread: list[ConfigChange] = []
        self.loses = False
        self.others_lag = False

    @property
    def at_end(self) -> bool:
        return not self.unread

    def read(self, end_ms: int = 0) -> None:
        assert self.rules is not None
        for each in self.unread:
            self.rules = heard(self.rules, decided(each, INTERVAL_MS), INTERVAL_MS)
        self.unread = []
        self.rules = at_window(self.rules, end_ms)


class Log:
    """All partitions; `append` reaches those that aren't lost."""

    def __init__(self, *partitions: Partition) -> None:
        self.partitions = partitions
        self.appended: list[ConfigChange] = []

    async def spans_partitions(self) -> int:
        return len(self.partitions)

    async def append(self, change: ConfigChange) -> int:
        self.appended.append(change)
        for each in self.partitions:
            if not each.loses:
                each.unread.append(change)
        return len(self.partitions)

    def read(self, end_ms: int = 0) -> None:
        for each in self.partitions:
            each.read(end_ms)


class Process:
    """A process that owns some partitions."""

    def __init__(self, log: Log, config: str, *owned: int, stage: str = "generator") -> None:
        self.now_s, self.metrics = 0.0, OwnMetrics().config
        self.live = LiveConfig(load_config(None, config), self.metrics)
        clocks = Clocks(lambda: NOW_S + self.now_s, lambda: self.now_s)
        self.rules_log = RulesLog(self.live, log, self.metrics, stage, clocks)
        self.owned = ExitStack()
        for number in owned or range(len(log.partitions)):
            self.owned.enter_context(self.rules_log.followed_by(log.partitions[number]))

    async def look(self, times: int = 1, after_s: float = 0.5) -> None:
        for _ in range(times):
            self.now_s += after_s
            await self.rules_log.look()

    @property
    def obeys(self) -> bool:
        return bool(self.metrics.obeying.labels("generator")._value.get())


def states(*known: tuple[int, Rules]) -> list[RulesInForce]:
    """The state after these revisions, which are in force."""
    state = RulesInForce.initial(rules(0))
    for revision, of in known:
        change = ConfigChange(revision, 0, of.packed, "", 1)
        state = at_window(heard(state, decided(change, INTERVAL_MS), 0), 0)
    return [state]


ONE, TWO, THREE = rules(1), rules(2), rules(3)


@pytest.mark.parametrize(
    ("known", "number", "renewed", "verdict", "revision"),
    [
        ([], 0, False, Verdict.APPEND, 1),
        ([(1, ONE)], 0, False, Verdict.AGREED, 1),
        ([(1, TWO)], 0, False, Verdict.APPEND, 2),
        ([(1, ONE), (2, TWO)], 0, False, Verdict.OBEY, 2),
        ([(1, ONE), (2, TWO)], 0, True, Verdict.APPEND, 3),
        ([(1, ONE), (2, TWO)], 2, False, Verdict.OBEY, 2),
        ([(1, ONE), (2, TWO)], 3, False, Verdict.APPEND, 3),
        ([(1, ONE), (2, TWO)], 2, True, Verdict.APPEND, 3),
        ([(7, TWO)], 5, False, Verdict.OBEY, 7),
        ([], 5, False, Verdict.APPEND, 5),
        ([(7, ONE)], 5, False, Verdict.AGREED, 7),
        ([(7, TWO), (8, ONE)], 0, True, Verdict.AGREED, 8),
    ],
    ids=[
        "a new log", "in force", "new rules", "rules of before", "changed back while running", "the same number",
        "a higher number", "a number and a change", "a lower number", "a number in a new log", "lower and in force",
        "changed to what is in force",
    ],
)  # fmt: skip
def test_own_rules_are_brought_in_if_they_are_new(known, number, renewed, verdict, revision) -> None:
    decision = decide(ONE, states(*known), number=number, renewed=renewed, follows=False)
    assert (decision.verdict, decision.revision) == (verdict, revision)


def test_one_that_follows_brings_in_nothing() -> None:
    assert decide(ONE, states((1, TWO)), number=9, renewed=True, follows=True).verdict is Verdict.OBEY


async def test_a_new_log_gets_the_rules_once_two_windows_ahead_everywhere() -> None:
    log = Log(Partition(0, ONE), Partition(1, ONE))
    process = Process(log, text(1))
    await process.look()
    (change,) = log.appended
    assert (change.revision, change.from_end_ms, change.spans_partitions) == (1, NEXT_END_MS + 2 * INTERVAL_MS, 2)
    assert all(each.unread == [change] for each in log.partitions)
    await process.look(10)
    log.read(change.from_end_ms)
    await process.look(3, PATIENCE_S)
    assert log.appended == [change]
    assert all(each.rules is not None and each.rules.current.revision == 1 for each in log.partitions)


async def test_two_processes_with_different_files_end_with_one_of_them_everywhere() -> None:
    """The log decides: each reads the other's, the higher rank wins, and the other obeys and says so."""
    log = Log(Partition(0, ONE), Partition(1, TWO))
    first, second = Process(log, text(1), 0), Process(log, text(2), 1)
    await first.look()
    log.partitions[1].unread.clear()  # it hasn't come to the first one's yet
    await second.look()
    log.partitions[1].unread.insert(0, log.appended[0])
    log.read(10**15)
    for _ in range(4):
        await first.look(after_s=PATIENCE_S)
        await second.look(after_s=PATIENCE_S)
        log.read(10**15)
    assert [change.revision for change in log.appended] == [1, 1]
    in_force = {each.rules.current.rank for each in log.partitions if each.rules is not None}
    assert in_force == {max((1, ONE.digest), (1, TWO.digest))}
    assert sorted([first.obeys, second.obeys]) == [False, True]


async def test_a_process_with_old_files_obeys_until_its_number_is_higher() -> None:
    log = Log(Partition(0, ONE))
    first = Process(log, text(1))
    await first.look()
    log.read(10**15)
    second = Process(log, text(2))
    await second.look()
    log.read(10**15)
    old = Process(log, text(1))
    await old.look(3, PATIENCE_S)
    assert (old.obeys, len(log.appended)) == (True, 2)
    lower = Process(log, text(1, revision=2))
    await lower.look(3, PATIENCE_S)
    assert (lower.obeys, len(log.appended)) == (True, 2)
    higher = Process(log, text(1, revision=9))
    await higher.look()
    assert log.appended[-1].revision == 9


async def test_what_was_half_appended_is_appended_again_after_a_while() -> None:
    """Its sender crashed; whoever has the same files and sees both kinds of partitions goes on with it."""
    log = Log(Partition(0, ONE), Partition(1, ONE))
    log.partitions[1].loses = True
    first = Process(log, text(1))
    await first.look()
    log.read(10**15)
    log.partitions[1].loses = False
    successor = Process(log, text(1))
    await successor.look(10)
    assert len(log.appended) == 1
    await successor.look(2, PATIENCE_S)
    assert [change.revision for change in log.appended] == [1, 1]
    log.read(10**15)
    await successor.look(3, PATIENCE_S)
    assert len(log.appended) == 2


async def test_one_that_obeys_repeats_what_only_some_of_its_partitions_have() -> None:
    """Whoever appended it is gone for good, and nobody else has those files."""
    log = Log(Partition(0, ONE), Partition(1, ONE))
    old = Process(log, text(1))
    await old.look()
    log.read(10**15)
    log.partitions[1].loses = True
    await Process(log, text(2)).look()
    log.read(10**15)
    log.partitions[1].loses = False
    await old.look(2)
    assert len(log.appended) == 2, "the others may be about to read it"
    await old.look(1, PATIENCE_S)
    first, again = log.appended[1:]
    assert (again.revision, again.rules) == (first.revision, TWO.packed) == (2, first.rules)
    assert old.obeys
    log.read(10**15)
    await old.look(3, PATIENCE_S)
    assert len(log.appended) == 3
    in_force = {each.rules.current.rank for each in log.partitions if each.rules is not None}
    assert in_force == {(2, TWO.digest)}


async def test_a_sink_repeats_rules_by_which_some_of_the_batches_are_not_made() -> None:
    """No generator may own both kinds of partitions; each shard has the batches of all of them."""
    log = Log(Partition(0, ONE))
    sink = Process(log, text(1), stage="sink")
    await sink.look()
    log.read(10**15)
    log.partitions[0].others_lag = True
    await sink.look(2)
    assert len(log.appended) == 1
    await sink.look(1, PATIENCE_S)
    assert [change.revision for change in log.appended] == [1, 1]
    log.read(10**15)
    await sink.look(1, PATIENCE_S)
    assert len(log.appended) == 2, "each time the others get twice as long"
    await sink.look(1, PATIENCE_S)
    assert len(log.appended) == 3
    log.partitions[0].others_lag = False
    await sink.look(9, PATIENCE_S)
    assert len(log.appended) == 3


async def test_growth_is_announced_with_the_rules_that_hold_and_outranks_nothing() -> None:
    log = Log(Partition(0, ONE), Partition(1, ONE))
    process = Process(log, text(1))
    assert log.partitions[0].rules is not None
    await process.rules_log.announce_growth(log.partitions[0].rules)
    assert log.appended == [], "the first rules, which say it too, come first"
    await process.look()
    log.read(10**15)
    known = log.partitions[0].rules
    grown = Log(*log.partitions, Partition(2, ONE))
    newer = Process(grown, text(2))
    process = Process(grown, text(1))
    await newer.look()  # meanwhile, unknown to the one that announces
    process.now_s = 60.0
    await process.rules_log.announce_growth(known)
    await process.rules_log.announce_growth(known)
    (other, change) = grown.appended
    assert (other.revision, other.rules, other.spans_partitions) == (2, TWO.packed, 2)
    assert (change.revision, change.rules, change.spans_partitions) == (1, ONE.packed, 3)
    grown.read(10**15)
    for each in grown.partitions[:2]:
        assert each.rules is not None
        assert each.rules.current.rank == (2, TWO.digest)
        assert each.rules.counts == ((log.appended[0].from_end_ms, 2), (change.from_end_ms, 3))


async def test_later_rules_name_the_partitions_that_are_known_until_the_others_have_joined() -> None:
    log = Log(Partition(0, ONE), Partition(1, ONE))
    await Process(log, text(1)).look()
    log.read(10**15)
    grown = Log(*log.partitions, Partition(2, ONE))
    await Process(grown, text(2), 0, 1).look()
    assert grown.appended[0].spans_partitions == 2


async def test_a_record_that_never_comes_back_is_appended_again() -> None:
    log = Log(Partition(0, ONE))
    log.partitions[0].loses = True
    process = Process(log, text(1))
    await process.look(20)
    assert len(log.appended) == 1
    await process.look(1, PATIENCE_S)
    assert len(log.appended) == 2


async def test_nothing_is_decided_before_a_log_is_read_to_its_end() -> None:
    log = Log(Partition(0, ONE))
    log.partitions[0].unread.append(ConfigChange(1, 0, TWO.packed, "", 1))
    process = Process(log, text(1))
    await process.look(3, PATIENCE_S)
    assert log.appended == []


async def test_a_change_waits_until_the_one_before_is_in_force() -> None:
    log = Log(Partition(0, ONE))
    process = Process(log, text(1))
    await process.look()
    log.read()
    process.live.rules, process.live.renewals = TWO, 1
    await process.look(3, PATIENCE_S / 10)
    assert len(log.appended) == 1
    log.read(log.appended[0].from_end_ms)
    await process.look()
    assert [change.revision for change in log.appended] == [1, 2]


async def test_a_sink_whose_file_says_nothing_of_processors_follows() -> None:
    log = Log(Partition(0, ONE))
    first = Process(log, text(1))
    await first.look()
    log.read(10**15)
    sink = Process(log, text(1, processors=""), stage="sink")
    await sink.look(3, PATIENCE_S)
    assert len(log.appended) == 1
    assert sink.metrics.obeying.labels("sink")._value.get() == 1


def test_another_length_of_windows_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(OtherIntervalError, match="collection_interval is 30s, and the windows of spanmill are of 15s"):
        Process(Log(Partition(0, ONE)), text(1, interval="30s"))


# The file of tenants


def live(file: Path, metrics: ConfigMetrics) -> LiveConfig:
    config = (
        f"overrides: {{per_tenant_override_config: {file}, defaults: {{metrics_generator: {{max_active_series: 3}}}}}}"
    )
    return LiveConfig(load_config(None, config), metrics)


def good(limit: int) -> str:
    return f"overrides:\n  a:\n    metrics_generator:\n      max_active_series: {limit}\n"


def shown(metrics: OwnMetrics, name: str) -> list[str]:
    return [line for line in metrics.exposition().decode().splitlines() if line.startswith(name)]


def test_a_changed_file_is_followed(tmp_path: Path) -> None:
    """OVR-2, INST-3."""
    file, metrics = tmp_path / "tenants.yaml", OwnMetrics()
    file.write_text(good(5))
    config = live(file, metrics.config)
    before = config.rules
    assert shown(metrics, 'tempo_limits_overrides{limit_name="metrics_generator_max_active_series"') == [
        'tempo_limits_overrides{limit_name="metrics_generator_max_active_series",user="a"} 5.0'
    ]
    config.reload()
    assert (config.rules, config.renewals) == (before, 0)
    file.write_text(good(6))
    config.reload()
    assert config.rules.settings_of("a").limits.max_active_series == 6
    assert (config.rules != before, config.renewals) == (True, 1)
    file.write_text(good(6) + "# a comment\n")
    config.reload()
    assert config.renewals == 1
    assert len(shown(metrics, "tempo_runtime_config_hash{")) == 1
    assert config.current.runtime.sha256 in shown(metrics, "tempo_runtime_config_hash{")[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            good(5).replace("max_active_series", "max_series"),
            "tenants.yaml:4: overrides.a.metrics_generator.max_series",
        ),
        ("overrides: [", "tenants.yaml:1:"),
        (None, "tenants.yaml: can't be read"),
    ],
    ids=["unknown key", "not YAML", "no file"],
)
def test_a_broken_file_keeps_the_last_good_one_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, says: str
) -> None:
    """OVR-2, INST-3, INST-10: what can't be used is found before anything follows it."""
    file, metrics = tmp_path / "tenants.yaml", OwnMetrics()
    file.write_text(good(5))
    config = live(file, metrics.config)
    before, current = config.rules, config.current
    file.unlink() if text is None else file.write_text(text)
    for _ in range(3):
        config.reload()
    assert (config.rules, config.current, config.renewals) == (before, current, 0)
    assert shown(metrics, "tempo_runtime_config_last_reload_successful") == [
        "tempo_runtime_config_last_reload_successful 0.0"
    ]
    assert shown(metrics, "tempo_metrics_generator_active_processors_update_failed_total") == [
        'tempo_metrics_generator_active_processors_update_failed_total{tenant="a"} 3.0'
    ]
    output = capsys.readouterr()
    assert (output.out + output.err).count(says) == 1, "once, not every time"
    file.write_text(good(5))
    config.reload()
    assert shown(metrics, "tempo_runtime_config_last_reload_successful")[0].endswith(" 1.0")
    assert config.renewals == 0


def test_active_processors_are_shown_by_their_names() -> None:
    """INST-11: parts of processors, which are settings of theirs, are always 0."""
    metrics = OwnMetrics()
    named = "overrides: {defaults: {metrics_generator: {processors: [span-metrics-count, host-info]}}}"
    settings = Rules.of(load_config(None, named)).settings_of("a")
    metrics.config.show_processors("a", settings)
    lines = dict(line.rsplit(" ", 1) for line in shown(metrics, "tempo_metrics_generator_active_processors{"))
    active = {name.split('"')[1] for name, value in lines.items() if value == "1.0"}
    assert (active, len(lines)) == ({"span-metrics", "host-info"}, 9)
    metrics.config.show_processors("a", rules(1).settings_of("a"))
    lines = dict(line.rsplit(" ", 1) for line in shown(metrics, "tempo_metrics_generator_active_processors{"))
    assert {name.split('"')[1] for name, value in lines.items() if value == "1.0"} == {"span-metrics"}
