"""Kernels that are called directly."""

import numpy as np
import numpy.typing as npt
import pytest

from schemas.otlp.jit import direct, kernel


@kernel
def _scaled_sum(values: npt.NDArray[np.int64], by: int) -> int:
    total = 0
    for i in range(len(values)):
        total += values[i] * by
    return total


def test_a_kernel_that_is_called_directly_gives_the_same_for_other_values() -> None:
    called = direct(_scaled_sum)
    for length in (3, 3, 0, 1_000):
        values = np.arange(length, dtype=np.int64)
        assert called(values, 2) == _scaled_sum(values, 2) == length * (length - 1)


def test_what_is_no_such_array_is_refused() -> None:
    called = direct(_scaled_sum)
    assert [called(np.ones(2, np.int64), 1) for _ in range(2)] == [2, 2]
    with pytest.raises(TypeError):
        called([1, 2], 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        called(np.ones(2, np.int16), 1)  # type: ignore[arg-type]
