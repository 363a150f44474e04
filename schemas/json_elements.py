"""The elements of a JSON list, one after the other, so that nobody has to make objects of all of them at once."""

from collections.abc import Iterator
from enum import StrEnum

import numpy as np

from schemas.errors import Malformed
from schemas.otlp.jit import direct
from schemas.otlp.json_text import CLOSE_ARRAY, MAX_NESTING, OPEN_ARRAY, TOO_DEEP, blank, element


class ListReason(StrEnum):
    """Why a text was refused."""

    JSON = "json"
    """Not JSON, or no list."""


def elements(text: bytes, longest: int) -> Iterator[bytes]:
    """The elements as they stand in the text, which may still be no UTF-8.

    Raises Malformed, also for an element of more than `longest` bytes; for what stands behind the list at its end only.
    """
    data, end = np.frombuffer(text, np.uint8), len(text)
    nesting, scratch = np.empty(MAX_NESTING, np.uint8), np.empty(8, np.uint8)
    at = _blank(data, 0, end)
    if at >= end or text[at] != OPEN_ARRAY:
        raise Malformed(ListReason.JSON, "not a list", at)
    at = _blank(data, at + 1, end)
    is_open = at >= end or text[at] != CLOSE_ARRAY
    if not is_open:
        at += 1
    while is_open:
        start, stop, at = _element(data, at, end, nesting, scratch)
        if at < -TOO_DEEP:
            raise Malformed(ListReason.JSON, "nested too deeply", ~(at + TOO_DEEP))
        if at < 0:
            raise Malformed(ListReason.JSON, "not JSON from here on", ~at)
        if stop - start > longest:
            raise Malformed(ListReason.JSON, f"an element is longer than {longest} bytes", start)
        yield text[start:stop]
        is_open = text[at - 1] != CLOSE_ARRAY
    if (at := _blank(data, at, end)) < end:
        raise Malformed(ListReason.JSON, "not JSON from here on", at)


def rehearse() -> None:
    """Go through the kernels: the first call compiles or loads them."""
    list(elements(b"[1]", 1))


_blank, _element = direct(blank), direct(element)
