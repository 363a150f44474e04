"""What is put into one request: so many samples, so many bytes."""

from collections.abc import Iterable, Iterator, Sequence

from agents.remote_write.metrics import Load
from schemas.native_histogram import NativeHistogram
from schemas.remote_write import Row

MAX_BYTES = 4_000_000
"""Of a request before its compression, roughly. Receivers take 32 MB (Prometheus 3) or more; proxies may take less."""
SAMPLE_BYTES = 40
EXEMPLAR_BYTES = 100
BUCKET_BYTES = 8


def chunks(rows: Iterable[Row], most_rows: int, most_bytes: int = MAX_BYTES) -> Iterator[list[Row]]:
    """Rows in their order, in lists that are no longer than that; one that is larger by itself is alone."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        adds = row_bytes(row)
        if chunk and (len(chunk) >= most_rows or size + adds > most_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += adds
    if chunk:
        yield chunk


def row_bytes(row: Row) -> int:
    """About how long a row is in a request."""
    labels_block, value, _, exemplar = row
    size = len(labels_block) + SAMPLE_BYTES
    if exemplar is not None:
        size += EXEMPLAR_BYTES
    if isinstance(value, NativeHistogram):
        size += BUCKET_BYTES * len(value.buckets) + EXEMPLAR_BYTES * len(value.exemplars)
    return size


def load_of(rows: Sequence[Row]) -> Load:
    """What rows carry."""
    natives = [value for _, value, _, _ in rows if isinstance(value, NativeHistogram)]
    exemplars = sum(exemplar is not None for _, _, _, exemplar in rows)
    return Load(len(rows) - len(natives), len(natives), exemplars + sum(len(value.exemplars) for value in natives))
