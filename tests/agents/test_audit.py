"""What `spanmill audit` prints, and what it reads of records and of Prometheus."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agents.audit import Report, _in_prometheus, spans_of
from agents.replay.files import InputError
from agents.topic_record import TopicRecord
from schemas.config import load_config
from schemas.control import Tick
from schemas.control_format import UNVERIFIED
from schemas.deltas import LedgerKey
from schemas.ledger_balance import Fate
from schemas.otlp import Codec
from schemas.record_format import RecordFormat
from schemas.snapshot import Cut, LedgerTotal
from streams.ledger_audit import Check, Saved
from tests.streams.log import T0_MS, Told, record, tick

RIGHT = Check("log to generator", "shop", "spans", 1000, 1000)
METRICS = Check(
    "generator, span-metrics: spans", "shop", "spans", 1000, 1000, fates={Fate.COUNTED: 900, Fate.FILTERED: 100}
)
WRONG = Check("batches to sink 0", "a", "counts", 12, 10, ('x{tenant="a"}: 12 in batches, 10 in the shard',))


def test_the_report_has_a_line_for_each_check_and_says_which_reason_holds_a_difference() -> None:
    """A golden one: people read it, and grep it."""
    report = Report((RIGHT, METRICS, WRONG), ("spans/0: 7 records since the newest checkpoint",))
    assert list(report.lines()) == [
        "ok    log to generator                shop  1000 spans = 1000",
        "ok    generator, span-metrics: spans  shop  1000 spans = 900 counted + 100 filtered",
        "WRONG batches to sink 0               a     12 counts = 10, difference 2",
        '        x{tenant="a"}: 12 in batches, 10 in the shard',
        "note: spans/0: 7 records since the newest checkpoint",
        "1 of 3 don't balance",
    ]
    assert not report.balances
    assert list(Report((RIGHT,), ()).lines())[-1] == "all 1 balance"


def test_the_report_as_json_says_the_same() -> None:
    found = json.loads(Report((METRICS, WRONG), ("in flight",)).json())
    assert (found["balances"], found["notes"]) == (False, ["in flight"])
    assert [each["difference"] for each in found["checks"]] == [0, 2]
    assert found["checks"][0]["fates"] == {"counted": 900, "filtered": 100}
    assert found["checks"][1]["notes"] == list(WRONG.notes)


def test_spans_are_counted_of_records_that_can_be_read_by_tenant() -> None:
    """Control records have none, and a record that can't be read counts for nothing."""
    two = record(0, 0, Told(), Told(kind=5)).value
    one = record(0, 0, Told()).value
    control = tick(4, 0).control
    assert isinstance(control, Tick)
    records = [
        TopicRecord(0, T0_MS, None, two, [("tenant", b"a")]),
        TopicRecord(1, T0_MS, None, one, []),
        TopicRecord(2, T0_MS, None, b"\x0a\x7f", [("tenant", b"a")]),
        TopicRecord(3, T0_MS, None, one, [("tenant", b"\xff")]),
        TopicRecord(4, T0_MS, None, b"", list(UNVERIFIED.headers(control))),
        TopicRecord(5, T0_MS, None, one, [("tenant", b"a"), ("no-metrics", b"")]),
    ]
    assert spans_of(records, RecordFormat(Codec.OTLP)) == {"a": 3, "single-tenant": 1}


class Storage(BaseHTTPRequestHandler):
    """Answers instant queries with `answer`."""

    answer: Any = None
    asked: dict[str, list[str]] = {}  # noqa: RUF012  a test's own

    def do_GET(self) -> None:
        type(self).asked = parse_qs(urlsplit(self.path).query)
        body = json.dumps(self.answer).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def storage() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Storage)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def cut(*counts: tuple[str, int]) -> Cut:
    """A snapshot with counters of one tenant."""
    own = (("tenant", "a"),)
    entries = [LedgerTotal("a", LedgerKey(name, own), total, fresh=False) for name, total in counts]
    return Cut(0, 15_000, 0, 1, {}, {}, None, series=[], ledger=entries)


def held_against(url: str, *counts: tuple[str, int]) -> list[Check]:
    saved = Saved({}, {0: cut(*counts)}, 1)
    return list(_in_prometheus(load_config(None, ""), saved, url, []))


def test_ledger_series_are_held_against_prometheus_at_the_snapshot_s_window(storage: str) -> None:
    labels = {"__name__": "spanmill_ledger_spans_received_total", "tenant": "a"}
    Storage.answer = {"data": {"result": [{"metric": labels, "value": [15, "7"]}]}}
    received = "tempo_metrics_generator_spans_received_total"
    (found,) = held_against(storage, (received, 7))
    assert (found.stage, found.came, found.found, found.notes) == ("sink 0 to Prometheus", 1, 1, ())
    assert Storage.asked["time"] == ["15.0"]
    (found,) = held_against(storage, (received, 8), ("spanmill_records_lost_total", 1))
    assert (found.came, found.found) == (2, 0)
    assert "8.0 in the shard, 7.0 in Prometheus" in found.notes[0]
    assert "1.0 in the shard, None in Prometheus" in found.notes[1]


@pytest.mark.parametrize(("answer", "said"), [({}, "no answer"), (None, "no answer")])
def test_an_answer_that_is_none_is_an_error(storage: str, answer: Any, said: str) -> None:
    Storage.answer = answer
    with pytest.raises(InputError, match=said):
        held_against(storage, ("spanmill_records_lost_total", 1))
    with pytest.raises(InputError, match="an address of Prometheus"):
        held_against("file:///etc/passwd", ("spanmill_records_lost_total", 1))
