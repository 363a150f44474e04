"""`spanmill dev`: every stage in one process, to try Spanmill out.

Unless `--kafka` names a real one, the broker is embedded. The generated series are kept in memory for `/generated` and
the terminal's view; `--remote-write` sends them to a real Prometheus too.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from rich.console import Console

from agents import distributor, generator, sink, terminal, topics
from agents.embedded_broker import EmbeddedBroker
from agents.generated import Generated
from agents.live_config import LiveConfig
from agents.options import with_kafka, with_remote_write
from agents.own_metrics import OwnMetrics, own_routes, serve
from agents.warm_up import warm_up
from schemas.config import Config, load_all, load_config

log = structlog.get_logger(__name__)

HOST = "127.0.0.1"
STOP_WITHIN_S = 4.0
"""What hasn't stopped by then is cancelled."""

DEV_CONFIG = """
# What is different from the defaults: short windows, both processors on, and names of its own, so that `dev` with a
# real Kafka never joins an installation's consumer groups.
metrics_generator:
  registry:
    collection_interval: 5s
  processor:
    service_graphs:  # by default from 0.1 s on, too coarse for a demo's edges
      histogram_buckets: [0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096]
overrides:
  defaults:
    metrics_generator:
      processors: [service-graphs, span-metrics]
distributor:
  receivers:
    otlp:
      protocols:
        grpc:
          endpoint: 127.0.0.1:4317
        http:
          endpoint: 127.0.0.1:4318
spanmill:
  app_id: spanmill_dev
  topics:
    spans: spanmill-dev-spans
    deltas: spanmill-dev-deltas
    dead_letters: spanmill-dev-dead-letters
"""


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What the command line asks for; `kafka` None: the embedded broker."""

    demo: bool = False
    remote_write: str | None = None
    kafka: str | None = None
    port: int = 8080


def dev_config(config_file: Path | None) -> Config:
    """The file's configuration if there is one, else that of `dev`."""
    return load_all(config_file) if config_file is not None else load_config(None, text=DEV_CONFIG)


async def run(config: Config, stop: asyncio.Event, options: DevOptions, console: Console | None = None) -> None:
    """Run everything until `stop` is set, then stop within five seconds. Raises what made a stage fail."""
    console = console or Console()
    with contextlib.ExitStack() as resources:
        config = with_data_dir(config, resources.enter_context(_temporary_directory()))
        config = resources.enter_context(_with_broker(config, options))
        if options.remote_write is not None:
            config = with_remote_write(config, options.remote_write)
        await Dev(config, options, console).run(stop)


class Dev:
    """The stages of one process, and what shows them."""

    def __init__(self, config: Config, options: DevOptions, console: Console) -> None:
        self._config, self._options, self._console = config, options, console
        self._metrics, self._generated = OwnMetrics(), Generated()
        self._live = LiveConfig(config, self._metrics.config, embedded=options.kafka is None)
        self._ready = asyncio.Event()
        self._stop_stages = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set."""
        routes = [self._generated.route(), *own_routes(self._metrics, self._ready)]
        async with serve(HOST, self._options.port, routes) as port:
            if not await self._warmed_up(stop):
                return
            async with self._live.watched(), asyncio.TaskGroup() as tasks:
                stages = self._start_stages(tasks)
                stages.append(tasks.create_task(self._show(port, stop), name="terminal"))
                await self._until_stopped(stop)
                self._stop_stages.set()
                _, running = await asyncio.wait(stages, timeout=STOP_WITHIN_S)
                for task in running:
                    log.warning("cancelled, it didn't stop by itself", task=task.get_name())
                    task.cancel()

    async def _warmed_up(self, stop: asyncio.Event) -> bool:
        """Compile the kernels, or load them compiled; False if the user doesn't want to wait for it."""
        self._console.print("Compiling kernels (a minute the first time, then cached) ...", highlight=False)
        compiling = asyncio.ensure_future(asyncio.to_thread(warm_up, self._config))
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({compiling, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if stop.is_set():
            return False
        await compiling
        return True

    def _start_stages(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        config, stop, metrics, live = self._config, self._stop_stages, self._metrics, self._live
        embedded = self._options.kafka is None
        ready = {name: asyncio.Event() for name in ("distributor", "generator", "sink")}
        tasks.create_task(self._become_ready(list(ready.values())), name="ready")
        return [
            tasks.create_task(
                sink.run(
                    config,
                    stop,
                    metrics,
                    live=live,
                    embedded=embedded,
                    ready=ready["sink"],
                    endpoints=[self._generated],
                ),
                name="sink",
            ),
            tasks.create_task(
                generator.run(config, stop, metrics, live=live, embedded=embedded, ready=ready["generator"]),
                name="generator",
            ),
            tasks.create_task(
                distributor.run(config, stop, metrics, live=live, embedded=embedded, ready=ready["distributor"]),
                name="distributor",
            ),
        ]

    async def _become_ready(self, stages: list[asyncio.Event]) -> None:
        for stage in stages:
            await stage.wait()
        self._ready.set()

    async def _until_stopped(self, stop: asyncio.Event) -> None:
        """Wait for the user, with or without a demo shop. The shop stops first: what it sent is still taken."""
        if self._options.demo:
            ready = asyncio.ensure_future(self._ready.wait())
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait({ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            stopped.cancel()
            if not stop.is_set():
                from agents import demo_shop  # noqa: PLC0415  the extra `demo` is only needed here

                await demo_shop.run(grpc_address(self._config), stop)
        await stop.wait()

    async def _show(self, port: int, stop: asyncio.Event) -> None:
        introduction = terminal.Introduction(
            grpc=grpc_address(self._config),
            http=http_address(self._config),
            own=f"http://{HOST}:{port}",
            embedded=self._options.kafka is None,
            demo=self._options.demo,
            remote_write=self._options.remote_write,
        )
        await terminal.show(self._generated, introduction, stop, self._console)


def grpc_address(config: Config) -> str:
    """Where the distributor takes OTLP over gRPC."""
    grpc = config.distributor.receivers.otlp.protocols.grpc
    return "off" if grpc is None else grpc.endpoint


def http_address(config: Config) -> str:
    """Where the distributor takes OTLP over HTTP."""
    http = config.distributor.receivers.otlp.protocols.http
    return "off" if http is None else http.endpoint


def with_data_dir(config: Config, directory: Path) -> Config:
    """Local state of the stages in a directory of its own."""
    own = config.spanmill
    work = {
        "generator": own.generator.model_copy(update={"data_dir": directory}),
        "sink": own.sink.model_copy(update={"data_dir": directory}),
    }
    return config.model_copy(update={"spanmill": own.model_copy(update=work)}).with_notes(config.notes)


@contextlib.contextmanager
def _temporary_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="spanmill-dev-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@contextlib.contextmanager
def _with_broker(config: Config, options: DevOptions) -> Iterator[Config]:
    """The configuration with the address of a broker that has the topics."""
    if options.kafka is not None:
        config = with_kafka(config, options.kafka)
        for line in topics.create(config, 4):
            log.info(line)
        yield config
        return
    broker = EmbeddedBroker()
    try:
        broker.create(topics.TopicNames.of(config).all)
        yield with_kafka(config, broker.address)
    finally:
        broker.close()
