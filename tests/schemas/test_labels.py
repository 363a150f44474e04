import math
import re
import struct

import numba
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import Malformed
from schemas.label_bytes import check_label_bytes
from schemas.labels import (
    MAX_LABEL_SET_BYTES,
    SPAN_METRICS_RESERVED,
    TARGET_INFO_RESERVED,
    decode_labels,
    encode_labels,
    float_text,
    label_set,
    reserved_name,
    sanitize_name,
    shard_of,
)
from schemas.murmur2 import murmur2, murmur2_range, partition_of

TEXTS = st.text(min_size=1, max_size=20) | st.text("ab", min_size=1, max_size=300)
LABELS = st.dictionaries(TEXTS, TEXTS, max_size=6).map(lambda labels: sorted(labels.items()))
# Few and short, so that names meet, values are empty and UTF-8 breaks.
RAW = st.binary(max_size=3) | st.sampled_from([b"", b"a", b"b", b"\xc3\xa9", b"\xc3", b"\xa9", b"\xed\xa0\x80"])


@given(LABELS)
def test_label_bytes_decode_to_the_labels_they_were_made_of(labels):
    assert list(decode_labels(encode_labels(labels))) == labels


@given(LABELS, st.randoms(use_true_random=False))
def test_the_order_in_which_labels_are_added_does_not_show(labels, random):
    shuffled = [(name.encode(), value.encode()) for name, value in labels]
    random.shuffle(shuffled)
    assert label_set(shuffled, 0, 0) == encode_labels(labels)


def finished(pairs, max_name, max_value):
    """PRIM-6, step by step."""
    added = [(n[:max_name] if max_name else n, v[:max_value] if max_value else v) for n, v in pairs]
    ordered = sorted(added, key=lambda pair: pair[0])
    last = [pair for i, pair in enumerate(ordered) if i + 1 == len(ordered) or ordered[i + 1][0] != pair[0]]
    kept = [(n, v) for n, v in last if v]
    try:
        return None if any(not n for n, _ in kept) else [(n.decode(), v.decode()) for n, v in kept]
    except UnicodeDecodeError:
        return None


@given(st.lists(st.tuples(RAW, RAW), max_size=6), st.integers(0, 3), st.integers(0, 3))
@example([(b"a", b"\xc3"), (b"\xa9", b"x")], 0, 0)
def test_label_sets_follow_the_rules_step_by_step(pairs, max_name, max_value):
    expected = finished(pairs, max_name, max_value)
    assert label_set(pairs, max_name, max_value) == (None if expected is None else encode_labels(expected))


@pytest.mark.parametrize(
    ("pairs", "labels"),
    [
        ([(b"b", b"1"), (b"a", b"2")], [("a", "2"), ("b", "1")]),
        ([(b"a", b"1"), (b"a", b"2")], [("a", "2")]),
        ([(b"a", b"1"), (b"a", b"")], []),
        ([(b"a", b""), (b"a", b"1")], [("a", "1")]),
        ([(b"", b"")], []),
        ([(b"", b"1")], None),
        ([(b"a", b"\xff")], None),
        ([(b"n" * 1025, b"v" * 2049)], [("n" * 1024, "v" * 2048)]),
        ([(b"a", b"v" * 2047 + "é".encode())], None),
    ],
)
def test_examples_of_label_sets(pairs, labels):
    """PRIM-6: of equal names the last counts, even if empty; cuts may make a set invalid."""
    assert label_set(pairs) == (None if labels is None else encode_labels(labels))


@pytest.mark.parametrize(
    ("pairs", "lengths", "labels"),
    [
        pytest.param(
            [(b"very_lengthy_label", b"very_length_value"), (b"another_lengthy_label", b"another_value")],
            (8, 5),
            (("another_", "anoth"), ("very_len", "very_")),
            id="G173",
        ),
        pytest.param([(b"very_long_name", b"very_long_value")], (10, 10), (("very_long_", "very_long_"),), id="G179"),
        pytest.param([(b"dup", b"first"), (b"dup", b"second"), (b"dup", b"")], (0, 0), (), id="G181"),
        pytest.param([(b"a" * 5000, b"b" * 5000)], (0, 0), (("a" * 5000, "b" * 5000),), id="REG-29, any length"),
    ],
)
def test_lengths_are_limited_in_bytes_and_the_last_of_a_name_wins(pairs, lengths, labels):
    """REG-29, PRIM-6."""
    made = label_set(pairs, *lengths)
    assert made is not None
    assert decode_labels(made) == labels


def test_a_label_set_that_fits_into_no_record_is_invalid():
    pairs = [(b"name%d" % i, b"v" * 2000) for i in range(MAX_LABEL_SET_BYTES // 2010)]
    assert label_set(pairs) is not None
    assert label_set([*pairs, (b"x", b"v" * 2048), (b"y", b"v" * 2048)]) is None


def is_label_bytes(encoded: bytes) -> bool:
    try:
        decode_labels(encoded)
    except Malformed:
        return False
    return True


@given(st.binary(max_size=12) | st.lists(RAW).map(lambda texts: b"".join(bytes([len(t)]) + t for t in texts)))
@example(b"\x81\x00a\x01b")  # a length that is longer than it need be
@example(b"\x01a\x01b\x01a\x01c")  # a name twice
@example(b"\x01b\x01b\x01a\x01c")
@example(b"\x01a")
@example(b"\x00\x01a")
@example(b"\xff\xff\xff\xff\xff\x0f")
def test_only_what_encodes_back_to_itself_is_decoded(encoded):
    try:
        labels = decode_labels(encoded)
    except Malformed:
        return
    assert encode_labels(labels) == encoded
    assert list(labels) == sorted(dict(labels).items())
    assert all(name and value for name, value in labels)


@given(st.lists(LABELS.map(encode_labels) | st.binary(max_size=8), max_size=4), st.data())
def test_the_check_of_many_label_sets_agrees_with_decoding_each(sets, data):
    if sets:
        row = data.draw(st.integers(0, len(sets) - 1))
        sets[row] = sets[row][: data.draw(st.integers(0, len(sets[row])))]
    array = pa.array([b"skipped", *sets], pa.binary())[1:]
    if all(map(is_label_bytes, sets)):
        check_label_bytes(array)
    else:
        with pytest.raises(Malformed):
            check_label_bytes(array)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("foo.bar", b"foo_bar"),
        ("label-name", b"label_name"),
        ("用户", b"__"),
        ("用户".encode(), b"__"),
        ("a  b", b"a__b"),
        ("0digit", b"0digit"),
        ("Upper", b"Upper"),
        (b"a\xff\xfeb", b"a__b"),
        (b"\xe2\x82x", b"__x"),  # a cut character: each of its bytes counts
        (b"\xed\xa0\x80", b"___"),  # a surrogate is no UTF-8
        ("", b""),
    ],
)
def test_names_are_sanitised_character_by_character(raw, name):
    """PRIM-4."""
    assert sanitize_name(raw) == name


def test_names_that_a_processor_reserves_get_a_prefix():
    """PRIM-5: sanitised first; job and instance are reserved in target_info only, service graphs reserve nothing."""
    assert reserved_name("span.kind", SPAN_METRICS_RESERVED) == b"__span_kind"
    assert reserved_name("job", SPAN_METRICS_RESERVED) == b"job"
    assert reserved_name("job", TARGET_INFO_RESERVED) == b"__job"
    assert reserved_name(b"service", TARGET_INFO_RESERVED) == b"__service"
    assert reserved_name("service", frozenset()) == b"service"


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (1e21, "1000000000000000000000"),
        (1.0, "1"),
        (-0.0, "-0"),
        (0.0, "0"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (0.002, "0.002"),
        (0.1, "0.1"),
        (16.384, "16.384"),
        (2e-7, "0.0000002"),
        (1e16, "10000000000000000"),
        (1.5e300, "15" + "0" * 299),
    ],
)
def test_floats_are_written_as_the_shortest_decimal_without_exponent(x, text):
    """PRIM-3."""
    assert float_text(x) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_float_reads_back_as_the_same_bits(x):
    text = float_text(x)
    assert struct.pack("<d", float(text)) == struct.pack("<d", x)
    assert re.fullmatch(r"-?[0-9]+(\.[0-9]*[1-9])?", text)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [  # from the tests of Kafka's Java client
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_the_java_producer(key, hashed):
    assert murmur2(key) == hashed
    assert partition_of(key, 12) == (hashed & 0x7FFFFFFF) % 12


@numba.njit
def hashes_of_ranges(data, length):
    out = np.empty(len(data) - length, np.int64)
    for start in range(len(out)):
        out[start] = murmur2_range(data, start, length)
    return out


@given(st.binary(min_size=9, max_size=40), st.integers(0, 8))
def test_murmur2_of_a_range_inside_a_kernel_is_that_of_its_bytes(data, length):
    hashes = hashes_of_ranges(np.frombuffer(bytearray(data), np.uint8), length)
    assert hashes.tolist() == [murmur2(data[at : at + length]) for at in range(len(data) - length)]
    assert murmur2(data) == murmur2_range.py_func(np.frombuffer(data, np.uint8), 0, len(data))


def test_shards_depend_on_tenant_and_route_alone():
    hashed = murmur2(b"acme\0checkout") & 0x7FFFFFFF
    assert [shard_of("acme", b"checkout", n) for n in (1, 4, 7)] == [hashed % n for n in (1, 4, 7)] == [0, 3, 2]
    # The separator keeps pairs apart whose texts join alike.
    assert shard_of("a", b"bc", 1 << 30) != shard_of("ab", b"c", 1 << 30)
