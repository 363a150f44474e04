"""Filter policies, read (Tempo §5.7); `streams.filters` evaluates them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.config import FilterPolicySettings, PolicyPartSettings
from schemas.config.filter_policies import Field, Matcher, read_attribute
from streams.attribute_keys import RESOURCE_ONLY

Part = tuple[Matcher, ...]
"""All of these must match (FLT-4); none matches every span."""


@dataclass(frozen=True, slots=True)
class Policies:
    """Filter policies, read: the parts of all of them together, since that is how they count (FLT-3)."""

    include: tuple[Part, ...]
    include_any: tuple[Part, ...]
    exclude: tuple[Part, ...]


def read_policies(policies: Sequence[FilterPolicySettings]) -> Policies:
    """The policies of a processor. Raises ValueError for one that means nothing (FLT-7)."""
    return Policies(
        include=tuple(_read(policy.include) for policy in policies if policy.include is not None),
        include_any=tuple(_read(policy.include_any) for policy in policies if policy.include_any is not None),
        exclude=tuple(_read(policy.exclude) for policy in policies if policy.exclude is not None),
    )


def _read(part: PolicyPartSettings) -> Part:
    return tuple(read_attribute(key, value, regex=part.regex) for key, value in part.attributes)


def needs(policies: Sequence[FilterPolicySettings], sides: int) -> Iterator[tuple[str, int]]:
    """The attributes that policies look at, and on which spans: of a processor that sees these (see `Plan`)."""
    read = read_policies(policies)
    for matcher in (
        each for parts in (read.include, read.include_any, read.exclude) for part in parts for each in part
    ):
        if matcher.field in (Field.SPAN, Field.RESOURCE):
            yield matcher.attribute, sides if matcher.field is Field.SPAN else RESOURCE_ONLY
