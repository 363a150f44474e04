"""Filter policies (Tempo §5.7), in their shape; what keys and values mean is checked where they are compiled."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, model_validator

from schemas.config.section import Section


def check_value(value: Any) -> Any:
    """Tempo FLT-7."""
    if not isinstance(value, str | bool | int | float):
        raise ValueError("value type not supported; write a text, a number, true or false")  # noqa: TRY004 -- pydantic's
    return value


class FilterAttribute(Section):
    """One attribute of a policy's part."""

    key: str
    value: Annotated[Any, AfterValidator(check_value)]


class PolicyMatch(Section):
    """A part of a policy: all its attributes must match (FLT-4)."""

    match_type: Literal["strict", "regex"]
    attributes: tuple[FilterAttribute, ...] = ()


class FilterPolicy(Section):
    """One policy (FLT-1)."""

    include: PolicyMatch | None = None
    include_any: PolicyMatch | None = None
    exclude: PolicyMatch | None = None

    @model_validator(mode="after")
    def _has_a_part(self) -> Self:
        if self.include is None and self.include_any is None and self.exclude is None:
            # FLT-7's text.
            raise ValueError(
                "invalid filter policy; policies must have at least an `include`, `includeAny` or `exclude`"
            )
        return self
