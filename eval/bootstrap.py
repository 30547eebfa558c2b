"""Percentile bootstrap over drives: ticks of one drive are no independent draws, so whole drives are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
Rows = NDArray[np.int64]


def over_drives(
    statistic: Callable[[Rows], float | None], drive: NDArray[np.integer[Any]], draws: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """A statistic of rows with its 95 % interval.

    Args:
        statistic: of row numbers (repeated where a drive was drawn twice); None where it cannot be had.
        drive: (n,) which drive each row is of.
        draws: DRAWS when None.

    Returns:
        `value`, `ci95` (None where fewer than half of the draws have a value), `n` rows and `drives`.
    """
    names, of = np.unique(drive, return_inverse=True)
    rows = [np.flatnonzero(of == k) for k in range(len(names))]
    result: dict[str, Any] = {"value": None, "ci95": None, "n": len(drive), "drives": len(names)}
    if len(drive) == 0:
        return result
    result["value"] = statistic(np.arange(len(drive)))
    if result["value"] is None or len(names) < 2:
        return result
    rng, drawn, draws = np.random.default_rng(seed), [], draws or DRAWS
    for _ in range(draws):
        value = statistic(np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))]))
        if value is not None and np.isfinite(value):
            drawn.append(value)
    if 2 * len(drawn) >= draws:
        result["ci95"] = [float(value) for value in np.percentile(drawn, [2.5, 97.5])]
    return result
