"""What every section of the configuration has in common, and the types of values that several sections share."""

import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

MAX_BUCKETS = 32_766
"""A delta row numbers buckets in 16 bits, and the last is +Inf."""

LABEL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


KAFKA_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
"""What Kafka takes as a topic's name (249 characters, some of which Faust's suffixes need)."""


class Section(BaseModel):
    """A part of the configuration: frozen, its YAML keys the fields' aliases, its unknown keys errors.

    Strict: a file's "yes" in quotes is no boolean, and its 1.5 no integer.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        """A key without a value (`dimensions:`) keeps the default, as Go's YAML has it."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            return value
        known = cls.yaml_keys()
        return {key: item for key, item in value.items() if item is not None or key not in known}

    @classmethod
    def yaml_keys(cls) -> dict[str, str]:
        """The names of the fields by their YAML keys."""
        return {field.alias or name: name for name, field in cls.model_fields.items()}

    @classmethod
    def yaml_leaves(cls) -> Iterator[tuple[str, ...]]:
        """The keys, from here on, of every value that isn't a section itself."""
        for key, name in cls.yaml_keys().items():
            kind = cls.model_fields[name].annotation
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from ((key, *deeper) for deeper in kind.yaml_leaves())
            else:
                yield (key,)

    def replace(self, **changes: Any) -> Self:
        """A copy with other values, which are not validated again."""
        return self.model_copy(update=changes)


def read_int(value: object) -> object:
    """An integer may be written as 1e6."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def check_buckets(buckets: tuple[float, ...]) -> tuple[float, ...]:
    """Finite, different from each other. Their order is free: the static ones are sorted (Tempo CFG-3)."""
    for bound in buckets:
        if not math.isfinite(bound):
            raise ValueError(f"{bound} is no bucket bound; leave it out, +Inf is always there")
    repeated = sorted({bound for bound in buckets if buckets.count(bound) > 1})
    if repeated:
        # Tempo would write two series of the same labels (REG-22).
        raise ValueError(f"{repeated[0]} stands more than once; name each bound once")
    return buckets


def check_increasing(buckets: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
    """Overrides' buckets must be strictly increasing, in Tempo's words (OVR-5)."""
    for i, (lower, upper) in enumerate(zip(buckets or (), (buckets or ())[1:], strict=False), start=1):
        if upper <= lower:
            raise ValueError(
                f"{info.field_name} must be strictly increasing: bucket[{i}]={upper} is <= bucket[{i - 1}]={lower}"
            )
    return buckets


def check_label_name(name: str) -> str:
    """A label name that every exposition format can carry without quotes."""
    if name and not LABEL_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a label name; use letters, digits and underscores, not a digit first")
    return name


def check_port(port: int) -> int:
    """0 lets the system choose: tests do."""
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port; use 0 to 65535")
    return port


def check_kafka_name(name: str) -> str:
    """App ids and topics become names in Kafka."""
    if not KAFKA_NAME.fullmatch(name) or name in {".", ".."}:
        raise ValueError(f"{name!r} is not a name for Kafka; use up to 200 letters, digits, dots, hyphens, underscores")
    return name


Int = Annotated[int, BeforeValidator(read_int)]
Count = Annotated[int, BeforeValidator(read_int), Field(ge=0, le=(1 << 63) - 1)]
Buckets = Annotated[tuple[float, ...], Field(max_length=MAX_BUCKETS), AfterValidator(check_buckets)]
OverrideBuckets = Annotated[Buckets, AfterValidator(check_increasing)]
LabelName = Annotated[str, AfterValidator(check_label_name)]
Port = Annotated[int, BeforeValidator(read_int), AfterValidator(check_port)]
KafkaName = Annotated[str, AfterValidator(check_kafka_name)]
Texts = tuple[str, ...]
