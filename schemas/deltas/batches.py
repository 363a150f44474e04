"""Windows as batches of `[deltas]`: sharded, cut into parts, in a protobuf envelope around an Arrow body."""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from schemas import deltas_pb2 as pb
from schemas.deltas.body import Columns, check_rows, columns, decode_rows, encode_rows, hash_rows, row_costs, tidied
from schemas.deltas.columns import NATIVE_LAYOUTS
from schemas.deltas.rows import NO_ROWS, DeltaRows, RoutedRows, ascend, concatenated, sort_keys
from schemas.deltas.types import Batch, Layout, Ledger, LedgerKey, Window
from schemas.errors import Malformed, Reason
from schemas.labels import shard_of

FORMAT_VERSION = 1

PART_LIMIT_BYTES = 600_000
"""Estimated bytes of ledger entries and rows, not compressed, at which a part ends; a constant of the protocol.

A single row, whose labels are `MAX_LABEL_SET_BYTES` at most, stays below it. A change needs a new `FORMAT_VERSION`:
parts of two cuts must not make one set.
"""

MAX_LAYOUTS_BYTES = 100_000
"""All parts repeat the layouts of the window's rows: about 800 different ones of the default length."""

MAX_BATCH_BYTES = PART_LIMIT_BYTES + MAX_LAYOUTS_BYTES + 20_000
"""No batch is longer, even if nothing compresses: the rest is the envelope, an Arrow schema and zstd's own bytes."""

_DIGEST_BYTES = 16
_CHECKSUM_BYTES = 8
_ENTRY_BYTES = 32
_INT32_MAX = (1 << 31) - 1
_ENTRIES_KEPT = 10_000


def encode_window(window: Window, partition: int, partitions: int, shards: int) -> list[list[bytes]]:
    """The parts, in their order, that each shard gets: at least one, since an empty batch is the shard's watermark.

    A ledger entry goes to the shard of its tenant's empty route, a zero to none. Raises ValueError for a window that
    breaks a rule of `ROW`, has a negative ledger entry, or layouts beyond `MAX_LAYOUTS_BYTES`.
    """
    rows_of, layouts = _sharded(window, shards)
    ledgers = _ledger_by_shard(window.ledger, shards)
    wholes = (
        Batch(
            partition=partition,
            end_ms=window.end_ms,
            previous_end_ms=window.previous_end_ms,
            partitions=partitions,
            part=0,
            parts=1,
            digest=b"",
            revision=window.revision,
            layouts=layouts,
            ledger=ledgers[shard],
            rows=rows_of[shard],
        )
        for shard in range(shards)
    )
    return [list(encode_batch(whole)) for whole in wholes]


def decode_batch(value: bytes) -> Batch:
    """One part. Raises Malformed for whatever `encode_window` doesn't make; the digest is `join_parts`' to check."""
    try:
        message = pb.DeltaBatch.FromString(value)
    except DecodeError as error:
        raise Malformed(Reason.ENVELOPE, "not a batch of deltas") from error
    if message.format_version != FORMAT_VERSION:
        raise Malformed(Reason.VERSION, f"batch format {message.format_version}, known is {FORMAT_VERSION}")
    _check_header(message)
    layouts = tuple(tuple(layout.bounds) for layout in message.layouts)
    if not all(map(_ascends, layouts)):
        raise Malformed(Reason.FIELD, "bounds of buckets that don't ascend")
    rows = _decode_body(message)
    check_rows(rows, layouts)
    return Batch(
        partition=message.partition,
        end_ms=message.end_ms,
        previous_end_ms=message.previous_end_ms if message.HasField("previous_end_ms") else None,
        partitions=message.partitions,
        part=message.part,
        parts=message.parts,
        digest=message.digest,
        revision=message.revision,
        layouts=layouts,
        ledger=_decode_ledger(message),
        rows=rows,
    )


def join_parts(parts: Sequence[Batch]) -> Batch:
    """The whole (as part 0 of 1) of all parts with one digest, in any order. Raises Malformed if they aren't it."""
    ordered = sorted(parts, key=lambda batch: batch.part)
    numbers = [batch.part for batch in ordered]
    if not ordered or numbers != list(range(ordered[0].parts)):
        raise Malformed(Reason.FIELD, f"parts {numbers}")
    whole = replace(
        ordered[0],
        part=0,
        parts=1,
        ledger={key: count for batch in ordered for key, count in batch.ledger.items()},
        rows=concatenated([batch.rows for batch in ordered]),
    )
    if whole.digest != _digest(whole, columns(whole.rows)):
        raise Malformed(Reason.CHECKSUM, "the parts aren't what their digest says")
    return whole


def _sharded(window: Window, shards: int) -> tuple[list[DeltaRows], tuple[Layout, ...]]:
    """The rows of each shard in canonical order, and the layouts of all of them."""
    if not len(window.rows):
        return [NO_ROWS] * shards, ()
    rows, layouts = _own_layouts(window.rows.rows, window.layouts)
    canonical = _canonical(RoutedRows(tidied(rows), window.rows.routes, window.rows.route))
    check_rows(canonical.rows, layouts)
    return _rows_by_shard(canonical, shards), layouts


def _canonical(routed: RoutedRows) -> RoutedRows:
    """The rows in canonical order."""
    keys = sort_keys(routed.rows)
    if ascend(*keys).all():
        return routed
    order = np.lexsort(keys[::-1])
    return RoutedRows(routed.rows.take(order), routed.routes, routed.route[order])


def _rows_by_shard(routed: RoutedRows, shards: int) -> list[DeltaRows]:
    """The rows of each shard, in their order."""
    if shards == 1:
        return [routed.rows]
    shard = _shards_of_rows(routed, shards)
    order = np.argsort(shard, kind="stable")
    bounds = np.searchsorted(shard[order], np.arange(shards + 1)).tolist()
    rows = routed.rows.take(order)
    return [rows.slice(start, end) if start < end else NO_ROWS for start, end in pairwise(bounds)]


def _shards_of_rows(routed: RoutedRows, shards: int) -> npt.NDArray[np.int64]:
    """Per row, the shard that owns its series."""
    # Few routes (services) have many rows, and many label sets.
    routes: dict[bytes, int] = {}
    route = np.array([routes.setdefault(route, len(routes)) for route in routed.routes])[routed.route]
    tenant = routed.rows.cells["tenant"].astype(np.int64)
    owners, of_row = np.unique(tenant * len(routes) + route, return_inverse=True)
    pairs, texts = (divmod(owner, len(routes)) for owner in owners.tolist()), list(routes)
    numbers = [shard_of(routed.rows.tenants[tenant], texts[route], shards) for tenant, route in pairs]
    return np.array(numbers, np.int64)[of_row]


def _ledger_by_shard(ledger: Ledger, shards: int) -> list[Ledger]:
    """The entries of each shard, sorted."""
    owned: list[Ledger] = [{} for _ in range(shards)]
    for key, count in sorted(ledger.items()):
        if count < 0:
            raise ValueError(f"a negative ledger entry: {key} {count}")
        if count:
            tenant = dict(key.labels).get("tenant", "")
            owned[shard_of(tenant, b"", shards)][key] = count
    return owned


def _own_layouts(rows: DeltaRows, layouts: tuple[Layout, ...]) -> tuple[DeltaRows, tuple[Layout, ...]]:
    """The layouts that the rows use, sorted, so that their order in the window doesn't reach the bytes."""
    numbers = rows.cells["layout"]
    used = np.unique(numbers[numbers < NATIVE_LAYOUTS]).tolist()
    if used and used[-1] >= len(layouts):
        raise Malformed(Reason.ROWS, "a layout that isn't there")
    own = tuple(sorted({layouts[number] for number in used}))
    if not all(map(_ascends, own)):
        raise ValueError(f"bounds of buckets that don't ascend: {own}")
    if sum(8 * len(layout) + 8 for layout in own) > MAX_LAYOUTS_BYTES:
        raise ValueError(
            f"{len(own)} bucket layouts in one window: {MAX_LAYOUTS_BYTES} bytes of them fit into a record"
        )
    places = {layout: place for place, layout in enumerate(own)}
    return rows.with_layouts(np.array([places.get(layout, 0) for layout in layouts], np.uint16)), own


def encode_batch(whole: Batch) -> Iterator[bytes]:
    """The parts of a whole, in their order, at least one, with its digest; `join_parts` makes it of them again.

    Cut where `PART_LIMIT_BYTES` are reached: ledger entries first, then rows.
    """
    content = columns(whole.rows)
    whole = replace(whole, digest=_digest(whole, content))
    entries = list(whole.ledger.items())
    entry_costs = np.array([_entry_cost(key) for key, _ in entries], np.int64)
    following, first = row_costs(content)
    cuts = _cuts(np.concatenate([entry_costs, following]), np.concatenate([entry_costs, first]))
    if len(cuts) == 2:
        yield _encode_part(whole, content)
        return
    n = len(entries)
    for part, (start, end) in enumerate(pairwise(cuts)):
        rows = whole.rows.slice(max(start - n, 0), max(end - n, 0))
        ledger = dict(entries[start:end])
        yield _encode_part(replace(whole, part=part, parts=len(cuts) - 1, ledger=ledger, rows=rows), columns(rows))


def _cuts(following: np.ndarray, first: np.ndarray) -> list[int]:
    """Where parts begin and the last one ends. An item costs `first` at the beginning of a part, else `following`."""
    total = np.cumsum(following)
    cuts = [0]
    while (start := cuts[-1]) < len(total):
        budget = PART_LIMIT_BYTES - first[start] + total[start]
        cuts.append(max(start + 1, int(np.searchsorted(total, budget, side="right"))))
    return cuts if len(cuts) > 1 else [0, 0]


def _entry_cost(key: LedgerKey) -> int:
    return sum(len(text) + _ENTRY_BYTES for text in _entry_texts(key))


@lru_cache(maxsize=_ENTRIES_KEPT)
def _entry_texts(key: LedgerKey) -> tuple[bytes, ...]:
    """The texts of a ledger entry, most of which come in every window."""
    return tuple(text.encode() for text in (key.counter, *(text for pair in key.labels for text in pair)))


def _encode_part(part: Batch, content: Columns) -> bytes:
    message = pb.DeltaBatch(
        format_version=FORMAT_VERSION,
        partition=part.partition,
        end_ms=part.end_ms,
        previous_end_ms=part.previous_end_ms,
        partitions=part.partitions,
        part=part.part,
        parts=part.parts,
        digest=part.digest,
        revision=part.revision,
        layouts=[pb.Layout(bounds=layout) for layout in part.layouts],
        ledger=[
            pb.LedgerEntry(
                counter=key.counter,
                labels=[pb.LedgerLabel(name=name, value=value) for name, value in key.labels],
                count=count,
            )
            for key, count in part.ledger.items()
        ],
    )
    if len(part.rows):
        message.rows, message.rows_size = encode_rows(content)
        message.rows_checksum = _checksum(message.rows)
    return message.SerializeToString(deterministic=True)


def _check_header(message: pb.DeltaBatch) -> None:
    rules = {
        "partition": message.partition < message.partitions <= _INT32_MAX,
        "part": message.part < message.parts,
        "end": message.end_ms >= 0,
        "previous end": not message.HasField("previous_end_ms") or 0 <= message.previous_end_ms < message.end_ms,
        "digest": len(message.digest) == _DIGEST_BYTES,
    }
    broken = [name for name, holds in rules.items() if not holds]
    if broken:
        raise Malformed(Reason.FIELD, ", ".join(broken))


def _decode_body(message: pb.DeltaBatch) -> DeltaRows:
    if not message.rows:
        return NO_ROWS
    # Against bit rot and mixed-up records; Arrow needn't meet such bytes.
    if message.rows_checksum != _checksum(message.rows):
        raise Malformed(Reason.CHECKSUM, "the rows aren't what their checksum says")
    return decode_rows(message.rows, message.rows_size)


def _decode_ledger(message: pb.DeltaBatch) -> Ledger:
    ledger: Ledger = {}
    for entry in message.ledger:
        key = LedgerKey(entry.counter, tuple((label.name, label.value) for label in entry.labels))
        if key in ledger:
            raise Malformed(Reason.FIELD, f"two ledger entries {key}")
        ledger[key] = entry.count
    return ledger


def _ascends(layout: Layout) -> bool:
    # Not-a-number compares false.
    return all(a < b for a, b in pairwise((float("-inf"), *layout, float("inf"))))


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()


def _digest(whole: Batch, content: Columns) -> bytes:
    """A digest of content, not of bytes: another version of Arrow or zstd must give the same one."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    previous = -1 if whole.previous_end_ms is None else whole.previous_end_ms
    numbers = (FORMAT_VERSION, whole.partition, whole.partitions, whole.end_ms, previous, whole.revision)
    digest.update(struct.pack("<5qQ", *numbers))
    for layout in whole.layouts:
        digest.update(struct.pack(f"<q{len(layout)}d", len(layout), *layout))
    digest.update(struct.pack("<q", -1))
    for key, count in whole.ledger.items():
        texts = _entry_texts(key)
        digest.update(struct.pack(f"<Qq{len(texts)}q", count, len(texts), *map(len, texts)))
        digest.update(b"".join(texts))
    digest.update(struct.pack("<q", len(whole.ledger)))
    hash_rows(content, digest.update)
    return digest.digest()
