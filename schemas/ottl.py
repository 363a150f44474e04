"""Conditions on spans in a part of the Collector's language (OTTL), those that usual filters are made of.

`attributes["k"] == "v"`, `resource.attributes["k"] != nil`, `name`, `kind == SPAN_KIND_SERVER`,
`status.code == STATUS_CODE_ERROR`, `status.message`, `IsMatch(name, "^GET ")`, numbers and booleans with
`== != < <= > >=`, and `and`, `or`, `not` with parentheses. Paths may begin with `span.`. As in the Collector, values of
different types are never equal, an attribute that isn't there is nil, and nothing is less or greater than nil.
"""

import re
from collections.abc import Callable, Mapping
from operator import eq, ge, gt, le, lt, ne
from typing import Any

import re2
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from schemas.otlp.anyvalue import value_text

Value = bytes | bool | int | float | None
Getter = Callable[[Any, Any], Value]
"""A value of a span and its resource, messages of `schemas.otlp.byte_messages`."""
Condition = Callable[[Any, Any], bool]

TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
      | (?P<sign>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)
    )""",
    re.VERBOSE,
)
ESCAPED = re.compile(r"\\(.)", re.DOTALL)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
CONSTANTS: Mapping[str, Value] = {
    "nil": None,
    "true": True,
    "false": False,
    **dict(Span.SpanKind.items()),
    **dict(Status.StatusCode.items()),
}
FIELDS: Mapping[str, Getter] = {
    "name": lambda span, _: span.name,
    "kind": lambda span, _: span.kind,
    "status.code": lambda span, _: span.status.code,
    "status.message": lambda span, _: span.status.message,
}
QUIET = re2.Options()
QUIET.log_errors = False
MOST_NESTED = 50


def condition(text: str) -> Condition:
    """What a text says of a span. ValueError names what can't be read, or isn't among the part that is known."""
    return Parser(text).whole()


class Parser:
    """Reads one condition, from left to right."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0
        self._kind = self._word = ""
        self._next()

    def whole(self) -> Condition:
        """All of the text."""
        found = self._any()
        if self._kind:
            raise self._wrong("and, or")
        return found

    def _any(self) -> Condition:
        found = self._all()
        while self._take("or"):
            found = either(found, self._all())
        return found

    def _all(self) -> Condition:
        found = self._one()
        while self._take("and"):
            found = both(found, self._one())
        return found

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise ValueError(f"{self._text!r}: nested more than {MOST_NESTED} times; write it in several conditions")
        try:
            if self._take("not"):
                return inverse(self._one())
            if self._take("("):
                found = self._any()
                self._expect(")")
                return found
            if self._take("IsMatch"):
                return self._match()
            return self._comparison()
        finally:
            self._depth -= 1

    def _match(self) -> Condition:
        self._expect("(")
        value = self._value()
        self._expect(",")
        if self._kind != "text":
            raise self._wrong("a regular expression in quotes")
        written = self._literal()
        try:
            regex = re2.compile(written, QUIET)
        except re2.error:
            raise ValueError(f"{self._text!r}: {written!r} is no regular expression in RE2's syntax") from None
        self._expect(")")
        return lambda span, resource: matches(regex, value(span, resource))

    def _comparison(self) -> Condition:
        left = self._value()
        sign = self._word
        if self._kind != "sign" or sign not in COMPARISONS:
            raise self._wrong("a comparison")
        self._next()
        right = self._value()
        return lambda span, resource: compared(sign, left(span, resource), right(span, resource))

    def _value(self) -> Getter:
        kind, word = self._kind, self._word
        if kind == "text":
            text = self._literal().encode()
            return lambda _, __: text
        if kind == "number":
            self._next()
            number = float(word) if re.search("[.eE]", word) else int(word)
            return lambda _, __: number
        if kind == "word" and word in CONSTANTS:
            self._next()
            return lambda _, __: CONSTANTS[word]
        path = word.removeprefix("span.")
        if kind == "word" and path in FIELDS:
            self._next()
            return FIELDS[path]
        if kind == "word" and path in {"attributes", "resource.attributes"}:
            self._next()
            return self._attribute(of_resource=path != "attributes")
        raise self._wrong("a value")

    def _attribute(self, *, of_resource: bool) -> Getter:
        self._expect("[")
        if self._kind != "text":
            raise self._wrong("a key in quotes")
        key = self._literal().encode()
        self._expect("]")
        if of_resource:
            return lambda _, resource: attribute(resource.attributes, key)
        return lambda span, _: attribute(span.attributes, key)

    def _literal(self) -> str:
        text = ESCAPED.sub(lambda found: ESCAPES.get(found[1], found[1]), self._word[1:-1])
        self._next()
        return text

    def _take(self, word: str) -> bool:
        if self._word != word or self._kind == "text":
            return False
        self._next()
        return True

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._wrong(sign)

    def _next(self) -> None:
        found = TOKEN.match(self._text, self._at)
        if found is None:
            rest = self._text[self._at :].strip()
            self._kind, self._word = ("?", rest[:1]) if rest else ("", "")
            return
        self._kind, self._at = found.lastgroup or "", found.end()
        self._word = found[self._kind]

    def _wrong(self, wanted: str) -> ValueError:
        found = self._word or "the end"
        return ValueError(f"{self._text!r}: {found} where {wanted} is wanted; docs/config.md says what can be written")


def both(left: Condition, right: Condition) -> Condition:
    """Left and right."""
    return lambda span, resource: left(span, resource) and right(span, resource)


def either(left: Condition, right: Condition) -> Condition:
    """Left or right."""
    return lambda span, resource: left(span, resource) or right(span, resource)


def inverse(of: Condition) -> Condition:
    """Not so."""
    return lambda span, resource: not of(span, resource)


def attribute(pairs: Any, key: bytes) -> Value:
    """The value of the first attribute with a key; lists, maps and bytes as text, None without a value."""
    value = next((pair.value for pair in pairs if pair.key == key), None)
    case = None if value is None else value.WhichOneof("value")
    if value is None or case is None:
        return None
    if case in {"string_value", "bool_value", "int_value", "double_value"}:
        found: Value = getattr(value, case)
        return found
    return value_text(value)


def compared(sign: str, left: Value, right: Value) -> bool:
    """OTTL's comparison: of different types, numbers aside, nothing holds but !=."""
    if not alike(left, right):
        return sign == "!="
    if left is None or isinstance(left, bool):
        return COMPARISONS[sign](left, right) if sign in {"==", "!="} else False
    return COMPARISONS[sign](left, right)


def alike(left: Value, right: Value) -> bool:
    """Whether two values can be compared."""
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool)
    numbers = (int, float)
    if isinstance(left, numbers) and isinstance(right, numbers):
        return True
    return type(left) is type(right)


def matches(regex: Any, value: Value) -> bool:
    """Whether a part of the value's text matches."""
    if value is None:
        return False
    if isinstance(value, bool):
        value = b"true" if value else b"false"
    return regex.search(value if isinstance(value, bytes) else str(value).encode()) is not None
