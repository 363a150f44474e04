"""Log lines."""

import logging

import pytest
import structlog

from agents import logs


@pytest.fixture(autouse=True)
def _unconfigured():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]  # without the time


def test_a_line_has_a_key_for_each_value(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    structlog.get_logger("agents.x").info("partitions assigned", topic="spans", partitions=[0, 1])
    structlog.get_logger("agents.x").debug("not shown")
    assert lines(capsys) == ['level=info event="partitions assigned" topic=spans partitions="[0, 1]"']


def test_libraries_write_the_same_lines_but_repeat_themselves_only_after_a_while(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure()
    for node in range(100):
        logging.getLogger("aiokafka.conn").error("Unable to connect to node %s", node)
    logging.getLogger("aiokafka.conn").warning("quiet")
    assert lines(capsys) == ['level=error event="Unable to connect to node 0"']


def test_a_flood_of_lines_is_a_line_in_ten_seconds_that_says_how_many_there_were() -> None:
    """aiokafka writes 120 lines a second while a broker is away."""
    now = [0.0]
    throttle, shown = logs.Throttle(lambda: now[0]), []
    for i in range(120 * 60):
        now[0] = i / 120
        record = logging.LogRecord("aiokafka", logging.ERROR, "", 0, "Unable to connect to node %s", (i % 3,), None)
        if throttle.filter(record):
            shown.append(record.getMessage())
    assert len(shown) == 6
    assert shown[:2] == ["Unable to connect to node 0", "Unable to connect to node 0 (and 1199 more like it)"]


def test_lines_are_alike_that_begin_alike() -> None:
    """Faust formats its messages itself; the throttle remembers only so many of them."""
    throttle = logs.Throttle(lambda: 0.0)

    def shown(message: str) -> bool:
        return throttle.filter(logging.LogRecord("faust.topics", logging.WARNING, "", 0, message, (), None))

    assert shown("_on_published error for message topic deltas error 1")
    assert not shown("_on_published error for message topic deltas error 2")
    assert all(shown(f"{i} is another") for i in range(3 * logs.MOST_LINES))
    assert len(throttle._shown) <= logs.MOST_LINES + 1


def test_the_throttle_lets_a_line_through_again_after_its_time() -> None:
    now = [0.0]
    throttle = logs.Throttle(lambda: now[0])
    record = logging.LogRecord("aiokafka", logging.ERROR, "", 0, "gone", (), None)
    assert throttle.filter(record)
    now[0] = logs.REPEAT_AFTER_S / 2
    assert not throttle.filter(record)
    now[0] = logs.REPEAT_AFTER_S
    assert throttle.filter(record)
    own = logging.LogRecord("agents.sink", logging.ERROR, "", 0, "gone", (), None)
    assert throttle.filter(own)
    assert throttle.filter(own)


def test_a_level_of_a_librarys_own_logger_does_not_make_it_talk(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logger = logging.getLogger("faust.tables.recovery")
    logger.setLevel(logging.INFO)
    try:
        logger.info("Resuming flow...")
        logger.warning("Error in recovery")
    finally:
        logger.setLevel(logging.NOTSET)
    assert lines(capsys) == ['level=warning event="Error in recovery"']
