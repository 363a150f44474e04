"""The sink: owns series. Completes windows of its partitions of `[deltas]` and writes them to the endpoints.

Each owned shard runs two loops: one feeds batches to the shard, in a thread, and queues the windows that they complete;
one writes those to every endpoint, in order, and then saves a snapshot. A snapshot is a cut at a window that every
endpoint has; what a crash interrupts is computed again from there, and the endpoints skip what they have.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from agents import kafka
from agents.endpoint import Endpoint
from agents.inbox import Inbox, LogRecord
from agents.log_probe import LogProbe
from agents.own_metrics import OwnMetrics
from agents.topics import TopicNames, check_topics
from agents.worker import Worker, WorkerSettings
from schemas.config import Config, tenant_settings
from schemas.control import CONTROL_HEADER, Waiver, decode_control
from schemas.deltas import Batch, decode_batch
from schemas.errors import Malformed
from schemas.snapshot import newest_snapshot, snapshot_records
from streams.shard import Cut, Outcome, Shard, WindowSamples

log = structlog.get_logger(__name__)

WINDOWS_IN_FLIGHT = 2
"""Completed windows that wait to be written; when they are so many, the shard isn't fed."""
FEED_BYTES = 4_000_000
"""Bytes of batches that are fed at once."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A window to be written; with the last one of a feed, perhaps a cut to be saved after it."""

    window: WindowSamples
    cut: Cut | None = None


class UndecodableBatchError(Exception):
    """A record of `[deltas]` that can't be read: its sender's chain is broken, so the shard must not go on."""


class MissingBatchError(Exception):
    """A batch is out of its chain and the missing one wasn't delivered again in time."""


class Sink:
    """What the owners of one process share."""

    def __init__(self, config: Config, metrics: OwnMetrics, endpoints: Sequence[Endpoint]) -> None:
        self.config, self.metrics, self.endpoints = config, metrics, tuple(endpoints)
        self.names = TopicNames.of(config)
        self.probe = LogProbe(kafka.client_settings(config))
        self.threads = ThreadPoolExecutor(2, thread_name_prefix="complete")
        self.interval_ms = config.metrics_generator.registry.collection_interval_ms
        self.writer = uuid.uuid4().bytes
        """Names this process in the keys of snapshots: a zombie's half must not mix with another's."""

    def owner(self, worker: Worker, shard: int, table: Mapping[bytes, bytes]) -> "ShardOwner":
        """The owner of a shard that has just been assigned, restored from its newest complete snapshot."""
        return ShardOwner(self, worker, shard, {k: v for k, v in table.items() if k.startswith(shard_prefix(shard))})

    def close(self) -> None:
        """Stop the threads."""
        self.threads.shutdown(wait=False, cancel_futures=True)


def shard_prefix(shard: int) -> bytes:
    """What the keys of a shard's snapshots begin with: a table also shows keys of partitions that have left."""
    return b"%d/" % shard
