"""How the camera loops are compiled."""

from __future__ import annotations

from typing import Any

from numba import njit

# Loops that only read and write the arrays they are given. Without `_nrt` numba counts references to every array
# and every view of one with atomic operations, several hundred thousand times a tick: a quarter of the whole time.
# The caller holds the arrays while a kernel runs, so nobody needs the counts; a kernel that allocates is refused.
kernel: Any = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
