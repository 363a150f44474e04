"""All attributes of a resource, as the bytes that they came in: what names a resource, and what target_info is made of.

The scan keeps the wanted attributes only. This pass reads the few fields around them again, and only for those
resources that somebody asks for.
"""

import numpy as np
import numpy.typing as npt

from schemas.otlp.fields import copy, field
from schemas.otlp.frame import ResourceTable, Strings
from schemas.otlp.jit import kernel
from schemas.otlp.wire import MAX_DEPTH, Bytes

_RESOURCE, _ATTRIBUTE = 1 << 3 | 2, 1 << 3 | 2
"""Tags: ResourceSpans.resource, Resource.attributes."""


def resource_attributes(
    data: npt.NDArray[np.uint8], resources: ResourceTable, wanted: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.uint8], Strings]:
    """Per resource, the range of its attributes: their fields, tags and lengths included, one after the other.

    A range is also a message Resource without anything else. It is empty where there are no attributes, or the resource
    isn't wanted. The data that is given back may be longer: attributes that don't lie together are put behind it.
    """
    rows = len(wanted)
    found = Strings(np.zeros(rows, np.int32), np.zeros(rows, np.int32))
    groups = np.empty(MAX_DEPTH + 1, np.int64)
    scattered = np.zeros(rows, np.bool_)
    more = _find(data, resources.field, wanted, found, scattered, groups)
    if more:
        used = len(data)
        data = np.concatenate([data, np.empty(more, np.uint8)])
        _gather(data, used, resources.field, found, scattered, groups)
    return data, found


@kernel
def _find(
    data: Bytes,
    fields: Strings,
    wanted: npt.NDArray[np.bool_],
    found: Strings,
    scattered: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
) -> int:
    """Fill in the ranges; how many bytes there are in those that don't lie together, of which only the length is."""
    more = 0
    for row in range(len(wanted)):
        if not wanted[row]:
            continue
        first, total, last = _attributes(data, fields, row, data, -1, groups)
        found.offset[row], found.length[row] = first, total
        scattered[row] = total > 0 and last - first != total
        if scattered[row]:
            more += total
    return more


@kernel
def _gather(
    data: Bytes,
    to: int,
    fields: Strings,
    found: Strings,
    scattered: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
) -> None:
    """Put the scattered ranges together, from `to` on."""
    for row in range(len(scattered)):
        if scattered[row]:
            found.offset[row] = to
            _attributes(data, fields, row, data, to, groups)
            to += found.length[row]


@kernel
def _attributes(
    data: Bytes, fields: Strings, row: int, target: Bytes, to: int, groups: npt.NDArray[np.int64]
) -> tuple[int, int, int]:
    """Where the first attribute of a resource begins, the bytes of all, where the last one ends.

    They are copied to the target from `to` on, unless that is negative. A Resource may come in several pieces.
    """
    first, total, last = 0, 0, 0
    start: int = np.int64(fields.offset[row])  # type: ignore[assignment]  # numba: int
    _, at, end = field(data, start, start + fields.length[row], groups)
    while at < end:
        tag, inner, after = field(data, at, end, groups)
        at = after
        if tag != _RESOURCE:
            continue
        while inner < after:
            tag, _, following = field(data, inner, after, groups)
            if tag == _ATTRIBUTE:
                first = inner if total == 0 else first
                if to >= 0:
                    copy(target, to + total, data, inner, following)
                total += following - inner
                last = following
            inner = following
    return first, total, last
