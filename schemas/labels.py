"""Label sets and their bytes, label names, and the text of numbers (Tempo PRIM-3 to PRIM-8).

Label bytes are the identity of a series inside one metric, and half of the canonical order: names and values in turn,
each as an unsigned varint of its length in bytes and the bytes, sorted by name. Names are unique, and neither they nor
values are empty.
"""

import math
import re
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise

from schemas.errors import Malformed, Reason
from schemas.murmur2 import partition_of
from schemas.varint import uvarint

SPAN_METRICS_RESERVED = frozenset({b"service", b"span_name", b"span_kind", b"status_code", b"status_message"})
"""Names that dimensions and mappings of span metrics may not take, whichever intrinsics are enabled (PRIM-5)."""

TARGET_INFO_RESERVED = SPAN_METRICS_RESERVED | {b"job", b"instance"}
"""Names that attributes of target_info may not take (PRIM-5)."""

MAX_LABEL_SET_BYTES = 1 << 18
"""Longer label bytes are invalid: a row of deltas has to fit into one record of Kafka. Tempo has no such limit."""

_ROUTES_KEPT, _DECODED_KEPT = 10_000, 1_000
_SHORT_SET_BYTES = 4_000

_OUTSIDE_NAMES = re.compile(r"[^A-Za-z0-9_]")


def sanitize_name(raw: str | bytes) -> bytes:
    """A label name: each character outside [A-Za-z0-9_], and each byte of invalid UTF-8, becomes one _ (PRIM-4)."""
    text = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
    return _OUTSIDE_NAMES.sub("_", text).encode("ascii")


def reserved_name(raw: str | bytes, reserved: frozenset[bytes]) -> bytes:
    """The sanitised name, with __ before it if it is one of the reserved ones (PRIM-5)."""
    name = sanitize_name(raw)
    return b"__" + name if name in reserved else name


def label_set(pairs: Iterable[tuple[bytes, bytes]], max_name: int = 1024, max_value: int = 2048) -> bytes | None:
    """The label bytes of names and values in the order in which they were added (PRIM-6, steps 1 to 3 and 6).

    Names and values are cut to that many bytes (0: not at all), which may cut a character in two. Of equal names the
    last one added counts, and if its value is empty the label is gone. None if the set is invalid: an empty name with
    a value, a text that isn't UTF-8, or more than `MAX_LABEL_SET_BYTES` in all.
    """
    name_end, value_end = max_name if max_name > 0 else None, max_value if max_value > 0 else None
    last = {name[:name_end]: value[:value_end] for name, value in pairs}
    texts = [text for name in sorted(last) if last[name] for text in (name, last[name])]
    if last.get(b""):
        return None
    # NUL completes no character, so the whole is UTF-8 only if each text is.
    joined = b"\0".join(texts)
    if not joined.isascii() and not _is_utf8(joined):
        return None
    encoded = _encode_texts(texts)
    return encoded if len(encoded) <= MAX_LABEL_SET_BYTES else None


def encode_labels(pairs: Iterable[tuple[str, str]]) -> bytes:
    """The label bytes of pairs that are sorted by name, unique and not empty (not checked)."""
    return _encode_texts([text.encode() for pair in pairs for text in pair])


def decode_labels(encoded: bytes) -> tuple[tuple[str, str], ...]:
    """The pairs, sorted by name. Raises Malformed for what `label_set` doesn't produce."""
    return _decoded_lately(encoded) if len(encoded) <= _SHORT_SET_BYTES else _decoded(encoded)


def _decoded(encoded: bytes) -> tuple[tuple[str, str], ...]:
    texts: list[str] = []
    at = 0
    while at < len(encoded):
        length, start = _read_uvarint(encoded, at)
        at = start + length
        if not length or at > len(encoded):
            raise Malformed(Reason.LABELS, f"a text of {length} bytes", start)
        try:
            texts.append(encoded[start:at].decode())
        except UnicodeDecodeError as error:
            raise Malformed(Reason.LABELS, "not UTF-8", start + error.start) from error
    names = texts[::2]
    if len(texts) % 2 or any(a >= b for a, b in pairwise(names)):
        raise Malformed(Reason.LABELS, "names without a value, not sorted or not unique", len(encoded))
    return tuple(zip(names, texts[1::2], strict=True))


# The metrics of one label set are made into series in turn.
_decoded_lately = lru_cache(maxsize=_DECODED_KEPT)(_decoded)


def float_text(x: float) -> str:
    """The shortest decimal that reads back as `x`, never with an exponent (PRIM-3, REG-10)."""
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "+Inf" if x > 0 else "-Inf"
    text = repr(float(x))
    if "e" in text:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


@lru_cache(maxsize=_ROUTES_KEPT)
def shard_of(tenant: str, route: bytes, shards: int) -> int:
    """The partition of `[deltas]` that owns the series of a tenant with this routing label value."""
    return partition_of(tenant.encode() + b"\0" + route, shards)


def _encode_texts(texts: list[bytes]) -> bytes:
    pieces: list[bytes] = []
    for text in texts:
        pieces += (uvarint(len(text)), text)
    return b"".join(pieces)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_uvarint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a position, in the shortest form only, and the position after it."""
    start, number, shift = at, 0, 0
    while at < len(data) and shift < 35:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            if byte or at == start + 1:
                return number, at
            break
    raise Malformed(Reason.LABELS, "not a length", start)
