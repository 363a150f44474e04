"""Filter policies (Tempo §5.7)."""

import re
from collections.abc import Sequence
from typing import Any

from schemas.config import FilterPolicySettings, PolicyPartSettings
from tests.reference.primitives import Attributes, Seen, kind_text, status_text


def accepts(policies: Sequence[FilterPolicySettings], seen: Seen) -> bool:
    """FLT-3."""
    if not policies:
        return True
    if any(p.exclude is not None and matches(p.exclude, seen) for p in policies):
        return False
    if any(p.include_any is not None and matches(p.include_any, seen) for p in policies):
        return True
    includes = [p.include for p in policies if p.include is not None]
    if includes:
        return all(matches(part, seen) for part in includes)
    return all(p.include_any is None for p in policies)


def matches(part: PolicyPartSettings, seen: Seen) -> bool:
    """FLT-4."""
    return all(matches_attribute(key, wanted, seen, regex=part.regex) for key, wanted in part.attributes)


def matches_attribute(key: str, wanted: Any, seen: Seen, *, regex: bool) -> bool:
    """FLT-2, FLT-5 and FLT-6. Patterns of tests mean the same to RE2 and to Python."""
    intrinsics = {
        "kind": kind_text(seen.span.kind).encode(),
        "status": status_text(seen.span.status.code).encode(),
        "name": seen.span.name,
    }
    name = key.removeprefix("span:")
    if name in intrinsics:
        return matches_text(intrinsics[name], wanted, regex=regex)
    scope, _, attribute = key.partition(".")
    value = first(attribute, seen.resource if scope == "resource" else seen.attributes)
    if value is None:
        return False
    if isinstance(wanted, str):
        return matches_text(value.string_value, wanted, regex=regex)
    if isinstance(wanted, bool):
        return bool(value.bool_value) == wanted
    if isinstance(wanted, int):
        return int(value.int_value) == wanted
    return bool(float(value.double_value) == wanted)


def matches_text(text: bytes, wanted: str, *, regex: bool) -> bool:
    """A search that isn't anchored, or equality."""
    return re.search(wanted.encode(), text) is not None if regex else text == wanted.encode()


def first(key: str, attributes: Attributes) -> Any:
    """The value of the first attribute of that name."""
    return next((value for name, value in attributes if name == key.encode()), None)
