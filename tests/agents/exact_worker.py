"""A process whose owners add up what they read, and keep the sum with its offset: any loss or repetition shows.

    python -m tests.agents.exact_worker KAFKA APP TOPIC DIRECTORY INSTANCE

It writes a line for each assignment and ends like a stage: by SIGTERM, or with an error and exit code 1.
"""

import asyncio
import signal
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agents import logs
from agents.inbox import Inbox, LogRecord
from agents.log_probe import LogProbe
from agents.own_metrics import OwnMetrics
from agents.worker import Worker
from tests.agents.recording_worker import settings
from tests.servers.kafka import Kafka

STATE = struct.Struct(">QQQ")
SESSION_S = 6.0
"""The shortest that brokers take by default."""


class State:
    """The next offset, how many records were read, and the sum of their values."""

    def __init__(self, saved: bytes | None = None) -> None:
        self.next_offset, self.count, self.sum = (0, 0, 0) if saved is None else STATE.unpack(saved)

    def add(self, record: LogRecord) -> None:
        self.next_offset, self.count, self.sum = record.offset + 1, self.count + 1, self.sum + int(record.value or b"")

    def encode(self) -> bytes:
        return STATE.pack(self.next_offset, self.count, self.sum)


class ExactOwner:
    paused = False
    stream_time_ms = None

    def __init__(self, worker: Worker, probe: LogProbe, partition: int, saved: bytes | None) -> None:
        self._worker, self._partition, self._state = worker, partition, State(saved)
        self.start_offset = self._state.next_offset
        self._inbox = Inbox(probe, worker.settings.topic, partition, self.start_offset)

    @property
    def next_offset(self) -> int:
        return self._inbox.next_offset

    async def put(self, records: Sequence[LogRecord]) -> None:
        await self._inbox.put(records)

    async def close(self) -> None:
        await self._inbox.close()

    async def run(self) -> None:
        while True:
            for record in await self._inbox.take(1000):
                self._state.add(record)
            await self._worker.save(self._partition, {b"%d" % self._partition: self._state.encode()})
            await self._worker.commit(self._partition, self._state.next_offset)


async def main(address: str, app_id: str, topic: str, directory: str, instance: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    probe = LogProbe({"bootstrap.servers": address, "log_level": 0})

    def owner(worker: Worker, partition: int, state: Mapping[bytes, bytes]) -> ExactOwner:
        print(f"owns {partition}", flush=True)
        return ExactOwner(worker, probe, partition, state.get(b"%d" % partition))

    of = settings(
        Kafka(address),
        app_id,
        topic,
        Path(directory),
        consumer_group_instance_id=instance,
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=1.0,
    )
    await Worker(of, owner, OwnMetrics(), "test").run(stop)


if __name__ == "__main__":
    logs.configure()
    asyncio.run(main(*sys.argv[1:]))
