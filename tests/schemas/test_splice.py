"""Splicing is regrouping: each piece holds what protobuf objects, moved about, would hold."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from schemas.otlp.splice import Piece, SpanTooLargeError, splice


def spans_of(message: TracesData) -> list[Span]:
    return [span for r in message.resource_spans for s in r.scope_spans for span in s.spans]


def regrouped(message: TracesData, partitions: Sequence[int], wanted: int) -> TracesData:
    """The spans of one partition, each under copies of its own resource and scope."""
    numbers = iter(partitions)
    result = TracesData()
    for r in message.resource_spans:
        resource = type(r)()
        resource.CopyFrom(r)
        del resource.scope_spans[:]
        for s in r.scope_spans:
            scope = type(s)()
            scope.CopyFrom(s)
            del scope.spans[:]
            scope.spans.extend(span for span in s.spans if next(numbers) == wanted)
            if scope.spans:
                resource.scope_spans.append(scope)
        if resource.scope_spans:
            result.resource_spans.append(resource)
    return result


def splice_list(message: bytes, partitions: Sequence[int], **kwargs: object) -> list[Piece]:
    return splice(message, np.array(partitions, np.int32), **kwargs)  # type: ignore[arg-type]


texts = st.text(max_size=6)
span_messages = st.builds(
    lambda name, trace, links, parent: Span(
        name=name, trace_id=trace, parent_span_id=parent, links=[Span.Link(span_id=link) for link in links]
    ),
    texts,
    st.binary(min_size=16, max_size=16),
    st.lists(st.binary(max_size=8), max_size=2),
    st.sampled_from([b"", bytes(8), b"12345678"]),
)


@st.composite
def messages(draw: st.DrawFn) -> TracesData:
    message = TracesData()
    for _ in range(draw(st.integers(0, 3))):
        resource = message.resource_spans.add(schema_url=draw(texts))
        for key in draw(st.lists(texts, max_size=2)):
            resource.resource.attributes.add(key=key).value.string_value = draw(texts)
        for _ in range(draw(st.integers(0, 3))):
            scope = resource.scope_spans.add(schema_url=draw(texts))
            scope.scope.name = draw(texts)
            scope.spans.extend(draw(st.lists(span_messages, max_size=4)))
    return message


def fields_of(data: bytes) -> list[bytes]:
    """The top-level fields of a message made of length-delimited ones."""
    fields = []
    at = 0
    while at < len(data):
        start, shift, length = at, 0, 0
        at += 1
        while True:
            length |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if data[at - 1] < 0x80:
                break
        at += length
        fields.append(data[start:at])
    return fields


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def delimited(tag: int, body: bytes) -> bytes:
    return bytes([tag]) + varint(len(body)) + body


def mixed(message: TracesData, shuffle: Callable[[list[bytes]], None], unknown: Sequence[bytes]) -> bytes:
    """The message's bytes with its nested fields in another order and unknown fields among them."""
    out = b""
    for r in message.resource_spans:
        scopes = []
        for s in r.scope_spans:
            fields = [*fields_of(s.SerializeToString()), *unknown]
            shuffle(fields)
            scopes.append(delimited(0x12, in_span_order(fields, s.SerializeToString())))
        bare = type(r)()
        bare.CopyFrom(r)
        del bare.scope_spans[:]
        others = [*fields_of(bare.SerializeToString()), *unknown]
        shuffle(others)
        cut = len(others) // 2
        out += delimited(0x0A, b"".join([*others[:cut], *scopes, *others[cut:]]))
    return out


def in_span_order(shuffled: list[bytes], original: bytes) -> bytes:
    """Spans keep their order (it is their identity here), whatever moves around them."""
    spans = iter([each for each in fields_of(original) if each[0] == 0x12])
    return b"".join(next(spans) if each[0] == 0x12 else each for each in shuffled)


UNKNOWN = [
    b"\x98\x06\x96\x01",  # field 99, varint
    b"\x9b\x06\x08\x01\x0b\x12\x01x\x0c\x9c\x06",  # field 99, a group with a group in it
    b"\x99\x06" + bytes(8),  # field 99, 64 bits
    b"\x15" + bytes(4),  # field 2 of the wrong wire type
    b"\x10\x05",
]


@given(messages(), st.data())
@settings(deadline=None)
def test_a_piece_holds_what_regrouped_objects_hold(message: TracesData, data: st.DataObject) -> None:
    """DIST-12."""
    count = len(spans_of(message))
    partitions = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    unknown = data.draw(st.lists(st.sampled_from(UNKNOWN), max_size=3))
    raw = mixed(message, data.draw(st.randoms(use_true_random=False)).shuffle, unknown)
    parsed = TracesData.FromString(raw)
    pieces = splice_list(raw, partitions)
    assert [piece.partition for piece in pieces] == list(dict.fromkeys(partitions))
    for piece in pieces:
        expected = regrouped(parsed, partitions, piece.partition)
        assert TracesData.FromString(piece.value) == expected
        assert piece.spans == len(spans_of(expected))


@given(messages(), st.integers(40, 300), st.data())
@settings(deadline=None)
def test_pieces_keep_to_the_limit_and_lose_nothing(message: TracesData, limit: int, data: st.DataObject) -> None:
    spans = spans_of(message)
    partitions = data.draw(st.lists(st.integers(0, 2), min_size=len(spans), max_size=len(spans)))
    raw = message.SerializeToString()
    alone = [splice_list(raw, [0 if j == i else 1 for j in range(len(spans))]) for i in range(len(spans))]
    sizes = [next(len(piece.value) for piece in pieces if piece.partition == 0) for pieces in alone]
    if any(size > limit for size in sizes):
        with pytest.raises(SpanTooLargeError) as refused:
            splice_list(raw, partitions, limit=limit)
        assert refused.value.index == next(i for i, size in enumerate(sizes) if size > limit)
        return
    pieces = splice_list(raw, partitions, limit=limit)
    assert all(len(piece.value) <= limit for piece in pieces)
    for partition in set(partitions):
        rows = [i for i, number in enumerate(partitions) if number == partition]
        of_partition = [piece for piece in pieces if piece.partition == partition]
        found = [span for piece in of_partition for span in spans_of(TracesData.FromString(piece.value))]
        assert found == [spans[i] for i in rows]
        at = 0
        for piece in of_partition[:-1]:
            with_next = rows[at : at + piece.spans + 1]
            longer = splice_list(raw, [0 if i in with_next else 1 for i in range(len(spans))])
            assert next(len(p.value) for p in longer if p.partition == 0) > limit, "cut too early"
            at += piece.spans


@given(messages())
@settings(deadline=None)
def test_a_parent_of_zeros_can_be_left_out(message: TracesData) -> None:
    spans = spans_of(message)
    rootless = np.array([span.parent_span_id == bytes(8) for span in spans], np.bool_)
    pieces = splice(message.SerializeToString(), np.zeros(len(spans), np.int32), rootless=rootless)
    for span in spans:
        if span.parent_span_id == bytes(8):
            span.ClearField("parent_span_id")
    expected = [regrouped(message, [0] * len(spans), 0)] if spans else []
    assert [TracesData.FromString(piece.value) for piece in pieces] == expected


def test_pieces_of_one_partition_concatenated_are_one_message() -> None:
    message = TracesData()
    for name in ("a", "b", "c"):
        message.resource_spans.add().scope_spans.add().spans.add(name=name)
    pieces = splice_list(message.SerializeToString(), [5, 5, 5], limit=24)
    assert len(pieces) > 1
    assert TracesData.FromString(b"".join(piece.value for piece in pieces)) == message


def test_a_message_with_one_partition_stays_as_it_is() -> None:
    message = TracesData()
    resource = message.resource_spans.add(schema_url="https://example.org")
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    resource.scope_spans.add().spans.extend([Span(name="a"), Span(name="b")])
    (piece,) = splice_list(message.SerializeToString(), [7, 7])
    assert TracesData.FromString(piece.value) == message
    assert (piece.partition, piece.spans, len(piece.value)) == (7, 2, message.ByteSize())


@given(st.binary(max_size=80), st.integers(1, 4))
@settings(deadline=None)
def test_arbitrary_bytes_are_spliced_or_refused(data: bytes, count: int) -> None:
    try:
        pieces = splice_list(data, [0] * count)
    except ValueError:
        return
    assert sum(piece.spans for piece in pieces) == count


@pytest.mark.parametrize("partitions", [[0], [0, 0, 0], [0, -1]])
def test_a_wrong_number_of_spans_is_refused(partitions: list[int]) -> None:
    message = TracesData()
    message.resource_spans.add().scope_spans.add().spans.extend([Span(name="a"), Span(name="b")])
    with pytest.raises(ValueError, match="spans"):
        splice_list(message.SerializeToString(), partitions)
