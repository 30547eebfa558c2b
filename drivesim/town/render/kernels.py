"""How the camera loops are compiled."""

from __future__ import annotations

from typing import Any

from numba import njit

# Loops that only read and write the arrays they are given. Without `_nrt` numba counts references to every array
# and every view of one with atomic operations, several hundred thousand times a tick: a third of the whole time.
# The caller holds the arrays while a kernel runs, so nobody needs the counts; a kernel that allocates is refused.
kernel: Any = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)

# The same, pasted into its caller: for parts of an inner loop, and for what is called per run of pixels, where handing
# over some 150 numbers (seven per array) costs as much as the run itself.
inlined: Any = njit(cache=True, nogil=True, error_model="numpy", _nrt=False, forceinline=True)
