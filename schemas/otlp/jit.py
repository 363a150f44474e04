"""How the kernels of this package are compiled.

`_nrt=False` turns numba's reference counting off, which these don't need: they allocate nothing, and their caller holds
the arrays. With it, each look into a tuple of arrays counts up and down, and the scan takes 25 times as long.
"""

import numba

kernel = numba.njit(cache=True, nogil=True, _nrt=False)
inlined = numba.njit(cache=True, nogil=True, _nrt=False, forceinline=True)
"""For what is short or called in one place: a call between kernels costs more than most of them do."""
