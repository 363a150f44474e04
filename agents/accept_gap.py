"""`spanmill sink accept-gap`: lets a shard go on that stopped for a batch that is missing, or can't be read.

It appends a control record to the shard's partition of `[deltas]`, which whoever reads that, a replay too, obeys in its
place. The sink need not be stopped; one that has stopped reads it when it is started again.
"""

import asyncio

from agents import kafka
from agents.control_keys import control_keys
from agents.log_probe import LogProbe
from agents.producer import Producer
from agents.topics import TopicNames
from schemas.checkpoint import decode_checkpoint
from schemas.config import Config
from schemas.control import AcceptGap, SkipRecord

TIMEOUT_S = 30.0


class NotThereError(Exception):
    """The shard, or the record, that a command names doesn't exist."""


class NotLostError(Exception):
    """The batch is still to come: accepted, it would be left out when it does."""


def append(config: Config, shard: int, decided: AcceptGap | SkipRecord, *, lost: bool) -> str:
    """Append the record; gives a line that says where it is. `lost`: a missing batch is taken for that unasked.

    Raises `NotThereError`, `NotLostError`, `ControlKeyError`, KafkaException; Malformed if a checkpoint can't be read.
    """
    return asyncio.run(_append(config, shard, decided, lost=lost))


async def _append(config: Config, shard: int, decided: AcceptGap | SkipRecord, *, lost: bool) -> str:
    keys = control_keys(config)
    topic, probe = TopicNames.of(config).deltas, LogProbe(kafka.client_settings(config))
    shards = await probe.partitions(topic)
    if not 0 <= shard < shards:
        raise NotThereError(f"{topic} has {shards} partitions: there is no shard {shard}")
    if isinstance(decided, SkipRecord):
        ends = await probe.ends(topic, shard)
        if not ends.low <= decided.offset < ends.high:
            raise NotThereError(
                f"{topic}/{shard} has no record at offset {decided.offset}, only {ends.low} to {ends.high - 1}"
            )
    elif not lost:
        await _check_lost(probe, TopicNames.of(config).checkpoints, decided)
    producer = Producer(kafka.producer_settings(config, TIMEOUT_S))
    try:
        headers = keys.at(topic, shard).headers(decided)
        offset = await (await producer.send(topic, shard, b"", headers=headers))
    finally:
        await asyncio.to_thread(producer.close)
    return f"appended to {topic}/{shard} at offset {offset}; a sink that has stopped goes on when it is started again"


async def _check_lost(probe: LogProbe, topic: str, gap: AcceptGap) -> None:
    """A generator saves a checkpoint behind a window once its batch is acknowledged; before, it delivers it again."""
    if gap.partition >= await probe.partitions(topic):
        return
    saved = await probe.newest(topic, gap.partition)
    if saved is None:
        return
    newest_ms, after_ms = decode_checkpoint(saved).previous_end_ms or 0, gap.after_end_ms or 0
    if newest_ms <= after_ms:
        raise NotLostError(
            f"what is missing will be delivered again: the newest checkpoint of partition {gap.partition}, in {topic}, "
            f"is not behind that window. Start its generator and wait; if it never runs again, say --lost"
        )
