"""What the records of `[deltas]` say, to whoever reads them: a sink, a replay."""

from schemas.control import Tick
from schemas.control_format import ControlFormat, Headers
from schemas.deltas import decode_batch
from schemas.errors import Malformed, Reason
from streams.shard import Item, Unreadable


def delta_item(value: bytes | None, headers: Headers, controls: ControlFormat) -> Item | None:
    """What a record says to its shard; None for what a shard has no use for.

    Raises Malformed for a control record that isn't signed as it must be: nobody may take notice of it.
    """
    try:
        if value:
            return decode_batch(value)
        decided = controls.read(headers)
    except Malformed as error:
        if error.reason == Reason.SIGNATURE:
            raise
        return Unreadable(str(error))
    return None if isinstance(decided, Tick) else decided
