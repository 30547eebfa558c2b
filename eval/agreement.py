"""Do two worlds agree about planners? Means over starts, R2 and rank correlation, with intervals over starts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
DRAWS = 2000


def planner_means(truth: Array, guess: Array, weight: Array) -> tuple[Array, Array]:
    """Means (planners,) over the starts that count for each planner, NaN for who has none."""
    total = weight.sum(axis=1)
    safe = np.where(total > 0.0, total, np.nan)
    return (truth * weight).sum(axis=1) / safe, (guess * weight).sum(axis=1) / safe


def agreement(truth: Array, guess: Array) -> dict[str, float | None]:
    """R2 of the straight line from imagined to true means, and Spearman's rank correlation; None below three."""
    kept = np.isfinite(truth) & np.isfinite(guess)
    x, y = guess[kept], truth[kept]
    if len(x) < 3 or np.ptp(x) < 1e-9 or np.ptp(y) < 1e-9:
        return {"r2": None, "rank_correlation": None, "planners": len(x)}
    return {
        "r2": float(np.corrcoef(x, y)[0, 1] ** 2),
        "rank_correlation": float(np.corrcoef(rankdata(x), rankdata(y))[0, 1]),
        "planners": len(x),
    }


def with_intervals(truth: Array, guess: Array, weight: Array, seed: int = 0) -> dict[str, Any]:
    """`agreement` with 95 % percentile intervals; whole starts are drawn, the same for all planners."""
    result: dict[str, Any] = agreement(*planner_means(truth, guess, weight))
    rng = np.random.default_rng(seed)
    draws: list[tuple[float, float]] = []
    for _ in range(DRAWS if result["r2"] is not None else 0):
        columns = rng.integers(0, truth.shape[1], truth.shape[1])
        drawn = agreement(*planner_means(truth[:, columns], guess[:, columns], weight[:, columns]))
        if drawn["r2"] is not None and drawn["rank_correlation"] is not None:
            draws.append((drawn["r2"], drawn["rank_correlation"]))
    for k, name in enumerate(("r2", "rank_correlation")):
        values = [draw[k] for draw in draws]
        result[f"{name}_ci95"] = [float(v) for v in np.percentile(values, [2.5, 97.5])] if values else None
    return result
