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
from schemas.config import Config
from schemas.control import AcceptGap, SkipRecord

TIMEOUT_S = 30.0


class NotThereError(Exception):
    """The shard, or the record, that a command names doesn't exist."""


def append(config: Config, shard: int, decided: AcceptGap | SkipRecord) -> str:
    """Append the record; gives a line that says where it is.

    Raises `NotThereError`, `ControlKeyError` or KafkaException.
    """
    return asyncio.run(_append(config, shard, decided))


async def _append(config: Config, shard: int, decided: AcceptGap | SkipRecord) -> str:
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
    producer = Producer(kafka.producer_settings(config, TIMEOUT_S))
    try:
        headers = keys.at(topic, shard).headers(decided)
        offset = await (await producer.send(topic, shard, b"", headers=headers))
    finally:
        await asyncio.to_thread(producer.close)
    return f"appended to {topic}/{shard} at offset {offset}; a sink that has stopped goes on when it is started again"
