"""How the kernels of this package are compiled.

`_nrt=False` turns numba's reference counting off, which these don't need: they allocate nothing, and their caller holds
the arrays. With it, each look into a tuple of arrays counts up and down, and the scan takes 25 times as long.

Compiling takes 15 s of CPU, once: the result is cached beside the modules, or, where that can't be written, in the
user's cache directory; `NUMBA_CACHE_DIR` names another. Numba compares the date of a kernel's own file only: who edits
a function that kernels of another file call has to remove the cache (`schemas/otlp/__pycache__/*.nb?`).
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False}


def kernel(function: F) -> F:
    """Compile a function that allocates nothing; without the GIL, into numba's cache."""
    compiled: F = numba.njit(**_OPTIONS)(function)
    return compiled


def inlined(function: F) -> F:
    """The same for what is short or called in one place: a call between kernels costs more than most of them do."""
    compiled: F = numba.njit(**_OPTIONS, forceinline=True)(function)
    return compiled


def direct(function: F) -> F:
    """A kernel that Python calls very often, always with arguments of the same types: those of the first call.

    numba looks into every argument of every call for its type, which for a request's working memory takes 20 us. From
    the second call on this is the compiled function itself, which takes 2 us, and only sees whether arrays are arrays,
    of numbers of that size.
    """
    call: Callable[..., Any] | None = None

    def called(*arguments: Any) -> Any:
        nonlocal call
        if call is not None:
            return call(*arguments)
        result = function(*arguments)
        types = tuple(function.typeof_pyval(argument) for argument in arguments)  # type: ignore[attr-defined]
        call = function.overloads[types].entry_point  # type: ignore[attr-defined]
        return result

    return cast("F", called)
