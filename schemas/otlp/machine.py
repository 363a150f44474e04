"""The working memory of the scan: a stack of open messages, and registers for their fields."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.otlp.attributes import WantedKeys
from schemas.otlp.jit import inlined
from schemas.otlp.messages import FIELDS, KEY_VALUE, KEY_VALUES, Messages, messages
from schemas.otlp.wire import MAX_DEPTH, varint_size

Ints = npt.NDArray[np.int64]

u = np.uint64
"""Indexes of registers are unsigned: to others numba adds what negative ones need, 20 ns a span."""


class Registers(NamedTuple):
    """One row per message that may be open, one column per field number."""

    sizes: Ints
    """The canonical size of the field, tag included: 0 if it is unset, of a number or a text also if it is 0 or empty.

    Only these are cleared when a message begins: values and lengths mean nothing where the size is 0.
    """
    values: Ints
    """A number, or where a text begins."""
    lengths: Ints
    last: Ints
    """[row]: the number of the field that was last set; of a oneof, the one that counts."""


class Stack(NamedTuple):
    """The open messages, one row per level."""

    message: Ints
    end: Ints
    field: Ints
    """The field number in the message around it."""


class Machine(NamedTuple):
    """Tables and working memory of a scan."""

    tables: Messages
    wanted: WantedKeys
    regs: Registers
    stack: Stack


def machine(wanted: WantedKeys) -> Machine:
    """A machine that looks for these keys."""
    tables = messages()
    levels = MAX_DEPTH + 1
    rows = len(tables.children) + levels + 1  # an attribute of the last level clears the value that it can't have
    sizes, values, lengths = (np.zeros((rows, FIELDS), np.int64) for _ in range(3))
    stack = Stack(np.zeros(levels, np.int64), np.zeros(levels, np.int64), np.zeros(levels, np.int64))
    return Machine(tables, wanted, Registers(sizes, values, lengths, np.zeros(rows, np.int64)), stack)


@inlined
def row_of(message: int, level: int, tables: Messages) -> int:
    """The row of registers of a message."""
    return len(tables.children) + level if KEY_VALUE <= message <= KEY_VALUES else message


@inlined
def clear(regs: Registers, row: int) -> None:
    """Make all fields of a message unset."""
    for field in range(FIELDS):
        regs.sizes[u(row), u(field)] = 0
    regs.last[row] = 0


@inlined
def total_size(regs: Registers, row: int) -> int:
    """The canonical size of a message that isn't an AnyValue."""
    total = 0
    for field in range(FIELDS):
        total += regs.sizes[u(row), u(field)]
    return total


@inlined
def field_size(field: int, length: int) -> int:
    """The size of a field of `length` bytes with its tag and its length."""
    return (1 if field < 16 else 2) + varint_size(length) + length
