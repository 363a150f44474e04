"""The terminal of `spanmill dev`: the service graph and the busiest operations, refreshed with each window."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agents.generated import Generated
from agents.overview import Line, Overview, overview

SETTLE_S = 0.3
"""The shards complete a window one after the other: waiting a little shows it once, and whole."""
OPERATIONS_SHOWN = 15
FIXED_LINES = 8
"""Lines of the view that are neither the introduction's nor an edge or an operation: titles, headings, space."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What the view says beside the numbers: where to send spans, and how to go on from here."""

    grpc: str
    http: str
    own: str
    embedded: bool
    demo: bool
    remote_write: str | None

    def lines(self) -> Iterator[str]:
        """One sentence a line."""
        yield f"Send your own spans (OTLP): gRPC {self.grpc}, HTTP http://{self.http}/v1/traces"
        yield f"Generated series: {self.own}/generated   own metrics: {self.own}/metrics"
        if self.remote_write is None:
            yield "A real Prometheus: --remote-write http://HOST:9090/api/v1/write, or let it scrape /generated"
        else:
            yield f"Writing to {self.remote_write}"
        if self.embedded:
            yield "A real Kafka: --kafka HOST:PORT. The embedded broker is for trying out: all in memory"
        if not self.demo:
            yield "A demo shop that sends spans: --demo"
        yield "Ctrl-C stops"


async def show(generated: Generated, introduction: Introduction, stop: asyncio.Event, console: Console) -> None:
    """Show each new window until `stop` is set: a live view on a terminal, else plain lines."""
    if not console.is_terminal:
        for line in introduction.lines():
            console.print(line, soft_wrap=True, highlight=False, markup=False)
        async for seen in _windows(generated, stop):
            for line in plain_lines(seen, generated.end_ms):
                console.print(line, soft_wrap=True, highlight=False, markup=False)
        return
    with Live(view(Overview((), ()), introduction, 0, 0), console=console, auto_refresh=False) as live:
        async for seen in _windows(generated, stop):
            live.update(view(seen, introduction, generated.end_ms, generated.series, console.height), refresh=True)


async def _windows(generated: Generated, stop: asyncio.Event) -> AsyncIterator[Overview]:
    stopped = asyncio.ensure_future(stop.wait())
    try:
        while not stop.is_set():
            changed = asyncio.ensure_future(generated.changed.wait())
            await asyncio.wait({changed, stopped}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            if stop.is_set():
                return
            await asyncio.sleep(SETTLE_S)
            generated.changed.clear()
            yield overview(generated.increases())
    finally:
        stopped.cancel()


def view(seen: Overview, introduction: Introduction, end_ms: int, series: int, height: int = 50) -> RenderableType:
    """The live view, in at most `height` lines: what doesn't fit is counted in the titles."""
    head = Text("Spanmill", style="bold")
    head.append(f"  window {clock_text(end_ms)}  {series} series" if end_ms else "  waiting for the first spans")
    lines = list(introduction.lines())
    said = Group(head, Text("\n".join(lines), style="dim"))
    if not seen.edges and not seen.operations:
        return said
    room = max(height - len(lines) - FIXED_LINES, 2)
    edges = min(len(seen.edges), max(room // 2, room - len(seen.operations)))
    operations = min(len(seen.operations), room - edges, OPERATIONS_SHOWN)
    return Group(said, Text(), edges_table(seen.edges, edges), Text(), operations_table(seen.operations, operations))


def edges_table(edges: Sequence[Line], shown: int) -> Table:
    """The service graph."""
    table = _table(_title("Service graph", shown, len(edges)), "client", "server", "type")
    for line in edges[:shown]:
        client, server, connection = line.key
        table.add_row(client, f"→ {server}", connection, *_numbers(line))
    return table


def operations_table(operations: Sequence[Line], shown: int) -> Table:
    """The busiest operations."""
    table = _table(_title("Busiest operations", shown, len(operations)), "service", "span", "kind")
    for line in operations[:shown]:
        service, name, kind = line.key
        table.add_row(service, name, kind_text(kind), *_numbers(line))
    return table


def _title(title: str, shown: int, there: int) -> str:
    return title if shown == there else f"{title}, {shown} of {there}"


def _table(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=8)
    for name in ("rate", "errors", "p95"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _numbers(line: Line) -> tuple[Text, Text, Text]:
    errors = Text(f"{line.error_ratio:.1%}", style="red" if line.error_ratio >= 0.01 else "")
    return Text(f"{line.rate:.1f}/s"), errors, Text(duration_text(line.p95_s))


def plain_lines(seen: Overview, end_ms: int) -> Iterator[str]:
    """The same for a file or a pipe, one edge or operation a line."""
    yield f"window {clock_text(end_ms)} edges={len(seen.edges)} operations={len(seen.operations)}"
    for line in seen.edges:
        client, server, connection = line.key
        yield f"  edge {client} -> {server} [{connection or 'request'}] {_plain_numbers(line)}"
    for line in seen.operations[:OPERATIONS_SHOWN]:
        service, name, kind = line.key
        yield f"  operation {service} '{name}' [{kind_text(kind)}] {_plain_numbers(line)}"


def _plain_numbers(line: Line) -> str:
    return f"rate={line.rate:.1f}/s errors={line.error_ratio:.1%} p95={duration_text(line.p95_s)}"


def kind_text(kind: str) -> str:
    """`SPAN_KIND_SERVER` as `server`."""
    return kind.removeprefix("SPAN_KIND_").lower()


def clock_text(end_ms: int) -> str:
    """The time of day, in UTC."""
    return datetime.fromtimestamp(end_ms / 1000, UTC).strftime("%H:%M:%S UTC")


def duration_text(seconds: float) -> str:
    """Three digits and a unit."""
    if isnan(seconds):
        return "-"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
