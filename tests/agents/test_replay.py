"""Replay of files and topics: the same samples, however the records come."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from agents.replay import Request, run
from agents.replay.files import InputError
from schemas.config import Config, load_config
from tests.agents.spans import CLIENT, SERVER, Told, traces_data
from tests.servers.prometheus import promtool

CONFIG = """
metrics_generator:
  processor:
    span_metrics:
      histogram_buckets: [0.1, 1]
    service_graphs:
      histogram_buckets: [0.1, 1]
overrides:
  defaults:
    metrics_generator:
      processors: [PROCESSORS]
"""


def config(*processors: str) -> Config:
    return load_config(None, text=CONFIG.replace("PROCESSORS", ", ".join(processors or ("span-metrics",))))


BOTH = ("service-graphs", "span-metrics")

CALL = (
    Told("shop", "buy", CLIENT, end_ms=1_000, took_ms=200, trace=1, id=1),
    Told("cart", "buy", SERVER, end_ms=900, took_ms=50, trace=1, id=2, parent=1, error=True),
)
LATER = Told("shop", "buy", CLIENT, end_ms=16_000, took_ms=2_000, trace=2, id=1, attributes=(("peer.service", "bank"),))
LAST = Told("shop", "look", SERVER, end_ms=31_000, took_ms=100, trace=3, id=1)
RECORDS = [traces_data(*CALL), traces_data(LATER), traces_data(LAST)]


def write_bin(file: Path, records: Iterable[TracesData | bytes]) -> Path:
    values = [each if isinstance(each, bytes) else each.SerializeToString() for each in records]
    file.write_bytes(b"".join(len(value).to_bytes(4) + value for value in values))
    return file


def json_line(record: TracesData) -> str:
    """OTLP JSON, made from protobuf's own."""

    def hexadecimal(node: object) -> object:
        if isinstance(node, list):
            return [hexadecimal(each) for each in node]
        if isinstance(node, dict):
            return {
                key: base64.b64decode(value).hex()
                if key in ("traceId", "spanId", "parentSpanId")
                else hexadecimal(value)
                for key, value in node.items()
            }
        return node

    return json.dumps(hexadecimal(json_format.MessageToDict(record)))


def many_records(count: int = 400) -> list[TracesData]:
    """Two minutes of traces, some of whose halves are in other records or missing."""
    records = []
    for n in range(count):
        at = n * 300
        client = Told(f"s{n % 3}", f"op{n % 5}", CLIENT, at, 10 + n, n, 1, attributes=(("peer.service", "bank"),))
        server = Told(f"s{(n + 1) % 3}", f"op{n % 5}", SERVER, at - 5, n, n - n % 2, 2, parent=1, error=n % 7 == 0)
        records.append(traces_data(client) if n % 4 == 3 else traces_data(client, server))
    return records


def replayed(directory: Path, source: Path, *processors: str, chunk_bytes: int = 4 << 20, **options: object) -> bytes:
    out = directory / "out.om"
    run(config(*processors), Request(str(source), str(out), **options), chunk_bytes)  # type: ignore[arg-type]
    return out.read_bytes()


def test_a_small_file_has_exactly_these_samples(tmp_path: Path) -> None:
    text = replayed(tmp_path, write_bin(tmp_path / "spans.bin", RECORDS)).decode()
    labels = 'service="{}",span_kind="SPAN_KIND_{}",span_name="{}",status_code="STATUS_CODE_{}"'
    shop = labels.format("shop", "CLIENT", "buy", "UNSET")
    cart = labels.format("cart", "SERVER", "buy", "ERROR")
    look = labels.format("shop", "SERVER", "look", "UNSET")
    calls = [line for line in text.splitlines() if line.startswith("traces_spanmetrics_calls_total")]
    assert calls == [
        f"traces_spanmetrics_calls_total{{{cart}}} 0 1700000010",
        f"traces_spanmetrics_calls_total{{{cart}}} 1 1700000025",
        f"traces_spanmetrics_calls_total{{{cart}}} 1 1700000040",
        f"traces_spanmetrics_calls_total{{{cart}}} 1 1700000055",
        f"traces_spanmetrics_calls_total{{{shop}}} 0 1700000010",
        f"traces_spanmetrics_calls_total{{{shop}}} 1 1700000025",
        f"traces_spanmetrics_calls_total{{{shop}}} 2 1700000040",
        f"traces_spanmetrics_calls_total{{{shop}}} 2 1700000055",
        f"traces_spanmetrics_calls_total{{{look}}} 0 1700000040",
        f"traces_spanmetrics_calls_total{{{look}}} 1 1700000055",
    ]
    latency = [line for line in text.splitlines() if "_latency_" in line and shop in line and " 1700000040" in line]
    assert latency == [
        f'traces_spanmetrics_latency_bucket{{le="0.1",{shop}}} 0 1700000040',
        f'traces_spanmetrics_latency_bucket{{le="1",{shop}}} 1 1700000040',
        f'traces_spanmetrics_latency_bucket{{le="+Inf",{shop}}} 2 1700000040 # {{traceID="2"}} 2 1700000040',
        f"traces_spanmetrics_latency_sum{{{shop}}} 2.2 1700000040",
        f"traces_spanmetrics_latency_count{{{shop}}} 2 1700000040",
    ]
    assert text.endswith("# EOF\n")


def test_the_end_closes_everything_edges_that_wait_included(tmp_path: Path) -> None:
    source = write_bin(tmp_path / "spans.bin", RECORDS)
    edges = [
        line.rsplit(" ", 2)[0]
        for line in replayed(tmp_path, source, *BOTH, last=True).decode().splitlines()
        if line.startswith("traces_service_graph_request_total")
    ]
    assert edges == [
        'traces_service_graph_request_total{client="shop",connection_type="virtual_node",server="bank"}',
        'traces_service_graph_request_total{client="shop",server="cart"}',
        'traces_service_graph_request_total{client="user",connection_type="virtual_node",server="shop"}',
    ]


def test_last_keeps_the_last_sample_of_each_series(tmp_path: Path) -> None:
    source = write_bin(tmp_path / "spans.bin", RECORDS)
    whole, last = (replayed(tmp_path, source, *BOTH, last=last).decode() for last in (False, True))
    newest = {line.split(" # ")[0].rsplit(" ", 2)[0]: line for line in whole.splitlines() if line[0] != "#"}
    assert sorted(line for line in last.splitlines() if line[0] != "#") == sorted(newest.values())


def test_chunks_and_repetitions_make_no_difference(tmp_path: Path) -> None:
    source = write_bin(tmp_path / "spans.bin", many_records())
    expected = replayed(tmp_path, source, *BOTH)
    assert expected.count(b"\n") > 1_000
    for chunk_bytes in (1, 700, 5_000, 4 << 20):
        assert replayed(tmp_path, source, *BOTH, chunk_bytes=chunk_bytes) == expected


def test_json_lines_give_the_same_as_binary_records(tmp_path: Path) -> None:
    source = tmp_path / "spans.json"
    source.write_text("".join(f"{json_line(record)}\n" for record in RECORDS))
    binary = write_bin(tmp_path / "spans.bin", RECORDS)
    assert replayed(tmp_path, source, *BOTH) == replayed(tmp_path, binary, *BOTH)


@pytest.mark.parametrize("form", ["bin", "json"])
def test_standard_input_tells_its_form_by_its_first_byte(tmp_path: Path, form: str, monkeypatch) -> None:
    source = write_bin(tmp_path / "spans.bin", RECORDS)
    expected = replayed(tmp_path, source)
    content = source.read_bytes() if form == "bin" else "\n".join(map(json_line, RECORDS)).encode()
    piped = tmp_path / "piped"
    piped.write_bytes(content)
    with piped.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file))
        assert replayed(tmp_path, Path("-")) == expected


def test_a_record_without_span_ends_has_the_stream_time_before_it(tmp_path: Path) -> None:
    never = traces_data(*CALL)
    for resource_spans in never.resource_spans:
        resource_spans.scope_spans[0].spans[0].end_time_unix_nano = 0
    source = write_bin(tmp_path / "spans.bin", [RECORDS[0], never, RECORDS[2]])
    report = tmp_path / "report.json"
    replayed(tmp_path, source, report=report)
    # They are in the first window, and far from its records' times.
    assert json.loads(report.read_text())["tempo_metrics_generator_spans_discarded_total"][0]["value"] == 2


def test_the_report_has_tempos_own_counters(tmp_path: Path) -> None:
    old = Told("shop", "buy", CLIENT, end_ms=-31_000, took_ms=1, trace=9, id=1)
    orphan = Told("cart", "buy", SERVER, end_ms=1_000, took_ms=1, trace=8, id=2, parent=1)
    source = write_bin(tmp_path / "spans.bin", [traces_data(*CALL, old, orphan), RECORDS[1], RECORDS[2]])
    report = tmp_path / "report.json"
    replayed(tmp_path, source, *BOTH, report=report)
    counters = json.loads(report.read_text())
    assert list(counters) == sorted(counters)
    assert counters["tempo_metrics_generator_spans_received_total"] == [
        {"labels": {"tenant": "single-tenant"}, "value": 6}
    ]
    (discarded,) = counters["tempo_metrics_generator_spans_discarded_total"]
    assert (discarded["labels"]["reason"], discarded["value"]) == ("outside_metrics_ingestion_slack", 1)
    (expired,) = counters["tempo_metrics_generator_processor_service_graphs_expired_edges"]
    assert expired == {"labels": {"tenant": "single-tenant", "unmatched_span_kind": "SPAN_KIND_SERVER"}, "value": 1}


def test_a_malformed_record_is_named_and_counted_and_the_others_go_on(tmp_path: Path, capsys) -> None:
    good = write_bin(tmp_path / "good.bin", RECORDS)
    broken = write_bin(tmp_path / "broken.bin", [RECORDS[0], b"\x0a\xff", *RECORDS[1:]])
    report = tmp_path / "report.json"
    ours = b"spanmill_ledger_records_unreadable"
    lines = replayed(tmp_path, broken, report=report).splitlines()
    assert [line for line in lines if ours not in line] == replayed(tmp_path, good).splitlines()
    assert sum(line.startswith(ours + b"_total{") and b"} 1 " in line for line in lines) > 0
    position = 4 + len(RECORDS[0].SerializeToString())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"spanmill: {broken}: record 2 at byte {position}: ")
    assert json.loads(report.read_text())["spanmill_dead_letters_total"] == [
        {"labels": {"reason": "malformed"}, "value": 1}
    ]


def test_a_malformed_line_is_named_and_the_others_go_on(tmp_path: Path, capsys) -> None:
    lines = [json_line(RECORDS[0]), '{"resourceSpans": [', "", *map(json_line, RECORDS[1:])]
    source = tmp_path / "spans.json"
    source.write_text("\n".join(lines))
    assert replayed(tmp_path, source) == replayed(tmp_path, write_bin(tmp_path / "good.bin", RECORDS))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"spanmill: {source}: record 2 at byte {len(lines[0]) + 1}: ")
    assert "line 2" in line


@pytest.mark.parametrize(("cut", "what"), [(2, "the file ends in the record's length"), (10, "the file is truncated")])
def test_a_truncated_file_is_an_error_and_nothing_is_written(tmp_path: Path, cut: int, what: str) -> None:
    source = write_bin(tmp_path / "spans.bin", RECORDS)
    start = len(source.read_bytes()) - len(RECORDS[2].SerializeToString()) - 4
    source.write_bytes(source.read_bytes()[: start + cut])
    with pytest.raises(InputError, match=f"record 3 at byte {start}.*{what}"):
        replayed(tmp_path, source)
    assert not (tmp_path / "out.om").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["spans.bin"]


def test_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InputError, match="No such file"):
        run(config(), Request("/nowhere/spans.bin", "-"))


def test_an_empty_file_has_no_samples(tmp_path: Path) -> None:
    assert replayed(tmp_path, write_bin(tmp_path / "spans.bin", [])) == b"# EOF\n"


def test_a_command_replays_and_ends_with_a_code(tmp_path: Path) -> None:
    settings, source = tmp_path / "spanmill.yaml", write_bin(tmp_path / "spans.bin", RECORDS)
    settings.write_text(CONFIG.replace("PROCESSORS", "span-metrics"))
    command = [sys.executable, "spanmill.py", "replay", "--config.file", str(settings), "--input"]
    done = subprocess.run([*command, str(source), "--output", "-"], capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == replayed(tmp_path, source)
    source.write_bytes(source.read_bytes()[:-1])
    failed = subprocess.run([*command, str(source), "--output", "-"], capture_output=True, check=False, timeout=120)
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert failed.stderr.startswith(f"spanmill: {source}: record 3 at byte ".encode())


@pytest.mark.prometheus
def test_promtool_makes_blocks_of_a_replay(tmp_path: Path) -> None:
    out = tmp_path / "out.om"
    out.write_bytes(replayed(tmp_path, write_bin(tmp_path / "spans.bin", many_records()), *BOTH))
    blocks = tmp_path / "blocks"
    assert promtool("tsdb", "create-blocks-from", "openmetrics", out, blocks).returncode == 0
    (blocks / "wal").mkdir()
    dumped = promtool("tsdb", "dump", blocks, text=True)
    samples = [line for line in out.read_text().splitlines() if line[0] != "#"]
    assert len([line for line in dumped.stdout.splitlines() if line]) == len(samples)
