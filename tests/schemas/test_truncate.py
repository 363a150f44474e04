"""Long attributes are cut as protobuf objects would be, wherever they stand and whatever their fields' order."""

from collections import Counter
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.otlp.truncate import Scope, truncated
from tests.otlp_samples import descending, reencode, shuffled, span_records


def attributes_of(message: TracesData) -> Iterator[tuple[Scope, KeyValue]]:
    for resource in message.resource_spans:
        yield from ((Scope.RESOURCE, each) for each in resource.resource.attributes)
        for scope in resource.scope_spans:
            yield from ((Scope.SCOPE, each) for each in scope.scope.attributes)
            for span in scope.spans:
                yield from ((Scope.SPAN, each) for each in span.attributes)
                yield from ((Scope.EVENT, each) for event in span.events for each in event.attributes)
                yield from ((Scope.LINK, each) for link in span.links for each in link.attributes)


def cut(text: str, limit: int) -> str:
    """At most so many bytes, and whole characters."""
    return text.encode()[:limit].decode(errors="ignore")


def cut_by_objects(message: TracesData, limit: int) -> Counter[Scope]:
    counts = Counter[Scope]()
    for scope, attribute in attributes_of(message):
        if len(attribute.key.encode()) > limit:
            attribute.key = cut(attribute.key, limit)
            counts[scope] += 1
        if attribute.value.HasField("string_value") and len(attribute.value.string_value.encode()) > limit:
            attribute.value.string_value = cut(attribute.value.string_value, limit)
            counts[scope] += 1
    return counts


texts = st.one_of(st.text(max_size=5), st.text(min_size=8, max_size=40), st.text("äöü€𝄞", min_size=4, max_size=200))


@st.composite
def key_values(draw: st.DrawFn) -> KeyValue:
    attribute = KeyValue(key=draw(texts))
    kind = draw(st.sampled_from(("string", "string", "array", "bytes", "int", "unset", "empty")))
    if kind == "string":
        attribute.value.string_value = draw(texts)
    elif kind == "array":  # what is nested isn't cut
        attribute.value.array_value.values.add(string_value=draw(texts))
    elif kind == "bytes":
        attribute.value.bytes_value = draw(st.binary(max_size=40))
    elif kind == "int":
        attribute.value.int_value = draw(st.integers(-(2**63), 2**63 - 1))
    elif kind == "empty":
        attribute.value.SetInParent()
    return attribute


lists = st.lists(key_values(), max_size=3)


@st.composite
def messages(draw: st.DrawFn) -> TracesData:
    message = TracesData()
    for _ in range(draw(st.integers(0, 2))):
        resource = message.resource_spans.add(schema_url=draw(texts))
        resource.resource.attributes.extend(draw(lists))
        for _ in range(draw(st.integers(0, 2))):
            scope = resource.scope_spans.add(schema_url=draw(texts))
            scope.scope.name = draw(texts)
            scope.scope.attributes.extend(draw(lists))
            for _ in range(draw(st.integers(0, 2))):
                span = scope.spans.add(name=draw(texts), trace_state=draw(texts), attributes=draw(lists))
                span.status.message = draw(texts)
                if draw(st.booleans()):
                    span.events.add(name=draw(texts), attributes=draw(lists))
                if draw(st.booleans()):
                    span.links.add(trace_id=b"t" * 16, attributes=draw(lists))
    return message


@given(messages(), st.integers(1, 40), st.data())
def test_texts_are_cut_where_objects_would_be_cut(message: TracesData, limit: int, data: st.DataObject) -> None:
    """DIST-10: keys and strings of all five scopes; names, messages, trace state and nested strings stay."""
    order = data.draw(st.sampled_from([None, descending, shuffled(data.draw(st.randoms(use_true_random=False)))]))
    raw = message.SerializeToString() if order is None else reencode(message, order)
    original, expected = TracesData.FromString(raw), TracesData.FromString(raw)
    counts = cut_by_objects(expected, limit)

    value, found, example = truncated(raw, limit)

    assert TracesData.FromString(value) == expected
    assert {scope: found[scope] for scope in Scope if found[scope]} == counts
    assert value == raw or counts
    assert bool(example) == bool(counts)
    assert not example or any(KeyValue.FromString(example) == each for _, each in attributes_of(original))


def test_a_message_without_long_texts_stays_as_it_is() -> None:
    (body,) = span_records(1, 1)
    assert truncated(body, 2048) == (body, (0,) * len(Scope), b"")


@given(messages(), st.data())
def test_bytes_that_are_no_message_stay_or_lose_only_texts(message: TracesData, data: st.DataObject) -> None:
    raw = bytearray(message.SerializeToString())
    for at in data.draw(st.lists(st.integers(0, max(len(raw) - 1, 0)), min_size=1, max_size=20)):
        if raw:
            raw[at] = data.draw(st.integers(0, 255))
    assert len(truncated(bytes(raw), data.draw(st.integers(1, 12))).value) <= len(raw)


def test_half_a_character_is_left_out() -> None:
    message = TracesData()
    message.resource_spans.add().resource.attributes.add(key="k").value.string_value = "aaaa€b"
    value, counts, _ = truncated(message.SerializeToString(), 6)
    assert TracesData.FromString(value).resource_spans[0].resource.attributes[0].value.string_value == "aaaa"
    assert counts[Scope.RESOURCE] == 1
