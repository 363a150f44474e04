"""Labels of dimension mappings, which no other label of span metrics may have (Tempo SM-13)."""

from collections.abc import Iterable, Iterator

from schemas.config.generator import DimensionMapping
from schemas.labels import SPAN_METRICS_RESERVED, reserved_name


def collisions(dimensions: Iterable[str], mappings: Iterable[DimensionMapping]) -> Iterator[tuple[int, str]]:
    """Mappings whose label is taken: (index, Tempo's words).

    Dimensions may have each other's labels. No label is an intrinsic dimension's, whose names get a prefix (PRIM-5).
    """
    taken = {label_of(name): f'dimension "{name}"' for name in reversed(tuple(dimensions))}
    for i, mapping in enumerate(mappings):
        label = label_of(mapping.name)
        if label in taken:
            yield i, f'dimension_mapping "{mapping.name}" produces label "{label}" which collides with {taken[label]}'
        else:
            taken[label] = f'dimension_mapping "{mapping.name}"'


def label_of(name: str) -> str:
    """The label that a dimension or a mapping makes (PRIM-5)."""
    return reserved_name(name, SPAN_METRICS_RESERVED).decode()
