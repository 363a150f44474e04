"""Which spans a processor sees: filter policies over columns of interned texts (Tempo §5.7)."""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.config import FilterPolicySettings, ServiceGraphsSettings, SpanMetricsSettings, TenantSettings
from schemas.config.filter_policies import SPAN_KINDS, STATUS_CODES, Field, Matcher, Value
from schemas.otlp.attributes import BOOL, DOUBLE, INT
from schemas.otlp.wire import read_tag, read_varint, word_at
from streams.interner import EMPTY, STRING, Interner, InternTable
from streams.kernels import kernel, wide
from streams.plan import Plan
from streams.policies import Part, Policies, read_policies
from streams.span_columns import SpanColumns

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int32]
Processor = SpanMetricsSettings | ServiceGraphsSettings | None

_MISSES, _MATCHES, _UNSEEN = 0, 1, 2


class Filters:
    """The policies of both processors, for one window."""

    def __init__(self, plan: Plan, interner: Interner) -> None:
        searches = Searches(interner)
        self._span_metrics = ProcessorFilters(plan, searches, lambda settings: settings.span_metrics)
        self._service_graphs = ProcessorFilters(plan, searches, lambda settings: settings.service_graphs)

    def applied(self, spans: SpanColumns) -> SpanColumns:
        """The same columns, saying which spans each processor accepts."""
        return spans._replace(
            for_span_metrics=spans.for_span_metrics._replace(accepted=self._span_metrics.accepted(spans)),
            for_service_graphs=spans.for_service_graphs._replace(accepted=self._service_graphs.accepted(spans)),
        )


class Searches:
    """Regular expressions in the texts of a window: each is searched once in each text."""

    def __init__(self, interner: Interner) -> None:
        self.interner = interner
        self._found: dict[str, npt.NDArray[np.uint8]] = {}
        """By regular expression and text: whether it's in there, if that was asked before."""

    def found(self, pattern: str, numbers: Numbers) -> Bools:
        """Where it is found; never in a text that is absent."""
        found = self._found.get(pattern, np.empty(0, np.uint8))
        if len(found) < len(self.interner):
            # Room for twice the texts: else each frame would copy what the window knows.
            found = np.concatenate([found, np.full(2 * len(self.interner), _UNSEEN, np.uint8)])
            self._found[pattern] = found
        present = numbers >= 0
        unseen = np.unique(numbers[present & (found[numbers] == _UNSEEN)])
        if len(unseen):
            found[unseen] = search(pattern, self.interner.strings(unseen))
        result: Bools = present & (found[numbers] == _MATCHES)
        return result


class ProcessorFilters:
    """The policies of one processor, for one window."""

    def __init__(self, plan: Plan, searches: Searches, processor: Callable[[TenantSettings], Processor]) -> None:
        self._plan, self._searches, self._processor = plan, searches, processor
        self._numbers: dict[tuple[FilterPolicySettings, ...], int] = {(): -1}
        self._policies: list[Policies] = []
        self._of_tenant: list[int] = []

    def accepted(self, spans: SpanColumns) -> Bools:
        """Per span, whether the policies of its tenant accept it; True where it isn't measured."""
        self._include_tenants()
        accepted = np.ones(len(spans.tenant), np.bool_)
        if not self._policies:
            return accepted
        numbers = np.where(spans.measured, np.array(self._of_tenant, np.int32)[spans.tenant], np.int32(-1))
        order = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers, np.arange(len(self._policies) + 1), sorter=order)
        for policies, start, end in zip(self._policies, bounds, bounds[1:], strict=False):
            if start < end:
                rows = order[start:end]
                accepted[rows] = self._accepts(policies, spans, rows)
        return accepted

    def _include_tenants(self) -> None:
        """Number the policies of tenants that are new in the plan: equal ones are evaluated together."""
        for settings in self._plan.settings[len(self._of_tenant) :]:
            processor = self._processor(settings)
            policies = processor.filter_policies if processor else ()
            if policies not in self._numbers:
                self._numbers[policies] = len(self._policies)
                self._policies.append(read_policies(policies))
            self._of_tenant.append(self._numbers[policies])

    def _accepts(self, policies: Policies, spans: SpanColumns, rows: npt.NDArray[np.intp]) -> Bools:
        """FLT-3: of these rows."""
        rejected = self._any(policies.exclude, spans, rows)
        wanted = self._any(policies.include_any, spans, rows)
        if policies.include:
            wanted |= ~self._any(policies.include, spans, rows, matching=False)
        elif not policies.include_any:
            wanted[:] = True
        return wanted & ~rejected

    def _any(
        self, parts: Sequence[Part], spans: SpanColumns, rows: npt.NDArray[np.intp], *, matching: bool = True
    ) -> Bools:
        """Where at least one of the parts matches, or (not `matching`) at least one doesn't."""
        found = np.zeros(len(rows), np.bool_)
        for part in parts:
            matches = np.ones(len(rows), np.bool_)
            for matcher in part:
                matches &= self._matches(matcher, spans, rows)
            found |= matches == matching
        return found

    def _matches(self, matcher: Matcher, spans: SpanColumns, rows: npt.NDArray[np.intp]) -> Bools:
        match matcher.field:
            case Field.KIND:
                return _named(spans.kind[rows], SPAN_KINDS, matcher)
            case Field.STATUS:
                return _named(spans.status[rows], STATUS_CODES, matcher)
            case Field.NAME:
                return self._valued(spans.name[rows], matcher)
            case Field.SPAN:
                return self._valued(spans.values[self._plan.row(matcher.attribute)][rows], matcher)
            case Field.RESOURCE:
                of_resources = self._valued(spans.resource_values[self._plan.row(matcher.attribute)], matcher)
                return of_resources[spans.resource[rows]]

    def _valued(self, numbers: Numbers, matcher: Matcher) -> Bools:
        """FLT-5: absent attributes never match; one of another type reads as the empty value."""
        if matcher.regex:
            return self._searches.found(str(matcher.value), numbers)
        interner = self._searches.interner
        if isinstance(matcher.value, str):
            return _equal_texts(interner, numbers, matcher.value)
        return _equal_numbers(interner.table, numbers, matcher.value)


def search(pattern: str, texts: pa.Array) -> Bools:
    """Where a regular expression is found in binaries: unanchored, RE2 (FLT-5).

    As in Go, each byte that is no UTF-8 is a character of its own, U+FFFD.
    """
    try:
        strings = texts.cast(pa.large_string())
    except pa.ArrowInvalid:
        strings = pa.array([_with_replacements(text) for text in texts.to_pylist()], pa.large_string())
    found: Bools = pc.match_substring_regex(strings, pattern=pattern).to_numpy(zero_copy_only=False)
    return found


def _with_replacements(text: bytes) -> str:
    escaped = text.decode("utf-8", "surrogateescape")
    return escaped if escaped.isascii() else "".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for c in escaped)


def _named(column: Numbers, names: tuple[str, ...], matcher: Matcher) -> Bools:
    """Enums (FLT-6): a number without a name is decimal text, which only a regular expression can match."""
    if not matcher.regex:
        equal: Bools = column == names.index(str(matcher.value))
        return equal
    pattern = str(matcher.value)
    found_in = _found_in_names(pattern, names)
    known = (column >= 0) & (column < len(names))
    if known.all():
        return found_in[column]
    others = np.unique(column[~known])
    texts = pa.array([b"%d" % number for number in others.tolist()], pa.large_binary())
    found: Bools = known & found_in[np.where(known, column, 0)]
    return found | (~known & np.isin(column, others[search(pattern, texts)]))


@lru_cache(maxsize=256)
def _found_in_names(pattern: str, names: tuple[str, ...]) -> Bools:
    return search(pattern, pa.array([name.encode() for name in names], pa.large_binary()))


def _equal_texts(interner: Interner, numbers: Numbers, value: str) -> Bools:
    if value:
        equal: Bools = numbers == interner.add(value.encode())
        return equal
    present = numbers >= 0
    other_type = interner.table.kinds[np.where(present, numbers, EMPTY)] != STRING
    empty: Bools = present & ((numbers == EMPTY) | other_type)
    return empty


def _equal_numbers(table: InternTable, numbers: Numbers, value: Value) -> Bools:
    """Integers, booleans and doubles, compared in their own field."""
    match value:
        case bool():
            kind, bits = BOOL, int(value)
        case int():
            kind, bits = INT, value
        case _:
            kind, (bits,) = DOUBLE, struct.unpack("<q", struct.pack("<d", float(value) or 0.0))
    out = np.empty(len(numbers), np.bool_)
    _compare(table, np.ascontiguousarray(numbers), kind, bits, out)
    return out


@kernel
def _compare(table: InternTable, numbers: Any, kind: int, wanted: int, out: Any) -> None:
    """Where values of a kind have these bits (of doubles, with 0 for -0); one of another kind has none set."""
    for i in range(len(out)):
        number = wide(numbers[i])
        if number < 0:
            out[i] = False
            continue
        bits = 0
        if table.kinds[number] == kind:
            bits = _bits(table.arena, table.starts[number], table.starts[number + 1], kind)
        out[i] = bits == wanted


@kernel
def _bits(arena: Any, start: int, end: int, kind: int) -> int:
    """The value of an AnyValue's field, tag included: an integer, a boolean or the bits of a double."""
    if kind == DOUBLE:
        bits = word_at(arena, end - 8)
        return bits if bits << 1 != 0 else 0
    _, at = read_tag(arena, start, end)
    value, _ = read_varint(arena, at, end)
    return value if kind == INT else int(value != 0)
