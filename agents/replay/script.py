"""The records of the deltas topic as scripts: in which order live's shards had batches and control records."""

import sys
from collections.abc import Mapping

from agents.replay.topic import Range, Topic
from agents.topic_record import TopicRecord
from schemas.control import ConfigChange
from schemas.control_format import ControlKeys
from schemas.errors import Malformed
from streams.delta_records import delta_item
from streams.scripted_shard import Script, Scripted

FIRST_BYTES = 16 << 20
"""How far into each partition the first configuration record is looked for: stages append it as soon as they run."""


class DeltaScripts:
    """The scripts of all shards, up to what the topic held when it was opened. Records are read as they are needed."""

    def __init__(self, topic: Topic, keys: ControlKeys) -> None:
        self.topic, self._keys = topic, keys

    @property
    def shards(self) -> int:
        """How many there are."""
        return len(self.topic.ends)

    @property
    def starts_late(self) -> bool:
        """Whether retention has taken records of the beginning."""
        return any(ends.low for ends in self.topic.ends.values())

    def scripts(self, starts: Mapping[int, int]) -> dict[int, Script]:
        """The script of each shard, from an offset on."""
        return {shard: self._script(shard, starts.get(shard, 0)) for shard in self.topic.ends}

    def first_change(self) -> ConfigChange | None:
        """The configuration record with which the stages began; None if there is none near the beginning."""
        for shard, ends in self.topic.ends.items():
            for record in self.topic.read(shard, Range(ends.low, ends.high), FIRST_BYTES):
                item = None if record.value else self._scripted(shard, record)
                if item is not None and isinstance(item.item, ConfigChange):
                    return item.item
        return None

    def _script(self, shard: int, start: int) -> Script:
        left = Range(start, self.topic.ends[shard].high)
        while left.position < left.end:
            for record in self.topic.read(shard, left):
                scripted = self._scripted(shard, record)
                if scripted is not None:
                    yield scripted

    def _scripted(self, shard: int, record: TopicRecord) -> Scripted | None:
        try:
            item = delta_item(record.value, record.headers, self._keys.at(self.topic.name, shard))
        except Malformed as error:
            sys.stderr.write(f"spanmill: {self.topic.name}/{shard}: offset {record.offset}: {error}: passed over\n")
            return None
        return None if item is None else Scripted(record.offset, item)
