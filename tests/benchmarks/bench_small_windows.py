"""What a window costs that has next to nothing in it: microseconds of CPU a stage.

`python -m tests.benchmarks.bench_small_windows [rounds]`. Each stage is a step of a window's way from records to
samples, with two shards; a column is a window of so many spans, of two tenants from ten spans on. With 64 source
partitions and 16 shards a window is folded 64 times and its batches are decoded 1,024 times, whatever is in them. The
last line is how many 50-byte requests protobuf's own parser reads in the time of a whole column.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from statistics import median

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.checkpoint import decode_checkpoint, encode_checkpoint
from schemas.config import TenantSettings
from schemas.control import Tick
from schemas.deltas import decode_batch, encode_window
from schemas.otlp import Codec
from schemas.record import Record
from schemas.snapshot import newest_snapshot, snapshot_records
from streams.partition import PartitionFold
from streams.shard import Shard
from tests.streams.log import CLIENT, INTERVAL_MS, SERVER, T0_MS, Told, record, settings

SPANS = 0, 1, 10, 100
SHARDS = 2

Stages = dict[str, list[float]]


@cache
def settings_of(tenant: str) -> TenantSettings:
    """Both processors, with the defaults."""
    del tenant
    return settings({}, {})


def spans_of_a_window(count: int, first: int) -> list[Told]:
    """Half of them are client's sides of requests whose server's sides come a window later."""
    sides = ((CLIENT, SERVER)[n % 2] for n in range(count))
    return [
        Told(f"service-{n % 5}", kind, id=n + 1, parent=n + 1 if kind == SERVER else b"", trace=first + n)
        for n, kind in enumerate(sides)
    ]


def log_of(spans: int, windows: int) -> list[list[Record]]:
    """The records of each window, the last of which begins the next."""
    out: list[list[Record]] = []
    offset = 0
    for window in range(windows):
        at_ms = window * INTERVAL_MS
        told = spans_of_a_window(spans, 1 + window * spans)
        halves = (told[: spans // 2], told[spans // 2 :]) if spans >= 10 else (told,)
        own = [
            record(offset + n, at_ms + INTERVAL_MS - 1_000 + n, *half, tenant=f"t{n}")
            for n, half in enumerate(halves)
            if half
        ]
        offset += len(own) + 1
        out.append([*own, Record(offset - 1, T0_MS + at_ms + INTERVAL_MS, b"", control=Tick(T0_MS))])
    return out


def timed(stages: Stages, name: str, step: Callable[[], object]) -> object:
    """What a step gives; its CPU time is noted."""
    begun = time.process_time_ns()
    result = step()
    stages.setdefault(name, []).append((time.process_time_ns() - begun) / 1e3)
    return result


def measure(spans: int, rounds: int) -> dict[str, float]:
    """The median of each stage."""
    stages: Stages = {}
    fold = PartitionFold(settings_of, INTERVAL_MS, Codec.OTLP)
    shards = [Shard(number, settings_of, INTERVAL_MS) for number in range(SHARDS)]
    for records in log_of(spans, rounds):
        *own, tick = records
        if own:
            timed(stages, "fold", lambda own=own: fold.feed(own))
        fed = timed(stages, "close, open", lambda tick=tick: fold.feed([tick]))
        if not fed.closings:
            continue
        (closing,) = fed.closings
        (window,) = closing.windows
        value = timed(stages, "checkpoint", lambda c=closing.checkpoint: encode_checkpoint(c))
        timed(stages, "start", lambda v=value: start(v))
        parts = timed(stages, "encode", lambda w=window: encode_window(w, 0, 1, SHARDS))
        for shard, (part,) in zip(shards, parts, strict=True):
            batch = timed(stages, "decode", lambda p=part: decode_batch(p))
            timed(stages, "complete", lambda s=shard, b=batch: s.feed(s.next_offset, b))
        cut = shards[0].snapshot()
        assert cut is not None
        saved = timed(stages, "snapshot", lambda c=cut: dict(snapshot_records(c, b"w")))
        timed(stages, "restore", lambda s=saved: restored(s))
    return {name: median(times[2:]) for name, times in stages.items()}


def start(value: bytes) -> PartitionFold:
    """What an owner does with a checkpoint."""
    return PartitionFold(settings_of, INTERVAL_MS, Codec.OTLP, decode_checkpoint(value))


def restored(records: dict[bytes, bytes]) -> Shard:
    """What an owner does with a snapshot."""
    found = newest_snapshot(records, 0)
    assert found is not None
    return Shard.restore(found.cut, settings_of, INTERVAL_MS)


def parse_us(requests: Sequence[bytes]) -> float:
    """Of one request."""
    begun = time.process_time_ns()
    for request in requests:
        TracesData.FromString(request)
    return (time.process_time_ns() - begun) / 1e3 / len(requests)


def main() -> None:
    """Print a line per stage."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    measure(10, 5)
    columns = [measure(spans, rounds) for spans in SPANS]
    print(f"{'us a call, spans a window:':28}" + "".join(f"{spans:10}" for spans in SPANS))
    for name in columns[-1]:
        print(f"{name:28}" + "".join(f"{column.get(name, 0):10,.0f}" for column in columns))
    totals = [sum(column.values()) for column in columns]
    print(f"{'all':28}" + "".join(f"{total:10,.0f}" for total in totals))
    parse = parse_us([log_of(1, 1)[0][0].value] * 10_000)
    print(f"{'all, in parsed requests':28}" + "".join(f"{total / parse:10,.0f}" for total in totals))


if __name__ == "__main__":
    main()
