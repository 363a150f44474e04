"""The scan of records into span frames, case by case; `test_otlp_fuzz.py` has the broad comparison."""

import math
import random
import struct

import numpy as np
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from schemas.otlp import Codec, Mode, SpanFrame, WantedKey, resource_attributes, scan_records
from schemas.otlp.scan import MAX_BATCH_BYTES
from schemas.record import Record
from tests.otlp_oracle import assert_agrees, frame_of, parse, resource_rows, span_rows
from tests.otlp_samples import (
    any_value,
    attributes,
    descending,
    length_delimited,
    reencode,
    shuffled,
    span_records,
    trace,
    trace_records,
    traces_data,
    uvarint,
)

KEYS = ("service.name", "http.request.method", "http.response.status_code", "db.statement", "app.basket.total")
END = 2**64 - 1


def in_span(content: bytes) -> bytes:
    """A TracesData of one span of these bytes."""
    return length_delimited(1, length_delimited(2, length_delimited(2, content)))


def in_resource_spans(content: bytes) -> bytes:
    return length_delimited(1, content)


def in_attribute(*values: bytes, key: bytes = b"k") -> bytes:
    """A TracesData of one span with one attribute: its key, and its value in these pieces."""
    pieces = b"".join(length_delimited(2, value) for value in values)
    return in_span(length_delimited(9, length_delimited(1, key) + pieces))


def group(number: int, content: bytes = b"") -> bytes:
    return uvarint(number << 3 | 3) + content + uvarint(number << 3 | 4)


def nested_groups(depth: int) -> bytes:
    return uvarint(99 << 3 | 3) * depth + uvarint(99 << 3 | 4) * depth


def array(*values: AnyValue) -> bytes:
    return AnyValue(array_value=ArrayValue(values=values)).SerializeToString()


def only_span(value: bytes, *keys: str | WantedKey) -> SpanFrame:
    frame = frame_of([value], keys)
    assert frame.errors == ()
    assert len(frame.spans.kind) == 1
    assert_agrees([value], keys)
    return frame


def refusal(value: bytes) -> tuple[int, str]:
    assert parse(value) is None
    frame = frame_of([value], ())
    (error,) = frame.errors
    assert len(frame.spans.kind) == len(frame.resources.size) == len(frame.messages.record) == 0
    return error.position, error.reason


# Reading


def test_realistic_records_are_read_in_every_order_of_fields() -> None:
    rng = random.Random(4)
    values = [*span_records(1, 2), *trace_records(2, 30)]
    for value in list(values):
        message = TracesData.FromString(value)
        values += [reencode(message, descending), reencode(message, shuffled(rng))]
    assert assert_agrees(values, KEYS) == 0


def test_orders_of_fields_differ_in_nothing_but_positions() -> None:
    message = traces_data(trace(random.Random(7)))
    rows = [
        (span_rows(frame), resource_rows(frame))
        for frame in (
            frame_of([value], KEYS)
            for value in (
                message.SerializeToString(),
                reencode(message, descending),
                reencode(message, shuffled(random.Random(1))),
            )
        )
    ]
    assert len(rows[0][0]) == 8
    assert rows[0] == rows[1] == rows[2]


def test_a_batch_gives_the_rows_of_its_records_one_by_one() -> None:
    values = trace_records(5, 10)
    values[3] = values[3][:-1]
    values[6] = b""
    together = span_rows(frame_of(values, KEYS))
    alone = [row for value in values for row in span_rows(frame_of([value], KEYS))]
    strip = ("record", "resource")
    assert [{k: v for k, v in row.items() if k not in strip} for row in together] == [
        {k: v for k, v in row.items() if k not in strip} for row in alone
    ]


def test_an_empty_value_has_no_spans_and_is_a_message() -> None:
    frame = frame_of([b"", b""], KEYS)
    assert frame.errors == ()
    assert frame.messages.record.tolist() == [0, 1]
    assert len(frame.spans.kind) == len(frame.resources.size) == 0


def test_no_records_give_an_empty_frame() -> None:
    frame = scan_records([], KEYS, Codec.OTLP)
    assert len(frame.records.offset) == len(frame.spans.kind) == len(frame.errors) == 0
    assert frame.tenants == ()


def test_records_keep_their_offsets_times_tenants_and_flags() -> None:
    value = trace_records(1, 1)[0]
    records = [
        Record(70, 1000, value, "b"),
        Record(72, 1001, value, "a", no_metrics=True),
        Record(73, 999, b"\x00", "b"),
    ]
    frame = scan_records(records, (), Codec.OTLP)
    assert frame.records.offset.tolist() == [70, 72, 73]
    assert frame.records.timestamp_ms.tolist() == [1000, 1001, 999]
    assert [frame.tenants[i] for i in frame.records.tenant] == ["b", "a", "b"]
    assert frame.records.no_metrics.tolist() == [False, True, False]
    assert frame.spans.record.tolist() == [0] * 8 + [1] * 8
    assert frame.spans.index.tolist() == [*range(8), *range(8)]


def test_more_and_smaller_spans_than_expected_still_have_room() -> None:
    tiny = in_resource_spans(b"") * 5000 + length_delimited(1, length_delimited(2, b"\x12\x00" * 5000))
    frame = frame_of([tiny, tiny], ("k",))
    assert len(frame.spans.kind) == 10_000
    assert len(frame.resources.size) == 10_002
    assert not frame.spans.attributes.kind.any()
    assert_agrees([tiny, *trace_records(1, 40), tiny], KEYS)


def test_a_batch_above_the_limit_is_an_error() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_BATCH_BYTES + 1

    with pytest.raises(ValueError, match="a frame holds at most"):
        scan_records([Record(0, 0, Huge())], (), Codec.OTLP)


# Refusals


def test_truncation_at_every_byte_is_judged_as_the_parser_judges_it() -> None:
    message = traces_data(trace(random.Random(5))[:2])
    message.resource_spans[0].scope_spans[0].spans[0].links.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    for value in (message.SerializeToString(), reencode(message, descending)):
        values = [value[:end] for end in range(len(value) + 1)]
        assert assert_agrees(values, KEYS) > len(values) - 10


def test_truncation_inside_the_innermost_message_is_found_at_every_byte() -> None:
    rng = random.Random(6)
    span = trace(rng)[0][1].SerializeToString()
    values = [in_span(span[:end]) for end in range(len(span) + 1)]
    assert_agrees(values, KEYS)


@pytest.mark.parametrize(
    ("value", "position", "reason"),
    [
        (b"\x0a\x05\x0a\x00", 0, "the length goes beyond the end of the message"),
        (in_span(b"\x2a\x03ab"), 6, "the length goes beyond the end of the message"),
        (in_span(b"\x39\x01\x02"), 6, "the value ends before its end"),
        (in_span(b"\x30\x80"), 6, "the value ends before its end"),
        (in_span(b"\x30" + b"\x80" * 11), 6, "the varint is too long"),
        (in_span(b"\x2a\x80\x80\x80\x80\x80\x00"), 6, "the varint is too long"),
        (b"\x8a\x80\x80\x80\x80\x00\x00", 0, "the varint is too long"),
        (b"\x8a\x80\x80\x80\x10\x00", 0, "the varint is too long"),
        (in_span(b"\x2a\x01a\x02\x00"), 9, "the field number is 0"),
        (in_span(b"\x2e"), 6, "there is no such wire type"),
        (in_span(b"\x0c"), 6, "the group's end doesn't belong here"),
        (in_span(b"\x0b\x14"), 6, "the group's end doesn't belong here"),
        (in_span(b"\x0b"), 6, "the value ends before its end"),
        (nested_groups(101), 0, "messages are nested too deeply"),
    ],
)
def test_a_refusal_names_the_field_and_the_reason(value: bytes, position: int, reason: str) -> None:
    assert refusal(value) == (position, reason)
    assert_agrees([value], ())


def test_positions_are_those_of_the_record_not_of_the_batch() -> None:
    good = trace_records(1, 1)[0]
    frame = frame_of([good, in_span(b"\x2a\x01a\x02\x00"), good], ())
    assert [(error.record, error.position) for error in frame.errors] == [(1, 9)]


def test_a_refused_message_leaves_no_row_and_no_attribute_behind() -> None:
    good = traces_data(trace(random.Random(1))).SerializeToString()
    bad = good + b"\x0a\x02\x12\x05"
    frame = frame_of([bad, b"", in_span(b""), bad, in_span(b"")], KEYS)
    assert frame.spans.record.tolist() == [2, 4]
    assert frame.messages.record.tolist() == [1, 2, 4]
    assert frame.resources.message.tolist() == [1, 2]
    assert not frame.spans.attributes.kind.any()
    assert not frame.resources.attributes.kind.any()


@pytest.mark.parametrize("level", range(4))
def test_groups_may_nest_as_deep_as_the_parser_allows(level: int) -> None:
    values = []
    for depth in range(94, 104):
        value = nested_groups(depth)
        for number in (2, 2, 1)[3 - level :]:
            value = length_delimited(number, value)
        values.append(value)
    assert assert_agrees(values, ()) == sum(level + depth > 100 for depth in range(94, 104))


def test_values_may_nest_as_deep_as_the_parser_allows() -> None:
    values = []
    for innermost in (b"", b"\x18\x05", length_delimited(5, b""), length_delimited(6, b"")):
        for depth in range(40, 52):
            value = innermost
            for _ in range(depth):
                value = length_delimited(5, length_delimited(1, value))
            values.append(in_attribute(value))
    for innermost in (b"", b"\x0a\x01a", b"\x0a\x01a\x12\x02\x18\x05", b"\x12\x02\x18\x05\x0a\x01a"):
        for depth in range(28, 36):
            value = length_delimited(6, length_delimited(1, innermost))
            for _ in range(depth):
                value = length_delimited(6, length_delimited(1, length_delimited(2, value)))
            values.append(in_attribute(value))
    refused = assert_agrees(values, ("k",))
    assert 0 < refused < len(values)


def test_groups_are_skipped_whatever_is_in_them() -> None:
    inside = b"\x00\x00" + b"\x2a\x01x" + group(9, b"\x4a\x01\x00") + b"\x08\x80\x00"
    value = in_span(group(5, inside) + b"\x2a\x01n" + group(9) + group((1 << 29) - 1))
    frame = only_span(value)
    assert frame.text(frame.spans.name, 0) == b"n"
    assert frame.spans.size[0] == 3


# Values


@pytest.mark.parametrize(("number", "kind"), [(0, 0), (3, 3), (-1, -1), (2**31 - 1, 2**31 - 1), (-(2**31), -(2**31))])
def test_enums_may_have_any_number(number: int, kind: int) -> None:
    encoded = uvarint(number & END)
    frame = only_span(in_span(b"\x30" + encoded + length_delimited(15, b"\x18" + encoded)))
    assert frame.spans.kind[0] == frame.spans.status[0] == kind


@pytest.mark.parametrize("last", [0, 1, 2, 0x7F])
def test_a_varint_of_ten_bytes_keeps_its_lowest_64_bits(last: int) -> None:
    ten = b"\xff" * 9 + bytes([last])
    only_span(in_span(b"\x30" + ten + b"\x50" + ten))
    only_span(in_attribute(b"\x18" + ten), "k")
    only_span(in_attribute(b"\x10" + ten), "k")
    only_span(in_attribute(b"\x40" + ten), "k")


def test_the_last_one_of_a_repeated_field_wins() -> None:
    name = length_delimited(5, b"first") + length_delimited(5, b"second")
    times = b"\x39" + b"\x01" * 8 + b"\x39" + b"\x02" * 8
    frame = only_span(in_span(name + times + b"\x30\x05\x30\x02"))
    assert frame.text(frame.spans.name, 0) == b"second"
    assert frame.spans.start_ns[0] == 0x0202020202020202
    assert frame.spans.kind[0] == 2
    assert frame.spans.size[0] == 8 + 9 + 2


def test_explicit_defaults_win_too_and_have_no_size() -> None:
    set_first = length_delimited(5, b"name") + b"\x39" + b"\x01" * 8 + b"\x30\x05" + b"\x85\x01\x01\x00\x00\x00"
    zeros = length_delimited(5, b"") + b"\x39" + b"\x00" * 8 + b"\x30\x00" + b"\x85\x01\x00\x00\x00\x00"
    frame = only_span(in_span(set_first + zeros + b"\x50\x00\x60\x00\x70\x00\x0a\x00\x12\x00\x1a\x00\x22\x00"))
    assert frame.text(frame.spans.name, 0) == b""
    assert frame.spans.size[0] == frame.spans.start_ns[0] == frame.spans.kind[0] == 0


def test_status_is_merged_from_its_pieces() -> None:
    pieces = [b"\x18\x02" + length_delimited(2, b"one"), b"", length_delimited(2, b"other")]
    between = length_delimited(9, b"\x0a\x01k\x12\x04\x2a\x02\x0a\x00")
    frame = only_span(in_span(between.join(length_delimited(15, piece) for piece in pieces)), "k")
    assert frame.spans.status[0] == 2
    assert frame.text(frame.spans.status_message, 0) == b"other"


def test_the_status_of_one_span_is_not_that_of_the_next() -> None:
    spans = length_delimited(2, length_delimited(15, b"\x18\x02")) + length_delimited(2, b"\x30\x01")
    frame = frame_of([length_delimited(1, length_delimited(2, spans))], ())
    assert frame.spans.status.tolist() == [2, 0]
    assert frame.spans.kind.tolist() == [0, 1]


def test_resource_and_scope_are_merged_from_their_pieces() -> None:
    first = attributes(service__name="one")[0].SerializeToString()
    second = attributes(service__name="two", x=5)
    resource = length_delimited(1, length_delimited(1, first) + b"\x10\x05")
    again = length_delimited(
        1, b"".join(length_delimited(1, each.SerializeToString()) for each in second) + b"\x10\x07"
    )
    scope = length_delimited(1, length_delimited(1, b"name") + b"\x20\x01")
    other = length_delimited(1, length_delimited(2, b"version") + b"\x20\x00")
    value = in_resource_spans(resource + length_delimited(2, scope + b"\x12\x00" + other) + again)
    frame = only_span(value, "service.name", "x")
    kinds = frame.resources.attributes.kind[:, 0].tolist()
    assert kinds == [1, 3]
    assert resource_rows(frame)[0]["attributes"][0] == (1, b"one")


def test_of_two_attributes_with_one_key_the_first_counts() -> None:
    """PRIM-1: even if it has no value (INT-9)."""
    one = KeyValue(key="k")
    two = KeyValue(key="k", value=any_value("second"))
    span = Span(attributes=[one, two])
    frame = only_span(traces_data([("s", span)]).SerializeToString(), "k")
    assert frame.spans.attributes.kind[0, 0] == 255


DOUBLE = WantedKey("k", Mode.FIRST_POSITIVE_DOUBLE)
TEXT = WantedKey("k", Mode.FIRST_NON_EMPTY_STRING)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((), None),
        ((0.5, 0.25), 0.5),
        ((0.0, -0.0, -2.0, math.nan, -math.inf, 0.25, 4.0), 0.25),
        (("0.5", 1, True, 0.125), 0.125),
        ((5e-324, 1.0), 5e-324),
        ((math.inf, 1.0), math.inf),
        ((1, "1.0"), None),
    ],
)
def test_the_first_double_above_0_may_be_wanted(values: tuple[str | int | float, ...], found: float | None) -> None:
    """PRIM-12: attributes of other types read as 0."""
    span = Span(attributes=[KeyValue(key="x"), *(KeyValue(key="k", value=any_value(value)) for value in values)])
    frame = only_span(traces_data([("s", span)]).SerializeToString(), "x", DOUBLE)
    kind, payload = span_rows(frame)[0]["attributes"][1] or (0, b"")
    assert kind == (0 if found is None else 4)
    if found is not None:
        assert AnyValue.FromString(payload).double_value == found


def test_a_double_after_a_tag_that_is_too_long_is_read_too() -> None:
    value = in_attribute(b"\xa1\x00" + struct.pack("<d", 0.25))
    frame = only_span(value, DOUBLE, "k")
    assert frame.spans.attributes.kind[:, 0].tolist() == [4, 4]
    assert only_span(in_attribute(b"\xa1\x00" + struct.pack("<d", -0.25)), DOUBLE).spans.attributes.kind[0, 0] == 0


@pytest.mark.parametrize(
    ("values", "found"),
    [((), None), (("", 1, True, 0.5), None), (("", "one", "two"), b"one"), ((5, "five"), b"five")],
)
def test_the_first_string_that_is_not_empty_may_be_wanted(
    values: tuple[str | int | float, ...], found: bytes | None
) -> None:
    """HI-1: duplicates of a key are tried in order, and only strings count."""
    given = [KeyValue(key="k"), *(KeyValue(key="k", value=any_value(value)) for value in values)]
    message = traces_data([("s", Span())])
    message.resource_spans[0].resource.attributes.extend(given)
    frame = only_span(message.SerializeToString(), TEXT)
    assert resource_rows(frame)[0]["attributes"] == [None if found is None else (1, found)]


def test_a_key_may_be_wanted_in_several_modes() -> None:
    span = Span(attributes=[KeyValue(key="k", value=any_value(value)) for value in ("", 2, "text", 0.5)])
    frame = only_span(traces_data([("s", span)]).SerializeToString(), TEXT, "other", "k", DOUBLE)
    assert frame.keys == (TEXT, WantedKey("other"), WantedKey("k"), DOUBLE)
    assert frame.spans.attributes.kind[:, 0].tolist() == [1, 0, 1, 4]
    assert frame.spans.attributes.length[:, 0].tolist()[0::2] == [4, 0]
    assert (frame.key_index("k"), frame.key_index("k", Mode.FIRST_POSITIVE_DOUBLE)) == (2, 3)


def test_attributes_of_scopes_events_and_links_are_not_the_spans() -> None:
    """PRIM-2."""
    values = attributes(k="no")
    span = Span(events=[Span.Event(attributes=values)], links=[Span.Link(attributes=values)])
    message = traces_data([("s", span)])
    message.resource_spans[0].scope_spans[0].scope.attributes.extend(values)
    nested = KeyValueList(values=attributes(k="no"))
    span.attributes.append(KeyValue(key="other", value=AnyValue(kvlist_value=nested)))
    frame = only_span(message.SerializeToString(), "k")
    assert frame.spans.attributes.kind.tolist() == [[0]]
    assert frame.resources.attributes.kind.tolist() == [[0]]


@pytest.mark.parametrize(
    "pieces",
    [
        (array(any_value("a")), array(any_value("b"))),
        (array(any_value("a")) + array(any_value("b")),),
        (array(any_value("a")) + b"\x18\x05" + array(any_value("b")),),
        (array(any_value("a")), b"\x18\x05", array(any_value("b")), b"", array(any_value("c"))),
        (array(any_value("a")), b"\x18\x05"),
        (b"\x18\x05", b""),
        (b"", array()),
        (array(), array()),
        (b"\x18\x05" + array(any_value(3)) + b"\x99\x06" + b"\x00" * 8 + array(any_value("b"))),
    ],
)
def test_a_value_is_merged_from_its_pieces(pieces: tuple[bytes, ...] | bytes) -> None:
    parts = (pieces,) if isinstance(pieces, bytes) else pieces
    value = in_attribute(*parts)
    only_span(value, "k")
    assert_agrees([value] * 3 + trace_records(1, 1) + [value], ("k", "service.name"))


def test_many_pieces_are_joined_in_a_time_that_grows_with_their_number() -> None:
    pieces = [array(any_value("x")), b"\x48\x01"] * 20_000
    frame = frame_of([in_attribute(*pieces)], ("k",))
    length = int(frame.spans.attributes.length[0, 0])
    assert length == 20_000 * len(pieces[0])
    assert frame.data.nbytes < 4 * 20_000 * 30
    assert_agrees([in_attribute(*pieces[:600])], ("k",))


def test_invalid_utf8_is_accepted_and_kept() -> None:
    bad = b"\xff\xfe"
    value = in_span(length_delimited(5, bad) + length_delimited(9, b"\x0a\x01k\x12\x04\x0a\x02" + bad))
    with pytest.raises(Exception, match="arsing"):
        TracesData.FromString(value)
    frame = only_span(value, "k")
    assert frame.text(frame.spans.name, 0) == bad
    assert span_rows(frame)[0]["attributes"] == [(1, bad)]


@pytest.mark.parametrize(
    ("start", "end", "latency", "clamped"),
    [
        (0, 0, 0, False),
        (5, 7, 2, False),
        (7, 5, 0, False),
        (0, 2**53, 2**53, False),
        (0, 2**53 + 1, 2**53, True),
        (0, END, 2**53, True),
        (2**63, END, 2**53, True),
        (END - 3, END, 3, False),
    ],
)
def test_latency_is_never_negative_and_at_most_2_to_the_53(start: int, end: int, latency: int, clamped: bool) -> None:
    """PRIM-10."""
    span = Span(start_time_unix_nano=start, end_time_unix_nano=end)
    frame = only_span(traces_data([("s", span)]).SerializeToString())
    assert (frame.spans.latency_ns[0], frame.spans.clamped[0]) == (latency, clamped)
    assert (frame.spans.start_ns[0], frame.spans.end_ns[0]) == (start, end)


def test_sizes_are_those_of_a_re_encoding() -> None:
    span = trace(random.Random(2))[0][1]
    span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message="x" * 200))
    span.links.add(trace_id=b"t" * 16, flags=7)
    message = TracesData(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[span])], schema_url="u" * 300)])
    padded = span.SerializeToString() + b"\xd2\x06\x03abc" + b"\x50\x80\x80\x00"
    value = length_delimited(1, length_delimited(2, length_delimited(2, padded)) + length_delimited(3, b"u" * 300))
    frame = only_span(value)
    assert frame.spans.size[0] == span.ByteSize()
    assert frame.resources.size[0] == message.resource_spans[0].ByteSize()


# All attributes of a resource


def named(*names: str) -> bytes:
    """Attributes, the fields of a Resource."""
    return b"".join(length_delimited(1, KeyValue(key=name).SerializeToString()) for name in names)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ((), b""),
        ((b"",), b""),
        ((named("a", "b"),), named("a", "b")),
        ((named("a", "b") + b"\x10\x05",), named("a", "b")),
        ((b"\x10\x05" + named("a"),), named("a")),
        ((named("a") + b"\x10\x05" + named("b"),), named("a", "b")),
        ((named("a"), named("b"), b"\x10\x01", named("c", "d")), named("a", "b", "c", "d")),
    ],
)
def test_the_attributes_of_a_resource_lie_together(resources: tuple[bytes, ...], expected: bytes) -> None:
    pieces = b"".join(length_delimited(1, each) for each in resources)
    value = in_resource_spans(pieces) + in_resource_spans(length_delimited(1, named("z")))
    frame = frame_of([value, value], ())
    for wanted in ([True] * 4, [False, True, True, False]):
        data, ranges = resource_attributes(frame.data, frame.resources, np.array(wanted))
        found = [data[start : start + length].tobytes() for start, length in zip(*map(list, ranges), strict=True)]
        assert found == [each if want else b"" for each, want in zip([expected, named("z")] * 2, wanted, strict=True)]


def test_a_resource_may_be_missing() -> None:
    """INT-9: it has no attributes then."""
    frame = only_span(length_delimited(1, length_delimited(2, length_delimited(2, b""))), "k")
    assert resource_rows(frame)[0]["attributes"] == [None]
    assert resource_rows(frame)[0]["all"] == []


# Keys and views


def test_keys_that_resemble_each_other_are_told_apart() -> None:
    keys = ["", "k", "kk", "k" * 7, "k" * 8, "k" * 9, "k" * 15 + "x", "k" * 16, "k" * 17, "x" + "k" * 16, "kxk", "ключ"]
    span = Span(attributes=[KeyValue(key=key, value=any_value(key + "!")) for key in keys])
    value = traces_data([("s", span)]).SerializeToString()
    wanted = [*keys, "K", "k" * 18, "kxx"]
    frame = only_span(value, *wanted)
    found = span_rows(frame)[0]["attributes"]
    assert found == [(1, f"{key}!".encode()) for key in keys] + [None] * 3
    assert frame.key_index("kk") == 2


def test_views_are_the_texts_without_a_copy() -> None:
    names = ["", "short", "exactly12bytes"[:12], "thirteen byte", "a name that is longer than an inline view"]
    message = traces_data([("s", Span(name=name)) for name in names])
    frame = frame_of([message.SerializeToString()], ())
    views = frame.views(frame.spans.name)
    views.validate(full=True)
    assert views.to_pylist() == [name.encode() for name in names]
    assert views.buffers()[2].address == frame.data.ctypes.data


def test_a_length_of_minus_one_is_a_null_view() -> None:
    frame = frame_of([traces_data([("s", Span(name="n")), ("s", Span(name="m"))]).SerializeToString()], ())
    strings = frame.spans.name._replace(length=np.array([1, -1], np.int32))
    assert frame.views(strings).to_pylist() == [b"n", None]
    assert frame.text(strings, 1) == b""
