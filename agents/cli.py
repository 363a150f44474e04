"""The command line. Every command names a configuration file in Tempo's YAML; the stages run until they are stopped.

Exit codes: 0 done or stopped, 1 failed (one line, `spanmill: ...`), 2 wrong usage or a configuration that isn't valid.
What a command needs is imported in it: the kernels alone take a second to import.
"""

# ruff: noqa: PLC0415

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import click
import structlog

from agents import logs
from agents.config_commands import config_group
from agents.config_file import CONFIG_FILE, valid

if TYPE_CHECKING:
    from agents.own_metrics import OwnMetrics
    from schemas.config import Config

log = structlog.get_logger(__name__)


class Stage(Protocol):
    """A stage's `run`: works until `stop` is set, and sets `ready` as soon as it does."""

    def __call__(
        self, config: "Config", stop: asyncio.Event, metrics: "OwnMetrics", *, ready: asyncio.Event
    ) -> Awaitable[None]:
        """Run the stage."""


KAFKA = click.option("--kafka", metavar="HOST:PORT", help="Kafka's address, instead of the configuration's.")
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
LEVELS = ["debug", "info", "warning", "error"]
LOG_LEVEL = click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)


def main() -> NoReturn:
    """Run a command; errors that the user can do something about are one line on standard error."""
    try:
        code = cli.main(prog_name="spanmill", standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.UsageError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        for line in error.format_message().splitlines():
            click.echo(f"spanmill: {line}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no second error at the exit
        code = 1
    except Exception as error:
        log.debug("failed", exc_info=True)
        click.echo(f"spanmill: {one_line(error)}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def one_line(error: BaseException) -> str:
    """What went wrong, without line breaks; an error without a message is named by its class."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(one_line(each) for each in error.exceptions)
    return " ".join(str(error).split()) or type(error).__name__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="spanmill")
def cli() -> None:
    """Metrics from traces, as a pure function of a Kafka log."""
    logs.configure()


@cli.command()
@CONFIG_FILE
@KAFKA
@LOG_LEVEL
def distributor(config_file: Path | None, kafka: str | None, log_level: str) -> None:
    """Accept OTLP spans and write them to the spans topic."""
    config = read_config(config_file, kafka, log_level)
    from agents.distributor import run

    run_stage(config, run)


@cli.command()
@CONFIG_FILE
@KAFKA
@LOG_LEVEL
def generator(config_file: Path | None, kafka: str | None, log_level: str) -> None:
    """Turn the spans topic into batches of deltas."""
    config = read_config(config_file, kafka, log_level)
    from agents.generator import run

    run_stage(config, run)


@cli.group(invoke_without_command=True)
@CONFIG_FILE
@KAFKA
@LOG_LEVEL
@click.pass_context
def sink(context: click.Context, config_file: Path | None, kafka: str | None, log_level: str) -> None:
    """Turn the deltas into series and remote-write them."""
    if context.invoked_subcommand is not None:
        if config_file is not None or kafka is not None:
            raise click.UsageError(f"write options behind {context.invoked_subcommand}")
        return
    config = read_config(config_file, kafka, log_level)
    from agents.sink import run

    run_stage(config, run)


@sink.command("accept-gap")
@CONFIG_FILE
@KAFKA
@click.option("--shard", required=True, type=click.IntRange(0), help="The partition of the deltas topic.")
@click.option("--partition", type=click.IntRange(0), help="The partition of the spans topic whose batch is missing.")
@click.option("--after", metavar="WINDOW", help="The end of its last window before the gap, in ms, or none.")
@click.option("--lost", is_flag=True, help="The batch won't come, though its generator would deliver it again.")
@click.option("--offset", type=click.IntRange(0), help="The record of the deltas topic that can't be read.")
@LOG_LEVEL
def sink_accept_gap(
    config_file: Path | None,
    kafka: str | None,
    shard: int,
    partition: int | None,
    after: str | None,
    lost: bool,
    offset: int | None,
    log_level: str,
) -> None:
    """Let a shard go on that stopped, without what is missing: the stopped sink says with which options."""
    from schemas.control import AcceptGap, SkipRecord

    decided: AcceptGap | SkipRecord
    if partition is not None and after is not None and offset is None:
        if after != "none" and not after.isdecimal():
            raise click.BadParameter("the end of a window in ms, or none", param_hint="--after")
        decided = AcceptGap(partition, None if after == "none" else int(after))
    elif offset is not None and partition is None and after is None:
        decided = SkipRecord(offset)
    else:
        raise click.UsageError("give --partition and --after of a missing batch, or --offset of a record")
    config = read_config(config_file, kafka, log_level)
    from agents.accept_gap import append

    click.echo(append(config, shard, decided, lost=lost))


@cli.command()
@CONFIG_FILE
@KAFKA
@LOG_LEVEL
def ingester(config_file: Path | None, kafka: str | None, log_level: str) -> None:
    """Forward the records of the spans topic to a trace store over OTLP."""
    config = read_config(config_file, kafka, log_level)
    from agents.ingester import run

    run_stage(config, run)


@cli.command()
@CONFIG_FILE
@KAFKA
@click.option("--stage", required=True, type=click.Choice(["generator", "sink", "ingester"]))
@click.option("--instance", required=True, metavar="NAME", help="The process' SPANMILL_INSTANCE_ID.")
@LOG_LEVEL
def leave(config_file: Path | None, kafka: str | None, stage: str, instance: str, log_level: str) -> None:
    """Let the others have the partitions of a named process that was stopped for good, without waiting for it."""
    config = read_config(config_file, kafka, log_level)
    from agents.membership import leave

    click.echo(leave(config, stage, instance))


@cli.command()
@CONFIG_FILE
@click.option("--input", "source", metavar="FILE", help="*.bin or *.json of a Collector's file exporter; - for stdin.")
@click.option("--output", metavar="OUT", help="OpenMetrics text; - for standard output.")
@click.option(
    "--remote-write",
    metavar="[URL]",
    is_flag=False,
    flag_value="",
    help="Write to this endpoint; without a URL to the configuration's.",
)
@click.option("--compare", metavar="YAML", type=EXISTING_FILE, help="Write what this configuration would change.")
@click.option("--last", is_flag=True, help="Only the last sample of each series.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="JSON of Tempo's own counters.")
@KAFKA
@click.option("--topic", help="The topic to replay instead of the configuration's spans topic.")
@click.option("--from", "start", metavar="WHERE", help="First offset, or a time (2026-01-31T12:00:00Z).")
@click.option("--to", "end", metavar="WHERE", help="Offset or time to stop before.")
@click.option("--bookmark", metavar="FILE", type=EXISTING_FILE, help="Begin where spanmill bookmark was called.")
@click.option("--close/--no-close", default=None, help="The end closes every window [files: yes, topics: no].")
@click.option("--tenant", help="Only this tenant's samples; needed if a text would have several.")
@click.option("--shards", type=click.IntRange(1), help="Partitions of the deltas topic [as many as it has, or 1].")
@click.option("--own-config", is_flag=True, help="Go by this configuration, not by what the topic's records say.")
@click.option("--ignore-waivers", is_flag=True, help="Count everything in its own window, also what was late.")
@click.option("--id", "replay_id", help="Value of the label replay of all series [from inside the log: the range].")
@click.option("--format", "form", type=click.Choice(["bin", "json"]), help="What FILE is, if its name doesn't say.")
@LOG_LEVEL
def replay(config_file: Path | None, kafka: str | None, log_level: str, **options: Any) -> None:
    """Compute the samples of a file, or of the spans topic, once more, without running anything else."""
    of_topic = ("topic", "start", "end", "bookmark", "shards")
    if options["source"] is not None and (kafka is not None or any(options[name] is not None for name in of_topic)):
        raise click.UsageError("--input FILE goes without --kafka, --topic, --from, --to, --bookmark and --shards")
    if options["bookmark"] is not None and options["start"] is not None:
        raise click.UsageError("give --from, or --bookmark")
    if options["compare"] is not None and (options["output"] is None or options["remote_write"] is not None):
        raise click.UsageError("--compare needs --output OUT, and goes without --remote-write")
    if options["output"] is None and options["remote_write"] is None:
        raise click.UsageError("give --output OUT, --remote-write, or both")
    config = read_config(config_file, kafka, log_level)
    from agents.replay import Request, run

    run(config, Request(**options))


@cli.command()
@CONFIG_FILE
@KAFKA
@click.option("--output", required=True, metavar="OUT", help="The file to write; - for standard output.")
@LOG_LEVEL
def bookmark(config_file: Path | None, kafka: str | None, output: str, log_level: str) -> None:
    """Keep what the stages have saved, so that a replay may begin there, with live's samples."""
    config = read_config(config_file, kafka, log_level)
    from agents.replay.bookmark import take

    for line in take(config, output):
        click.echo(line, err=True)


@cli.command()
@CONFIG_FILE
@KAFKA
@click.option("--prometheus", metavar="URL", help="Also ask this Prometheus for the ledger's series.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")
@LOG_LEVEL
def audit(
    config_file: Path | None, kafka: str | None, prometheus: str | None, log_level: str, *, as_json: bool
) -> None:
    """Add up what all stages counted, and hold it against the topics; exit code 1 if something is missing.

    Works while everything runs: it compares up to what the stages have saved. A line for each comparison.
    """
    config = read_config(config_file, kafka, log_level)
    from agents.audit import audit

    report = audit(config, prometheus)
    click.echo(report.json() if as_json else "\n".join(report.lines()))
    if not report.balances:
        sys.exit(1)


@cli.command()
@CONFIG_FILE
@click.option("--demo", is_flag=True, help="Also run a demo shop that sends spans.")
@click.option("--remote-write", metavar="URL", help="Also write to a Prometheus, e.g. http://host:9090/api/v1/write.")
@KAFKA
@click.option("--port", default=8080, show_default=True, help="Port of /generated, /metrics, /healthz and /readyz.")
def dev(config_file: Path | None, *, demo: bool, remote_write: str | None, kafka: str | None, port: int) -> None:
    """Run everything in one process, with an embedded broker, to try it out."""
    logs.configure("warning")
    from agents.dev import DevOptions, dev_config, run

    options = DevOptions(demo, remote_write, kafka, port)
    config = valid(lambda: dev_config(config_file))
    run_until_stopped(lambda stop: run(config, stop, options))


@cli.command()
@CONFIG_FILE
@KAFKA
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of lines.")
@click.option("--log-level", type=click.Choice(LEVELS), default="error", show_default=True)
def doctor(config_file: Path | None, kafka: str | None, log_level: str, *, as_json: bool) -> None:
    """Check the configuration against Kafka, the endpoints and this machine; exit code 1 if something can't work.

    Changes nothing. A line for each check: ok, warning or error, and what to do.
    """
    import json

    config = read_config(config_file, kafka, log_level)
    from agents.doctor import Finding, Level, examine

    found: list[Finding] = []
    for finding in examine(config):
        found.append(finding)
        if not as_json:
            click.echo(str(finding))
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in found], indent=2))
    if any(finding.level is Level.ERROR for finding in found):
        sys.exit(1)


@cli.group()
def topics() -> None:
    """The topics that Spanmill needs."""


@topics.command("create")
@CONFIG_FILE
@KAFKA
@click.option("--partitions", default=4, show_default=True, help="Partitions of each new topic.")
@click.option("--replication-factor", default=None, type=int, help="Replicas [the broker's default].")
@LOG_LEVEL
def topics_create(
    config_file: Path | None, kafka: str | None, partitions: int, replication_factor: int | None, log_level: str
) -> None:
    """Create what is missing, with the settings that it needs."""
    config = read_config(config_file, kafka, log_level)
    from agents.topics import create

    for line in create(config, partitions, replication_factor):
        click.echo(line)


@topics.command("grow")
@CONFIG_FILE
@KAFKA
@click.option("--partitions", required=True, type=click.IntRange(1), help="How many the spans topic is to have.")
@LOG_LEVEL
def topics_grow(config_file: Path | None, kafka: str | None, partitions: int, log_level: str) -> None:
    """Give the spans topic more partitions, while everything runs."""
    config = read_config(config_file, kafka, log_level)
    from agents.topics import grow

    for line in grow(config, partitions):
        click.echo(line)


@topics.command("check")
@CONFIG_FILE
@KAFKA
@LOG_LEVEL
def topics_check(config_file: Path | None, kafka: str | None, log_level: str) -> None:
    """Check partitions, timestamp type, retention and replication; exit code 1 if something must be changed."""
    config = read_config(config_file, kafka, log_level)
    from agents.topics import check

    problems = list(check(config))
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        sys.exit(1)
    click.echo("topics are as they should be")


cli.add_command(config_group)


def read_config(config_file: Path | None, kafka: str | None, log_level: str) -> "Config":
    """The configuration, with the address of `--kafka` if it is given; notes on what has no effect are logged."""
    logs.configure(log_level)
    from agents.options import with_kafka
    from schemas.config import load_all

    config = valid(lambda: load_all(config_file))
    if kafka is not None:
        config = valid(lambda: with_kafka(config, kafka))
    for note in config.notes:
        log.info(note)
    return config


def run_stage(config: "Config", stage: Stage) -> None:
    """Run a stage with its own metrics on the configured address until a signal stops it."""
    from agents.own_metrics import OwnMetrics, own_routes, serve

    async def run(stop: asyncio.Event) -> None:
        metrics, ready = OwnMetrics(), asyncio.Event()
        server = config.server
        async with serve(server.http_listen_address, server.http_listen_port, own_routes(metrics, ready)) as port:
            log.info("serving own metrics", address=server.http_listen_address, port=port)
            await stage(config, stop, metrics, ready=ready)

    run_until_stopped(run)


def run_until_stopped(run: Callable[[asyncio.Event], Awaitable[Any]]) -> None:
    """Run in a uvloop; the first SIGINT or SIGTERM sets the event, the second ends the process at once."""
    import uvloop

    from agents.loop_watch import watched_loop

    async def signalled() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def asked(number: int) -> None:
            if stop.is_set():
                os._exit(128 + number)
            log.info("stopping", signal=signal.Signals(number).name)
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, asked, number)
        with watched_loop(loop):
            await run(stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(signalled())
